//! The data of a login: the request that begins it, what is stored until it is completed, and the
//! callback that the browser brings back. Secrets are types without Display or Serialize.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::cause::Cause;
use super::redact::Redactor;
use super::return_to::ReturnTo;
use super::slug::Slug;
use super::stable_names;
use super::text::{MAX_DESCRIPTION, quotable, sanitize};

/// The validated request that begins a login.
#[derive(Debug)]
pub struct LoginRequest {
    /// The account.
    pub slug: Slug,
    /// Where the web tier sends the person afterwards, not checked yet.
    pub return_to: Option<UncheckedReturnTo>,
    /// The value that the web tier keeps in this browser's cookie.
    pub browser_binding: Option<BrowserBinding>,
    /// Third-party-initiated login: the issuer that the third party named.
    pub iss: Option<String>,
    /// The person's network as the web tier sees it, for rate limits.
    pub client_key: Option<String>,
    /// Parameters for the IdP.
    pub hints: LoginHints,
}

/// A `return_to` or `target_link_uri` as it was received.
#[derive(Debug)]
pub struct UncheckedReturnTo {
    /// The value.
    pub text: String,
    /// The field's name in the contract.
    pub field: &'static str,
}

/// Parameters of the authorization request that the caller chooses (OIDC Core 3.1.2.1).
#[derive(Debug, Default)]
pub struct LoginHints {
    /// `login_hint`
    pub login_hint: Option<String>,
    /// `prompt`
    pub prompt: Vec<Prompt>,
    /// `max_age`, in whole seconds.
    pub max_age: Option<Duration>,
    /// `ui_locales`
    pub ui_locales: Vec<String>,
    /// `acr_values`
    pub acr_values: Vec<String>,
}

/// OIDC Core 3.1.2.1 `prompt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub enum Prompt {
    None,
    Login,
    Consent,
    SelectAccount,
}

impl Prompt {
    /// Every value.
    pub const ALL: &[Self] = &[Self::None, Self::Login, Self::Consent, Self::SelectAccount];

    /// The value in a request.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Login => "login",
            Self::Consent => "consent",
            Self::SelectAccount => "select_account",
        }
    }

    /// Parses the values of a request, each once.
    ///
    /// # Errors
    /// The rule that they break.
    pub fn parse_all(values: &[String]) -> Result<Vec<Self>, String> {
        let mut prompts = Vec::new();
        for value in values.iter().take(MAX_PROMPTS) {
            match Self::parse(value.trim()) {
                Some(prompt) if prompts.contains(&prompt) => {}
                Some(prompt) => prompts.push(prompt),
                None => {
                    let names = Self::ALL.iter().map(|prompt| prompt.name()).collect::<Vec<_>>();
                    let (names, value) = (names.join(", "), quotable(value));
                    return Err(format!("must be of {names}, not {value:?}"));
                }
            }
        }
        if prompts.len() > 1 && prompts.contains(&Self::None) {
            return Err("none must stand alone".to_owned());
        }
        Ok(prompts)
    }
}

stable_names!(Prompt, name);

/// The callback's query parameters.
#[derive(Debug)]
pub struct Callback {
    /// The account of the callback's URL.
    pub slug: Slug,
    /// `state`, not verified yet.
    pub state: StateParameter,
    /// `iss` (RFC 9207).
    pub iss: Option<String>,
    /// The value of the browser's cookie.
    pub browser_binding: Option<BrowserBinding>,
    /// The IdP's answer.
    pub answer: Result<AuthorizationCode, IdpRefusal>,
}

/// The IdP's `error=…` (RFC 6749 4.1.2.1).
#[derive(Clone, Debug)]
pub struct IdpRefusal {
    /// `error`: a code that is known, or "other".
    pub error: String,
    /// A code that isn't known, and `error_description`, sanitized and cut.
    pub description: Option<String>,
    /// What the description says, if it is known of a product.
    pub known: Option<Cause>,
}

