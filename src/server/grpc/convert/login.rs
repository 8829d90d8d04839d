//! LoginService's messages: BeginLogin, CompleteLogin and LogoutUrl.

use std::time::Duration;

use super::connection_view::state_to_pb;
use super::{Checked, Form, Parsed, timestamp};
use crate::login::{BegunLogin, CompletedLogin, LogoutRequest};
use crate::model::login::{
    AuthorizationCode, BrowserBinding, Callback, LoginHints, LoginRequest, NONE_AT_AGE_0, Prompt,
    RawIdToken, StateParameter, UncheckedReturnTo,
};
use crate::oidc::idps;
use crate::pb;

impl Parsed<pb::BeginLoginRequest> for LoginRequest {
    fn parse(message: pb::BeginLoginRequest) -> Checked<Self> {
        let mut form = Form::default();
        let slug = form.slug(&message.slug);
        let browser_binding = form.browser_binding(message.browser_binding);
        let return_to = match (message.return_to, message.target_link_uri) {
            (Some(_), Some(_)) => {
                form.violation("target_link_uri", "must not be set together with return_to");
                None
            }
            (Some(text), None) => Some(UncheckedReturnTo { text, field: "return_to" }),
            (None, Some(text)) => Some(UncheckedReturnTo { text, field: "target_link_uri" }),
            (None, None) => None,
        };
        let hints = LoginHints {
            login_hint: message.login_hint.filter(|hint| !hint.is_empty()),
            prompt: form.prompt(&message.prompt),
            max_age: form.max_age(message.max_age),
            ui_locales: form.ui_locales(message.ui_locales),
            acr_values: message.acr_values,
        };
        if hints
            .login_hint
            .as_ref()
            .is_some_and(|hint| hint.len() > 512 || hint.chars().any(char::is_control))
        {
            form.violation("login_hint", "must be at most 512 bytes without control characters");
        }
        if hints.prompt.contains(&Prompt::None) && hints.max_age == Some(Duration::ZERO) {
            form.violation("max_age", NONE_AT_AGE_0);
        }
        let is_acr = |value: &String| {
            (1..=256).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic())
        };
        if hints.acr_values.len() > 16 || !hints.acr_values.iter().all(is_acr) {
            form.violation(
                "acr_values",
                "must be at most 16, each 1 to 256 visible ASCII characters",
            );
        }
        if message.iss.as_ref().is_some_and(|iss| iss.len() > MAX_URL) {
            form.violation("iss", "must be at most 2048 bytes");
        }
        if message.client_key.as_ref().is_some_and(|key| {
            !(1..=256).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic())
        }) {
            form.violation("client_key", "must be 1 to 256 visible ASCII characters");
        }
        form.done(slug, |slug| Self {
            slug,
            return_to,
            browser_binding,
            iss: message.iss,
            client_key: message.client_key,
            hints,
        })
    }
}

impl Parsed<pb::CompleteLoginRequest> for Callback {
    fn parse(message: pb::CompleteLoginRequest) -> Checked<Self> {
        let mut form = Form::default();
        let slug = form.slug(&message.slug);
        if message.state.is_empty() || message.state.len() > 512 {
            form.violation("state", "must be 1 to 512 bytes: the callback's state parameter");
        }
        if message.iss.as_ref().is_some_and(|iss| iss.len() > MAX_URL) {
            form.violation("iss", "must be at most 2048 bytes");
        }
        let error = message.error.as_deref().unwrap_or_default();
        let description = message.error_description.as_deref();
        let refusal = idps::callback_refusal(error, description);
        let answer = match refusal {
            Some(refusal) => {
                if !message.code.is_empty() {
                    form.violation("code", "must be empty if error is set");
                }
                // Whatever the IdP wrote: its refusal must reach support.
                Err(refusal)
            }
            None => {
                // RFC 6749 A.11
                let fits = (1..=4096).contains(&message.code.len())
                    && message.code.bytes().all(|b| (0x20..0x7f).contains(&b));
                if !fits {
                    form.violation(
                        "code",
                        "must be 1 to 4096 visible ASCII characters unless error is set",
                    );
                }
                Ok(AuthorizationCode::new(message.code))
            }
        };
        // The cookie is whatever the browser sent: a malformed one is not the one that the login
        // began with, which is a refusal of its own.
        let browser_binding =
            message.browser_binding.filter(|text| !text.is_empty()).map(BrowserBinding::new);
        form.done(slug, |slug| Self {
            slug,
            state: StateParameter::new(message.state),
            iss: message.iss,
            browser_binding,
            answer,
        })
    }
}

