//! Where the web tier sends a person after login. Must never be a URL of another origin, or a link to
//! the login page would become an open redirect.

use url::Url;

/// A validated `return_to`, kept exactly as the web tier gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnTo(String);

impl ReturnTo {
    /// Wraps a value that [`ReturnRule::check`] accepted before it was stored.
    #[must_use]
    pub fn from_store(text: String) -> Self {
        Self(text)
    }

    /// The text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The origins to which a person may be sent.
#[derive(Clone, Debug)]
pub struct ReturnRule {
    public_origin: String,
    allowed_origins: Vec<String>,
}

impl ReturnRule {
    /// Origins in the form of [`url::Origin::ascii_serialization`]. The public one is always allowed.
    #[must_use]
    pub fn new(public_origin: String, allowed_origins: Vec<String>) -> Self {
        Self { public_origin, allowed_origins }
    }

    /// Accepts a path on the public origin or a URL of an allowed origin. Browsers read `\` as `/` and
    /// drop tabs and line ends, so these are refused everywhere.
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn check(&self, text: &str) -> Result<ReturnTo, &'static str> {
        if text.is_empty() || text.len() > MAX_LEN {
            return Err("must be 1 to 2048 bytes");
        }
        if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
            return Err(
                "must be percent-encoded ASCII (RFC 3986) without white space, control characters and backslashes",
            );
        }
        if text.starts_with('/') {
            return self.check_path(text);
        }
        let url = Url::parse(text).map_err(|_| EXPECTED)?;
        let is_authority_form =
            text.get(..8).is_some_and(|head| head.eq_ignore_ascii_case("https://"))
                || text.get(..7).is_some_and(|head| head.eq_ignore_ascii_case("http://"));
        if !is_authority_form
            || !url.username().is_empty()
            || url.password().is_some()
            || text.contains('@') && has_userinfo(text)
        {
            return Err(EXPECTED);
        }
        let origin = url.origin().ascii_serialization();
        let is_ours = origin == self.public_origin || self.allowed_origins.contains(&origin);
        if is_ours { Ok(ReturnTo(text.to_owned())) } else { Err(EXPECTED) }
    }

    fn check_path(&self, text: &str) -> Result<ReturnTo, &'static str> {
        // "//host" is a URL of another origin, even if dot segments hide it: "/.//host" has the path
        // "//host", which in a Location header sends the person to that host.
        let base = Url::parse(&self.public_origin).map_err(|_| EXPECTED)?;
        let url = base.join(text).map_err(|_| EXPECTED)?;
        let is_ours = url.origin() == base.origin()
            && !text.starts_with("//")
            && !url.path().starts_with("//");
        if is_ours { Ok(ReturnTo(text.to_owned())) } else { Err(EXPECTED) }
    }
}

/// Checked in the text, since a parsed URL doesn't show empty user information ("https://@host").
fn has_userinfo(text: &str) -> bool {
    let after_scheme = text.split_once("://").map_or("", |(_, rest)| rest);
    after_scheme.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

const EXPECTED: &str = "must be a path on the public origin, or a URL of an allowed origin";
const MAX_LEN: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> ReturnRule {
        ReturnRule::new(
            "https://getpeerpanda.com".to_owned(),
            vec!["https://reports.example.com:8443".to_owned()],
        )
    }

    #[test]
    fn a_path_and_an_allowed_origin_pass_unchanged() {
        for good in [
            "/",
            "/reports?q=1&r=%2F%2Fevil#top",
            "/a//b",
            "/?next=https://evil.com",
            "https://getpeerpanda.com/x",
            "https://getpeerpanda.com:443/x",
            "https://reports.example.com:8443/a?b=user@host",
            "/@user",
            "/a:b",
        ] {
            assert_eq!(rule().check(good).expect(good).as_str(), good);
        }
    }

    proptest::proptest! {
        /// Whatever is accepted leads to an allowed origin when resolved as a browser does.
        #[test]
        fn accepted_values_stay_on_allowed_origins(text in "[/\\\\.:@?#a-z%0-9 \t\n]{0,12}(evil\\.com|getpeerpanda\\.com)?[/\\\\:@?#a-z.]{0,8}") {
            if rule().check(&text).is_ok() {
                let base = Url::parse("https://getpeerpanda.com/app/").expect("a URL");
                let origin = base.join(&text).expect("what passes can be resolved").origin().ascii_serialization();
                proptest::prop_assert!(origin == "https://getpeerpanda.com" || origin == "https://reports.example.com:8443", "{text:?} -> {origin}");
            }
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in ".{0,64}") {
            let _ = rule().check(&text);
        }
    }

    #[test]
    fn every_way_out_is_refused() {
        for bad in [
            "",
            "//evil.com",
            "///evil.com",
            "/\\evil.com",
            "\\\\evil.com",
            "/\t/evil.com",
            "/\n/evil.com",
            "\t//evil.com",
            " //evil.com",
            "/.//evil.com",
            "/..//evil.com",
            "/a/..//evil.com",
            "/%2e//evil.com",
            "https:evil.com",
            "https:/evil.com",
            "https:///evil.com",
            "https://evil.com",
            "http://getpeerpanda.com",
            "https://getpeerpanda.com.evil.com",
            "https://getpeerpanda.com@evil.com",
            "https://user@getpeerpanda.com",
            "https://@getpeerpanda.com/",
            "https://getpeerpanda.com:8443",
            "javascript:alert(1)",
            "data:text/html,x",
            "reports",
            "?q",
            "#x",
            "/\0",
            "/a\u{7f}",
            "https://getpeerpanda.com\\@evil.com",
            "/\u{2028}",
            "https:getpeerpanda.com",
        ] {
            assert!(rule().check(bad).is_err(), "{bad:?}");
        }
        assert!(rule().check(&format!("/{}", "x".repeat(2048))).is_err());
    }
}