impl IdpRefusal {
    /// The refusal in a callback's parameters, which anybody can write who began a login: a code that
    /// is neither registered nor one of a product is "other", so that no text of a stranger is
    /// shown to support. `None`: `error` is empty.
    pub fn of_callback(
        error: &str,
        description: Option<&str>,
        is_of_product: impl Fn(&str) -> bool,
    ) -> Option<Self> {
        if error.is_empty() {
            return None;
        }
        let cut = |text: &str| sanitize(text, MAX_DESCRIPTION);
        if REGISTERED_ERRORS.contains(&error) || is_of_product(error) {
            let description = description.map(cut);
            return Some(Self { error: error.to_owned(), description, known: None });
        }
        let words = description.map_or_else(String::new, |text| format!(": {text}"));
        let description = Some(cut(&format!("{error}{words}")));
        Some(Self { error: OTHER_ERROR.to_owned(), description, known: None })
    }

    /// What the description says, or else the error code's meaning (RFC 6749 4.1.2.1, OIDC Core
    /// 3.1.2.6).
    #[must_use]
    pub fn cause(&self) -> Cause {
        self.known.unwrap_or_else(|| self.class())
    }

    fn class(&self) -> Cause {
        match self.error.as_str() {
            "access_denied" => Cause::AccessDenied,
            "login_required" => Cause::LoginRequired,
            "interaction_required" => Cause::InteractionRequired,
            "consent_required" => Cause::ConsentRequired,
            "account_selection_required" => Cause::AccountSelectionRequired,
            "invalid_scope" => Cause::InvalidScope,
            "unauthorized_client" => Cause::UnauthorizedClient,
            "unsupported_response_type" => Cause::UnsupportedResponseType,
            "invalid_request" => Cause::InvalidRequest,
            "server_error" => Cause::IdpServerError,
            "temporarily_unavailable" => Cause::IdpTemporarilyUnavailable,
            _ => Cause::OtherIdpError,
        }
    }

    /// Removes secrets and e-mail addresses from the texts.
    pub fn redact(&mut self, redactor: &Redactor) {
        redactor.apply(&mut self.error);
        self.description.iter_mut().for_each(|text| redactor.apply_to_description(text));
    }
}

/// A token endpoint's error code as it may be shown and kept: of the characters that RFC 6749 allows
/// (5.2), and short. Anything else that an IdP puts there is "other". `None`: it is empty.
#[must_use]
pub fn oauth_error(text: &str) -> Option<String> {
    let is_allowed = |b: u8| matches!(b, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    let is_code = text.len() <= MAX_OAUTH_ERROR && text.bytes().all(is_allowed);
    let shown = if is_code { text } else { OTHER_ERROR };
    (!text.is_empty()).then(|| shown.to_owned())
}

/// What is stored, sealed, between begin and complete.
#[derive(Debug)]
pub struct PendingLogin {
    /// OIDC Core 3.1.2.1 `nonce`.
    pub nonce: Nonce,
    /// RFC 7636 4.1 `code_verifier`.
    pub verifier: PkceVerifier,
    /// Distinguishes the connection that began the login from a later one of the same slug.
    pub incarnation: u64,
    /// Digest of the issuer and the client id that the login began with.
    pub relying_party: [u8; 16],
    /// The `max_age` that was sent.
    pub max_age: Option<Duration>,
    /// Who began the login, if the web tier says so.
    pub client: Option<ClientTag>,
    /// Where the web tier sends the person afterwards.
    pub return_to: Option<ReturnTo>,
}

/// A digest of a `client_key`, short because it only tells clients apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientTag(pub u32);

macro_rules! secret_text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(SecretString);

        impl $name {
            /// Wraps the secret.
            #[must_use]
            pub fn new(text: String) -> Self {
                Self(text.into())
            }

            /// The secret itself; must only leave the process in a request or response.
            #[must_use]
            pub fn expose(&self) -> &str {
                self.0.expose_secret()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }
    };
}

