//! Every refusal as a gRPC status: one table of reasons, and the only place that names a code. Each refusal is logged
//! here, once; inner error texts go to that log, not to the caller.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::connections::ConnectionError;
use crate::identity_token::IdentityError;
use crate::login::{CompleteError, LoginError, StateError};
use crate::model::slug::Slug;
use crate::model::{Violation, shown};
use crate::oidc::claims::ClaimsError;
use crate::oidc::error::{CallError, ExchangeError, IdTokenError, ProviderError, UserInfoError};
use crate::oidc::idps as advice;
use crate::oidc::idps::vendor::Vendor;
use crate::store::StoreError;
use crate::telemetry;
use crate::telemetry::traces::current_trace_id;

/// Who can act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    EndUser,
    CustomerIdpAdmin,
    Support,
    Transient,
}

impl Owner {
    fn name(self) -> &'static str {
        match self {
            Self::EndUser => "end_user",
            Self::CustomerIdpAdmin => "customer_idp_admin",
            Self::Support => "support",
            Self::Transient => "transient",
        }
    }
}

/// What the caller may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    /// Repeat this call.
    Call,
    /// Begin again.
    Login,
    Never,
}

macro_rules! reasons {
    ($($variant:ident = $name:literal, $code:ident, $owner:ident, $retry:ident;)*) => {
        /// The reasons of refusal: API, like the field names. The same table stands in login.proto.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(in crate::server) enum Reason {
            $($variant,)*
        }

        impl Reason {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$variant),*];

            fn row(self) -> (&'static str, Code, Owner, Retry) {
                match self {
                    $(Self::$variant => ($name, Code::$code, Owner::$owner, Retry::$retry),)*
                }
            }
        }
    };
}

reasons! {
    BadRequest = "BAD_REQUEST", InvalidArgument, Support, Never;
    ConnectionNotFound = "CONNECTION_NOT_FOUND", NotFound, Support, Never;
    ConnectionDisabled = "CONNECTION_DISABLED", FailedPrecondition, Support, Never;
    StateInvalid = "STATE_INVALID", FailedPrecondition, EndUser, Login;
    StateExpired = "STATE_EXPIRED", FailedPrecondition, EndUser, Login;
    StateUsed = "STATE_USED", FailedPrecondition, EndUser, Login;
    ConnectionChanged = "CONNECTION_CHANGED", FailedPrecondition, EndUser, Login;
    BrowserMismatch = "BROWSER_MISMATCH", PermissionDenied, EndUser, Login;
    IssuerMismatch = "ISSUER_MISMATCH", PermissionDenied, CustomerIdpAdmin, Never;
    IdpRefused = "IDP_REFUSED", PermissionDenied, EndUser, Login;
    ClientRejected = "CLIENT_REJECTED", FailedPrecondition, Support, Never;
    CodeRejected = "CODE_REJECTED", PermissionDenied, EndUser, Login;
    TokenResponseInvalid = "TOKEN_RESPONSE_INVALID", Unavailable, CustomerIdpAdmin, Login;
    IdTokenSignatureInvalid = "ID_TOKEN_SIGNATURE_INVALID", PermissionDenied, CustomerIdpAdmin, Login;
    IdTokenInvalid = "ID_TOKEN_INVALID", PermissionDenied, CustomerIdpAdmin, Login;
    NonceMismatch = "NONCE_MISMATCH", PermissionDenied, EndUser, Login;
    UserinfoInvalid = "USERINFO_INVALID", PermissionDenied, CustomerIdpAdmin, Login;
    ClaimMissing = "CLAIM_MISSING", FailedPrecondition, CustomerIdpAdmin, Login;
    ClaimNotAllowed = "CLAIM_NOT_ALLOWED", PermissionDenied, EndUser, Login;
    EmailDomainNotAllowed = "EMAIL_DOMAIN_NOT_ALLOWED", PermissionDenied, EndUser, Login;
    EmailNotVerified = "EMAIL_NOT_VERIFIED", PermissionDenied, EndUser, Login;
    ProviderMetadataInvalid = "PROVIDER_METADATA_INVALID", FailedPrecondition, CustomerIdpAdmin, Never;
    ProviderAddressForbidden = "PROVIDER_ADDRESS_FORBIDDEN", FailedPrecondition, Support, Never;
    ProviderUnavailable = "PROVIDER_UNAVAILABLE", Unavailable, Transient, Call;
    StoreUnavailable = "STORE_UNAVAILABLE", Unavailable, Transient, Call;
    RateLimited = "RATE_LIMITED", ResourceExhausted, Transient, Call;
    Overloaded = "OVERLOADED", ResourceExhausted, Transient, Call;
    CallerUnknown = "CALLER_UNKNOWN", Unauthenticated, Support, Never;
    CallerNotAllowed = "CALLER_NOT_ALLOWED", PermissionDenied, Support, Never;
    CheckRequired = "CHECK_REQUIRED", FailedPrecondition, Support, Never;
    IdentityTokenInvalid = "IDENTITY_TOKEN_INVALID", PermissionDenied, EndUser, Login;
    IdentityTokenExpired = "IDENTITY_TOKEN_EXPIRED", PermissionDenied, EndUser, Login;
    ConnectionExists = "CONNECTION_EXISTS", AlreadyExists, Support, Never;
    RevisionConflict = "REVISION_CONFLICT", Aborted, Support, Never;
    Internal = "INTERNAL", Internal, Support, Never;
}

