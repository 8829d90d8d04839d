//! The account slug, which names a customer account.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`: a DNS label, and safe in any URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slug(Arc<str>);

impl Slug {
    /// Parses a slug; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let fits = (1..=MAX_LEN).contains(&bytes.len())
            && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
            && bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric);
        fits.then(|| Self(text.into()))
    }

    /// The slug's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Slug {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        Self::parse(&text).ok_or("not an account slug")
    }
}

impl From<Slug> for String {
    fn from(slug: Slug) -> Self {
        slug.as_str().to_owned()
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The violation for text that isn't a slug.
pub const SLUG_RULE: &str =
    "must be an account slug: 1 to 63 of a-z, 0-9 and -, not starting or ending with -";

const MAX_LEN: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_slugs_are_parsed() {
        for good in ["a", "0", "acme", "a-b", "a--b", &"x".repeat(63)] {
            assert!(Slug::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "-",
            "-a",
            "a-",
            "A",
            "a.b",
            "a/b",
            "a b",
            "ä",
            "a\0",
            "a\n",
            "%41",
            &"x".repeat(64),
        ] {
            assert!(Slug::parse(bad).is_none(), "{bad:?}");
        }
    }
}
