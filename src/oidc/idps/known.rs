//! What the products' own error texts mean: which fault it is, and so whose turn it is, wherever the text
//! appears: in a callback, at the token endpoint or on a page. The texts are in the products' files, each
//! with its source. They sharpen a refusal's cause; no login is accepted or refused by them.

use super::{IdpProduct, is_callback_error};
use crate::model::cause::Cause;
use crate::model::login::IdpRefusal;
use crate::model::text::truncate;

/// An error that a product names in a description or on a page.
#[derive(Debug)]
pub(in crate::oidc) struct KnownError {
    /// A code, or a fixed text of a product without codes.
    pub(super) code: &'static str,
    /// What it means for this connection.
    pub(in crate::oidc) meaning: &'static str,
    /// What the IdP refuses with it.
    pub(in crate::oidc) refuses: Refuses,
    /// Its cause in a callback or on a page; `None`: the cause of the OAuth error applies.
    pub(in crate::oidc) callback: Option<Cause>,
    /// Its cause at the token endpoint.
    pub(in crate::oidc) token: Option<Cause>,
    /// Where the product or somebody who met it describes it; a page for people.
    pub(in crate::oidc) source: &'static str,
}

/// What an IdP refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::oidc) enum Refuses {
    /// The client id or its credentials.
    Client,
    /// The redirect URI.
    RedirectUri,
    /// One person, one login or a parameter.
    Login,
}

/// What is wrong. A cause belongs to one reason, so most faults have a cause for each place where they are
/// found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The client secret, or at some products the client id.
    SecretWrong,
    /// The client secret has expired.
    SecretExpired,
    /// No application has the client id, or the tenant doesn't exist.
    ClientUnknown,
    /// The application is disabled or deleted.
    ClientDisabled,
    /// The application has no secret by its kind.
    ClientPublic,
    /// The secret was sent by another method than the IdP expects.
    AuthMethodWrong,
    /// The application must prove itself by a key or a certificate.
    ClientAuthUnsupported,
    /// The application may not use the authorization code grant.
    GrantNotAllowed,
    /// The redirect URI isn't registered.
    RedirectUri,
    /// The person isn't assigned to the application.
    PersonNotAssigned,
    /// An admin must consent.
    ConsentMissing,
    /// A policy, such as one that demands another factor.
    Policy,
    /// The person belongs elsewhere.
    OtherTenant,
    /// PKCE with S256 isn't accepted.
    Pkce,
    /// The request must be pushed (RFC 9126).
    PushedRequest,
    /// The code was used before, or too late.
    CodeSpent,
}

impl Fault {
    const fn refuses(self) -> Refuses {
        match self {
            Self::SecretWrong
            | Self::SecretExpired
            | Self::ClientUnknown
            | Self::ClientDisabled
            | Self::ClientPublic
            | Self::AuthMethodWrong
            | Self::ClientAuthUnsupported => Refuses::Client,
            Self::RedirectUri => Refuses::RedirectUri,
            Self::GrantNotAllowed
            | Self::PersonNotAssigned
            | Self::ConsentMissing
            | Self::Policy
            | Self::OtherTenant
            | Self::Pkce
            | Self::PushedRequest
            | Self::CodeSpent => Refuses::Login,
        }
    }

    /// An IdP that lets another one log people in repeats that one's words: what they say of a secret isn't
    /// about ours.
    const fn callback(self) -> Option<Cause> {
        Some(match self {
            Self::ClientUnknown => Cause::ApplicationUnknown,
            Self::ClientDisabled => Cause::ApplicationDisabled,
            Self::GrantNotAllowed => Cause::UnauthorizedClient,
            Self::RedirectUri => Cause::RedirectUriUnregistered,
            Self::PersonNotAssigned => Cause::PersonNotAssigned,
            Self::ConsentMissing => Cause::AdminConsentMissing,
            Self::Policy => Cause::PolicyRefused,
            Self::OtherTenant => Cause::PersonOfOtherTenant,
            Self::Pkce => Cause::PkceRefused,
            Self::PushedRequest => Cause::ParRequired,
            Self::SecretWrong
            | Self::SecretExpired
            | Self::ClientPublic
            | Self::AuthMethodWrong
            | Self::ClientAuthUnsupported
            | Self::CodeSpent => return None,
        })
    }