/// A refusal on its way out.
pub(in crate::server) struct Refusal {
    reason: Reason,
    message: String,
    violations: Vec<Violation>,
    metadata: Vec<(&'static str, String)>,
    help: Option<(&'static str, &'static str)>,
    /// Where the state is spent by now, repeating the call can't help.
    is_spent: bool,
    /// For RetryInfo, where it is known better than [`RETRY_DELAY`].
    retry_after: Option<Duration>,
    /// For the log alone.
    detail: Option<String>,
}

impl Refusal {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            violations: Vec::new(),
            metadata: Vec::new(),
            help: None,
            is_spent: false,
            retry_after: None,
            detail: None,
        }
    }

    fn because(reason: Reason, error: &dyn std::error::Error) -> Self {
        Self::new(reason, error.to_string())
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((name, value.into()));
        self
    }

    fn logged(mut self, detail: Option<String>) -> Self {
        self.detail = detail;
        self
    }

    /// What is kept of a refused login: reason, owner, and the IdP's error code.
    pub(in crate::server) fn kept(&self) -> (&'static str, &'static str, Option<String>) {
        let (name, _, owner, _) = self.reason.row();
        let idp_error = self.metadata.iter().find(|(name, _)| *name == "idp_error");
        (name, owner.name(), idp_error.map(|(_, error)| cut(error, MAX_METADATA)))
    }

    /// A calling program that isn't known.
    pub(in crate::server) fn caller_unknown(why: &'static str) -> Self {
        Self::new(Reason::CallerUnknown, why)
    }

    /// A calling program without the role.
    pub(in crate::server) fn caller_not_allowed(caller: &str, role: &str) -> Self {
        Self::new(
            Reason::CallerNotAllowed,
            format!("the caller {caller:?} has not the role {role:?} that this service is for"),
        )
    }

    /// No room, or no time left.
    pub(in crate::server) fn overloaded(why: &'static str) -> Self {
        Self::new(Reason::Overloaded, why)
    }

    /// The caller didn't wait for the answer, or the whole took too long: for the record, since nobody is told.
    pub(in crate::server) fn given_up() -> Self {
        Self::new(Reason::ProviderUnavailable, "the caller gave up before the IdP had answered")
    }

    /// A defect of ours.
    pub(in crate::server) fn defect() -> Self {
        Self::new(Reason::Internal, "a defect of this service: the log has more")
    }

    /// Fields that are missing or malformed, or addresses that must not be called.
    pub(in crate::server) fn violations(violations: Vec<Violation>) -> Self {
        let is_all_addresses = !violations.is_empty()
            && violations.iter().all(|violation| violation.forbidden_address);
        let reason =
            if is_all_addresses { Reason::ProviderAddressForbidden } else { Reason::BadRequest };
        let texts: Vec<_> = violations
            .iter()
            .take(MAX_VIOLATIONS)
            .map(|violation| format!("{} {}", violation.field, violation.description))
            .collect();
        Self { violations, ..Self::new(reason, texts.join("; ")) }
    }
}

