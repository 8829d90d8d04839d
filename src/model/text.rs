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

/// `text` without e-mail addresses and Entra's names of guests (`ada_example.com#EXT#@tenant`). A word
/// with one in it is replaced as a whole, and one that was cut ("…") is left out: it may be the
/// beginning of an address. For an IdP's texts, after secrets were removed from them.
#[must_use]
pub fn mask_emails(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(is_between_words).unwrap_or(rest.len()));
        let core = word.trim_start_matches(is_quote).trim_end_matches(is_closing);
        if holds_email(core) {
            let (before, behind) = word.split_once(core).unwrap_or_default();
            masked.extend([before, MASKED_EMAIL, behind]);
        } else if after != "…" || word.len() > MAX_LOCAL_PART {
            masked.push_str(word);
        }
        let next = after.chars().next().map_or(0, char::len_utf8);
        masked.push_str(&after[..next]);
        rest = &after[next..];
    }
    masked
}

/// Whether the character is in no address (RFC 5321 4.1.2, RFC 6531 3.3, quoted forms apart).
fn is_between_words(c: char) -> bool {
    c == '…'
        || c.is_whitespace()
        || matches!(c, '"' | '(' | ')' | ',' | ':' | ';' | '<' | '>')
        || matches!(c, '[' | ']' | '\\')
}

fn is_quote(c: char) -> bool {
    matches!(c, '\'' | '`' | '‘' | '“' | '«' | '„')
}

fn is_closing(c: char) -> bool {
    matches!(c, '\'' | '`' | '’' | '”' | '»' | '“' | '.' | '!' | '?')
}

/// Whether a word has an at sign, as it is or percent-encoded, behind something, or is a guest's name
/// before its at sign.
fn holds_email(word: &str) -> bool {
    let is_at = |c| matches!(c, '@' | '＠' | '﹫');
    let has_local_part = |at: usize| word[..at].chars().any(char::is_alphanumeric);
    let lower = word.to_ascii_lowercase();
    word.rfind(is_at).is_some_and(has_local_part)
        || lower.rfind("%40").is_some_and(has_local_part)
        || lower.contains("#ext#")
        || lower.contains("%23ext%23")
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

/// Characters of an IdP's description of its error that are kept.
pub const MAX_DESCRIPTION: usize = 300;
const MASKED_EMAIL: &str = "[e-mail]";
/// Bytes before the at sign of an e-mail address (RFC 5321 4.5.3.1.1).
const MAX_LOCAL_PART: usize = 64;
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
    fn an_e_mail_address_is_masked_also_at_a_cut() {
        for (text, expected) in [
            ("User ada@example.com is not assigned.", "User [e-mail] is not assigned."),
            ("User account 'ada.o'hara+x@a.example' from", "User account '[e-mail]' from"),
            ("ada@example.com.", "[e-mail]."),
            ("mailto:ada@example.com, <bob@b.example>", "mailto:[e-mail], <[e-mail]>"),
            ("{EmailHidden} ads@[10.0.0.1]", "{EmailHidden} [e-mail][10.0.0.1]"),
            ("https://idp.example/x?login_hint=ada%40b.example&y", "https:[e-mail]"),
            ("ada_gmail.com#EXT#@contoso.onmicrosoft.com!", "[e-mail]!"),
            ("ada_gmail.com#ext# is", "[e-mail] is"),
            ("jörg@bücher.example jörg＠b.example", "[e-mail] [e-mail]"),
            ("a\u{fffd}da@b.example", "[e-mail]"),
            ("the user ada@exam…", "the user [e-mail]…"),
            ("the user ada@…", "the user [e-mail]…"),
            ("the user ada.love…", "the user …"),
            ("the user ada_gmail.com#EX…", "the user …"),
            ("wait… ada", "wait… ada"),
            ("[redacted]…", "[redacted]…"),
            ("@ at @example.com", "@ at @example.com"),
            ("AADSTS50011: The 'x' isn't right.", "AADSTS50011: The 'x' isn't right."),
            ("", ""),
        ] {
            assert_eq!(mask_emails(text), expected, "{text}");
        }
        let text =
            format!("AADSTS50020: User account {} ada.lovelace@example.com", "x ".repeat(140));
        for length in 250..text.chars().count() {
            let masked = mask_emails(&sanitize(&text, length));
            assert!(!masked.contains("ad"), "{masked}");
        }
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