    const fn token(self) -> Option<Cause> {
        Some(match self {
            Self::SecretWrong => Cause::SecretWrong,
            Self::SecretExpired => Cause::SecretExpired,
            Self::ClientUnknown => Cause::ClientUnknown,
            Self::ClientDisabled => Cause::ClientDisabled,
            Self::ClientPublic => Cause::ClientPublic,
            Self::AuthMethodWrong => Cause::AuthMethodWrong,
            Self::ClientAuthUnsupported => Cause::ClientAuthUnsupported,
            Self::GrantNotAllowed => Cause::GrantNotAllowed,
            Self::RedirectUri => Cause::TokenRedirectUriUnregistered,
            Self::PersonNotAssigned => Cause::TokenPersonNotAssigned,
            Self::ConsentMissing => Cause::TokenConsentMissing,
            Self::Policy => Cause::TokenPolicyRefused,
            Self::OtherTenant => Cause::TokenPersonOfOtherTenant,
            Self::CodeSpent => Cause::CodeSpent,
            Self::Pkce | Self::PushedRequest => return None,
        })
    }
}

impl KnownError {
    pub(super) const fn new(
        code: &'static str,
        fault: Fault,
        meaning: &'static str,
        source: &'static str,
    ) -> Self {
        Self {
            code,
            meaning,
            refuses: fault.refuses(),
            callback: fault.callback(),
            token: fault.token(),
            source,
        }
    }
}

/// The error that a description or page names, of whichever product: an IdP on a host name of the
/// customer's own is not recognized by its URL. The first one that is named; at the same place, the
/// longest. Only whole codes count: AADSTS70001 isn't named by AADSTS700016.
pub(in crate::oidc) fn known_error(text: &str) -> Option<&'static KnownError> {
    let text = truncate(text, MAX_SEARCHED).to_ascii_lowercase();
    let errors = IdpProduct::ALL.iter().flat_map(|product| product.facts().errors);
    let named = errors.filter_map(|error| Some((place_of(error.code, &text)?, error)));
    let first = named.min_by_key(|(place, error)| (*place, usize::MAX - error.code.len()));
    first.map(|(_, error)| error)
}

