//! What the driver's errors mean, and what of them may be shown: Redis's own words, without the
//! values in them. Must never repeat the URL, a user's name, a key or a stored value.

use ::redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::model::text::truncate;

/// Whether a new connection may help: the current one is broken, or its server is not a master. An
/// aborted transaction has executed nothing; its error doesn't say which of its commands was refused
/// and why.
pub(super) fn needs_new_connection(error: &RedisError) -> bool {
    let is_not_master = matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::ReadOnly
                | ServerErrorKind::MasterDown
                | ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::ExecAbort
        )
    );
    is_not_master || error.is_io_error() || error.is_connection_dropped() || error.is_timeout()
}

/// Whether the server doesn't know the command, so that it has executed nothing. Redis has no code
/// for it, only this text.
pub(super) fn is_unknown_command(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError)
        && error.detail().is_some_and(|detail| detail.starts_with("unknown command"))
}

/// The server's answer without values, or the kind of error. The driver's own text can quote parts of
/// the URL.
pub(super) fn safe_text(error: &RedisError) -> String {
    if let Some(refused) = error.clone().into_server_errors().as_deref().and_then(<[_]>::first) {
        return answered(refused.1.code(), refused.1.details());
    }
    match (error.code(), error.detail()) {
        (Some(code), detail) => answered(code, detail),
        (None, Some(_)) if !error.is_io_error() => format!("{:?}", error.kind()),
        _ => error.to_string(),
    }
}

fn answered(code: &str, detail: Option<&str>) -> String {
    let words = without_values(detail.unwrap_or_default());
    let space = if words.is_empty() { "" } else { " " };
    truncate(&format!("the server answered {code}{space}{words}"), MAX_ANSWER).into_owned()
}

/// The sentence without what may be a value: arguments, names in quotes other than of commands and
/// settings, the name of a user, and words that aren't made of letters.
fn without_values(detail: &str) -> String {
    let sentence = detail.split(", with args").next().unwrap_or_default();
    let mut is_user = false;
    let words = sentence.split_whitespace().map(|word| {
        let bare = word.trim_matches(|c: char| c.is_ascii_punctuation());
        let is_quoted = word.starts_with(['\'', '`', '"']);
        let is_plain = bare.len() <= MAX_WORD
            && bare.bytes().all(|b| b.is_ascii_alphabetic() || matches!(b, b'\'' | b'-' | b'/'))
            && (!is_quoted || KNOWN_NAMES.iter().any(|name| bare.eq_ignore_ascii_case(name)));
        let shown = if is_plain && !is_user { word } else { "…" };
        is_user = bare.eq_ignore_ascii_case("user");
        shown
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Names that Redis quotes and that are not values.
const KNOWN_NAMES: [&str; 12] = [
    "AUTH",
    "CLIENT",
    "CLUSTER",
    "DEL",
    "EXEC",
    "GET",
    "GETDEL",
    "HELLO",
    "MULTI",
    "SELECT",
    "SET",
    "maxmemory",
];
/// The longest word of Redis's sentences that is shown.
const MAX_WORD: usize = 16;
/// Bytes of an answer that are shown.
const MAX_ANSWER: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words_are_shown_without_values() {
        for (detail, expected) in [
            (
                "command not allowed when used memory > 'maxmemory'.",
                "command not allowed when used memory > 'maxmemory'.",
            ),
            (
                "unknown command 'GETDEL', with args beginning with: 'sso:login:CANARY' ",
                "unknown command 'GETDEL'",
            ),
            (
                "unknown command `GETDEL`, with args beginning with: `CANARY`, ",
                "unknown command `GETDEL`",
            ),
            (
                "User CANARY has no permissions to run the 'getdel' command",
                "User … has no permissions to run the 'getdel' command",
            ),
            ("this user has no permissions", "this user … no permissions"),
            ("1234 127.0.0.1:7001", "… …"),
            ("value 'CANARY' of sso:login:CANARY is wrong", "value … of … is wrong"),
            (
                "You can't write against a read only replica.",
                "You can't write against a read only replica.",
            ),
        ] {
            assert_eq!(without_values(detail), expected);
        }
    }
}