/// The account that a call is about, for the refusals of it.
pub(in crate::server) struct CallContext {
    method: &'static str,
    /// Empty where the caller's text is no slug.
    slug: String,
}

impl CallContext {
    /// For what is refused before its request was read.
    pub(in crate::server) fn without_account(method: &'static str) -> Self {
        Self { method, slug: String::new() }
    }

    pub(in crate::server) fn new(method: &'static str, text: &str) -> Self {
        Self { method, slug: Slug::parse(text).map(|slug| slug.to_string()).unwrap_or_default() }
    }

    /// Empty where the caller's text is no slug.
    pub(in crate::server) fn as_str(&self) -> &str {
        &self.slug
    }

    /// Logs that support changed the connection.
    pub(in crate::server) fn log_change(&self, revision: u64) {
        tracing::info!(
            rpc.method = self.method,
            account.slug = self.slug,
            revision,
            trace_id = current_trace_id(),
            "a connection was changed"
        );
    }

    /// The refusal's status; logs it.
    pub(in crate::server) fn reject(&self, refusal: Refusal) -> Status {
        let (name, code, owner, retry) = refusal.reason.row();
        let retry = if refusal.is_spent && retry == Retry::Call { Retry::Login } else { retry };
        let owner = owner.name();
        telemetry::refused(self.method, &self.slug, name, owner);
        let trace_id = current_trace_id();
        let (method, slug, detail) =
            (self.method, self.slug.as_str(), refusal.detail.as_deref().unwrap_or_default());
        let message = cut(&refusal.message, MAX_MESSAGE);
        match refusal.reason {
            Reason::Internal => {
                tracing::error!(
                    rpc.method = method,
                    account.slug = slug,
                    reason = name,
                    owner,
                    trace_id,
                    message,
                    detail,
                    "a call was refused"
                );
            }
            _ if owner == "end_user" => {
                tracing::info!(
                    rpc.method = method,
                    account.slug = slug,
                    reason = name,
                    owner,
                    trace_id,
                    message,
                    detail,
                    "a call was refused"
                );
            }
            _ => tracing::warn!(
                rpc.method = method,
                account.slug = slug,
                reason = name,
                owner,
                trace_id,
                message,
                detail,
                "a call was refused"
            ),
        }
        let mut metadata: HashMap<String, String> = refusal
            .metadata
            .into_iter()
            .map(|(name, value)| (name.to_owned(), cut(&value, MAX_METADATA)))
            .collect();
        if !self.slug.is_empty() {
            metadata.insert("slug".to_owned(), self.slug.clone());
        }
        metadata.insert("owner".to_owned(), owner.to_owned());
        if !trace_id.is_empty() {
            metadata.insert("trace_id".to_owned(), trace_id);
        }
        let retry_text = match retry {
            Retry::Call => "call",
            Retry::Login => "login",
            Retry::Never => "never",
        };
        metadata.insert("retry".to_owned(), retry_text.to_owned());
        let mut details = ErrorDetails::with_error_info(name, DOMAIN, metadata);
        for violation in refusal.violations.iter().take(MAX_VIOLATIONS) {
            details.add_bad_request_violation(
                cut(&violation.field, 64),
                cut(&violation.description, 120),
            );
        }
        if retry == Retry::Call {
            details.set_retry_info(Some(refusal.retry_after.unwrap_or(RETRY_DELAY)));
        }
        if let Some((description, url)) = refusal.help {
            details.add_help_link(description, url);
        }
        Status::with_error_details(code, message, details)
    }
}

impl From<CompleteError> for Refusal {
    fn from(CompleteError { error, is_spent }: CompleteError) -> Self {
        Self { is_spent, ..error.into() }
    }
}

impl From<IdentityError> for Refusal {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::NoKey => Self::because(Reason::StoreUnavailable, &error),
            IdentityError::Invalid(_) => Self::because(Reason::IdentityTokenInvalid, &error),
            IdentityError::Expired => Self::because(Reason::IdentityTokenExpired, &error),
            IdentityError::Store(error) => error.into(),
        }
    }
}

