//! What can go wrong with an IdP. Every error knows its [`Cause`] and has a text for a person; code
//! decides by the variant or the cause, never by the text. None holds a token, a code or a secret.

use std::time::Duration;

use super::refetch::KeysAge;
use crate::model::cause::Cause;
use crate::model::reason::Reason;
use crate::model::redact::Redactor;
use crate::model::time::{UnixMillis, UnixSeconds};

/// Which of an IdP's answers a failure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// OIDC Discovery 3.
    Metadata,
    /// RFC 7517 5.
    KeySet,
    /// RFC 6749 5.
    TokenResponse,
    /// OIDC Core 5.3.2.
    UserInfo,
}

/// What is wrong with something that an IdP sent, or with the settings that it was compared with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Problem {
    /// The stable code for programs.
    pub cause: Cause,
    /// The text for a person: what was expected and what was received.
    pub text: String,
}

impl Problem {
    pub(super) fn new(cause: Cause, text: impl Into<String>) -> Self {
        Self { cause, text: text.into() }
    }

    /// Removes secrets from the text.
    pub(super) fn redact(&mut self, redactor: &Redactor) {
        redactor.apply(&mut self.text);
    }
}

/// Why a call to an IdP gave no usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The address is not one of the public internet.
    #[error("{host} has a {kind} address, which the service does not call")]
    AddressForbidden {
        /// The host of the URL.
        host: String,
        /// What kind of address it is.
        kind: &'static str,
    },
    /// No connection, no answer in time, a server error, or too many requests.
    #[error("{host} is unavailable: {outage}")]
    Unavailable {
        /// The host of the URL.
        host: String,
        /// What happened.
        outage: Outage,
    },
    /// No connection for want of something of ours. The IdP has no part in it.
    #[error("{host} was not called: this replica has no free {resource}")]
    OutOfResources {
        /// The host of the URL.
        host: String,
        /// What was used up.
        resource: &'static str,
    },
    /// An answer that can't be used, whatever its body says.
    #[error("{host} gave an unusable answer: {defect}")]
    Unusable {
        /// The host of the URL.
        host: String,
        /// What is wrong with it.
        defect: Defect,
    },
}

/// Why an IdP is unavailable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Outage {
    /// Its host name has no address.
    #[error("its host name does not resolve")]
    Dns,
    /// No name server told whether it has one.
    #[error("no name server answered for its host name")]
    DnsNoAnswer,
    /// The connection was refused, or no route leads there.
    #[error("it does not accept connections")]
    Connect,
    /// Its certificate has expired, at this time if it is known.
    #[error("its TLS certificate {}", dated("has expired", "expired on", *.0))]
    CertificateExpired(Option<UnixSeconds>),
    /// Its certificate is not valid yet, before this time if it is known.
    #[error("its TLS certificate {}", dated("is not valid yet", "is not valid before", *.0))]
    CertificateNotYetValid(Option<UnixSeconds>),
    /// Its certificate is not by a trusted CA, or is not one of a server.
    #[error("its TLS certificate is not trusted: {0}")]
    CertificateUntrusted(&'static str),
    /// Its certificate may be by a trusted CA, but what links the two is missing.
    #[error(
        "its TLS certificate is not trusted: it does not send the intermediate certificate that issued it"
    )]
    ChainIncomplete,
    /// Its certificate names other hosts.
    #[error("its TLS certificate is for another host name")]
    CertificateNameMismatch,
    /// Any other failure of TLS.
    #[error("TLS failed: {0}")]
    Tls(&'static str),
    /// The proxy, and not the IdP; or what the proxy tells of the IdP.
    #[error("the proxy (SSO_PROVIDER_PROXY) {0}")]
    Proxy(ProxyError),
    /// A connection took too long.
    #[error("it did not accept a connection within {0:?}")]
    ConnectTimeout(Duration),
    /// Its answer took too long.
    #[error("it did not answer within {0:?}")]
    Timeout(Duration),
    /// The connection broke.
    #[error("the connection broke before the whole answer was received")]
    ConnectionLost,
    /// It limits the rate of requests, and may say how long to wait.
    #[error("HTTP 429, too many requests{}", wait(*.0))]
    TooManyRequests(Option<Duration>),
    /// An internal error of the IdP.
    #[error("HTTP {0}")]
    ServerError(u16),
    /// Several calls in a row had no answer, so it is not called for a while.
    #[error("it did not answer several times in a row, and is not called again for some seconds")]
    CircuitOpen,
    /// Enough logins of the account wait for it already.
    #[error("too many logins of this account are waiting for it")]
    TooManyWaiting,
}

