//! A connection as support enters it: plain text, trimmed and checked here, all violations at once. Depends on no DNS
//! and on no IdP.

use std::collections::{BTreeMap, BTreeSet};

use url::{Host, Url};

use super::Violation;
use super::address::AddressPolicy;
use super::connection::{
    ClaimMapping, ConnectionSettings, ConnectionState, Endpoints, Issuer, LogoutStyle,
    MetadataSource, RequiredClaim, SigningAlg, TENANT_PLACEHOLDER, TokenEndpointAuthMethod,
};
use super::text::quotable;

/// A connection's settings before they are checked; an empty field means its default.
#[derive(Clone, Debug, Default)]
#[expect(
    missing_docs,
    reason = "the fields are those of the contract's Connection, which documents them"
)]
pub struct Draft {
    pub display_name: String,
    pub state: Option<ConnectionState>,
    pub issuer: String,
    pub discovery_url: String,
    pub endpoints: DraftEndpoints,
    pub client_id: String,
    pub auth_method: Option<TokenEndpointAuthMethod>,
    pub scopes: Vec<String>,
    pub mapped_email: Vec<String>,
    pub mapped_given_name: Vec<String>,
    pub mapped_family_name: Vec<String>,
    pub mapped_groups: String,
    pub allowed_email_domains: Vec<String>,
    pub require_verified_email: bool,
    pub id_token_signing_algs: Vec<String>,
    pub additional_audiences: Vec<String>,
    pub logout_style: Option<LogoutStyle>,
    pub allowed_tenant_ids: Vec<String>,
    pub authorization_params: BTreeMap<String, String>,
    pub required_claims: Vec<RequiredClaim>,
}

/// Endpoints before they are checked; empty: not given.
#[derive(Clone, Debug, Default)]
#[expect(
    missing_docs,
    reason = "the fields are those of the contract's ProviderEndpoints, which documents them"
)]
pub struct DraftEndpoints {
    pub authorization: String,
    pub token: String,
    pub jwks: String,
    pub userinfo: String,
    pub end_session: String,
}

impl DraftEndpoints {
    fn is_given(&self) -> bool {
        let all = [&self.authorization, &self.token, &self.jwks, &self.userinfo, &self.end_session];
        all.iter().any(|text| !text.trim().is_empty())
    }
}

/// A field of [`Draft`] that an update can name, by its name in the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the contract's")]
pub enum DraftField {
    DisplayName,
    State,
    Issuer,
    DiscoveryUrl,
    Endpoints,
    ClientId,
    TokenEndpointAuthMethod,
    Scopes,
    ClaimMapping,
    AllowedEmailDomains,
    RequireVerifiedEmail,
    IdTokenSigningAlgs,
    AdditionalAudiences,
    LogoutStyle,
    AllowedTenantIds,
    AuthorizationParams,
    RequiredClaims,
}

impl DraftField {
    /// Reads the name of a field that an update can set.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "display_name" => Self::DisplayName,
            "state" => Self::State,
            "issuer" => Self::Issuer,
            "discovery_url" => Self::DiscoveryUrl,
            "endpoints" => Self::Endpoints,
            "client_id" => Self::ClientId,
            "token_endpoint_auth_method" => Self::TokenEndpointAuthMethod,
            "scopes" => Self::Scopes,
            "claim_mapping" => Self::ClaimMapping,
            "allowed_email_domains" => Self::AllowedEmailDomains,
            "require_verified_email" => Self::RequireVerifiedEmail,
            "id_token_signing_algs" => Self::IdTokenSigningAlgs,
            "additional_audiences" => Self::AdditionalAudiences,
            "logout_style" => Self::LogoutStyle,
            "allowed_tenant_ids" => Self::AllowedTenantIds,
            "authorization_params" => Self::AuthorizationParams,
            "required_claims" => Self::RequiredClaims,
            _ => return None,
        })
    }
}

