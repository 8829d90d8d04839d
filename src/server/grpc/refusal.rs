//! Turns an error into the gRPC status of a refused call: one shape for all of them, logged and
//! counted once, here. Called by the RPC implementations and the layers before them. A store's own
//! error text goes to the log and never to the caller.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::status::code;
use crate::connections::ConnectionError;
use crate::identity_token::IdentityTokenError;
use crate::login::{CompleteError, LoginError, RemedyTerms};
use crate::model::Violation;
use crate::model::cause::{Cause, Remedy};
use crate::model::reason::{Owner, Reason, Retry};
use crate::model::slug::Slug;
use crate::model::text::{quotable, truncate};
use crate::oidc::claims::ClaimsError;
use crate::oidc::idps::{self, IdpProduct};
use crate::store::StoreError;
use crate::telemetry::call::{self, Call};
use crate::telemetry::{LogThrottle, refused};

/// Why a call is refused.
pub(in crate::server) struct Refusal {
    cause: Cause,
    text: String,
    violations: Vec<Violation>,
    metadata: Vec<(&'static str, String)>,
    /// In whose terms the remedy is.
    terms: Option<RemedyTerms>,
    /// The page that explains what the IdP says.
    explanation: Option<&'static str>,
    /// The login's state is spent, so repeating the call can't help.
    is_spent: bool,
    /// `None`: the reason's.
    retry: Option<Retry>,
    /// For RetryInfo; `None`: [`RETRY_DELAY`].
    retry_after: Option<Duration>,
    /// Only logged.
    detail: Option<String>,
}

impl Refusal {
    /// `text` is sent to the caller.
    pub(in crate::server) fn new(cause: Cause, text: impl Into<String>) -> Self {
        Self {
            cause,
            text: text.into(),
            violations: Vec::new(),
            metadata: Vec::new(),
            terms: None,
            explanation: None,
            is_spent: false,
            retry: None,
            retry_after: None,
            detail: None,
        }
    }

    /// [`Refusal::new`] where a result would become large.
    pub(super) fn boxed(cause: Cause, text: impl Into<String>) -> Box<Self> {
        Box::new(Self::new(cause, text))
    }

    /// After the state was spent: the same call never succeeds.
    pub(in crate::server) fn of_spent_login(error: impl Into<Self>) -> Self {
        Self { is_spent: true, ..error.into() }
    }

    /// Has the remedy name the product of the account's IdP, and the account's values.
    pub(super) fn in_terms(self, terms: RemedyTerms) -> Self {
        Self { terms: Some(terms), ..self }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((name, value.into()));
        self
    }

    /// For fields that are missing or malformed, or name an address that must not be called.
    pub(in crate::server) fn violations(violations: Vec<Violation>) -> Self {
        let is_forbidden = |violation: &Violation| violation.forbidden_address;
        let all_forbidden = !violations.is_empty() && violations.iter().all(is_forbidden);
        let cause = if all_forbidden { Cause::PrivateAddress } else { Cause::FieldInvalid };
        let text = |violation: &Violation| format!("{} {}", violation.field, violation.description);
        let texts: Vec<_> = violations.iter().map(text).collect();
        Self { violations, ..Self::new(cause, texts.join("; ")) }
    }