/// Why the proxy of IdPs gave no connection to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Its name doesn't resolve, or it doesn't accept connections.
    #[error("cannot be reached")]
    Unreachable,
    /// It refused.
    #[error("answered CONNECT with HTTP {0}")]
    Status(u16),
    /// It doesn't speak HTTP, or broke the connection.
    #[error("did not answer CONNECT by HTTP")]
    Malformed,
}

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// No redirect is followed: its target could be anybody's.
    #[error("HTTP {status} to {target}; redirects are not followed")]
    Redirect {
        /// The HTTP status.
        status: u16,
        /// The host of its Location.
        target: String,
    },
    /// More than is read of it.
    #[error("a body of more than {0} bytes")]
    TooLarge(usize),
    /// Compressed in a way that wasn't asked for, or not as its header says.
    #[error("a body that cannot be decoded by its Content-Encoding")]
    Encoding,
    /// Its URL can't be put into a request.
    #[error("its URL has characters that HTTP does not allow")]
    Url,
}

/// Why an IdP's metadata or keys are not available.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The call failed.
    #[error("{error}")]
    Call {
        /// What was to be fetched.
        document: Document,
        /// How it failed.
        error: CallError,
    },
    /// The document can't be used, or doesn't fit the connection's settings.
    #[error(transparent)]
    Invalid(Problem),
}

/// Why a code was not exchanged for tokens (RFC 6749 5.2).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The call failed.
    #[error(transparent)]
    Call(CallError),
    /// `invalid_client`, `unauthorized_client`, an HTTP 401, or a description that means one of them.
    #[error("the token endpoint refused the client: {}", .0.idp_error)]
    ClientRejected(TokenRefusal),
    /// `invalid_grant`, or a description that means it.
    #[error("the token endpoint refused the code: {}", .0.idp_error)]
    CodeRejected(TokenRefusal),
    /// Another error code.
    #[error("the token endpoint refused the request: {}", .0.idp_error)]
    RequestRejected(TokenRefusal),
    /// HTTP 404, 405 or 410: the endpoint may have moved.
    #[error("the token endpoint is not at its URL: {0}")]
    EndpointGone(Problem),
    /// Any other answer that holds no tokens.
    #[error("the token endpoint's answer cannot be used: {0}")]
    ResponseInvalid(Problem),
}

/// What a token endpoint says when it refuses (RFC 6749 5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRefusal {
    /// What the description says, if it is known of a product; else the error code's meaning.
    pub cause: Cause,
    /// The IdP's error code, sanitized.
    pub idp_error: String,
    /// The IdP's text, sanitized and cut.
    pub description: Option<String>,
}

/// Why an ID token does not prove who logged in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct IdTokenError(pub(super) Problem);

/// Why a UserInfo response can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserInfoError {
    /// The call failed.
    #[error(transparent)]
    Call(CallError),
    /// HTTP 404, 405 or 410: the endpoint may have moved.
    #[error(transparent)]
    EndpointGone(Problem),
    /// It is of another subject, malformed, or an error.
    #[error(transparent)]
    Invalid(Problem),
}

impl Document {
    /// The stable name, such as `keys`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::KeySet => "keys",
            Self::TokenResponse => "token",
            Self::UserInfo => "userinfo",
        }
    }

    /// The name in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Metadata => "metadata document",
            Self::KeySet => "key set",
            Self::TokenResponse => "token response",
            Self::UserInfo => "UserInfo response",
        }
    }

    fn unusable(self, defect: &Defect) -> Cause {
        let is_redirect = matches!(defect, Defect::Redirect { .. });
        match (self, is_redirect) {
            (Self::Metadata, true) => Cause::MetadataRedirect,
            (Self::Metadata, false) => Cause::MetadataUnreadable,
            (Self::KeySet, true) => Cause::KeysRedirect,
            (Self::KeySet, false) => Cause::KeysUnreadable,
            (Self::TokenResponse, true) => Cause::TokenRedirect,
            (Self::TokenResponse, false) => Cause::TokenUnreadable,
            (Self::UserInfo, _) => Cause::UserinfoUnreadable,
        }
    }
}

