//! What can go wrong with an IdP, named by what happened. No variant holds a token, a code or a secret.

use crate::model::cause::Cause;

/// Why a call to an IdP gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The address that would be dialled is not one of the public internet.
    #[error("{host} has a {kind} address, which the service does not call")]
    AddressForbidden {
        /// The host of the URL.
        host: String,
        /// What kind of address it is.
        kind: &'static str,
    },
    /// No connection, a broken one, no answer in time, a server error, or too many requests.
    #[error("{host} is unavailable: {detail}")]
    Unavailable {
        /// The host of the URL.
        host: String,
        /// What happened.
        detail: String,
    },
    /// An answer that can't be used: a redirect, too long, or compressed.
    #[error("{host} gave an unusable answer: {detail}")]
    Unusable {
        /// The host of the URL.
        host: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// Why an IdP's metadata or keys can't be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProviderError {
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The document can't be used.
    #[error("the {document} at {host} can't be used: {detail}")]
    MetadataInvalid {
        /// Which document.
        document: &'static str,
        /// The host that served it.
        host: String,
        /// What was expected, and what came.
        detail: String,
    },
    /// The connection's own settings don't fit what the IdP says.
    #[error("{0}")]
    SettingsUnfit(String),
}

/// Why a code wasn't exchanged for tokens (RFC 6749 5.2).
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The call failed.
    #[error(transparent)]
    Call(CallError),
    /// `invalid_client`, `unauthorized_client`, or an HTTP 401.
    #[error("the token endpoint refused the client: {idp_error}")]
    ClientRejected {
        /// The IdP's error code, cleaned.
        idp_error: String,
        /// The IdP's text, cleaned: for the log.
        description: Option<String>,
    },
    /// `invalid_grant`.
    #[error("the token endpoint refused the code: {idp_error}")]
    CodeRejected {
        /// The IdP's error code, cleaned.
        idp_error: String,
        /// The IdP's text, cleaned: for the log.
        description: Option<String>,
    },
    /// Anything else.
    #[error("the token endpoint's answer can't be used: {0}")]
    ResponseInvalid(String),
}

/// Why an ID token is no proof of who logged in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenError {
    /// Signed by a key that the IdP doesn't publish, or by none of those it publishes for this algorithm.
    #[error("{0}")]
    UnknownKey(String),
    /// The signature or its algorithm.
    #[error("{0}")]
    Signature(String),
    /// Its form or its claims.
    #[error("{0}")]
    Invalid(String),
    /// Not the nonce of this login.
    #[error("the ID token's nonce is not the one of this login")]
    Nonce,
}

/// Why UserInfo can't be used.
#[derive(Debug, thiserror::Error)]
pub enum UserInfoError {
    /// The call failed.
    #[error(transparent)]
    Call(CallError),
    /// It is of another subject, malformed, or refused.
    #[error("{0}")]
    Invalid(String),
}

impl CallError {
    /// What exactly happened; `unusable` names an unusable answer of the called endpoint.
    pub(super) fn cause(&self, unusable: Cause) -> Cause {
        match self {
            Self::AddressForbidden { .. } => Cause::PrivateAddress,
            Self::Unavailable { .. } => Cause::ConnectionLost,
            Self::Unusable { .. } => unusable,
        }
    }
}

impl ProviderError {
    /// What exactly happened.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Call(error) => error.cause(Cause::MetadataUnreadable),
            Self::MetadataInvalid { .. } => Cause::EndpointInvalid,
            Self::SettingsUnfit(_) => Cause::SettingsIncomplete,
        }
    }
}

impl ExchangeError {
    /// What exactly happened.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Call(error) => error.cause(Cause::TokenUnreadable),
            Self::ClientRejected { .. } => Cause::InvalidClient,
            Self::CodeRejected { .. } => Cause::InvalidGrant,
            Self::ResponseInvalid(_) => Cause::TokenMalformed,
        }
    }

    /// The IdP's error code.
    #[must_use]
    pub fn idp_error(&self) -> Option<&str> {
        match self {
            Self::ClientRejected { idp_error, .. } | Self::CodeRejected { idp_error, .. } => {
                Some(idp_error)
            }
            Self::Call(_) | Self::ResponseInvalid(_) => None,
        }
    }
}

impl IdTokenError {
    /// What exactly happened.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::UnknownKey(_) => Cause::UnknownKey,
            Self::Signature(_) => Cause::SignatureMismatch,
            Self::Invalid(_) => Cause::Malformed,
            Self::Nonce => Cause::Nonce,
        }
    }
}

impl UserInfoError {
    /// What exactly happened.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Call(error) => error.cause(Cause::UserinfoUnreadable),
            Self::Invalid(_) => Cause::UserinfoMalformed,
        }
    }
}