    /// The store's own text is only logged.
    fn store(cause: Cause, error: &StoreError) -> Self {
        let text = match error {
            StoreError::Unavailable { .. } => "a store of the service is unavailable".to_owned(),
            StoreError::Full { .. } => {
                "too many logins are pending (SSO_MEMORY_PENDING_LOGINS)".to_owned()
            }
            StoreError::ShareFull { .. } => {
                "too many logins of this account are pending (SSO_MEMORY_PENDING_LOGINS)".to_owned()
            }
            StoreError::Unreadable(_) => "a stored value can't be read".to_owned(),
            StoreError::ConnectionUnreadable { why, .. } => why.to_string(),
        };
        Self { detail: Some(error.to_string()), ..Self::new(cause, text) }
    }
}

/// Refuses the current call: logs and counts it, and makes its status.
pub(in crate::server) fn reject(refusal: impl Into<Refusal>) -> Status {
    let refusal: Refusal = refusal.into();
    let account = call::current(|call| call.account().cloned()).flatten();
    let trace_id = call::trace_id();
    refused(refusal.cause.reason().name(), refusal.cause.owner().name());
    refusal.log(account.as_ref());
    refusal.into_status(account.as_ref(), trace_id)
}

/// Logs that support changed the current call's connection.
pub(in crate::server) fn log_change(revision: u64) {
    tracing::info!(revision, "changed connection");
}

impl Refusal {
    /// The one event of a refusal; the formatter adds the method, the account, the caller and the trace
    /// id. What a stranger can cause is throttled.
    fn log(&self, account: Option<&Slug>) {
        static STRANGERS: LogThrottle = LogThrottle::new();
        match call::current(|call| call.caller().is_some()) {
            Some(false) => STRANGERS.warn(|suppressed| self.log_with(account, suppressed)),
            Some(true) | None => self.log_with(account, 0),
        }
    }

    fn log_with(&self, account: Option<&Slug>, suppressed: u64) {
        let (reason, owner) = (self.cause.reason(), self.cause.owner());
        let what = match call::current(Call::method) {
            Some("BeginLogin" | "CompleteLogin") => "login",
            _ => "call",
        };
        let account = account.map_or("no account", Slug::as_str);
        // The level is a part of the callsite, so it can't be an argument.
        macro_rules! log_at {
            ($level:ident) => {
                tracing::event!(
                    tracing::Level::$level,
                    reason = reason.name(),
                    cause = self.cause.code(),
                    owner = owner.name(),
                    refusal = &*truncate(&self.text, MAX_TEXT),
                    detail = self.detail.as_deref().unwrap_or_default(),
                    suppressed = (suppressed > 0).then_some(suppressed),
                    "{what} refused: {reason} ({account})"
                )
            };
        }
        match (reason, owner) {
            (Reason::Internal, _) => log_at!(ERROR),
            (_, Owner::EndUser) => log_at!(INFO),
            _ => log_at!(WARN),
        }
    }

    fn into_status(self, account: Option<&Slug>, trace_id: String) -> Status {
        let help = self.help();
        let Self { cause, text, violations, metadata, is_spent, retry, retry_after, .. } = self;
        let (reason, owner) = (cause.reason(), cause.owner());
        let retry = match retry.unwrap_or(reason.retry()) {
            Retry::Call if is_spent => Retry::Login,
            retry => retry,
        };
        let mut info: HashMap<String, String> = HashMap::from([
            ("owner".to_owned(), owner.name().to_owned()),
            ("retry".to_owned(), retry.name().to_owned()),
            ("cause".to_owned(), cause.code().to_owned()),
        ]);
        if let Some(slug) = account {
            info.insert("slug".to_owned(), slug.to_string());
        }
        if !trace_id.is_empty() {
            info.insert("trace_id".to_owned(), trace_id);
        }
        for (name, value) in metadata {
            info.insert(name.to_owned(), truncate(&value, MAX_METADATA).into_owned());
        }
        let mut details = ErrorDetails::with_error_info(reason.name(), DOMAIN, info);
        let mut room = MAX_VIOLATIONS;
        for violation in violations {
            let field = truncate(&violation.field, 64);
            let description = truncate(&violation.description, MAX_DESCRIPTION);
            room = room.saturating_sub(field.len() + description.len() + 8);
            if room == 0 {
                break;
            }
            details.add_bad_request_violation(field, description);
        }
        if retry == Retry::Call {
            details.set_retry_info(Some(retry_after.unwrap_or(RETRY_DELAY)));
        }
        if let Some((remedy, url)) = help {
            details.add_help_link(truncate(&remedy, MAX_TEXT), url);
        }
        let text = truncate(&text, MAX_TEXT);
        Status::with_error_details(code(reason, retry), text, details)
    }