impl CallError {
    /// What exactly happened; an unusable answer is one of `document`.
    #[must_use]
    pub fn cause(&self, document: Document) -> Cause {
        match self {
            Self::AddressForbidden { .. } => Cause::PrivateAddress,
            Self::Unavailable { outage, .. } => outage.cause(),
            Self::OutOfResources { .. } => Cause::OutOfResources,
            Self::Unusable { defect, .. } => document.unusable(defect),
        }
    }

    /// Removes secrets from the names of hosts, which are the IdP's words, too.
    pub(super) fn redact(&mut self, redactor: &Redactor) {
        match self {
            Self::AddressForbidden { host, .. }
            | Self::Unavailable { host, .. }
            | Self::OutOfResources { host, .. } => {
                redactor.apply(host);
            }
            Self::Unusable { host, defect } => {
                redactor.apply(host);
                if let Defect::Redirect { target, .. } = defect {
                    redactor.apply(target);
                }
            }
        }
    }

    fn is_redirect(&self) -> bool {
        matches!(self, Self::Unusable { defect: Defect::Redirect { .. }, .. })
    }

    /// How long the IdP wants not to be called.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { outage: Outage::TooManyRequests(wait), .. } => *wait,
            Self::AddressForbidden { .. }
            | Self::Unavailable { .. }
            | Self::OutOfResources { .. }
            | Self::Unusable { .. } => None,
        }
    }
}

/// For a message: `when` with the day, if it is known.
fn dated(otherwise: &str, when: &str, time: Option<UnixSeconds>) -> String {
    let text = time.map(|time| UnixMillis::from(time).to_string());
    let day = text.as_deref().and_then(|text| text.split_once('T'));
    day.map_or_else(|| otherwise.to_owned(), |(day, _)| format!("{when} {day}"))
}

/// For a message.
fn wait(wait: Option<Duration>) -> String {
    wait.map(|wait| format!(": not before {wait:?} have passed")).unwrap_or_default()
}

impl Outage {
    fn cause(&self) -> Cause {
        match self {
            Self::Dns => Cause::Dns,
            Self::DnsNoAnswer => Cause::DnsNoAnswer,
            Self::Connect => Cause::Connect,
            Self::CertificateExpired(_) => Cause::TlsCertificateExpired,
            Self::CertificateNotYetValid(_) => Cause::TlsNotYetValid,
            Self::CertificateUntrusted(_) => Cause::TlsUntrusted,
            Self::ChainIncomplete => Cause::TlsChainIncomplete,
            Self::CertificateNameMismatch => Cause::TlsNameMismatch,
            Self::Tls(_) => Cause::Tls,
            // The proxy could not connect to the IdP.
            Self::Proxy(ProxyError::Status(502..=504)) => Cause::Connect,
            Self::Proxy(_) => Cause::Proxy,
            Self::ConnectTimeout(_) | Self::Timeout(_) => Cause::Timeout,
            Self::ConnectionLost => Cause::ConnectionLost,
            Self::TooManyRequests(_) => Cause::Http429,
            Self::ServerError(_) => Cause::Http5xx,
            Self::CircuitOpen => Cause::CircuitOpen,
            Self::TooManyWaiting => Cause::TooManyWaiting,
        }
    }
}