impl From<LoginError> for Refusal {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::BadRequest(violations) => Self::violations(violations),
            LoginError::RateLimited { retry_after } => Self {
                retry_after: Some(retry_after),
                ..Self::because(Reason::RateLimited, &error)
            },
            LoginError::ConnectionNotFound => Self::because(Reason::ConnectionNotFound, &error),
            LoginError::ConnectionDisabled => Self::because(Reason::ConnectionDisabled, &error),
            LoginError::ConnectionChanged => Self::because(Reason::ConnectionChanged, &error),
            LoginError::State(StateError::Invalid) => Self::because(Reason::StateInvalid, &error),
            LoginError::State(StateError::Expired) => Self::because(Reason::StateExpired, &error),
            LoginError::State(StateError::BrowserMismatch) => {
                Self::because(Reason::BrowserMismatch, &error)
            }
            LoginError::StateUsed => Self::because(Reason::StateUsed, &error),
            LoginError::IssuerMismatch { .. } => Self::because(Reason::IssuerMismatch, &error),
            LoginError::IdpRefused(refusal) => {
                let message = format!("the IdP refused the login: {}", refusal.error);
                Self::new(Reason::IdpRefused, message)
                    .with("idp_error", refusal.error)
                    .logged(refusal.description)
            }
            LoginError::Provider(error) => error.into(),
            LoginError::Exchange(error) => error.into(),
            LoginError::IdToken(error) => {
                let reason = match error {
                    IdTokenError::UnknownKey(_) | IdTokenError::Signature(_) => {
                        Reason::IdTokenSignatureInvalid
                    }
                    IdTokenError::Invalid(_) => Reason::IdTokenInvalid,
                    IdTokenError::Nonce => Reason::NonceMismatch,
                };
                Self::because(reason, &error)
            }
            LoginError::UserInfo(UserInfoError::Call(error)) => {
                Self::call(error, Reason::UserinfoInvalid)
            }
            LoginError::UserInfo(error @ UserInfoError::Invalid(_)) => {
                Self::because(Reason::UserinfoInvalid, &error)
            }
            LoginError::Claims { error, issuer } => Self::claims(error, &issuer),
            LoginError::Store(error) => error.into(),
            LoginError::DeadlineExceeded => Self::because(Reason::ProviderUnavailable, &error),
        }
    }
}

impl Refusal {
    fn call(error: CallError, unusable: Reason) -> Self {
        let reason = match error {
            CallError::AddressForbidden { .. } => Reason::ProviderAddressForbidden,
            CallError::Unavailable { .. } => Reason::ProviderUnavailable,
            CallError::Unusable { .. } => unusable,
        };
        Self::because(reason, &error)
    }

    fn claims(error: ClaimsError, issuer: &str) -> Self {
        let message = error.to_string();
        match error {
            ClaimsError::Missing(names) => {
                let refusal =
                    Self::new(Reason::ClaimMissing, message).with("claim", names.join(", "));
                Self { help: Some(advice::add_claims(Vendor::of(issuer))), ..refusal }
            }
            ClaimsError::NotAllowed { claim, .. } => {
                Self::new(Reason::ClaimNotAllowed, message).with("claim", claim)
            }
            ClaimsError::EmailDomainNotAllowed(_) => {
                Self::new(Reason::EmailDomainNotAllowed, message)
            }
            ClaimsError::EmailNotVerified => Self::new(Reason::EmailNotVerified, message),
        }
    }
}

impl From<ProviderError> for Refusal {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::Call(error) => Self::call(error, Reason::ProviderMetadataInvalid),
            ProviderError::MetadataInvalid { .. } | ProviderError::SettingsUnfit(_) => {
                Self::because(Reason::ProviderMetadataInvalid, &error)
            }
        }
    }
}