    /// What its owner does about it, and where that is documented, if anywhere. A problem that passes by
    /// itself has no owner, and violations say themselves what to do.
    fn help(&self) -> Option<(String, &'static str)> {
        let (owner, remedy) = (self.cause.owner(), self.cause.remedy());
        if owner == Owner::Transient || !self.violations.is_empty() {
            return None;
        }
        let product = self.terms.as_ref().map_or(IdpProduct::Generic, |terms| terms.product);
        let (redirect_uri, method) = match &self.terms {
            Some(terms) => (terms.redirect_uri.as_str(), terms.auth_method),
            None => ("the account's redirect URI", "token_endpoint_auth_method"),
        };
        let text = idps::remedy(remedy, product, redirect_uri, method);
        let is_at_idp = owner == Owner::CustomerIdpAdmin || !matches!(remedy, Remedy::Text(_));
        let page = is_at_idp.then(|| idps::help(remedy, product));
        Some((text, self.explanation.or(page).unwrap_or_default()))
    }
}

impl From<Vec<Violation>> for Refusal {
    fn from(violations: Vec<Violation>) -> Self {
        Self::violations(violations)
    }
}

impl From<Box<Self>> for Refusal {
    fn from(refusal: Box<Self>) -> Self {
        *refusal
    }
}

impl From<CompleteError> for Refusal {
    fn from(CompleteError { error, is_spent }: CompleteError) -> Self {
        Self { is_spent, ..error.into() }
    }
}

impl From<IdentityTokenError> for Refusal {
    fn from(error: IdentityTokenError) -> Self {
        match &error {
            IdentityTokenError::Store(store) => Self::store(error.cause(), store),
            _ => Self::new(error.cause(), error.to_string()),
        }
    }
}

impl From<LoginError> for Refusal {
    fn from(error: LoginError) -> Self {
        let refusal = Self::new(error.cause(), error.to_string());
        let refusal = match error.idp_error() {
            Some(idp_error) => refusal.with("idp_error", idp_error),
            None => refusal,
        };
        let refusal = match error.document() {
            Some(document) => refusal.with("document", document.code()),
            None => refusal,
        };
        let refusal = match error.idp_description() {
            Some(description) => Self {
                detail: Some(description.to_owned()),
                explanation: idps::explanation(description),
                ..refusal
            },
            None => refusal,
        };
        // RetryInfo is of a call that may be repeated; a new login learns it from the metadata.
        let refusal = match error.retry_after() {
            Some(wait) => Self {
                retry_after: Some(wait),
                ..refusal.with("retry_after_seconds", wait.as_secs_f64().ceil().to_string())
            },
            None => refusal,
        };
        match error {
            LoginError::BadRequest(violations) => Self::violations(violations),
            LoginError::SecretSwitch(_) => Self { retry: Some(Retry::Login), ..refusal },
            LoginError::Claims { error: ClaimsError::Missing(missing), .. } => {
                let names: Vec<_> = missing.iter().map(|claim| claim.names.join(" or ")).collect();
                refusal.with("claim", names.join(", "))
            }
            LoginError::Claims { error: ClaimsError::NotAllowed { claim, .. }, .. } => {
                refusal.with("claim", claim)
            }
            LoginError::Store(error) => Self::store(error.cause(), &error),
            _ => refusal,
        }
    }
}

impl From<ConnectionError> for Refusal {
    fn from(error: ConnectionError) -> Self {
        let refusal = Self::new(error.cause(), error.to_string());
        match error {
            ConnectionError::Invalid(violations) => Self::violations(violations),
            ConnectionError::RateLimited { retry_after } => {
                Self { retry_after: Some(retry_after), ..refusal }
            }
            ConnectionError::Store(error) => Self::store(error.cause(), &error),
            _ => refusal,
        }
    }
}

/// Gives tonic's own refusals (an oversized message, undecodable protobuf) a reason.
pub(in crate::server) fn name_reason<B>(response: http::Response<B>) -> http::Response<B> {
    if response.headers().contains_key("grpc-status-details-bin") {
        return response;
    }
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let refusal = match status.code() {
        Code::OutOfRange => Refusal::new(Cause::MessageTooLarge, "the message is too large"),
        Code::Internal => {
            let text = "the message is not a valid protocol buffer of this method";
            Refusal::new(Cause::ProtobufMalformed, text)
        }
        _ => return response,
    };
    let detail = Some(quotable(status.message()));
    let status = reject(Refusal { detail, ..refusal });
    let (mut head, body) = response.into_parts();
    match status.add_header(&mut head.headers) {
        Ok(()) | Err(_) => http::Response::from_parts(head, body),
    }
}

const DOMAIN: &str = "sso.peerpanda.com";
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Bytes. They keep an encoded status under 4 KiB, with base64 and percent encoding.
const MAX_TEXT: usize = 400;
const MAX_METADATA: usize = 160;
const MAX_VIOLATIONS: usize = 1200;
const MAX_DESCRIPTION: usize = 320;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_status_stays_small_whatever_is_in_it() {
        let long = |field: &str| Violation::new(field.repeat(500), "\u{1f43c}".repeat(500));
        let violations = (0..100).map(|_| long("ü")).collect();
        let violated = Refusal::violations(violations).with("claim", "ü".repeat(5000));
        let redirect_uri = format!("https://{}/", "x".repeat(5000));
        let of_login = Refusal::new(Cause::RedirectUriUnregistered, "\u{1f43c}".repeat(500))
            .with("idp_error", "ü".repeat(5000))
            .with("document", "userinfo")
            .with("retry_after_seconds", "3600")
            .in_terms(RemedyTerms { product: IdpProduct::Ping, redirect_uri, auth_method: "" });
        for refusal in [violated, of_login] {
            assert_is_small(refusal).await;
        }
    }

