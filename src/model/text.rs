//! Prepares text from outside for a message, a log line or a record: shortens it, and replaces what
//! can't be seen. No other module has its own way to do that. [`redact`](super::redact) removes secrets.

use std::borrow::Cow;

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// At most `max_chars` characters of `text` on one line. Hidden characters ([`is_hidden`]) become
/// U+FFFD, so that the text can neither flood a log nor forge a line of it.
#[must_use]
pub fn sanitize(text: &str, max_chars: usize) -> String {
    let visible = |c: char| if is_hidden(c) { '\u{fffd}' } else { c };
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

/// Whether a person can't see the character, or sees what comes after it otherwise than it is:
/// control and format characters (bidirectional controls, zero-width characters, tags), separators
/// of lines, and code points without a fixed meaning. By general category, so that a new version of
/// Unicode needs no change here.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    use GeneralCategory::{
        Control, Format, LineSeparator, ParagraphSeparator, PrivateUse, Surrogate, Unassigned,
    };
    matches!(
        c.general_category(),
        Control | Format | LineSeparator | ParagraphSeparator | PrivateUse | Surrogate | Unassigned
    )
}

/// Names the first hidden character of `text` and its place, for a person who pasted it.
#[must_use]
pub fn hidden_character(text: &str) -> Option<String> {
    let (at, c) = text.chars().enumerate().find(|(_, c)| is_hidden(*c))?;
    Some(format!("U+{:04X} (character {})", u32::from(c), at + 1))
}

/// `text` without the byte order mark that some editors and servers begin it with.
#[must_use]
pub fn without_byte_order_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The most characters of a value quoted in a message.
const MAX_QUOTED: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_and_cleaned() {
        assert_eq!(sanitize("a\nb\u{202e}c", 10), "a\u{fffd}b\u{fffd}c");
        assert_eq!(sanitize("abcdef", 3), "abc…");
        assert_eq!(truncate("äöü", 3), "ä…");
        assert_eq!(truncate("abc", 3), "abc");
    }

    #[test]
    fn hidden_characters_are_found_by_their_category() {
        for hidden in [
            '\0',
            '\n',
            '\u{85}',
            '\u{ad}',
            '\u{61c}',
            '\u{180e}',
            '\u{200b}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202e}',
            '\u{2066}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e000}',
            '\u{1d173}',
            '\u{e0041}',
            '\u{10ffff}',
        ] {
            assert!(is_hidden(hidden), "U+{:04X}", u32::from(hidden));
            assert_eq!(sanitize(&format!("a{hidden}b"), 10), "a\u{fffd}b");
        }
        for visible in [' ', 'a', 'ü', 'ß', 'ع', 'ק', '字', '한', '\u{301}', '\u{a0}', '🐼']
        {
            assert!(!is_hidden(visible), "{visible}");
        }
        assert_eq!(hidden_character("ab\u{202e}\u{200b}").as_deref(), Some("U+202E (character 3)"));
        assert_eq!(hidden_character("grün 字"), None);
        assert_eq!(without_byte_order_mark("\u{feff}\u{feff}a"), "\u{feff}a");
    }
}
