//! A connection as support enters it: plain text, trimmed and checked here, all violations at once. Depends on no DNS
//! and on no IdP.

use std::collections::{BTreeMap, BTreeSet};

use url::{Host, Url};

use super::address::AddressPolicy;
use super::connection::{
    ClaimMapping, ConnectionSettings, ConnectionState, Endpoints, Issuer, LogoutStyle,
    MetadataSource, RequiredClaim, SigningAlg, TENANT_PLACEHOLDER, TokenEndpointAuthMethod,
};
use super::{Violation, shown};

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
    /// `None`: no such field, or not one that an update sets here.
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
    /// Takes the named fields over from `other`.
    pub fn take(&mut self, fields: &[DraftField], mut other: Self) {
        use std::mem::take;
        for field in fields {
            match field {
                DraftField::DisplayName => self.display_name = take(&mut other.display_name),
                DraftField::State => self.state = other.state,
                DraftField::Issuer => self.issuer = take(&mut other.issuer),
                DraftField::DiscoveryUrl => self.discovery_url = take(&mut other.discovery_url),
                DraftField::Endpoints => self.endpoints = take(&mut other.endpoints),
                DraftField::ClientId => self.client_id = take(&mut other.client_id),
                DraftField::TokenEndpointAuthMethod => self.auth_method = other.auth_method,
                DraftField::Scopes => self.scopes = take(&mut other.scopes),
                DraftField::ClaimMapping => {
                    self.mapped_email = take(&mut other.mapped_email);
                    self.mapped_given_name = take(&mut other.mapped_given_name);
                    self.mapped_family_name = take(&mut other.mapped_family_name);
                    self.mapped_groups = take(&mut other.mapped_groups);
                }
                DraftField::AllowedEmailDomains => {
                    self.allowed_email_domains = take(&mut other.allowed_email_domains)
                }
                DraftField::RequireVerifiedEmail => {
                    self.require_verified_email = other.require_verified_email
                }
                DraftField::IdTokenSigningAlgs => {
                    self.id_token_signing_algs = take(&mut other.id_token_signing_algs)
                }
                DraftField::AdditionalAudiences => {
                    self.additional_audiences = take(&mut other.additional_audiences)
                }
                DraftField::LogoutStyle => self.logout_style = other.logout_style,
                DraftField::AllowedTenantIds => {
                    self.allowed_tenant_ids = take(&mut other.allowed_tenant_ids)
                }
                DraftField::AuthorizationParams => {
                    self.authorization_params = take(&mut other.authorization_params)
                }
                DraftField::RequiredClaims => {
                    self.required_claims = take(&mut other.required_claims)
                }
            }
        }
    }

    /// Trims, checks and completes the settings.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn check(self, policy: &AddressPolicy) -> Result<ConnectionSettings, Vec<Violation>> {
        let mut check = Check { policy, violations: Vec::new() };
        let source = check.source(&self);
        let issuer = check.issuer(&self.issuer, &source);
        let settings = ConnectionSettings {
            display_name: check.text("display_name", &self.display_name, 0..=200),
            state: self.state.unwrap_or(ConnectionState::Testing),
            client_id: check.text("client_id", &self.client_id, 1..=512),
            auth_method: self.auth_method.unwrap_or(TokenEndpointAuthMethod::ClientSecretBasic),
            scopes: check.scopes(&self.scopes),
            claim_mapping: ClaimMapping {
                email: check.claim_names("claim_mapping.email", &self.mapped_email, "email"),
                given_name: check.claim_names(
                    "claim_mapping.given_name",
                    &self.mapped_given_name,
                    "given_name",
                ),
                family_name: check.claim_names(
                    "claim_mapping.family_name",
                    &self.mapped_family_name,
                    "family_name",
                ),
                groups: Some(check.text("claim_mapping.groups", &self.mapped_groups, 0..=256))
                    .filter(|g| !g.is_empty()),
            },
            allowed_email_domains: check.email_domains(&self.allowed_email_domains),
            require_verified_email: self.require_verified_email,
            id_token_signing_algs: check.signing_algs(&self.id_token_signing_algs),
            additional_audiences: check.list(
                "additional_audiences",
                &self.additional_audiences,
                16,
                512,
            ),
            logout_style: self.logout_style.unwrap_or(LogoutStyle::Auto),
            allowed_tenant_ids: check.tenant_ids(&self.allowed_tenant_ids, issuer.as_ref()),
            authorization_params: check.authorization_params(&self.authorization_params),
            required_claims: check.required_claims(&self.required_claims),
            issuer,
            source: source.unwrap_or_else(|| MetadataSource::Discovery(placeholder_url())),
        };
        if check.violations.is_empty() { Ok(settings) } else { Err(check.violations) }
    }
}

/// Back to what was entered, for an update to change some of it.
impl From<&ConnectionSettings> for Draft {
    fn from(settings: &ConnectionSettings) -> Self {
        let (discovery_url, endpoints) = match &settings.source {
            MetadataSource::Discovery(url) => (url.to_string(), DraftEndpoints::default()),
            MetadataSource::Manual(endpoints) => (
                String::new(),
                DraftEndpoints {
                    authorization: endpoints.authorization.to_string(),
                    token: endpoints.token.to_string(),
                    jwks: endpoints.jwks.to_string(),
                    userinfo: endpoints.userinfo.as_ref().map(Url::to_string).unwrap_or_default(),
                    end_session: endpoints
                        .end_session
                        .as_ref()
                        .map(Url::to_string)
                        .unwrap_or_default(),
                },
            ),
        };
        Self {
            display_name: settings.display_name.clone(),
            state: Some(settings.state),
            issuer: settings
                .issuer
                .as_ref()
                .map(|issuer| issuer.as_str().to_owned())
                .unwrap_or_default(),
            discovery_url,
            endpoints,
            client_id: settings.client_id.clone(),
            auth_method: Some(settings.auth_method),
            scopes: settings.scopes.clone(),
            mapped_email: settings.claim_mapping.email.clone(),
            mapped_given_name: settings.claim_mapping.given_name.clone(),
            mapped_family_name: settings.claim_mapping.family_name.clone(),
            mapped_groups: settings.claim_mapping.groups.clone().unwrap_or_default(),
            allowed_email_domains: settings.allowed_email_domains.clone(),
            require_verified_email: settings.require_verified_email,
            id_token_signing_algs: settings
                .id_token_signing_algs
                .iter()
                .map(|alg| alg.name().to_owned())
                .collect(),
            additional_audiences: settings.additional_audiences.clone(),
            logout_style: Some(settings.logout_style),
            allowed_tenant_ids: settings.allowed_tenant_ids.clone(),
            authorization_params: settings.authorization_params.clone(),
            required_claims: settings.required_claims.clone(),
        }
    }
}