    #[tokio::test]
    async fn whoever_can_act_gets_the_remedy_in_the_accounts_terms() {
        let terms = || RemedyTerms {
            product: IdpProduct::Entra,
            redirect_uri: "https://sp.example/callback/".to_owned(),
            auth_method: "client_secret_basic",
        };
        let links = |refusal: Refusal| {
            let status = refusal.into_status(None, String::new());
            status.get_details_help().map(|help| help.links).unwrap_or_default()
        };
        for (cause, words, page) in [
            (Cause::PersonNotAssigned, "Users and groups", "https://learn.microsoft.com/"),
            (Cause::RedirectUriUnregistered, "add https://sp.example/", "https://learn."),
            (Cause::SecretWrong, "(client_secret_basic)", "https://learn.microsoft.com/"),
            (Cause::SecretUnreadable, "SSO_ENCRYPTION_KEYS", ""),
            (Cause::StateExpired, "begin a new login", ""),
        ] {
            let links = links(Refusal::new(cause, "").in_terms(terms()));
            assert_eq!(links.len(), 1, "{cause}");
            assert!(links[0].description.contains(words), "{cause}: {links:?}");
            assert!(links[0].url.starts_with(page) && page.is_empty() == links[0].url.is_empty());
        }
        let known = Refusal {
            explanation: Some("https://page.example"),
            ..Refusal::new(Cause::SecretExpired, "")
        };
        assert_eq!(links(known)[0].url, "https://page.example");
        for passing in [Cause::Http429, Cause::StoreUnavailable] {
            assert!(links(Refusal::new(passing, "")).is_empty(), "{passing}");
        }
    }

    async fn assert_is_small(refusal: Refusal) {
        let slug = Slug::parse(&"x".repeat(63)).expect("a slug");
        let call = Call::start(&http::HeaderMap::new(), "Test");
        let status = call.run(async {
            call::set_account(&slug);
            reject(refusal)
        });
        let status = status.await;
        let info = status.get_details_error_info().expect("ErrorInfo");
        assert_eq!(info.metadata["slug"], slug.as_str());
        assert_eq!(info.metadata["trace_id"].len(), 32);
        let headers = status.into_http::<()>().into_parts().0.headers;
        let sizes = headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        let size: usize = sizes.sum();
        assert!(size < 4096, "{size} bytes");
    }
}