impl ProviderError {
    /// What exactly happened.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Call { document, error } => error.cause(*document),
            Self::Invalid(problem) => problem.cause,
        }
    }

    /// Which document it is about; `None`: the connection's own settings.
    #[must_use]
    pub fn document(&self) -> Option<Document> {
        let problem = match self {
            Self::Call { document, .. } => return Some(*document),
            Self::Invalid(problem) => problem,
        };
        let is_of_keys = matches!(
            problem.cause,
            Cause::KeysStatus | Cause::KeysNotJson | Cause::KeysMalformed | Cause::NoUsableKey
        );
        let document = if is_of_keys { Document::KeySet } else { Document::Metadata };
        (problem.cause != Cause::SettingsIncomplete).then_some(document)
    }

    /// Removes secrets from the texts.
    pub fn redact(&mut self, redactor: &Redactor) {
        match self {
            Self::Call { error, .. } => error.redact(redactor),
            Self::Invalid(problem) => problem.redact(redactor),
        }
    }

    /// See [`CallError::retry_after`].
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Call { error, .. } => error.retry_after(),
            Self::Invalid(_) => None,
        }
    }
}

impl From<Problem> for ExchangeError {
    fn from(problem: Problem) -> Self {
        Self::ResponseInvalid(problem)
    }
}

impl From<TokenRefusal> for ExchangeError {
    fn from(refusal: TokenRefusal) -> Self {
        let reason = refusal.cause.reason();
        if reason == Reason::ClientRejected {
            Self::ClientRejected(refusal)
        } else if reason == Reason::CodeRejected {
            Self::CodeRejected(refusal)
        } else {
            Self::RequestRejected(refusal)
        }
    }
}

impl ExchangeError {
    /// What exactly happened.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Call(error) => error.cause(Document::TokenResponse),
            Self::ClientRejected(refusal)
            | Self::CodeRejected(refusal)
            | Self::RequestRejected(refusal) => refusal.cause,
            Self::EndpointGone(problem) | Self::ResponseInvalid(problem) => problem.cause,
        }
    }

    /// Whether the metadata may name another endpoint by now.
    #[must_use]
    pub fn is_endpoint_gone(&self) -> bool {
        match self {
            Self::EndpointGone(_) => true,
            Self::Call(error) => error.is_redirect(),
            Self::ClientRejected(_)
            | Self::CodeRejected(_)
            | Self::RequestRejected(_)
            | Self::ResponseInvalid(_) => false,
        }
    }

    /// Whether the IdP rejects the client's secret. Not every rejection of a client does: it may be
    /// unknown, disabled or lack a grant, or a gateway may answer in the IdP's place.
    #[must_use]
    pub fn rejects_secret(&self) -> bool {
        matches!(self.cause(), Cause::InvalidClient | Cause::SecretWrong | Cause::SecretExpired)
    }

    /// A secret that is rejected after the day on which it was to expire has expired.
    #[must_use]
    pub fn of_expired_secret(mut self) -> Self {
        let rejects_secret = self.rejects_secret();
        if let Self::ClientRejected(refusal) = &mut self
            && rejects_secret
        {
            refusal.cause = Cause::SecretExpired;
        }
        self
    }

    /// Whether the IdP accepts the client, and refuses the code alone.
    #[must_use]
    pub fn rejects_code_only(&self) -> bool {
        matches!(self, Self::CodeRejected(refusal) if refusal.idp_error == "invalid_grant")
    }

    /// What the IdP says.
    #[must_use]
    pub fn refusal(&self) -> Option<&TokenRefusal> {
        match self {
            Self::ClientRejected(refusal)
            | Self::CodeRejected(refusal)
            | Self::RequestRejected(refusal) => Some(refusal),
            Self::Call(_) | Self::EndpointGone(_) | Self::ResponseInvalid(_) => None,
        }
    }

    /// The IdP's error code.
    #[must_use]
    pub fn idp_error(&self) -> Option<&str> {
        self.refusal().map(|refusal| refusal.idp_error.as_str())
    }

    /// The IdP's text, sanitized and cut.
    #[must_use]
    pub fn idp_description(&self) -> Option<&str> {
        self.refusal().and_then(|refusal| refusal.description.as_deref())
    }

    /// Removes secrets from the texts, and e-mail addresses from the description.
    pub fn redact(&mut self, redactor: &Redactor) {
        match self {
            Self::Call(error) => error.redact(redactor),
            Self::ClientRejected(refusal)
            | Self::CodeRejected(refusal)
            | Self::RequestRejected(refusal) => {
                redactor.apply(&mut refusal.idp_error);
                let description = refusal.description.iter_mut();
                description.for_each(|text| redactor.apply_to_description(text));
            }
            Self::EndpointGone(problem) | Self::ResponseInvalid(problem) => {
                problem.redact(redactor);
            }
        }
    }
}

