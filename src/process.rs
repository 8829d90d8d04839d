//! What concerns the whole process and not one service in it: how many files it may open, and what it
//! writes when something panics. Called by `main` alone.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files as far as the process may, and warns if that is less than `needed`:
/// without a file a connection can neither be accepted nor made.
pub fn raise_open_files(needed: u64) {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "failed to raise the limit of open files");
    }
    // `None`: unlimited.
    let Some(limit) = getrlimit(Resource::Nofile).current else { return };
    if limit < needed {
        tracing::warn!(
            limit,
            needed,
            "the limit of open files is too low: under load, connections will fail; raise it \
             (ulimit -Hn, LimitNOFILE=) or lower SSO_MAX_IN_FLIGHT"
        );
    } else {
        tracing::debug!(limit, needed, "raised the limit of open files");
    }
}

/// Logs panics as events with their location, in place of Rust's own text. That has the panic's message,
/// which can quote a value; here only a message that is part of the program is written.
pub fn log_panics() {
    panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        // Only if RUST_BACKTRACE asks for it.
        let backtrace = Backtrace::capture();
        let is_captured = backtrace.status() == BacktraceStatus::Captured;
        tracing::error!(
            location,
            text = literal(panic.payload()).unwrap_or("[not shown: it may have values]"),
            thread = thread::current().name().unwrap_or_default(),
            backtrace = is_captured.then(|| tracing::field::display(backtrace)),
            "panicked"
        );
    }));
}

/// The message of a panic if it stands in the program's text as it is.
fn literal(payload: &(dyn Any + Send)) -> Option<&'static str> {
    payload.downcast_ref::<&'static str>().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_message_of_a_panic_that_has_no_values_is_shown() {
        let payload = |panics: fn()| panic::catch_unwind(panics).expect_err("panicked");
        assert_eq!(literal(&*payload(|| panic!("a literal"))), Some("a literal"));
        let secret = || {
            "CANARY".parse::<std::net::IpAddr>().map_err(|_| "CANARY".to_owned()).expect("one");
        };
        assert_eq!(literal(&*payload(secret)), None);
    }
}