impl From<ExchangeError> for Refusal {
    fn from(error: ExchangeError) -> Self {
        let message = error.to_string();
        match error {
            ExchangeError::Call(error) => Self::call(error, Reason::TokenResponseInvalid),
            ExchangeError::ClientRejected { idp_error, description } => {
                Self::new(Reason::ClientRejected, message)
                    .with("idp_error", idp_error)
                    .logged(description)
            }
            ExchangeError::CodeRejected { idp_error, description } => {
                Self::new(Reason::CodeRejected, message)
                    .with("idp_error", idp_error)
                    .logged(description)
            }
            ExchangeError::ResponseInvalid(_) => Self::new(Reason::TokenResponseInvalid, message),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let detail = Some(error.to_string());
        match error {
            StoreError::Unavailable { .. } => {
                Self::new(Reason::StoreUnavailable, "a store of the service is unavailable")
                    .logged(detail)
            }
            StoreError::Full { .. } => {
                Self::new(Reason::Overloaded, "too many logins are under way").logged(detail)
            }
            StoreError::Unreadable(_) => {
                Self::new(Reason::Internal, "what is stored can't be read").logged(detail)
            }
        }
    }
}

impl From<ConnectionError> for Refusal {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Refused(violations) => Self::violations(violations),
            ConnectionError::Exists => Self::because(Reason::ConnectionExists, &error),
            ConnectionError::NotFound => Self::because(Reason::ConnectionNotFound, &error),
            ConnectionError::Conflict { .. } => Self::because(Reason::RevisionConflict, &error),
            ConnectionError::CheckRequired(_) => Self::because(Reason::CheckRequired, &error),
            ConnectionError::RateLimited { retry_after } => Self {
                retry_after: Some(retry_after),
                ..Self::because(Reason::RateLimited, &error)
            },
            ConnectionError::Store(error) => error.into(),
        }
    }
}

/// Gives tonic's own refusals (an oversized message, undecodable protobuf) a reason of the table too.
pub(in crate::server) fn name_reason<B>(response: http::Response<B>) -> http::Response<B> {
    let has_details = response.headers().contains_key("grpc-status-details-bin");
    let Some(status) = Status::from_header_map(response.headers()).filter(|_| !has_details) else {
        return response;
    };
    let refusal = match status.code() {
        Code::OutOfRange => Refusal::new(Reason::BadRequest, "the message is too large"),
        Code::Internal => {
            Refusal::new(Reason::Internal, "the message is no valid protocol buffer of this method")
        }
        _ => return response,
    };
    let status =
        CallContext::without_account("other").reject(refusal.logged(Some(shown(status.message()))));
    let (mut head, body) = response.into_parts();
    match status.add_header(&mut head.headers) {
        Ok(()) | Err(_) => http::Response::from_parts(head, body),
    }
}

fn cut(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let end = (0..=max_bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}…", &text[..end])
}

const DOMAIN: &str = "sso.peerpanda.com";
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// An encoded status stays under 4 KiB, base64 and percent encoding included.
const MAX_MESSAGE: usize = 400;
const MAX_METADATA: usize = 160;
const MAX_VIOLATIONS: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    /// The table in login.proto is what clients are written against.
    #[test]
    fn the_table_in_the_proto_is_the_table_in_the_code() {
        let proto = include_str!("../../../proto/peerpanda/sso/v1/login.proto");
        for reason in Reason::ALL {
            let (name, code, owner, retry) = reason.row();
            let snake = |camel: String| {
                let words = camel.char_indices().map(|(i, c)| {
                    if i > 0 && c.is_uppercase() { format!("_{c}") } else { c.to_string() }
                });
                words.collect::<String>()
            };
            let (code, owner, retry) = (
                snake(format!("{code:?}")).to_uppercase(),
                snake(format!("{owner:?}")).to_lowercase(),
                format!("{retry:?}").to_lowercase(),
            );
            let row = format!("// | {name} | {code} | {owner} | {retry}");
            assert!(proto.contains(&row), "login.proto lacks {row:?}");
        }
    }

    #[test]
    fn a_status_stays_small_whatever_is_in_it() {
        let violations =
            (0..100).map(|_| Violation::new("ü".repeat(500), "\u{1f43c}".repeat(500))).collect();
        let refusal = Refusal::violations(violations).with("claim", "ü".repeat(5000));
        let status = CallContext::new("Test", &"x".repeat(63)).reject(refusal);
        let headers = status.into_http::<()>().into_parts().0.headers;
        let size: usize =
            headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        assert!(size < 4096, "{size} bytes");
    }
}
