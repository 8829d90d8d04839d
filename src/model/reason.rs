//! Why a call was refused: stable codes that are part of the API. What exactly happened is a
//! [`Cause`](super::cause::Cause). Must never know a gRPC code: `server/grpc/status.rs` maps reasons to
//! codes.

use super::stable_names;

/// Who can do something about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The person who logs in.
    EndUser,
    /// The admin of the customer's IdP.
    CustomerIdpAdmin,
    /// PeerPanda's support, or the program that calls.
    Support,
    /// The operator of this service.
    Operator,
    /// Nobody: the problem is temporary.
    Transient,
}

impl Owner {
    /// The name in a refusal's metadata.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EndUser => "end_user",
            Self::CustomerIdpAdmin => "customer_idp_admin",
            Self::Support => "support",
            Self::Operator => "operator",
            Self::Transient => "transient",
        }
    }
}

/// What the caller may do after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Repeat this call.
    Call,
    /// Begin a new login: the state is spent.
    Login,
    /// Change something first.
    Never,
}

impl Retry {
    /// The name in a refusal's metadata.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Login => "login",
            Self::Never => "never",
        }
    }
}

macro_rules! reasons {
    ($($variant:ident = $name:literal, $retry:ident;)*) => {
        /// Why a call was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "docs/reference/reasons.md documents each")]
        pub enum Reason {
            $($variant,)*
        }

        impl Reason {
            /// Every reason, in the order of the reference table.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable name, such as `STATE_EXPIRED`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What the caller may do, if the call has not spent a state.
            #[must_use]
            pub fn retry(self) -> Retry {
                match self {
                    $(Self::$variant => Retry::$retry,)*
                }
            }
        }
    };
}

reasons! {
    BadRequest = "BAD_REQUEST", Never;
    ConnectionNotFound = "CONNECTION_NOT_FOUND", Never;
    ConnectionDisabled = "CONNECTION_DISABLED", Never;
    ConnectionUnreadable = "CONNECTION_UNREADABLE", Never;
    StateInvalid = "STATE_INVALID", Login;
    StateExpired = "STATE_EXPIRED", Login;
    StateUsed = "STATE_USED", Login;
    ConnectionChanged = "CONNECTION_CHANGED", Login;
    BrowserMismatch = "BROWSER_MISMATCH", Login;
    IssuerMismatch = "ISSUER_MISMATCH", Never;
    IdpRefused = "IDP_REFUSED", Login;
    ClientRejected = "CLIENT_REJECTED", Never;
    CodeRejected = "CODE_REJECTED", Login;
    TokenResponseInvalid = "TOKEN_RESPONSE_INVALID", Login;
    IdTokenSignatureInvalid = "ID_TOKEN_SIGNATURE_INVALID", Login;
    IdTokenInvalid = "ID_TOKEN_INVALID", Login;
    NonceMismatch = "NONCE_MISMATCH", Login;
    UserinfoInvalid = "USERINFO_INVALID", Login;
    ClaimMissing = "CLAIM_MISSING", Login;
    ClaimNotAllowed = "CLAIM_NOT_ALLOWED", Login;
    EmailDomainNotAllowed = "EMAIL_DOMAIN_NOT_ALLOWED", Login;
    EmailNotVerified = "EMAIL_NOT_VERIFIED", Login;
    ProviderMetadataInvalid = "PROVIDER_METADATA_INVALID", Never;
    ProviderAddressForbidden = "PROVIDER_ADDRESS_FORBIDDEN", Never;
    ProviderUnavailable = "PROVIDER_UNAVAILABLE", Call;
    StoreUnavailable = "STORE_UNAVAILABLE", Call;
    RateLimited = "RATE_LIMITED", Call;
    Overloaded = "OVERLOADED", Call;
    CallerUnknown = "CALLER_UNKNOWN", Never;
    CallerNotAllowed = "CALLER_NOT_ALLOWED", Never;
    CheckRequired = "CHECK_REQUIRED", Never;
    IdentityTokenInvalid = "IDENTITY_TOKEN_INVALID", Login;
    IdentityTokenExpired = "IDENTITY_TOKEN_EXPIRED", Login;
    ConnectionExists = "CONNECTION_EXISTS", Never;
    RevisionConflict = "REVISION_CONFLICT", Never;
    Internal = "INTERNAL", Never;
}

stable_names!(Reason, name);
