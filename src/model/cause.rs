//! What exactly happened when a call was refused: finer than its [`Reason`], stable, for programs and
//! for the support view. Every error enum below `server` maps to a cause in its own module; reason,
//! owner and remedy follow from it. `docs/reference/reasons.md` shows this table.

use super::reason::{Owner, Reason};
use super::stable_names;

/// What the owner of a refusal does about it. The remedies that depend on the IdP's product are put
/// into words by `oidc::idps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The same at every IdP.
    Text(&'static str),
    /// Compare client id, secret and authentication method with the IdP's.
    CompareClient,
    /// Register the account's redirect URI with the client.
    RegisterRedirectUri,
    /// Begin again; register the account's redirect URI if it happens again.
    BeginAgain,
    /// Assign the person to the application.
    AssignPerson,
    /// Allow the client the authorization code grant.
    AllowCodeFlow,
    /// Have the IdP send the required claims.
    AddClaims,
    /// Have the IdP put the required claims into the ID token, so that UserInfo isn't needed.
    AddToIdToken,
}

macro_rules! causes {
    ($($variant:ident = $code:literal: $reason:ident, $owner:ident, $remedy:ident $(($text:expr))?;)*) => {
        /// The causes of refusal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "docs/reference/reasons.md documents each")]
        pub enum Cause {
            $($variant,)*
        }

        impl Cause {
            /// Every cause, grouped by reason.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable code, such as `tls_certificate_expired`.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)*
                }
            }

            /// The reason that this is a cause of.
            #[must_use]
            pub fn reason(self) -> Reason {
                match self {
                    $(Self::$variant => Reason::$reason,)*
                }
            }

            /// Who can do something about it.
            #[must_use]
            pub fn owner(self) -> Owner {
                match self {
                    $(Self::$variant => Owner::$owner,)*
                }
            }

            /// What the owner does about it.
            #[must_use]
            pub fn remedy(self) -> Remedy {
                match self {
                    $(Self::$variant => Remedy::$remedy $(($text))?,)*
                }
            }
        }
    };
}

