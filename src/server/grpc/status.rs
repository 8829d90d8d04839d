//! Maps each reason to its gRPC code, and does nothing else. The table is a part of the contract.

use tonic::Code;

use crate::model::reason::Reason;

pub(super) fn code(reason: Reason) -> Code {
    match reason {
        Reason::BadRequest => Code::InvalidArgument,
        Reason::ConnectionNotFound => Code::NotFound,
        Reason::ConnectionExists => Code::AlreadyExists,
        Reason::RevisionConflict => Code::Aborted,
        Reason::CallerUnknown => Code::Unauthenticated,
        Reason::RateLimited | Reason::Overloaded => Code::ResourceExhausted,
        Reason::TokenResponseInvalid | Reason::ProviderUnavailable | Reason::StoreUnavailable => {
            Code::Unavailable
        }
        Reason::ConnectionDisabled
        | Reason::StateInvalid
        | Reason::StateExpired
        | Reason::StateUsed
        | Reason::ConnectionChanged
        | Reason::ClientRejected
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
    use crate::model::reason::Retry;

    /// The table in login.proto is what clients are written against.
    #[test]
    fn the_table_in_the_proto_is_the_table_in_the_code() {
        let proto = include_str!("../../../proto/peerpanda/sso/v1/login.proto");
        for reason in Reason::ALL {
            let retry = match (reason, reason.retry()) {
                (Reason::ProviderUnavailable, _) => "call, or login once the state is spent",
                (_, retry) => Retry::name(retry),
            };
            let code = screaming_snake(&format!("{:?}", code(*reason)));
            let row = format!("// | {reason} | {code} | {retry} |");
            assert!(proto.contains(&row), "login.proto lacks {row:?}");
        }
    }

    fn screaming_snake(camel: &str) -> String {
        let words = camel
            .char_indices()
            .map(|(i, c)| if i > 0 && c.is_uppercase() { format!("_{c}") } else { c.to_string() });
        words.collect::<String>().to_uppercase()
    }
}