impl IdTokenError {
    /// What exactly happened.
    #[must_use]
    pub fn cause(&self) -> Cause {
        self.0.cause
    }

    /// Whether keys that the IdP published since may verify the token: its key is unknown, or the
    /// known key of its `kid` is another one.
    #[must_use]
    pub fn needs_fresh_keys(&self) -> bool {
        matches!(self.0.cause, Cause::UnknownKey | Cause::SignatureMismatch)
    }

    /// Removes secrets from the text.
    pub fn redact(&mut self, redactor: &Redactor) {
        self.0.redact(redactor);
    }

    /// Says how old the keys are, if they are what the token lacks.
    #[must_use]
    pub fn with_keys_age(mut self, age: Option<KeysAge>) -> Self {
        if let Some(age) = age.filter(|_| self.needs_fresh_keys()) {
            self.0.text = format!("{}; {age}", self.0.text);
        }
        self
    }
}

impl UserInfoError {
    /// What exactly happened.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Call(error) => error.cause(Document::UserInfo),
            Self::EndpointGone(problem) | Self::Invalid(problem) => problem.cause,
        }
    }

    /// Whether the metadata may name another endpoint by now.
    #[must_use]
    pub fn is_endpoint_gone(&self) -> bool {
        match self {
            Self::EndpointGone(_) => true,
            Self::Call(error) => error.is_redirect(),
            Self::Invalid(_) => false,
        }
    }

    /// Removes secrets from the texts.
    pub fn redact(&mut self, redactor: &Redactor) {
        match self {
            Self::Call(error) => error.redact(redactor),
            Self::EndpointGone(problem) | Self::Invalid(problem) => problem.redact(redactor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::reason::Reason;

    #[test]
    fn the_document_decides_the_cause_of_an_unusable_answer() {
        let redirect = Defect::Redirect { status: 302, target: "b".to_owned() };
        for (document, by_redirect, by_encoding, reason) in [
            (
                Document::Metadata,
                Cause::MetadataRedirect,
                Cause::MetadataUnreadable,
                Reason::ProviderMetadataInvalid,
            ),
            (
                Document::KeySet,
                Cause::KeysRedirect,
                Cause::KeysUnreadable,
                Reason::ProviderMetadataInvalid,
            ),
            (
                Document::TokenResponse,
                Cause::TokenRedirect,
                Cause::TokenUnreadable,
                Reason::TokenResponseInvalid,
            ),
            (
                Document::UserInfo,
                Cause::UserinfoUnreadable,
                Cause::UserinfoUnreadable,
                Reason::UserinfoInvalid,
            ),
        ] {
            let cause = |defect: &Defect| {
                let (host, defect) = ("a".to_owned(), defect.clone());
                CallError::Unusable { host, defect }.cause(document)
            };
            assert_eq!((cause(&redirect), cause(&Defect::Encoding)), (by_redirect, by_encoding));
            assert_eq!((by_redirect.reason(), by_encoding.reason()), (reason, reason));
        }
    }

    #[test]
    fn every_outage_is_one_of_an_unavailable_provider() {
        for outage in [
            Outage::Dns,
            Outage::DnsNoAnswer,
            Outage::Connect,
            Outage::CertificateExpired(None),
            Outage::CertificateNotYetValid(None),
            Outage::CertificateUntrusted(""),
            Outage::ChainIncomplete,
            Outage::CertificateNameMismatch,
            Outage::Tls(""),
            Outage::Proxy(ProxyError::Unreachable),
            Outage::Proxy(ProxyError::Status(503)),
            Outage::ConnectTimeout(Duration::ZERO),
            Outage::Timeout(Duration::ZERO),
            Outage::ConnectionLost,
            Outage::TooManyRequests(None),
            Outage::ServerError(500),
            Outage::CircuitOpen,
            Outage::TooManyWaiting,
        ] {
            assert_eq!(outage.cause().reason(), Reason::ProviderUnavailable, "{outage}");
        }
    }
}