/// Trims and checks a client secret.
///
/// # Errors
/// It is empty, too long, or holds control characters; the secret isn't shown.
pub fn check_client_secret(text: &str) -> Result<String, Violation> {
    let text = text.trim();
    let fits = (1..=1024).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned()).ok_or_else(|| {
        Violation::new("client_secret", "must be 1 to 1024 characters without control characters")
    })
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
        (format!("must be an absolute URL ({error}): {:?}", shown(text)), false)
    })?;
    let shown = shown(text);
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

    fn source(&mut self, draft: &Draft) -> Option<MetadataSource> {
        let ends = &draft.endpoints;
        let all = [&ends.authorization, &ends.token, &ends.jwks, &ends.userinfo, &ends.end_session];
        let is_manual = all.iter().any(|text| !text.trim().is_empty());
        match (draft.discovery_url.trim(), is_manual) {
            ("", false) => {
                self.violate("discovery_url", "must be given, or the endpoints in its place");
                None
            }
            ("", true) => self.manual(ends),
            (_, true) => {
                self.violate("endpoints", "must not be given together with discovery_url");
                None
            }
            (discovery_url, false) => {
                let url = self.url("discovery_url", discovery_url)?;
                if url.path().ends_with(WELL_KNOWN) {
                    Some(MetadataSource::Discovery(url))
                } else {
                    self.violate(
                        "discovery_url",
                        format!("its path must end in {WELL_KNOWN}: {:?}", shown(discovery_url)),
                    );
                    None
                }
            }
        }
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

    fn issuer(&mut self, text: &str, source: &Option<MetadataSource>) -> Option<Issuer> {
        let text = text.trim();
        if text.is_empty() {
            if matches!(source, Some(MetadataSource::Manual(_))) {
                self.violate("issuer", "must be given with manual endpoints");
            }
            return None;
        }
        // The placeholder's braces are no URL characters everywhere: check the URL with a tenant in its place.
        let concrete = text.replace(TENANT_PLACEHOLDER, "tenant");
        match check_endpoint_url(&concrete, self.policy) {
            Ok(url) if url.query().is_some() => {
                self.violate("issuer", "must not have a query (OIDC Core 1.2)");
                None
            }
            Ok(_) => Some(Issuer::new(text.to_owned())),
            Err((description, forbidden_address)) => {
                self.violations.push(Violation {
                    field: "issuer".into(),
                    description,
                    forbidden_address,
                });
                None
            }
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
                    format!("must be domains: {:?}", shown(&domain)),
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
                        format!("must be of {known}: {:?}", shown(&name)),
                    );
                }
            }
        }
        algs
    }

    fn tenant_ids(&mut self, ids: &[String], issuer: Option<&Issuer>) -> Vec<String> {
        let ids = self.list("allowed_tenant_ids", ids, 100, 36);
        if let Some(id) = ids.iter().find(|id| !is_guid(id)) {
            self.violate("allowed_tenant_ids", format!("must be GUIDs: {:?}", shown(id)));
        }
        let is_template = issuer.is_some_and(Issuer::is_tenant_template);
        if is_template && ids.is_empty() {
            self.violate(
                "allowed_tenant_ids",
                format!("must be given for an issuer with {TENANT_PLACEHOLDER}"),
            );
        }
        if !is_template && !ids.is_empty() {
            self.violate(
                "allowed_tenant_ids",
                format!("only for an issuer with {TENANT_PLACEHOLDER} in it"),
            );
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
                    format!("must not set {:?}, which the protocol uses", shown(&name)),
                );
            } else if out.insert(name.clone(), value).is_some() {
                self.violate(
                    "authorization_params",
                    format!("must not hold {:?} twice", shown(&name)),
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
                    format!("must not be empty (claim {:?})", shown(&name)),
                );
            }
            if out.iter().any(|known: &RequiredClaim| known.name == name) {
                self.violate(
                    "required_claims.name",
                    format!("must not name {:?} twice", shown(&name)),
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
        let violations = draft.check(&AddressPolicy::default()).expect_err("refused");
        violations.into_iter().map(|violation| violation.field.into_owned()).collect()
    }

    #[test]
    fn defaults_are_filled_in_and_white_space_is_trimmed() {
        let settings = draft().check(&AddressPolicy::default()).expect("accepted");
        assert_eq!(settings.client_id, "client");
        assert_eq!(settings.scopes, ["openid", "email", "profile"]);
        assert_eq!(settings.state, ConnectionState::Testing);
        assert_eq!(settings.claim_mapping, ClaimMapping::default());
        let again = Draft::from(&settings)
            .check(&AddressPolicy::default())
            .expect("what was stored is accepted");
        assert_eq!(again, settings);
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
        .check(&AddressPolicy::default())
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
}
