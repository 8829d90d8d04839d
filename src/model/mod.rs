//! Plain types that every floor speaks: no I/O, no async, no wire formats. Must never import another room.

pub mod address;
pub mod connection;
pub mod draft;
pub mod identity;
pub mod login;
pub mod proving;
pub mod rate;
pub mod return_to;
pub mod slug;

use std::borrow::Cow;

/// What is wrong with one field of a caller's input. Goes back to the caller, so it never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path as the contract names it: `endpoints.token_endpoint`.
    pub field: Cow<'static, str>,
    /// What was expected, and what came where that can be shown.
    pub description: String,
    /// Whether it is an address that the service must not call.
    pub forbidden_address: bool,
}

impl Violation {
    /// A field that is missing or malformed.
    pub fn new(field: impl Into<Cow<'static, str>>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into(), forbidden_address: false }
    }
}

/// Shortens text from outside for a message and replaces what isn't printable, so that it can neither flood a log nor
/// forge a line of one.
#[must_use]
pub fn shown(text: &str) -> String {
    const MAX_CHARS: usize = 120;
    let mut out: String = text
        .chars()
        .take(MAX_CHARS)
        .map(|c| if c.is_control() || is_invisible(c) { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        out.push('…');
    }
    out
}

/// Characters that change how the text around them is read: bidirectional controls and zero-width ones.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}