pub(in crate::server) fn logout_request(message: pb::LogoutUrlRequest) -> Checked<LogoutRequest> {
    let mut form = Form::default();
    let slug = form.slug(&message.slug);
    let id_token_hint = message.id_token_hint.filter(|hint| !hint.is_empty());
    let is_token =
        |hint: &String| hint.len() <= 65_536 && hint.bytes().all(|b| b.is_ascii_graphic());
    if !id_token_hint.as_ref().is_none_or(is_token) {
        form.violation("id_token_hint", "must be an ID token of at most 65536 bytes");
    }
    let state = message.state.filter(|state| !state.is_empty());
    if state
        .as_ref()
        .is_some_and(|state| state.len() > 512 || !state.bytes().all(|b| b.is_ascii_graphic()))
    {
        form.violation("state", "must be at most 512 visible ASCII characters");
    }
    let post_logout_redirect_uri = message.post_logout_redirect_uri.filter(|uri| !uri.is_empty());
    let id_token_hint = id_token_hint.map(RawIdToken::new);
    form.done(slug, |slug| LogoutRequest { slug, id_token_hint, post_logout_redirect_uri, state })
}

impl Form {
    fn browser_binding(&mut self, text: Option<String>) -> Option<BrowserBinding> {
        let text = text?;
        if !(16..=512).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_graphic()) {
            self.violation("browser_binding", "must be 16 to 512 visible ASCII characters");
        }
        Some(BrowserBinding::new(text))
    }

    fn prompt(&mut self, values: &[String]) -> Vec<Prompt> {
        Prompt::parse_all(values).unwrap_or_else(|rule| {
            self.violation("prompt", rule);
            Vec::new()
        })
    }

    pub(super) fn max_age(&mut self, duration: Option<prost_types::Duration>) -> Option<Duration> {
        const MAX_SECONDS: i64 = 366 * 24 * 60 * 60;
        let duration = duration?;
        if duration.nanos != 0 || !(0..=MAX_SECONDS).contains(&duration.seconds) {
            self.violation("max_age", format!("must be whole seconds from 0 to {MAX_SECONDS}"));
            return None;
        }
        Some(Duration::from_secs(u64::try_from(duration.seconds).unwrap_or_default()))
    }

    fn ui_locales(&mut self, locales: Vec<String>) -> Vec<String> {
        let is_tag = |tag: &String| {
            (1..=35).contains(&tag.len())
                && tag
                    .split('-')
                    .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()))
        };
        if locales.len() > 16 || !locales.iter().all(is_tag) {
            self.violation("ui_locales", "must be at most 16 BCP 47 language tags");
        }
        locales
    }
}

impl From<BegunLogin> for pb::BeginLoginResponse {
    fn from(begun: BegunLogin) -> Self {
        Self {
            redirect_url: begun.redirect_url,
            state: begun.state.expose().to_owned(),
            expire_time: Some(timestamp(begun.expire_time)),
        }
    }
}

impl From<CompletedLogin> for pb::CompleteLoginResponse {
    fn from(completed: CompletedLogin) -> Self {
        Self {
            identity: Some(completed.identity.into()),
            return_to: completed
                .return_to
                .map(|return_to| return_to.as_str().to_owned())
                .unwrap_or_default(),
            id_token: completed.id_token.expose().to_owned(),
            connection_state: state_to_pb(completed.connection_state).into(),
            identity_token: String::new(),
        }
    }
}

const MAX_URL: usize = 2048;

#[cfg(test)]
mod tests {
    use super::super::tests::fields;
    use super::*;

    fn begin(change: impl FnOnce(&mut pb::BeginLoginRequest)) -> Vec<String> {
        let mut message =
            pb::BeginLoginRequest { slug: "acme".to_owned(), ..pb::BeginLoginRequest::default() };
        change(&mut message);
        fields(LoginRequest::parse(message))
    }

    fn complete(change: impl FnOnce(&mut pb::CompleteLoginRequest)) -> Vec<String> {
        let mut message = pb::CompleteLoginRequest {
            slug: "acme".to_owned(),
            state: "state".to_owned(),
            code: "code".to_owned(),
            ..pb::CompleteLoginRequest::default()
        };
        change(&mut message);
        fields(Callback::parse(message))
    }

    fn logout(change: impl FnOnce(&mut pb::LogoutUrlRequest)) -> Vec<String> {
        let mut message =
            pb::LogoutUrlRequest { slug: "acme".to_owned(), ..pb::LogoutUrlRequest::default() };
        change(&mut message);
        fields(logout_request(message))
    }