impl Draft {
    /// Trims and checks the settings, and fills in the defaults. `base`: the stored settings of an
    /// update, and the fields that it names. Only the named fields are checked, and then the rules for
    /// the whole connection: a stored field that the update doesn't name is not checked again, since a
    /// rule may have become stricter since it was stored.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn apply(
        self,
        base: Option<(&ConnectionSettings, &[DraftField])>,
        policy: &AddressPolicy,
    ) -> Result<ConnectionSettings, Vec<Violation>> {
        use DraftField as F;
        let stored =
            |field: F| base.filter(|(_, named)| !named.contains(&field)).map(|(stored, _)| stored);
        let mut check = Check { policy, violations: Vec::new() };
        macro_rules! field {
            ($name:ident, $member:ident, $parse:expr) => {
                match stored(F::$name) {
                    Some(stored) => stored.$member.clone(),
                    None => $parse,
                }
            };
        }
        let source = check.source(&self, stored(F::DiscoveryUrl), stored(F::Endpoints));
        let issuer = match stored(F::Issuer) {
            Some(stored) => Parsed::Valid(stored.issuer.clone()),
            None => check.issuer(&self.issuer),
        };
        let tenant_ids = field!(
            AllowedTenantIds,
            allowed_tenant_ids,
            check.tenant_ids(&self.allowed_tenant_ids)
        );
        let default_state = ConnectionState::Testing;
        let default_method = TokenEndpointAuthMethod::ClientSecretBasic;
        let settings = ConnectionSettings {
            display_name: field!(
                DisplayName,
                display_name,
                check.text("display_name", &self.display_name, 0..=200)
            ),
            state: field!(State, state, self.state.unwrap_or(default_state)),
            client_id: field!(
                ClientId,
                client_id,
                check.text("client_id", &self.client_id, 1..=512)
            ),
            auth_method: field!(
                TokenEndpointAuthMethod,
                auth_method,
                self.auth_method.unwrap_or(default_method)
            ),
            scopes: field!(Scopes, scopes, check.scopes(&self.scopes)),
            claim_mapping: field!(ClaimMapping, claim_mapping, check.claim_mapping(&self)),
            allowed_email_domains: field!(
                AllowedEmailDomains,
                allowed_email_domains,
                check.email_domains(&self.allowed_email_domains)
            ),
            require_verified_email: field!(
                RequireVerifiedEmail,
                require_verified_email,
                self.require_verified_email
            ),
            id_token_signing_algs: field!(
                IdTokenSigningAlgs,
                id_token_signing_algs,
                check.signing_algs(&self.id_token_signing_algs)
            ),
            additional_audiences: field!(
                AdditionalAudiences,
                additional_audiences,
                check.list("additional_audiences", &self.additional_audiences, 16, 512)
            ),
            logout_style: field!(
                LogoutStyle,
                logout_style,
                self.logout_style.unwrap_or(LogoutStyle::Auto)
            ),
            authorization_params: field!(
                AuthorizationParams,
                authorization_params,
                check.authorization_params(&self.authorization_params)
            ),
            required_claims: field!(
                RequiredClaims,
                required_claims,
                check.required_claims(&self.required_claims)
            ),
            issuer: check.whole(&source, issuer, &tenant_ids),
            allowed_tenant_ids: tenant_ids,
            source: source.unwrap_or_else(|| MetadataSource::Discovery(placeholder_url())),
        };
        if check.violations.is_empty() { Ok(settings) } else { Err(check.violations) }
    }
}

/// A field after its own checks.
enum Parsed<T> {
    Valid(T),
    /// A violation tells why.
    Invalid,
}

/// Why a URL can't be an IdP's endpoint; used for what support enters and for what a metadata document names.
///
/// # Errors
/// What was expected; `true` beside it: it is an address that the service must not call.
pub fn check_endpoint_url(text: &str, policy: &AddressPolicy) -> Result<Url, (String, bool)> {
    if text.len() > MAX_URL_LEN {
        return Err((format!("must be at most {MAX_URL_LEN} bytes"), false));
    }
    // What URL parsers mend, and not all alike: one of them would see another host than this one.
    if text.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control()) {
        return Err((
            "must not hold backslashes, white space or control characters".to_owned(),
            false,
        ));
    }
    let url = Url::parse(text).map_err(|error| {
        (format!("must be an absolute URL ({error}): {:?}", quotable(text)), false)
    })?;
    let shown = quotable(text);
    match url.scheme() {
        "https" => {}
        "http" if policy.allow_insecure => {}
        _ => return Err((format!("must be https: {shown:?}"), false)),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(("must not hold a user name or password".to_owned(), false));
    }
    if url.fragment().is_some() {
        return Err((format!("must not have a fragment: {shown:?}"), false));
    }
    if url.port() == Some(0) {
        return Err((format!("must not have port 0: {shown:?}"), false));
    }
    if let Some(kind) = policy.forbidden_host(&url) {
        return Err((
            format!("must be an address of the public internet, not a {kind} one: {shown:?}"),
            true,
        ));
    }
    Ok(url)
}