causes! {
    FieldInvalid = "field_invalid": BadRequest, Support,
        Text("correct the fields that the refusal names");
    MessageTooLarge = "message_too_large": BadRequest, Support, Text("send a smaller request");
    HeadersTooLarge = "headers_too_large": BadRequest, Support, Text("send less metadata");
    RequestIncomplete = "request_incomplete": BadRequest, Support,
        Text("send the whole message at once: it must arrive within seconds");
    ConnectionNotSetUp = "not_set_up": ConnectionNotFound, Support,
        Text("create a connection for the account, or correct the slug");
    ConnectionDisabled = "disabled": ConnectionDisabled, Support,
        Text("the connection is disabled: set its state to TESTING or activate it");
    SecretUnreadable = "secret_unreadable": ConnectionUnreadable, Operator,
        Text("add the key that sealed the client secret to SSO_ENCRYPTION_KEYS, or have support enter \
              the secret again");
    SettingsUnreadable = "settings_unreadable": ConnectionUnreadable, Operator,
        Text("the log says what is wrong in the database: restore the account's row from a backup, or \
              have support delete and create the connection");
    NewerVersion = "newer_version": ConnectionUnreadable, Operator,
        Text("a newer version of the service wrote the connection: finish the upgrade of this replica, \
              or have support change the connection at a newer one");
    StateNotIssued = "state_not_issued": StateInvalid, EndUser, Text("begin a new login");
    StateExpired = "state_expired": StateExpired, EndUser, Text("begin a new login");
    StateSpent = "state_spent": StateUsed, EndUser, Text("begin a new login");
    ConnectionChanged = "connection_changed": ConnectionChanged, EndUser,
        Text("begin a new login");
    BrowserMismatch = "browser_mismatch": BrowserMismatch, EndUser,
        Text("finish the login in the browser in which it began");
    IssMissing = "iss_missing": IssuerMismatch, CustomerIdpAdmin,
        Text("the IdP advertises the iss parameter (RFC 9207) and did not send it: check what \
         stands between the IdP and the browser");
    IssDiffers = "iss_differs": IssuerMismatch, CustomerIdpAdmin,
        Text("compare the connection's issuer with the issuer in the IdP's metadata document");
    AccessDenied = "access_denied": IdpRefused, EndUser,
        Text("the IdP refused the person: they cancelled, are not assigned to the application, or a \
         policy refused them");
    LoginRequired = "login_required": IdpRefused, EndUser,
        Text("the person has no session at the IdP: begin a login without prompt=none");
    InteractionRequired = "interaction_required": IdpRefused, EndUser,
        Text("the IdP must ask the person something: begin a login without prompt=none");
    ConsentRequired = "consent_required": IdpRefused, EndUser,
        Text("consent is missing: the person or an admin of the IdP must grant it");
    AccountSelectionRequired = "account_selection_required": IdpRefused, EndUser,
        Text("the person must choose an account: begin a login without prompt=none");
    InvalidScope = "invalid_scope": IdpRefused, CustomerIdpAdmin,
        Text("allow the client the scopes that the connection asks for");
    UnauthorizedClient = "unauthorized_client": IdpRefused, CustomerIdpAdmin, AllowCodeFlow;
    UnsupportedResponseType = "unsupported_response_type": IdpRefused, CustomerIdpAdmin,
        AllowCodeFlow;
    InvalidRequest = "invalid_request": IdpRefused, CustomerIdpAdmin,
        Text("look in the IdP's log for what it refuses in the request, such as a PKCE or pushed \
         authorization policy");
    IdpServerError = "server_error": IdpRefused, Transient,
        Text("the IdP had an internal error: try again, then ask its admin");
    IdpTemporarilyUnavailable = "temporarily_unavailable": IdpRefused, Transient,
        Text("the IdP is overloaded or under maintenance: try again later");
    OtherIdpError = "other_error": IdpRefused, CustomerIdpAdmin,
        Text("look the error code up in the IdP's documentation and log");
    PersonNotAssigned = "person_not_assigned": IdpRefused, CustomerIdpAdmin, AssignPerson;
    ApplicationDisabled = "application_disabled": IdpRefused, CustomerIdpAdmin,
        Text(ENABLE_APPLICATION);
    ApplicationUnknown = "application_unknown": IdpRefused, Support, Text(COMPARE_CLIENT_ID);
    AdminConsentMissing = "admin_consent_missing": IdpRefused, CustomerIdpAdmin,
        Text(GRANT_CONSENT);
    PolicyRefused = "policy_refused": IdpRefused, CustomerIdpAdmin, Text(FIND_POLICY);
    PersonOfOtherTenant = "person_of_other_tenant": IdpRefused, CustomerIdpAdmin,
        Text(USE_OWN_ACCOUNT);
    PkceRefused = "pkce_refused": IdpRefused, CustomerIdpAdmin,
        Text("allow the client PKCE with the method S256 (RFC 7636)");
    ParRequired = "par_required": IdpRefused, CustomerIdpAdmin,
        Text("the client demands pushed authorization requests (RFC 9126): switch the demand off for the \
              client");
    RedirectUriUnregistered = "redirect_uri_unregistered": IdpRefused, CustomerIdpAdmin,
        RegisterRedirectUri;
    SecretWrong = "secret_wrong": ClientRejected, Support, CompareClient;
    SecretExpired = "secret_expired": ClientRejected, CustomerIdpAdmin,
        Text("the client secret has expired: create a new one and send it to support");
    ClientUnknown = "client_unknown": ClientRejected, Support,
        Text(COMPARE_CLIENT_ID);
    ClientDisabled = "client_disabled": ClientRejected, CustomerIdpAdmin,
        Text(ENABLE_APPLICATION);
    ClientPublic = "client_public": ClientRejected, CustomerIdpAdmin,
        Text("the application is registered as a public client or a single-page application, which has \
              no secret: register it as a web application");
    GrantNotAllowed = "grant_not_allowed": ClientRejected, CustomerIdpAdmin, AllowCodeFlow;
    AuthMethodWrong = "auth_method_wrong": ClientRejected, Support,
        Text("set token_endpoint_auth_method to the method that the IdP allows the client");
    ClientAuthUnsupported = "client_auth_unsupported": ClientRejected, CustomerIdpAdmin,
        Text("the client demands a private key or a client certificate: allow it a client secret");
    InvalidClient = "invalid_client": ClientRejected, Support, CompareClient;
    ClientNotAuthorized = "client_not_authorized": ClientRejected, Support, CompareClient;
    TokenHttp401 = "token_http_401": ClientRejected, Support, CompareClient;
    InvalidGrant = "invalid_grant": CodeRejected, EndUser, BeginAgain;
    CodeSpent = "code_spent": CodeRejected, EndUser,
        Text("the code was used before, or too late: begin a new login; if it happens again, look for \
              what opens the callback a second time, such as a mail scanner");
    TokenRedirectUriUnregistered = "token_redirect_uri_unregistered": CodeRejected, CustomerIdpAdmin,
        RegisterRedirectUri;
    TokenPersonNotAssigned = "token_person_not_assigned": CodeRejected, CustomerIdpAdmin,
        AssignPerson;
    TokenConsentMissing = "token_consent_missing": CodeRejected, CustomerIdpAdmin,
        Text(GRANT_CONSENT);
    TokenPolicyRefused = "token_policy_refused": CodeRejected, CustomerIdpAdmin, Text(FIND_POLICY);
    TokenPersonOfOtherTenant = "token_person_of_other_tenant": CodeRejected, CustomerIdpAdmin,
        Text(USE_OWN_ACCOUNT);
    TokenOauthError = "token_oauth_error": TokenResponseInvalid, CustomerIdpAdmin,
        Text("look in the IdP's log for why the token endpoint refuses the request");
    TokenHttpStatus = "token_http_status": TokenResponseInvalid, CustomerIdpAdmin,
        Text("the URL is not a token endpoint, or something in front of it answers: run a check");
    TokenRedirect = "token_redirect": TokenResponseInvalid, CustomerIdpAdmin,
        Text("the token endpoint must answer itself, without a redirect");
    TokenUnreadable = "token_unreadable": TokenResponseInvalid, CustomerIdpAdmin,
        Text("the token endpoint's answer is too large or encoded unasked: run a check");
    TokenNotJson = "token_not_json": TokenResponseInvalid, CustomerIdpAdmin,
        Text("the token endpoint answers with a page in place of a token response: the URL is not a token \
              endpoint, or something in front of it answers");
    TokenMalformed = "token_malformed": TokenResponseInvalid, CustomerIdpAdmin,
        Text("the token endpoint must answer with a JSON token response (RFC 6749 5.1)");
    TokenNotBearer = "token_not_bearer": TokenResponseInvalid, CustomerIdpAdmin,
        Text("have the token endpoint issue Bearer tokens to the client (RFC 6750)");
    AccessTokenMissing = "access_token_missing": TokenResponseInvalid, CustomerIdpAdmin,
        Text("the token endpoint must return an access_token (RFC 6749 5.1)");
    IdTokenMissing = "id_token_missing": TokenResponseInvalid, CustomerIdpAdmin,
        Text("allow the client the scope openid, so that the token response has an id_token");
    UnknownKey = "unknown_key": IdTokenSignatureInvalid, CustomerIdpAdmin,
        Text("publish the key that signs the ID tokens at the jwks_uri");
    SignatureMismatch = "signature_mismatch": IdTokenSignatureInvalid, CustomerIdpAdmin,
        Text("publish the key that signs the ID tokens at the jwks_uri");
    SignatureMalformed = "signature_malformed": IdTokenSignatureInvalid, CustomerIdpAdmin,
        Text("the IdP must issue well-formed JWTs");
    AlgMissing = "alg_missing": IdTokenSignatureInvalid, CustomerIdpAdmin,
        Text("the IdP must name the signature algorithm in the token's header");
    AlgNone = "alg_none": IdTokenSignatureInvalid, CustomerIdpAdmin,
        Text("have the IdP sign the client's ID tokens, with RS256");
    AlgHmac = "alg_hmac": IdTokenSignatureInvalid, CustomerIdpAdmin,
        Text("switch the client's ID tokens from HS256 to RS256");
    AlgNotAllowed = "alg_not_allowed": IdTokenSignatureInvalid, CustomerIdpAdmin,
        Text("switch the client's ID tokens to RS256, or list the algorithm in id_token_signing_algs");
    KeyOfOtherTenant = "key_of_other_tenant": IdTokenSignatureInvalid, CustomerIdpAdmin,
        Text("the token is signed by another tenant's key: check allowed_tenant_ids");
    Encrypted = "encrypted": IdTokenInvalid, CustomerIdpAdmin,
        Text("switch ID token encryption off for the client: signed tokens are enough");
    Malformed = "malformed": IdTokenInvalid, CustomerIdpAdmin,
        Text("the IdP must issue well-formed JWTs");
    TooLarge = "too_large": IdTokenInvalid, CustomerIdpAdmin,
        Text("put fewer claims into the ID token: 64 KiB at most");
    CriticalExtension = "critical_extension": IdTokenInvalid, CustomerIdpAdmin,
        Text("the token demands a JWS extension (crit): switch it off for the client");
    TokenType = "token_type": IdTokenInvalid, CustomerIdpAdmin,
        Text("the token endpoint returns another kind of token as id_token");
    Issuer = "issuer": IdTokenInvalid, CustomerIdpAdmin,
        Text("compare the connection's issuer with the iss of the IdP's tokens");
    Audience = "audience": IdTokenInvalid, Support,
        Text("compare client_id with the token's aud, or list further audiences in \
         additional_audiences");
    AuthorizedParty = "authorized_party": IdTokenInvalid, CustomerIdpAdmin,
        Text("the token was issued to another client (azp)");
    Expired = "expired": IdTokenInvalid, CustomerIdpAdmin, Text("set the IdP's clock by NTP");
    NotYetValid = "not_yet_valid": IdTokenInvalid, CustomerIdpAdmin,
        Text("set the IdP's clock by NTP");
    IssuedInFuture = "issued_in_future": IdTokenInvalid, CustomerIdpAdmin,
        Text("set the IdP's clock by NTP");
    IssuedTooLongAgo = "issued_too_long_ago": IdTokenInvalid, CustomerIdpAdmin,
        Text("the IdP must issue a new ID token for each login");
    AuthTime = "auth_time": IdTokenInvalid, CustomerIdpAdmin,
        Text("the IdP must return a recent auth_time when max_age is requested (OIDC Core 2)");
    AtHash = "at_hash": IdTokenInvalid, CustomerIdpAdmin,
        Text("the ID token and the access token do not belong together: look for a proxy that \
         mixes responses");
    Subject = "subject": IdTokenInvalid, CustomerIdpAdmin,
        Text("the IdP must issue a sub of 1 to 255 ASCII characters for each person");
    SecurityEvent = "security_event": IdTokenInvalid, CustomerIdpAdmin,
        Text("the token endpoint returns a logout or event token as id_token");
    Nonce = "nonce": NonceMismatch, EndUser, Text("begin a new login");
    UserinfoStatus = "userinfo_status": UserinfoInvalid, CustomerIdpAdmin, AddToIdToken;
    UserinfoUnreadable = "userinfo_unreadable": UserinfoInvalid, CustomerIdpAdmin, AddToIdToken;
    UserinfoMalformed = "userinfo_malformed": UserinfoInvalid, CustomerIdpAdmin, AddToIdToken;
    UserinfoSubject = "userinfo_subject": UserinfoInvalid, CustomerIdpAdmin, AddToIdToken;
    UserinfoSignature = "userinfo_signature": UserinfoInvalid, CustomerIdpAdmin, AddToIdToken;
    ClaimMissing = "claim_missing": ClaimMissing, CustomerIdpAdmin, AddClaims;
    ClaimUnusable = "claim_unusable": ClaimMissing, CustomerIdpAdmin,
        Text("correct the claim's value: the e-mail address must be exactly one address, without a \
         display name, and each name a text that is not empty");
    ClaimNotAllowed = "claim_not_allowed": ClaimNotAllowed, EndUser,
        Text("the person does not meet the connection's required_claims");
    EmailDomain = "email_domain": EmailDomainNotAllowed, EndUser,
        Text("the person's e-mail address is outside allowed_email_domains");
    EmailUnverified = "email_unverified": EmailNotVerified, EndUser,
        Text("the IdP does not state that the e-mail address is verified, and \
         require_verified_email is set");
    MetadataStatus = "metadata_status": ProviderMetadataInvalid, Support,
        Text("enter the URL of the metadata document itself: a browser shows JSON with \"issuer\"");
    MetadataParRequired = "metadata_par_required": ProviderMetadataInvalid, CustomerIdpAdmin,
        Text("the IdP demands pushed authorization requests (RFC 9126) of every client: switch the demand \
              off for the client");
    MetadataRedirect = "metadata_redirect": ProviderMetadataInvalid, Support,
        Text("enter the URL that the redirect leads to, if it is the customer's IdP");
    MetadataUnreadable = "metadata_unreadable": ProviderMetadataInvalid, CustomerIdpAdmin,
        Text("the metadata document must be at most 1 MiB, and not compressed unasked");
    NotJson = "not_json": ProviderMetadataInvalid, Support,
        Text("enter the URL of the metadata document itself: a browser shows JSON with \"issuer\"");
    IssuerMissing = "issuer_missing": ProviderMetadataInvalid, Support,
        Text("enter the URL of the metadata document itself: a browser shows JSON with \"issuer\"");
    IssuerMismatch = "issuer_mismatch": ProviderMetadataInvalid, Support,
        Text("if it is the customer's IdP, store the document's issuer with the connection");
    TenantTemplate = "tenant_template": ProviderMetadataInvalid, Support,
        Text("enter the tenant's own discovery URL, or the issuer with allowed_tenant_ids");
    EndpointMissing = "endpoint_missing": ProviderMetadataInvalid, CustomerIdpAdmin,
        Text("correct the metadata document, or have support enter manual endpoints");
    EndpointInvalid = "endpoint_invalid": ProviderMetadataInvalid, CustomerIdpAdmin,
        Text("correct the metadata document, or have support enter manual endpoints");
    SigningAlgUnsupported = "signing_alg_unsupported": ProviderMetadataInvalid, CustomerIdpAdmin,
        Text("switch the client's ID tokens to RS256");
    SettingsIncomplete = "settings_incomplete": ProviderMetadataInvalid, Support,
        Text("complete the connection's settings: run a check");
    KeysStatus = "keys_status": ProviderMetadataInvalid, CustomerIdpAdmin,
        Text("the jwks_uri must answer with the key set");
    KeysRedirect = "keys_redirect": ProviderMetadataInvalid, CustomerIdpAdmin,
        Text("the jwks_uri must answer itself, without a redirect");
    KeysUnreadable = "keys_unreadable": ProviderMetadataInvalid, CustomerIdpAdmin,
        Text("the key set must be at most 1 MiB, and not compressed unasked");
    KeysNotJson = "keys_not_json": ProviderMetadataInvalid, CustomerIdpAdmin,
        Text("the jwks_uri answers with a page in place of the key set: correct it in the metadata, or \
              what stands in front of it");
    KeysMalformed = "keys_malformed": ProviderMetadataInvalid, CustomerIdpAdmin,
        Text("the jwks_uri must answer with a JWK set (RFC 7517 5)");
    NoUsableKey = "no_usable_key": ProviderMetadataInvalid, CustomerIdpAdmin,
        Text("publish the key that signs the client's ID tokens");
    PrivateAddress = "private_address": ProviderAddressForbidden, Support,
        Text("enter the IdP's public address, or have the operator allow its network for the account \
         (SSO_ACCOUNT_PROVIDER_CIDRS)");
    Dns = "dns": ProviderUnavailable, CustomerIdpAdmin,
        Text("the IdP's host name does not resolve: correct the URL or the DNS record");
    DnsNoAnswer = "dns_no_answer": ProviderUnavailable, Transient,
        Text("no name server answered for the IdP's host name: ask whether the name servers of its \
         domain are up; if it is so for every IdP, the operator checks the service's own");
    Connect = "connect": ProviderUnavailable, CustomerIdpAdmin,
        Text("the IdP refuses connections: ask whether it is up and reachable from the internet");
    TlsCertificateExpired = "tls_certificate_expired": ProviderUnavailable, CustomerIdpAdmin,
        Text("renew the IdP's TLS certificate");
    TlsUntrusted = "tls_untrusted": ProviderUnavailable, CustomerIdpAdmin,
        Text("send the whole certificate chain; for a private CA the operator sets \
         SSO_ACCOUNT_PROVIDER_CAS");
    TlsChainIncomplete = "tls_chain_incomplete": ProviderUnavailable, CustomerIdpAdmin,
        Text("the IdP sends its certificate without the intermediate one that issued it: have it send the \
              whole chain; if its CA is a private one, the operator sets SSO_ACCOUNT_PROVIDER_CAS");
    TlsNotYetValid = "tls_not_yet_valid": ProviderUnavailable, CustomerIdpAdmin,
        Text("the IdP's TLS certificate is not valid yet: replace it");
    TlsNameMismatch = "tls_name_mismatch": ProviderUnavailable, CustomerIdpAdmin,
        Text("the IdP's TLS certificate is for another host name: have it name the host of the URL, or \
         correct the URL");
    Tls = "tls": ProviderUnavailable, CustomerIdpAdmin,
        Text("the IdP must offer TLS 1.2 or 1.3 with a valid certificate");
    Proxy = "proxy": ProviderUnavailable, Operator,
        Text("the proxy of SSO_PROVIDER_PROXY can't be reached or refuses the connection: check its \
         address, its credentials and its rules");
    Timeout = "timeout": ProviderUnavailable, Transient,
        Text("the IdP did not answer in time: ask whether it is up and reachable from the internet");
    ConnectionLost = "connection_lost": ProviderUnavailable, Transient,
        Text("the connection to the IdP broke: ask whether it is up and reachable from the internet");
    Http429 = "http_429": ProviderUnavailable, Transient,
        Text("the IdP limits the rate of requests: try again later, or raise its limit");
    Http5xx = "http_5xx": ProviderUnavailable, Transient,
        Text("the IdP had an internal error: try again, then ask its admin");
    CircuitOpen = "circuit_open": ProviderUnavailable, Transient,
        Text("the IdP has not answered lately: ask whether it is up and reachable from the internet");
    TooManyWaiting = "too_many_waiting": ProviderUnavailable, Transient,
        Text("too many logins of the account wait for its IdP: ask whether it is slow");
    Deadline = "deadline": ProviderUnavailable, Transient,
        Text("the login took longer than a call may: ask whether the IdP is slow");
    Canceled = "canceled": ProviderUnavailable, Transient,
        Text("the caller cancelled before the IdP had answered: ask whether the IdP is slow");
    StoreUnavailable = "store_unavailable": StoreUnavailable, Transient,
        Text("try again; the operator finds the store's error in the log");
    SigningKeyUnavailable = "signing_key_unavailable": StoreUnavailable, Transient,
        Text("try again; the operator finds the database's error in the log");
    ClientBeginRate = "client_begin_rate": RateLimited, Transient,
        Text("wait; the operator sets the limit by SSO_BEGIN_RATE_PER_CLIENT");
    AccountBeginRate = "account_begin_rate": RateLimited, Transient,
        Text("wait; the operator sets the limit by SSO_BEGIN_RATE");
    CheckRate = "check_rate": RateLimited, Transient,
        Text("wait: an account is checked at most 6 times a minute");
    InFlightLimit = "in_flight_limit": Overloaded, Transient,
        Text("try again; the operator sets the limit by SSO_MAX_IN_FLIGHT");
    CallerInFlightLimit = "caller_in_flight_limit": Overloaded, Transient,
        Text("try again, with fewer calls at once; three quarters of SSO_MAX_IN_FLIGHT's calls are the \
              most that one of several callers may have open");
    RequestBytesLimit = "request_bytes_limit": Overloaded, Transient,
        Text("try again, with fewer or smaller calls at once");
    StreamLimit = "stream_limit": Overloaded, Transient,
        Text("close other health watches or reflection streams, then try again");
    OutOfResources = "out_of_resources": Overloaded, Operator,
        Text("the replica has no free file descriptors, ports or memory: raise its limits, or add \
         replicas");
    CallDeadline = "call_deadline": Overloaded, Transient, Text("try again");
    PendingLoginsFull = "pending_logins_full": Overloaded, Transient,
        Text("try again; the operator sets the limit by SSO_MEMORY_PENDING_LOGINS, or uses Redis");
    AccountPendingLoginsFull = "account_pending_logins_full": Overloaded, Transient,
        Text("try again; the account has begun as many logins as are left for all others: the operator \
         sets the limit by SSO_MEMORY_PENDING_LOGINS, or uses Redis");
    BearerTokenUnknown = "bearer_token_unknown": CallerUnknown, Operator,
        Text("list the token's SHA-256 in SSO_CALLERS_FILE");
    CredentialsMissing = "credentials_missing": CallerUnknown, Operator,
        Text("send a bearer token or a client certificate listed in SSO_CALLERS_FILE");
    ClientCertificateExpired = "client_certificate_expired": CallerUnknown, Operator,
        Text("renew the client certificate, and let the caller connect again");
    AuthorizationMalformed = "authorization_malformed": CallerUnknown, Support,
        Text("send authorization: Bearer TOKEN");
    RoleMissing = "role_missing": CallerNotAllowed, Operator,
        Text("give the caller the role in SSO_CALLERS_FILE");
    ActivationRequired = "activation_required": CheckRequired, Support,
        Text("a connection becomes ACTIVE by ActivateConnection: peerpanda-sso connection activate");
    ProofMissing = "proof_missing": CheckRequired, Support,
        Text("run a check, log in as a test, then activate; or use force");
    ChangeUnproven = "change_unproven": CheckRequired, Support,
        Text("check the change first with the same flags, set the state to TESTING with it, or use \
         force");
    IdentityTokenInvalid = "identity_token_invalid": IdentityTokenInvalid, EndUser,
        Text("begin a new login");
    IdentityTokenExpired = "identity_token_expired": IdentityTokenExpired, EndUser,
        Text("begin a new login");
    ConnectionExists = "connection_exists": ConnectionExists, Support,
        Text("update the account's connection instead");
    RevisionConflict = "revision_conflict": RevisionConflict, Support,
        Text("read the connection again and repeat the change");
    Defect = "defect": Internal, Operator,
        Text("report it with the trace id and the log around it");
    ProtobufMalformed = "protobuf_malformed": Internal, Support,
        Text("send a valid protocol buffer message of this method");
    StoredValueUnreadable = "stored_value_unreadable": Internal, Operator,
        Text("see the log: a stored value can't be decrypted or parsed");
}