secret_text! {
    /// The callback's `state` (RFC 6749 4.1.2), not verified.
    StateParameter
}
secret_text! {
    /// The authorization code (RFC 6749 4.1.2).
    AuthorizationCode
}
secret_text! {
    /// The value that the web tier keeps in a browser's cookie, so that a login ends in the browser in
    /// which it began.
    BrowserBinding
}
secret_text! {
    /// OIDC Core 3.1.2.1 `nonce`.
    Nonce
}
secret_text! {
    /// RFC 7636 4.1 `code_verifier`.
    PkceVerifier
}
secret_text! {
    /// An ID token in compact serialization.
    RawIdToken
}

/// Why `prompt=none` and `max_age=0` are refused together.
pub const NONE_AT_AGE_0: &str =
    "must not be 0 together with prompt none: the two contradict each other";
/// Values of `prompt` that are read.
const MAX_PROMPTS: usize = 8;
/// The error codes of an authorization endpoint: RFC 6749 4.1.2.1, OIDC Core 3.1.2.6, RFC 8707, RFC 9396,
/// and OpenID Connect Core Error Code unmet_authentication_requirements 1.0; and those of a token endpoint that
/// IdPs send to callbacks, too (RFC 6749 5.2).
const REGISTERED_ERRORS: [&str; 22] = [
    "invalid_request",
    "unauthorized_client",
    "access_denied",
    "unsupported_response_type",
    "invalid_scope",
    "server_error",
    "temporarily_unavailable",
    "interaction_required",
    "login_required",
    "account_selection_required",
    "consent_required",
    "invalid_request_uri",
    "invalid_request_object",
    "request_not_supported",
    "request_uri_not_supported",
    "registration_not_supported",
    "invalid_target",
    "invalid_authorization_details",
    "unmet_authentication_requirements",
    "invalid_client",
    "invalid_grant",
    "unsupported_grant_type",
];
/// In place of a code that is not shown.
const OTHER_ERROR: &str = "other";
/// Bytes of an OAuth error code.
const MAX_OAUTH_ERROR: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_callback_only_a_known_error_code_is_kept() {
        let long = "x".repeat(300);
        for (error, description, code, words) in [
            ("access_denied", None, "access_denied", None),
            ("access_denied", Some("as\nhe said"), "access_denied", Some("as\u{fffd}he said")),
            ("of_a_product", None, "of_a_product", None),
            ("Access_Denied", None, "other", Some("Access_Denied")),
            ("please_call_555", Some("now"), "other", Some("please_call_555: now")),
            ("\u{202e}", Some(""), "other", Some("\u{fffd}: ")),
        ] {
            let is_of_product = |code: &str| code == "of_a_product";
            let refusal = IdpRefusal::of_callback(error, description, is_of_product);
            let refusal = refusal.expect("a refusal");
            assert_eq!((refusal.error.as_str(), refusal.description.as_deref()), (code, words));
        }
        let refusal = IdpRefusal::of_callback(&long, Some(&long), |_| false).expect("a refusal");
        let length = refusal.description.map(|words| words.chars().count());
        assert_eq!(length, Some(MAX_DESCRIPTION + 1));
        assert!(IdpRefusal::of_callback("", Some("words"), |_| true).is_none());
    }

    #[test]
    fn only_an_oauth_error_code_is_kept() {
        let long = "x".repeat(MAX_OAUTH_ERROR + 1);
        for (text, expected) in [
            ("", None),
            ("access_denied", Some("access_denied")),
            ("urn:example:error 7", Some("urn:example:error 7")),
            (&long[1..], Some(&long[1..])),
            (&long, Some("other")),
            ("say \"it\"", Some("other")),
            ("a\nb", Some("other")),
            ("\u{202e}", Some("other")),
        ] {
            assert_eq!(oauth_error(text).as_deref(), expected, "{text:?}");
        }
    }
}