struct Check<'a> {
    policy: &'a AddressPolicy,
    violations: Vec<Violation>,
}

impl Check<'_> {
    fn violate(
        &mut self,
        field: impl Into<std::borrow::Cow<'static, str>>,
        description: impl Into<String>,
    ) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation::new(field, description));
        }
    }

    fn text(
        &mut self,
        field: &'static str,
        text: &str,
        chars: std::ops::RangeInclusive<usize>,
    ) -> String {
        let text = text.trim();
        if !chars.contains(&text.chars().count()) || text.chars().any(char::is_control) {
            let (min, max) = chars.into_inner();
            self.violate(
                field,
                format!("must be {min} to {max} characters without control characters"),
            );
        }
        text.to_owned()
    }

    fn list(
        &mut self,
        field: &'static str,
        items: &[String],
        max_items: usize,
        max_chars: usize,
    ) -> Vec<String> {
        if items.len() > max_items {
            self.violate(
                field,
                format!("must have at most {max_items} entries, has {}", items.len()),
            );
            return Vec::new();
        }
        items.iter().map(|item| self.text(field, item, 1..=max_chars)).collect()
    }

    fn url(&mut self, field: &'static str, text: &str) -> Option<Url> {
        match check_endpoint_url(text.trim(), self.policy) {
            Ok(url) => Some(url),
            Err((description, forbidden_address)) => {
                self.violations.push(Violation {
                    field: field.into(),
                    description,
                    forbidden_address,
                });
                None
            }
        }
    }

    /// The discovery URL or the endpoints; a half that the update doesn't name stays as it is stored.
    fn source(
        &mut self,
        draft: &Draft,
        stored_url: Option<&ConnectionSettings>,
        stored_endpoints: Option<&ConnectionSettings>,
    ) -> Option<MetadataSource> {
        let is_manual = |source: &&MetadataSource| matches!(source, MetadataSource::Manual(_));
        let is_url_kept = stored_url.is_some();
        let are_endpoints_kept = stored_endpoints.is_some();
        let url = stored_url.map(|stored| &stored.source).filter(|source| !is_manual(source));
        let endpoints = stored_endpoints.map(|stored| &stored.source).filter(is_manual);
        let entered = &draft.endpoints;
        let entered_url = draft.discovery_url.trim();
        let has_url = if is_url_kept { url.is_some() } else { !entered_url.is_empty() };
        let has_endpoints =
            if are_endpoints_kept { endpoints.is_some() } else { entered.is_given() };
        match (has_url, has_endpoints) {
            (false, false) => {
                self.violate("discovery_url", "must be given, or endpoints instead");
                None
            }
            (true, true) => {
                self.violate("endpoints", "must not be given together with discovery_url");
                None
            }
            (false, true) => endpoints.cloned().or_else(|| self.manual(entered)),
            (true, false) => url.cloned().or_else(|| self.discovery(entered_url)),
        }
    }

    fn discovery(&mut self, text: &str) -> Option<MetadataSource> {
        let url = self.url("discovery_url", text)?;
        if url.path().ends_with(WELL_KNOWN) {
            return Some(MetadataSource::Discovery(url));
        }
        let text = quotable(text);
        self.violate("discovery_url", format!("its path must end in {WELL_KNOWN}: {text:?}"));
        None
    }

    fn manual(&mut self, ends: &DraftEndpoints) -> Option<MetadataSource> {
        let mut optional = |field, text: &str| {
            if text.trim().is_empty() { Some(None) } else { self.url(field, text).map(Some) }
        };
        let userinfo = optional("endpoints.userinfo_endpoint", &ends.userinfo);
        let end_session = optional("endpoints.end_session_endpoint", &ends.end_session);
        let authorization = self.url("endpoints.authorization_endpoint", &ends.authorization);
        if let Some(name) = authorization.as_ref().and_then(smuggled_parameter) {
            self.violate(
                "endpoints.authorization_endpoint",
                format!("its query must not hold {name:?}"),
            );
        }
        let token = self.url("endpoints.token_endpoint", &ends.token);
        let jwks = self.url("endpoints.jwks_uri", &ends.jwks);
        Some(MetadataSource::Manual(Box::new(Endpoints {
            authorization: authorization?,
            token: token?,
            jwks: jwks?,
            userinfo: userinfo?,
            end_session: end_session?,
        })))
    }

    fn issuer(&mut self, text: &str) -> Parsed<Option<Issuer>> {
        let text = text.trim();
        if text.is_empty() {
            return Parsed::Valid(None);
        }
        // Not every URL parser takes the placeholder's braces: check the URL of one tenant.
        let concrete = text.replace(TENANT_PLACEHOLDER, "tenant");
        let Some(url) = self.url("issuer", &concrete) else { return Parsed::Invalid };
        if url.query().is_some() {
            self.violate("issuer", "must not have a query (OIDC Core 1.2)");
            return Parsed::Invalid;
        }
        Parsed::Valid(Some(Issuer::new(text.to_owned())))
    }

    /// The rules that span several fields.
    fn whole(
        &mut self,
        source: &Option<MetadataSource>,
        issuer: Parsed<Option<Issuer>>,
        tenant_ids: &[String],
    ) -> Option<Issuer> {
        let Parsed::Valid(issuer) = issuer else { return None };
        if issuer.is_none() && matches!(source, Some(MetadataSource::Manual(_))) {
            self.violate("issuer", "must be given with manual endpoints");
        }
        let is_template = issuer.as_ref().is_some_and(Issuer::is_tenant_template);
        if is_template && tenant_ids.is_empty() {
            let rule = format!("must be given for an issuer with {TENANT_PLACEHOLDER}");
            self.violate("allowed_tenant_ids", rule);
        }
        if !is_template && !tenant_ids.is_empty() {
            let rule = format!("is only for an issuer with {TENANT_PLACEHOLDER}");
            self.violate("allowed_tenant_ids", rule);
        }
        issuer
    }

    fn claim_mapping(&mut self, draft: &Draft) -> ClaimMapping {
        let groups = self.text("claim_mapping.groups", &draft.mapped_groups, 0..=256);
        let mut names = |field, names: &[String], default| self.claim_names(field, names, default);
        ClaimMapping {
            email: names("claim_mapping.email", &draft.mapped_email, "email"),
            given_name: names("claim_mapping.given_name", &draft.mapped_given_name, "given_name"),
            family_name: names(
                "claim_mapping.family_name",
                &draft.mapped_family_name,
                "family_name",
            ),
            groups: Some(groups).filter(|groups| !groups.is_empty()),
        }
    }

    fn scopes(&mut self, scopes: &[String]) -> Vec<String> {
        if scopes.is_empty() {
            return DEFAULT_SCOPES.map(str::to_owned).to_vec();
        }
        let scopes = self.list("scopes", scopes, 32, 256);
        // RFC 6749 3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
        let is_token =
            |s: &String| s.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
        if !scopes.iter().all(is_token) {
            self.violate(
                "scopes",
                "each must be one scope token (RFC 6749 3.3), without white space",
            );
        }
        if !scopes.iter().any(|scope| scope == "openid") {
            self.violate("scopes", "must hold \"openid\" (OIDC Core 3.1.2.1)");
        }
        scopes
    }

    fn claim_names(&mut self, field: &'static str, names: &[String], default: &str) -> Vec<String> {
        if names.is_empty() { vec![default.to_owned()] } else { self.list(field, names, 8, 256) }
    }

    fn email_domains(&mut self, domains: &[String]) -> Vec<String> {
        let domains = self.list("allowed_email_domains", domains, 100, 253);
        let mut out = BTreeSet::new();
        for domain in domains {
            match Host::parse(&domain) {
                Ok(Host::Domain(host)) if !domain.contains('@') && !host.ends_with('.') => {
                    out.insert(host.to_ascii_lowercase());
                }
                _ => self.violate(
                    "allowed_email_domains",
                    format!("must be domains: {:?}", quotable(&domain)),
                ),
            }
        }
        out.into_iter().collect()
    }

    fn signing_algs(&mut self, names: &[String]) -> Vec<SigningAlg> {
        let mut algs = Vec::new();
        for name in self.list("id_token_signing_algs", names, SigningAlg::ALL.len(), 16) {
            match SigningAlg::parse(&name) {
                Some(alg) if algs.contains(&alg) => {}
                Some(alg) => algs.push(alg),
                None => {
                    let known = SigningAlg::ALL.map(SigningAlg::name).join(", ");
                    self.violate(
                        "id_token_signing_algs",
                        format!("must be of {known}: {:?}", quotable(&name)),
                    );
                }
            }
        }
        algs
    }

    fn tenant_ids(&mut self, ids: &[String]) -> Vec<String> {
        let ids = self.list("allowed_tenant_ids", ids, 100, 36);
        if let Some(id) = ids.iter().find(|id| !is_guid(id)) {
            let id = quotable(id);
            self.violate("allowed_tenant_ids", format!("must be GUIDs: {id:?}"));
        }
        ids.into_iter().map(|id| id.to_ascii_lowercase()).collect()
    }

    fn authorization_params(
        &mut self,
        params: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        if params.len() > 20 {
            self.violate("authorization_params", "must have at most 20 entries");
            return BTreeMap::new();
        }
        let mut out = BTreeMap::new();
        for (name, value) in params {
            let name = self.text("authorization_params", name, 1..=64);
            let value = self.text("authorization_params", value, 0..=512);
            if is_reserved_parameter(&name) {
                self.violate(
                    "authorization_params",
                    format!("must not set {:?}, which the protocol uses", quotable(&name)),
                );
            } else if out.insert(name.clone(), value).is_some() {
                self.violate(
                    "authorization_params",
                    format!("must not hold {:?} twice", quotable(&name)),
                );
            }
        }
        out
    }

    fn required_claims(&mut self, claims: &[RequiredClaim]) -> Vec<RequiredClaim> {
        if claims.len() > 20 {
            self.violate("required_claims", "must have at most 20 entries");
            return Vec::new();
        }
        let mut out = Vec::new();
        for claim in claims {
            let name = self.text("required_claims.name", &claim.name, 1..=256);
            let values = self.list("required_claims.values", &claim.values, 100, 512);
            if claim.values.is_empty() {
                self.violate(
                    "required_claims.values",
                    format!("must not be empty (claim {:?})", quotable(&name)),
                );
            }
            if out.iter().any(|known: &RequiredClaim| known.name == name) {
                self.violate(
                    "required_claims.name",
                    format!("must not name {:?} twice", quotable(&name)),
                );
            }
            out.push(RequiredClaim { name, values });
        }
        out
    }
}