/// Where `text`, in lower case, has the whole code.
fn place_of(code: &str, text: &str) -> Option<usize> {
    let code = code.to_ascii_lowercase();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(&code).map(|(place, _)| place).find(|place| {
        let (before, after) = (&text[..*place], &text[place + code.len()..]);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

/// The refusal in a callback's parameters (RFC 6749 4.1.2.1). `None`: `error` is empty.
#[must_use]
pub fn callback_refusal(error: &str, description: Option<&str>) -> Option<IdpRefusal> {
    let refusal = IdpRefusal::of_callback(error, description, is_callback_error)?;
    let known = description.and_then(known_error).or_else(|| known_error(error));
    Some(IdpRefusal { known: known.and_then(|error| error.callback), ..refusal })
}

/// The page that explains what an IdP's description says, if it is known.
#[must_use]
pub fn explanation(description: &str) -> Option<&'static str> {
    known_error(description).map(|error| error.source)
}

/// Bytes of a text in which errors are searched: a whole page.
const MAX_SEARCHED: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::reason::{Owner, Reason};

    fn errors() -> impl Iterator<Item = &'static KnownError> {
        IdpProduct::ALL.iter().flat_map(|product| product.facts().errors)
    }

    #[test]
    fn every_known_code_has_a_source() {
        let mut codes = HashSet::new();
        for error in errors() {
            assert!(codes.insert(error.code), "{} occurs twice", error.code);
            assert!(error.source.starts_with("https://"), "{error:?}");
            assert!(!error.meaning.is_empty() && error.code.len() >= 8, "{error:?}");
            assert!(error.callback.is_none_or(|cause| cause.reason() == Reason::IdpRefused));
            let reasons = [Reason::ClientRejected, Reason::CodeRejected];
            assert!(error.token.is_none_or(|cause| reasons.contains(&cause.reason())));
            assert!(error.callback.is_some() || error.token.is_some(), "{error:?}");
        }
    }

    /// As the products write them; each known code has a row.
    #[test]
    fn a_description_code_sharpens_the_cause_wherever_it_comes() {
        use Cause as C;
        let rows: &[(&str, Option<Cause>, Option<Cause>)] = &[
            // Entra
            (
                "AADSTS50011: The redirect URI 'https://a/' specified in the request does not match",
                Some(C::RedirectUriUnregistered),
                Some(C::TokenRedirectUriUnregistered),
            ),
            (
                "AADSTS500113: No reply address is registered for the application.",
                Some(C::RedirectUriUnregistered),
                Some(C::TokenRedirectUriUnregistered),
            ),
            (
                "AADSTS50105: Your administrator has configured the application",
                Some(C::PersonNotAssigned),
                Some(C::TokenPersonNotAssigned),
            ),
            (
                "AADSTS65001: The user or administrator has not consented",
                Some(C::AdminConsentMissing),
                Some(C::TokenConsentMissing),
            ),
            (
                "AADSTS90094: An administrator of x has set a policy",
                Some(C::AdminConsentMissing),
                Some(C::TokenConsentMissing),
            ),
            (
                "AADSTS7000112: Application 'x'(y) is disabled.",
                Some(C::ApplicationDisabled),
                Some(C::ClientDisabled),
            ),
            ("AADSTS7000215: Invalid client secret provided.", None, Some(C::SecretWrong)),
            (
                "AADSTS7000222: The provided client secret keys for app 'x' are expired.",
                None,
                Some(C::SecretExpired),
            ),
            (
                "AADSTS7000218: The request body must contain the following parameter",
                None,
                Some(C::AuthMethodWrong),
            ),
            (
                "AADSTS700016: Application with identifier 'x' was not found",
                Some(C::ApplicationUnknown),
                Some(C::ClientUnknown),
            ),
            (
                "AADSTS90002: Tenant 'x' not found.",
                Some(C::ApplicationUnknown),
                Some(C::ClientUnknown),
            ),
            ("AADSTS700025: Client is public so neither", None, Some(C::ClientPublic)),
            (
                "AADSTS9002327: Tokens issued for the 'Single-Page Application' client-type",
                None,
                Some(C::ClientPublic),
            ),
            (
                "AADSTS53003: Access has been blocked by Conditional Access policies.",
                Some(C::PolicyRefused),
                Some(C::TokenPolicyRefused),
            ),
            (
                "AADSTS53000: Device is not in required device state",
                Some(C::PolicyRefused),
                Some(C::TokenPolicyRefused),
            ),
            (
                "AADSTS50076: you must use multi-factor authentication",
                Some(C::PolicyRefused),
                Some(C::TokenPolicyRefused),
            ),
            (
                "AADSTS50020: User account '{EmailHidden}' from identity provider 'live.com'",
                Some(C::PersonOfOtherTenant),
                Some(C::TokenPersonOfOtherTenant),
            ),
            (
                "AADSTS50034: The user account x does not exist in the y directory.",
                Some(C::PersonOfOtherTenant),
                Some(C::TokenPersonOfOtherTenant),
            ),
            (
                "AADSTS54005: OAuth2 Authorization code was already redeemed",
                None,
                Some(C::CodeSpent),
            ),
            ("AADSTS70008: The provided authorization code has expired", None, Some(C::CodeSpent)),
            // Okta
            (
                "User is not assigned to the client application.",
                Some(C::PersonNotAssigned),
                Some(C::TokenPersonNotAssigned),
            ),
            (
                "Policy evaluation failed for this request, please check the policy configurations.",
                Some(C::PolicyRefused),
                Some(C::TokenPolicyRefused),
            ),
            (
                "The client secret supplied for a confidential client is invalid.",
                None,
                Some(C::SecretWrong),
            ),
            (
                "Invalid value for 'client_id' parameter.",
                Some(C::ApplicationUnknown),
                Some(C::ClientUnknown),
            ),
            (
                "The &#39;redirect_uri&#39; parameter must be a Login redirect URI in the client app settings",
                Some(C::RedirectUriUnregistered),
                Some(C::TokenRedirectUriUnregistered),
            ),
            // Keycloak
            ("Invalid client or Invalid client credentials", None, Some(C::SecretWrong)),
            ("Client secret not provided in request", None, Some(C::AuthMethodWrong)),
            ("Parameter client_assertion_type is missing", None, Some(C::ClientAuthUnsupported)),
            (
                "We are sorry... Client not found.",
                Some(C::ApplicationUnknown),
                Some(C::ClientUnknown),
            ),
            ("Client not enabled", Some(C::ApplicationDisabled), Some(C::ClientDisabled)),
            (
                "We are sorry... Client disabled.",
                Some(C::ApplicationDisabled),
                Some(C::ClientDisabled),
            ),
            (
                "Invalid parameter: redirect_uri",
                Some(C::RedirectUriUnregistered),
                Some(C::TokenRedirectUriUnregistered),
            ),
            (
                "Invalid parameter: code challenge method is not matching the configured one",
                Some(C::PkceRefused),
                None,
            ),
            ("Pushed Authorization Request is only allowed.", Some(C::ParRequired), None),
            // Google
            (
                "Error 400: redirect_uri_mismatch",
                Some(C::RedirectUriUnregistered),
                Some(C::TokenRedirectUriUnregistered),
            ),
            (
                "Error 403: org_internal",
                Some(C::PersonOfOtherTenant),
                Some(C::TokenPersonOfOtherTenant),
            ),
            ("deleted_client", Some(C::ApplicationDisabled), Some(C::ClientDisabled)),
            (
                "The OAuth client was deleted.",
                Some(C::ApplicationDisabled),
                Some(C::ClientDisabled),
            ),
            (
                "The OAuth client was not found.",
                Some(C::ApplicationUnknown),
                Some(C::ClientUnknown),
            ),
            ("admin_policy_enforced", Some(C::PolicyRefused), Some(C::TokenPolicyRefused)),
            // Auth0
            (
                "Callback URL mismatch. x is not in",
                Some(C::RedirectUriUnregistered),
                Some(C::TokenRedirectUriUnregistered),
            ),
            (
                "x is not in the list of allowed callback URLs",
                Some(C::RedirectUriUnregistered),
                Some(C::TokenRedirectUriUnregistered),
            ),
            (
                "Grant type 'authorization_code' not allowed for the client.",
                Some(C::UnauthorizedClient),
                Some(C::GrantNotAllowed),
            ),
            // AD FS
            (
                "MSIS9224: Received invalid OAuth authorization request. The received 'redirect_uri'",
                Some(C::RedirectUriUnregistered),
                Some(C::TokenRedirectUriUnregistered),
            ),
            ("MSIS9622: Client authentication failed.", None, Some(C::SecretWrong)),
            (
                "MSIS5007: The caller authorization failed for caller identity x",
                Some(C::PersonNotAssigned),
                Some(C::TokenPersonNotAssigned),
            ),
            // Ping
            ("Unknown or invalid client_id", Some(C::ApplicationUnknown), Some(C::ClientUnknown)),
            (
                "Redirect URI mismatch",
                Some(C::RedirectUriUnregistered),
                Some(C::TokenRedirectUriUnregistered),
            ),
            // OneLogin
            (
                "redirect_uri did not match any client's registered redirect_uris",
                Some(C::RedirectUriUnregistered),
                Some(C::TokenRedirectUriUnregistered),
            ),
            ("client is invalid", Some(C::ApplicationUnknown), Some(C::ClientUnknown)),
        ];
        let mut met = HashSet::new();
        for (text, callback, token) in rows {
            let known = known_error(text).unwrap_or_else(|| panic!("{text} is not known"));
            assert_eq!((known.callback, known.token), (*callback, *token), "{text}");
            let refusal = callback_refusal("access_denied", Some(text)).expect("a refusal");
            assert_eq!(refusal.cause(), callback.unwrap_or(Cause::AccessDenied), "{text}");
            met.insert(known.code);
        }
        for error in errors() {
            assert!(met.contains(error.code), "{} has no row", error.code);
        }
    }

    #[test]
    fn only_whole_codes_count_and_the_first_one_that_is_named() {
        let code = |text: &str| known_error(text).map(|error| error.code);
        for (text, expected) in [
            ("AADSTS700016: not found", Some("AADSTS700016")),
            ("AADSTS5001", None),
            ("AADSTS500111", None),
            ("XAADSTS50011", None),
            ("AADSTS50011", Some("AADSTS50011")),
            ("(aadsts50105)", Some("AADSTS50105")),
            ("AADSTS90002 and AADSTS50011", Some("AADSTS90002")),
            ("my_redirect_uri_mismatch", None),
            ("the client is invalidated", None),
            ("Log in", None),
            ("", None),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
        for (error, shown, cause) in [
            ("org_internal", "org_internal", Cause::PersonOfOtherTenant),
            ("access_denied", "access_denied", Cause::AccessDenied),
            ("org_internals", "other", Cause::OtherIdpError),
        ] {
            let refusal = callback_refusal(error, None).expect("a refusal");
            assert_eq!((refusal.error.as_str(), refusal.cause()), (shown, cause));
        }
        assert!(callback_refusal("", Some("AADSTS50011")).is_none());
    }

    #[test]
    fn the_two_places_of_a_fault_have_the_same_owner_and_remedy() {
        for error in errors() {
            if let (Some(callback), Some(token)) = (error.callback, error.token) {
                assert_eq!(callback.owner(), token.owner(), "{error:?}");
                assert_eq!(callback.remedy(), token.remedy(), "{error:?}");
                assert_ne!(callback.owner(), Owner::EndUser, "{error:?}");
            }
        }
    }
}
