//! Maps each reason to its gRPC code, and does nothing else. The table is a part of the contract:
//! UNAVAILABLE, which meshes and retry policies repeat by themselves, is only for calls that may be
//! repeated.

use tonic::Code;

use crate::model::reason::{Reason, Retry};

/// `retry`: what the refusal says.
pub(super) fn code(reason: Reason, retry: Retry) -> Code {
    match reason {
        Reason::BadRequest => Code::InvalidArgument,
        Reason::ConnectionNotFound => Code::NotFound,
        Reason::ConnectionExists => Code::AlreadyExists,
        Reason::RevisionConflict => Code::Aborted,
        Reason::CallerUnknown => Code::Unauthenticated,
        // The state is spent: the same call never succeeds.
        Reason::ProviderUnavailable | Reason::StoreUnavailable | Reason::Overloaded
            if retry != Retry::Call =>
        {
            Code::Aborted
        }
        Reason::ProviderUnavailable | Reason::StoreUnavailable => Code::Unavailable,
        Reason::RateLimited | Reason::Overloaded => Code::ResourceExhausted,
        Reason::ConnectionDisabled
        | Reason::ConnectionUnreadable
        | Reason::StateInvalid
        | Reason::StateExpired
        | Reason::StateUsed
        | Reason::ConnectionChanged
        | Reason::ClientRejected
        | Reason::TokenResponseInvalid
        | Reason::ClaimMissing
        | Reason::ProviderMetadataInvalid
        | Reason::ProviderAddressForbidden
        | Reason::CheckRequired => Code::FailedPrecondition,
        Reason::BrowserMismatch
        | Reason::IssuerMismatch
        | Reason::IdpRefused
        | Reason::CodeRejected
        | Reason::IdTokenSignatureInvalid
        | Reason::IdTokenInvalid
        | Reason::NonceMismatch
        | Reason::UserinfoInvalid
        | Reason::ClaimNotAllowed
        | Reason::EmailDomainNotAllowed
        | Reason::EmailNotVerified
        | Reason::CallerNotAllowed
        | Reason::IdentityTokenInvalid
        | Reason::IdentityTokenExpired => Code::PermissionDenied,
        Reason::Internal => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table in login.proto is what clients are written against.
    #[test]
    fn the_table_in_the_proto_is_the_table_in_the_code() {
        let proto = include_str!("../../../proto/peerpanda/sso/v1/login.proto");
        for reason in Reason::ALL {
            let retry = reason.retry();
            let name = |retry| screaming_snake(&format!("{:?}", code(*reason, retry)));
            let (code, spent) = (name(retry), name(Retry::Login));
            let row = if code == spent {
                format!("// | {reason} | {code} | {} |", retry.name())
            } else {
                format!("// | {reason} | {code}, or {spent} | {}, or login |", retry.name())
            };
            assert!(proto.contains(&row), "login.proto lacks {row:?}");
        }
    }

    /// Meshes and retry policies repeat UNAVAILABLE by themselves.
    #[test]
    fn a_call_that_must_not_be_repeated_is_never_unavailable() {
        for reason in Reason::ALL {
            for retry in [Retry::Login, Retry::Never] {
                assert_ne!(code(*reason, retry), Code::Unavailable, "{reason}");
            }
        }
    }

    fn screaming_snake(camel: &str) -> String {
        let words = camel
            .char_indices()
            .map(|(i, c)| if i > 0 && c.is_uppercase() { format!("_{c}") } else { c.to_string() });
        words.collect::<String>().to_uppercase()
    }
}