stable_names!(Cause, code);

// The remedies of what an IdP may say in a callback and at its token endpoint.
const ENABLE_APPLICATION: &str = "enable the application at the IdP";
const COMPARE_CLIENT_ID: &str = "the IdP knows no application with this client id: compare client_id, \
                                 and the tenant or realm in the connection's URL";
const GRANT_CONSENT: &str = "grant admin consent for the application at the IdP";
const FIND_POLICY: &str = "a policy of the IdP refused the login, such as conditional access: its \
                           sign-in log names the policy";
const USE_OWN_ACCOUNT: &str = "the person's account belongs to another tenant or organization: use an \
                               account of the customer's, or invite the person as a guest";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_is_unique_and_every_reason_has_a_cause() {
        let codes: HashSet<&str> = Cause::ALL.iter().map(|cause| cause.code()).collect();
        assert_eq!(codes.len(), Cause::ALL.len());
        let is_code = |code: &&str| {
            code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        assert!(codes.iter().all(is_code), "{codes:?}");
        for reason in Reason::ALL {
            assert!(Cause::ALL.iter().any(|cause| cause.reason() == *reason), "{reason}");
        }
        for cause in Cause::ALL {
            assert_eq!(Cause::parse(cause.code()), Some(*cause));
        }
    }
}
