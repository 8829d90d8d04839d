//! Prepares text from outside for a message, a log line or a record: shortens it, replaces invisible
//! characters, and redacts secrets. No other module has its own way to do that.

use std::borrow::Cow;

/// At most `max_chars` characters of `text` on one line. Control and invisible characters become U+FFFD,
/// so that the text can neither flood a log nor forge a line of it.
#[must_use]
pub fn sanitize(text: &str, max_chars: usize) -> String {
    let visible = |c: char| if c.is_control() || is_invisible(c) { '\u{fffd}' } else { c };
    let mut out: String = text.chars().take(max_chars).map(visible).collect();
    if text.chars().nth(max_chars).is_some() {
        out.push('…');
    }
    out
}

/// [`sanitize`] with the bound that suits a value quoted in a message.
#[must_use]
pub fn quotable(text: &str) -> String {
    sanitize(text, MAX_QUOTED)
}

/// At most `max_bytes` bytes of `text`, cut at a character boundary and marked where it was cut.
#[must_use]
pub fn truncate(text: &str, max_bytes: usize) -> Cow<'_, str> {
    if text.len() <= max_bytes {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(max_bytes)]))
}

/// The first `max_chars` characters of a text that is longer, and its length in characters.
#[must_use]
pub fn truncate_with_length(text: String, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}… ({} characters)", &text[..end], text.chars().count()),
        None => text,
    }
}

/// `text` with every occurrence of `secrets` replaced. Empty secrets are ignored.
#[must_use]
pub fn redact<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let secrets = secrets.into_iter().filter(|secret| !secret.is_empty());
    secrets.fold(text.to_owned(), |text, secret| text.replace(secret, "[redacted]"))
}

/// Bidirectional controls and zero-width characters, which change how the text around them is read.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The most characters of a value quoted in a message.
const MAX_QUOTED: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_cleaned_and_redacted() {
        assert_eq!(sanitize("a\nb\u{202e}c", 10), "a\u{fffd}b\u{fffd}c");
        assert_eq!(sanitize("abcdef", 3), "abc…");
        assert_eq!(truncate("äöü", 3), "ä…");
        assert_eq!(truncate("abc", 3), "abc");
        assert_eq!(redact("id:s3cret", ["s3cret", ""]), "id:[redacted]");
    }
}
