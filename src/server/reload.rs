//! Files that may change while the service runs: certificates, keys and callers. The contents that
//! were valid last stay in use until the files are valid again; files that can't be used are logged and
//! counted. Contents never appear in a log line.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use zeroize::Zeroizing;

use super::grpc::auth::WatchedCallers;
use super::tls::WatchedTls;
use crate::clock::Clock;
use crate::model::time::MonotonicMillis;
use crate::tasks::Tasks;
use crate::telemetry::{BackgroundTask, reload_failing};

/// A value that is parsed from files.
pub struct Watched<T> {
    /// What the files are, for log lines.
    what: &'static str,
    files: Vec<PathBuf>,
    parse: Parse<T>,
    current: ArcSwap<T>,
    seen: Mutex<Seen>,
}

/// What the last looks at the files found.
#[derive(Default)]
struct Seen {
    /// Digest of the contents that were parsed last.
    parsed: Vec<u8>,
    /// Digest of other contents that the last look found. They are parsed if the next look finds them, too:
    /// until then somebody may still be writing.
    changed: Option<Vec<u8>>,
    /// Since when the files can't be read.
    unreadable_since: Option<MonotonicMillis>,
    /// Whether that was reported.
    is_unreadable: bool,
    is_invalid: bool,
}

type Parse<T> = Box<dyn Fn(&[Contents]) -> Result<T, Problem> + Send + Sync>;
type Problem = Box<dyn std::error::Error + Send + Sync>;

/// The bytes of one file, which may be a private key.
pub type Contents = Zeroizing<Vec<u8>>;

/// Why files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file can't be read.
    #[error("failed to read {}: {error}", .file.display())]
    Unreadable {
        /// Its path.
        file: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// The contents are invalid.
    #[error("invalid {what} ({}): {problem}", names(.files))]
    Invalid {
        /// What the files are.
        what: &'static str,
        /// Their paths.
        files: Vec<PathBuf>,
        /// What is wrong with them.
        problem: Problem,
    },
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Reads the files; `parse` gets their contents in the same order.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn open<E: std::error::Error + Send + Sync + 'static>(
        what: &'static str,
        files: Vec<PathBuf>,
        parse: impl Fn(&[Contents]) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, FileError> {
        let parse: Parse<T> = Box::new(move |contents| Ok(parse(contents)?));
        let contents = read(&files)?;
        let value = match parse(&contents) {
            Ok(value) => value,
            Err(problem) => return Err(FileError::Invalid { what, files, problem }),
        };
        let seen = Seen { parsed: digest_of(&contents), ..Seen::default() };
        reload_failing(what, false);
        Ok(Self { what, files, parse, current: ArcSwap::from_pointee(value), seen: seen.into() })
    }

    /// The value of the files that were valid last.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Reads the files again if they have changed and changed no further since the last look. Contents that
    /// can't be used are logged once and not used.
    pub fn reload_if_changed(&self, now: MonotonicMillis) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match read(&self.files) {
            Ok(contents) => self.apply(&mut seen, &contents),
            Err(error) => self.record_unreadable(&mut seen, &error, now),
        }
        reload_failing(self.what, seen.is_unreadable || seen.is_invalid);
    }

    fn apply(&self, seen: &mut Seen, contents: &[Contents]) {
        let (what, files) = (self.what, names(&self.files));
        if std::mem::take(&mut seen.is_unreadable) {
            tracing::info!(files, "{what} can be read again");
        }
        seen.unreadable_since = None;
        let digest = digest_of(contents);
        if seen.parsed == digest {
            seen.changed = None;
            return;
        }
        if seen.changed.as_ref() != Some(&digest) {
            seen.changed = Some(digest);
            return;
        }
        seen.changed = None;
        seen.parsed = digest;
        let parsed = (self.parse)(contents);
        seen.is_invalid = parsed.is_err();
        match parsed {
            Ok(value) => {
                self.current.store(Arc::new(value));
                tracing::info!(files, "reloaded {what}");
            }
            Err(error) => {
                tracing::error!(files, %error, "failed to reload {what}: the previous one stays in use");
            }
        }
    }

    /// A file can be missing for a moment while it is replaced.
    fn record_unreadable(&self, seen: &mut Seen, error: &FileError, now: MonotonicMillis) {
        seen.changed = None;
        let since = *seen.unreadable_since.get_or_insert(now);
        if !seen.is_unreadable && now.since(since) >= UNREADABLE_GRACE {
            seen.is_unreadable = true;
            let what = self.what;
            tracing::error!(%error, "{what} can't be read: the previous one stays in use");
        }
    }
}