    #[test]
    fn each_malformed_field_of_begin_login_is_a_violation() {
        let none: [&str; 0] = [];
        let seconds = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        assert_eq!(begin(|_| {}), none);
        assert_eq!(begin(|message| message.slug = "A".to_owned()), ["slug"]);
        for (text, is_valid) in
            [("x".repeat(15), false), ("x".repeat(16), true), ("x".repeat(513), false)]
        {
            let violations = begin(|message| message.browser_binding = Some(text));
            assert_eq!(violations.is_empty(), is_valid, "{violations:?}");
        }
        assert_eq!(
            begin(|message| {
                message.return_to = Some("/a".to_owned());
                message.target_link_uri = Some("/b".to_owned());
            }),
            ["target_link_uri"]
        );
        assert_eq!(begin(|message| message.login_hint = Some("a\nb".to_owned())), ["login_hint"]);
        assert_eq!(begin(|message| message.login_hint = Some(String::new())), none);
        for (prompts, expected) in [
            (vec!["login", "consent"], vec![]),
            (vec!["none"], vec![]),
            (vec!["none", "login"], vec!["prompt"]),
            (vec!["create"], vec!["prompt"]),
        ] {
            let prompt = prompts.iter().map(|prompt| (*prompt).to_owned()).collect();
            assert_eq!(begin(|message| message.prompt = prompt), expected, "{prompts:?}");
        }
        for (max_age, expected) in [
            (seconds(0, 0), vec![]),
            (seconds(31_622_400, 0), vec![]),
            (seconds(31_622_401, 0), vec!["max_age"]),
            (seconds(-1, 0), vec!["max_age"]),
            (seconds(1, 1), vec!["max_age"]),
        ] {
            assert_eq!(begin(|message| message.max_age = max_age), expected, "{max_age:?}");
        }
        assert_eq!(
            begin(|message| {
                message.prompt = vec!["none".to_owned()];
                message.max_age = seconds(0, 0);
            }),
            ["max_age"]
        );
        for (tags, is_valid) in [
            (vec!["de-CH"], true),
            (vec!["de_CH"], false),
            (vec![""], false),
            (vec!["a"; 17], false),
        ] {
            let tags = tags.into_iter().map(str::to_owned).collect();
            assert_eq!(begin(|message| message.ui_locales = tags).is_empty(), is_valid);
        }
        assert_eq!(begin(|message| message.acr_values = vec!["a b".to_owned()]), ["acr_values"]);
        assert_eq!(begin(|message| message.iss = Some("x".repeat(2049))), ["iss"]);
        assert_eq!(begin(|message| message.client_key = Some(String::new())), ["client_key"]);
        let all = begin(|message| {
            message.slug = String::new();
            message.iss = Some("x".repeat(2049));
            message.client_key = Some("a b".to_owned());
        });
        assert_eq!(all, ["slug", "iss", "client_key"], "all at once");
    }

    #[test]
    fn each_malformed_field_of_complete_login_is_a_violation() {
        let none: [&str; 0] = [];
        assert_eq!(complete(|_| {}), none);
        assert_eq!(complete(|message| message.slug = String::new()), ["slug"]);
        for (length, expected) in [(0, vec!["state"]), (512, vec![]), (513, vec!["state"])] {
            assert_eq!(complete(|message| message.state = "x".repeat(length)), expected);
        }
        for (code, expected) in [
            (String::new(), vec!["code"]),
            ("a b".to_owned(), vec![]),
            ("a\nb".to_owned(), vec!["code"]),
            ("x".repeat(4096), vec![]),
            ("x".repeat(4097), vec!["code"]),
        ] {
            assert_eq!(complete(|message| message.code = code), expected);
        }
        assert_eq!(complete(|message| message.iss = Some("x".repeat(2049))), ["iss"]);
        let refusal = |message: &mut pb::CompleteLoginRequest| {
            message.code.clear();
            message.error = Some("access_denied".to_owned());
        };
        assert_eq!(complete(refusal), none);
        assert_eq!(complete(|message| message.error = Some("e".to_owned())), ["code"]);
        assert_eq!(
            complete(|message| {
                refusal(message);
                message.error = Some("x".repeat(257));
                message.error_description = Some("x".repeat(4097));
            }),
            none,
            "cut, not refused"
        );
        let malformed = complete(|message| message.browser_binding = Some("short".to_owned()));
        assert_eq!(malformed, none, "a malformed cookie is a mismatch, not a malformed request");
    }

    #[test]
    fn each_malformed_field_of_logout_url_is_a_violation() {
        let none: [&str; 0] = [];
        assert_eq!(logout(|_| {}), none);
        assert_eq!(logout(|message| message.slug = "-".to_owned()), ["slug"]);
        let hint = |hint: &str| logout(|message| message.id_token_hint = Some(hint.to_owned()));
        assert_eq!(hint(""), none);
        assert_eq!(hint("a b"), ["id_token_hint"]);
        assert_eq!(hint(&"x".repeat(65_537)), ["id_token_hint"]);
        assert_eq!(logout(|message| message.state = Some("ä".to_owned())), ["state"]);
        assert_eq!(logout(|message| message.state = Some("x".repeat(512))), none);
    }
}