/// A parameter in an authorization endpoint's own query that would stand beside one of the protocol's.
#[must_use]
pub fn smuggled_parameter(authorization_endpoint: &Url) -> Option<String> {
    authorization_endpoint
        .query_pairs()
        .map(|(name, _)| name.into_owned())
        .find(|name| is_reserved_parameter(name))
}

/// Parameters of the authorization request that only the protocol sets. Names compare without case, since some IdPs do.
fn is_reserved_parameter(name: &str) -> bool {
    RESERVED_PARAMETERS.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
}

fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| {
            if [8, 13, 18, 23].contains(&i) { b == b'-' } else { b.is_ascii_hexdigit() }
        })
}

/// Stands where a source was refused; never leaves [`Draft::check`], which then answers with the violations.
fn placeholder_url() -> Url {
    Url::parse("https://refused.invalid/").expect("a constant URL parses")
}

/// OIDC Discovery 4.
pub const WELL_KNOWN: &str = "/.well-known/openid-configuration";

const DEFAULT_SCOPES: [&str; 3] = ["openid", "email", "profile"];
const MAX_URL_LEN: usize = 2048;
const MAX_VIOLATIONS: usize = 32;
const RESERVED_PARAMETERS: [&str; 20] = [
    "response_type",
    "response_mode",
    "client_id",
    "client_secret",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "request",
    "request_uri",
    "registration",
    "id_token_hint",
    "login_hint",
    "prompt",
    "max_age",
    "iss",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        Draft {
            discovery_url: " https://idp.example.com/.well-known/openid-configuration\n".to_owned(),
            client_id: " client ".to_owned(),
            ..Draft::default()
        }
    }

    fn violated(draft: Draft) -> Vec<String> {
        let violations = draft.apply(None, &AddressPolicy::default()).expect_err("refused");
        violations.into_iter().map(|violation| violation.field.into_owned()).collect()
    }

    #[test]
    fn defaults_are_filled_in_and_white_space_is_trimmed() {
        let settings = draft().apply(None, &AddressPolicy::default()).expect("accepted");
        assert_eq!(settings.client_id, "client");
        assert_eq!(settings.scopes, ["openid", "email", "profile"]);
        assert_eq!(settings.state, ConnectionState::Testing);
        assert_eq!(settings.claim_mapping, ClaimMapping::default());
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let fields = violated(Draft {
            discovery_url: "http://idp.example.com/.well-known/openid-configuration".to_owned(),
            client_id: String::new(),
            scopes: vec!["email".to_owned()],
            id_token_signing_algs: vec!["HS256".to_owned()],
            authorization_params: [("State".to_owned(), "x".to_owned())].into(),
            allowed_tenant_ids: vec!["common".to_owned()],
            ..Draft::default()
        });
        for field in [
            "discovery_url",
            "client_id",
            "scopes",
            "id_token_signing_algs",
            "authorization_params",
            "allowed_tenant_ids",
        ] {
            assert!(fields.iter().any(|f| f == field), "{field} in {fields:?}");
        }
    }

    #[test]
    fn a_literal_private_address_is_told_as_such() {
        let violations = Draft {
            discovery_url: "https://10.0.0.1/.well-known/openid-configuration".to_owned(),
            ..draft()
        }
        .apply(None, &AddressPolicy::default())
        .expect_err("refused");
        assert!(violations.iter().all(|violation| violation.forbidden_address));
    }

    #[test]
    fn an_authorization_endpoint_smuggles_no_parameter() {
        let url = Url::parse(
            "https://idp.example.com/authorize?tenant=1&REDIRECT_URI=https%3A%2F%2Fevil",
        )
        .expect("a URL");
        assert_eq!(smuggled_parameter(&url).as_deref(), Some("REDIRECT_URI"));
    }

    fn stored() -> ConnectionSettings {
        draft().apply(None, &AddressPolicy::default()).expect("accepted")
    }

    #[test]
    fn an_update_checks_the_fields_that_it_names_and_no_others() {
        // Stored while plain http was allowed.
        let lenient = AddressPolicy { allow_insecure: true, ..AddressPolicy::default() };
        let url = format!("http://idp.example.com{WELL_KNOWN}");
        let old = Draft { discovery_url: url.clone(), ..draft() };
        let old = old.apply(None, &lenient).expect("accepted");
        let edit = Draft { display_name: " Acme ".to_owned(), ..Draft::default() };
        let named = [DraftField::DisplayName];
        let new = edit.apply(Some((&old, &named)), &AddressPolicy::default()).expect("accepted");
        assert_eq!(new, ConnectionSettings { display_name: "Acme".to_owned(), ..old.clone() });
        let edit = Draft { discovery_url: url, ..Draft::default() };
        let named = [DraftField::DiscoveryUrl];
        let refused = edit.apply(Some((&old, &named)), &AddressPolicy::default());
        assert_eq!(refused.expect_err("refused")[0].field, "discovery_url");
    }

    #[test]
    fn an_update_keeps_the_rules_of_the_whole_connection() {
        let endpoints = DraftEndpoints {
            authorization: "https://idp.example.com/authorize".to_owned(),
            token: "https://idp.example.com/token".to_owned(),
            jwks: "https://idp.example.com/jwks".to_owned(),
            ..DraftEndpoints::default()
        };
        let edit = |fields: &[DraftField]| {
            let edit = Draft { endpoints: endpoints.clone(), ..Draft::default() };
            let edited = edit.apply(Some((&stored(), fields)), &AddressPolicy::default());
            edited.expect_err("refused").remove(0).field.into_owned()
        };
        assert_eq!(edit(&[DraftField::Endpoints]), "endpoints");
        assert_eq!(edit(&[DraftField::Endpoints, DraftField::DiscoveryUrl]), "issuer");
        assert_eq!(edit(&[DraftField::DiscoveryUrl]), "discovery_url");
    }
}