/// Reloads certificates and callers when their files change.
pub(crate) fn spawn_reload(
    tls: Option<Arc<WatchedTls>>,
    callers: Option<Arc<WatchedCallers>>,
    clock: &Arc<dyn Clock>,
    interval: Duration,
    tasks: &Tasks,
) {
    let clock = Arc::clone(clock);
    tasks.spawn_restarting(BackgroundTask::Reload, move || {
        let (tls, callers, clock) = (tls.clone(), callers.clone(), Arc::clone(&clock));
        async move {
            let mut ticks = tokio::time::interval(interval);
            loop {
                ticks.tick().await;
                let (tls, callers, now) = (tls.clone(), callers.clone(), clock.monotonic());
                let reload = tokio::task::spawn_blocking(move || {
                    tls.iter().for_each(|tls| tls.reload_if_changed(now));
                    callers.iter().for_each(|callers| callers.reload_if_changed(now));
                });
                // It fails if a parser panics: then this task ends, which is noticed.
                if reload.await.is_err() {
                    return;
                }
            }
        }
    });
}

fn read(files: &[PathBuf]) -> Result<Vec<Contents>, FileError> {
    let read = |file: &PathBuf| {
        std::fs::read(file)
            .map(Zeroizing::new)
            .map_err(|error| FileError::Unreadable { file: file.clone(), error })
    };
    files.iter().map(read).collect()
}

fn names(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn digest_of(contents: &[Contents]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    for one in contents {
        context.update(&u64::try_from(one.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(one);
    }
    context.finish().as_ref().to_vec()
}

/// How long a file may be missing or unreadable before that is reported.
const UNREADABLE_GRACE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn number(contents: &[Contents]) -> Result<u8, std::num::ParseIntError> {
        String::from_utf8_lossy(&contents[0]).parse()
    }

    #[test]
    fn contents_are_used_if_they_are_valid_and_nobody_is_writing_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("n");
        assert!(Watched::open("number", vec![file.clone()], number).is_err());
        std::fs::write(&file, "1").expect("written");
        let watched = Watched::open("number", vec![file.clone()], number).expect("read");
        let now = MonotonicMillis(0);
        let mut before = 1;
        for (text, expected) in [("x", 1), ("2", 2), ("", 2), ("3", 3)] {
            std::fs::write(&file, text).expect("written");
            watched.reload_if_changed(now);
            assert_eq!(*watched.current(), before, "it may change further");
            watched.reload_if_changed(now);
            assert_eq!(*watched.current(), expected);
            before = expected;
        }
        for text in ["1", "12", "123"] {
            std::fs::write(&file, text).expect("written");
            watched.reload_if_changed(now);
            assert_eq!(*watched.current(), 3, "it is still being written");
        }
        watched.reload_if_changed(now);
        assert_eq!(*watched.current(), 123);
    }

    #[test]
    fn a_file_that_is_missing_for_a_minute_is_reported_until_it_is_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("n");
        std::fs::write(&file, "1").expect("written");
        let watched = Watched::open("number", vec![file.clone()], number).expect("read");
        let look = |second: u64| {
            watched.reload_if_changed(MonotonicMillis(second * 1000));
            watched.seen.lock().expect("unlocked").is_unreadable
        };
        std::fs::remove_file(&file).expect("removed");
        assert!(!look(5) && !look(64) && look(65) && look(70));
        assert_eq!(*watched.current(), 1, "the previous contents stay in use");
        std::fs::write(&file, "1").expect("written");
        assert!(!look(75), "it is back");
        std::fs::remove_file(&file).expect("removed");
        assert!(!look(80) && !look(139) && look(140));
    }
}
