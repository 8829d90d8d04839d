//! Removes secrets from the texts of an IdP, which may repeat whatever it was sent. The one redactor,
//! for logins and for checks. Must know every form in which a secret leaves the process.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::secret::ClientSecrets;
use super::text::{mask_emails, sanitize};

/// The secrets of one connection or one login. Collecting them is cheap; their forms are made when a
/// text is redacted, which only refusals need.
#[derive(Clone, Debug, Default)]
pub struct Redactor(Vec<SecretString>);

impl Redactor {
    /// Removes a client's secrets.
    #[must_use]
    pub fn of_client(client_id: &str, secrets: &ClientSecrets) -> Self {
        let mut redactor = Self::default();
        redactor.add_client(client_id, secrets);
        redactor
    }

    /// Removes both client secrets, too, alone and as Basic credentials, form-urlencoded first (RFC 6749
    /// 2.3.1) or as they are, which a check tries with IdPs that don't decode them.
    pub fn add_client(&mut self, client_id: &str, secrets: &ClientSecrets) {
        for secret in [Some(&secrets.active), secrets.standby.as_ref()].into_iter().flatten() {
            let secret = secret.expose();
            let id = &*encoded(client_id);
            let pairs = [format!("{id}:{}", *encoded(secret)), format!("{client_id}:{secret}")];
            for pair in pairs.map(Zeroizing::new) {
                let basic = Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes()));
                self.add(basic.trim_end_matches('='));
            }
            self.add(secret);
        }
    }

    /// Removes this secret, too.
    pub fn add(&mut self, secret: &str) {
        if secret.len() >= MIN_SECRET {
            self.0.push(secret.into());
        }
    }

    /// `text` without the secrets in any of their forms. Of a text that was cut ("…") also without the
    /// beginning of a secret at the cut.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        let forms: Vec<_> =
            self.0.iter().flat_map(|secret| forms(secret.expose_secret())).collect();
        let mut redacted = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let found = forms.iter().filter_map(|form| length_at_start(rest, form)).max();
            let taken = match found {
                Some(length) => {
                    redacted.push_str("[redacted]");
                    length
                }
                None => {
                    redacted.push(next);
                    next.len_utf8()
                }
            };
            rest = &rest[taken..];
        }
        redacted
    }

    /// [`Self::redact`] in place, and without e-mail addresses: for what an IdP writes about a person.
    pub fn apply_to_description(&self, text: &mut String) {
        *text = mask_emails(&self.redact(text));
    }

    /// [`Self::redact`] in place.
    pub fn apply(&self, text: &mut String) {
        *text = self.redact(text);
    }
}

/// A secret as it is, form-urlencoded, as our messages quote it, and with its hidden characters
/// replaced, as [`sanitize`] leaves it in a text.
fn forms(secret: &str) -> [Zeroizing<String>; 4] {
    let quoted = Zeroizing::new(format!("{secret:?}"));
    [
        Zeroizing::new(secret.to_owned()),
        encoded(secret),
        Zeroizing::new(quoted[1..quoted.len() - 1].to_owned()),
        Zeroizing::new(sanitize(secret, usize::MAX)),
    ]
}

fn encoded(text: &str) -> Zeroizing<String> {
    Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect())
}

/// How many bytes at the start of `text` are `form`, or its beginning before a cut. Without regard to
/// case, since an IdP may write percent codes and host names in another one.
fn length_at_start(text: &str, form: &str) -> Option<usize> {
    let pairs = text.bytes().zip(form.bytes());
    let same = pairs.take_while(|(own, other)| own.eq_ignore_ascii_case(other)).count();
    let is_whole = same == form.len();
    let is_cut =
        || same >= MIN_SECRET && text.get(same..).is_some_and(|rest| rest.starts_with('…'));
    (is_whole || is_cut()).then_some(same)
}

/// Bytes. A shorter text protects nothing, and would be found in every sentence.
const MIN_SECRET: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::text::quotable;

    fn redactor(secret: &str) -> Redactor {
        let mut redactor = Redactor::default();
        redactor.add(secret);
        redactor
    }

    #[test]
    fn a_secret_is_removed_in_every_form() {
        for (secret, text, expected) in [
            ("s3cret", "id:s3cret.", "id:[redacted]."),
            ("s3cret", "S3CRETs3cret", "[redacted][redacted]"),
            ("a b+c/d", "secret=a+b%2bc%2Fd&x", "secret=[redacted]&x"),
            ("say \"it\"", "\"say \\\"it\\\"\"", "\"[redacted]\""),
            ("a\u{200b}bcd", "a\u{fffd}bcd", "[redacted]"),
            ("pässword", "pässword, pÄssword", "[redacted], pÄssword"),
            ("secret", "the secr…", "the [redacted]…"),
            ("secret", "the sec…", "the sec…"),
            ("secret", "the secr", "the secr"),
            ("edacted", "redacted", "r[redacted]"),
            ("abc", "abc", "abc"),
            ("", "x", "x"),
        ] {
            assert_eq!(redactor(secret).redact(text), expected, "{secret:?} in {text:?}");
        }
    }

    /// RFC 6749 2.3.1, and what IdPs expect that don't decode the credentials.
    #[test]
    fn basic_credentials_are_removed_encoded_and_as_they_are() {
        use crate::model::secret::ClientSecret;
        let secrets = ClientSecrets::one(ClientSecret::from_store("p+ss/w=rd".to_owned()));
        let redactor = Redactor::of_client("client:1", &secrets);
        for pair in ["client%3A1:p%2Bss%2Fw%3Drd", "client:1:p+ss/w=rd"] {
            let text = format!("Basic {}.", BASE64_STANDARD.encode(pair));
            let redacted = redactor.redact(&text);
            assert_eq!(redacted.trim_end_matches(['=', '.']), "Basic [redacted]", "{pair}");
        }
    }

    #[test]
    fn a_secret_at_a_cut_is_removed_wherever_it_was_cut() {
        let secret = "0123456789".repeat(3);
        for before in 80..120 {
            let text = quotable(&format!("{}{secret}", "x".repeat(before)));
            let redacted = redactor(&secret).redact(&text);
            assert!(!redacted.contains("0123"), "{redacted}");
        }
    }
}
