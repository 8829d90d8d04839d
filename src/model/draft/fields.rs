//! The checks of a draft's fields: each adds its violations and returns the normalized value. Pure, and
//! used only by [`Draft::apply`].

use std::collections::{BTreeMap, BTreeSet};

use url::{Host, Url};

use crate::model::Violation;
use crate::model::address::AddressPolicy;
use crate::model::connection::{
    ClaimMapping, ConnectionSettings, Endpoints, Issuer, MetadataSource, RequiredClaim,
    TENANT_PLACEHOLDER,
};
use crate::model::draft::{Draft, DraftEndpoints, discovery};
use crate::model::endpoint_url::{
    EndpointUrlError, WELL_KNOWN, check_endpoint_url, is_reserved_parameter, smuggled_parameter,
};
use crate::model::login::Prompt;
use crate::model::signing_alg::SigningAlg;
use crate::model::text::{hidden_character, quotable};

/// A field after its own checks.
pub(super) enum Parsed<T> {
    Valid(T),
    /// A violation was added.
    Invalid,
}

/// Checks fields one by one and collects the violations of all of them.
pub(super) struct FieldChecks<'a> {
    pub(super) policy: &'a AddressPolicy,
    pub(super) violations: Vec<Violation>,
}

impl FieldChecks<'_> {
    pub(super) fn violate(
        &mut self,
        field: impl Into<std::borrow::Cow<'static, str>>,
        description: impl Into<String>,
    ) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation::new(field, description));
        }
    }

    pub(super) fn text(
        &mut self,
        field: &'static str,
        text: &str,
        chars: std::ops::RangeInclusive<usize>,
    ) -> String {
        let text = text.trim();
        if !chars.contains(&text.chars().count()) {
            let (min, max) = chars.into_inner();
            self.violate(field, format!("must be {min} to {max} characters"));
        } else if let Some(hidden) = hidden_character(text) {
            let rule = format!("must not have control or invisible characters: {hidden}");
            self.violate(field, rule);
        }
        text.to_owned()
    }

    pub(super) fn list(
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
            Err(error) => {
                self.violations.push(Violation {
                    field: field.into(),
                    description: error.to_string(),
                    forbidden_address: matches!(error, EndpointUrlError::ForbiddenAddress { .. }),
                });
                None
            }
        }
    }

    /// The discovery URL or the endpoints, whichever is given. `stored_url` and `stored_endpoints`: the
    /// stored settings if the update doesn't name the field, which then stays as it is.
    pub(super) fn source(
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
        let found = match discovery::read(text) {
            Ok(found) => found,
            Err(rule) => {
                self.violate("discovery_url", rule);
                return None;
            }
        };
        let url = self.url("discovery_url", &found.url)?;
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
                format!("its query must not set {name:?}"),
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

    pub(super) fn issuer(&mut self, text: &str) -> Parsed<Option<Issuer>> {
        let text = text.trim();
        if text.is_empty() {
            return Parsed::Valid(None);
        }
        // Not every URL parser accepts the braces of the placeholder, so check the URL of one tenant.
        let concrete = text.replace(TENANT_PLACEHOLDER, "tenant");
        let Some(url) = self.url("issuer", &concrete) else { return Parsed::Invalid };
        if url.query().is_some() {
            self.violate("issuer", "must not have a query (OIDC Core 1.2)");
            return Parsed::Invalid;
        }
        Parsed::Valid(Some(Issuer::new(text.to_owned())))
    }

    /// Checks the rules that span several fields, and returns the issuer.
    pub(super) fn cross_field_rules(
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

    /// Bounds the whole connection: each replica keeps those of all accounts, and a page lists hundreds.
    /// One that was stored before the bound must not grow, but may be disabled.
    pub(super) fn size(&mut self, new: &ConnectionSettings, old: Option<&ConnectionSettings>) {
        let size = |settings: &ConnectionSettings| {
            // Whatever the state, whose names differ in length.
            ConnectionSettings { state: new.state, ..settings.clone() }.size()
        };
        let bytes = size(new);
        if bytes > MAX_SETTINGS_SIZE && old.is_none_or(|old| bytes > size(old)) {
            self.violate(
                "connection",
                format!(
                    "must have settings of at most {MAX_SETTINGS_SIZE} bytes in total, has {bytes}: \
                     shorten its longest list"
                ),
            );
        }
    }

    pub(super) fn claim_mapping(&mut self, draft: &Draft) -> ClaimMapping {
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

    pub(super) fn scopes(&mut self, scopes: &[String]) -> Vec<String> {
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
            self.violate("scopes", "must include \"openid\" (OIDC Core 3.1.2.1)");
        }
        scopes
    }

    pub(super) fn prompt(&mut self, values: &[String]) -> Vec<Prompt> {
        Prompt::parse_all(values).unwrap_or_else(|rule| {
            self.violate("prompt", rule);
            Vec::new()
        })
    }

    pub(super) fn login_hint(&mut self, text: &str) -> Option<String> {
        Some(self.text("login_hint", text, 0..=512)).filter(|hint| !hint.is_empty())
    }

    fn claim_names(&mut self, field: &'static str, names: &[String], default: &str) -> Vec<String> {
        if names.is_empty() { vec![default.to_owned()] } else { self.list(field, names, 8, 256) }
    }

    pub(super) fn email_domains(&mut self, domains: &[String]) -> Vec<String> {
        let domains = self.list("allowed_email_domains", domains, 100, 253);
        let mut out = BTreeSet::new();
        // What a domain of an e-mail address never equals would refuse everybody.
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        for domain in domains {
            match Host::parse(&domain) {
                Ok(Host::Domain(host)) if host.split('.').all(is_label) => {
                    out.insert(host.to_ascii_lowercase());
                }
                _ => self.violate(
                    "allowed_email_domains",
                    format!(
                        "must be domains without wildcards, each subdomain by itself: {:?}",
                        quotable(&domain)
                    ),
                ),
            }
        }
        out.into_iter().collect()
    }

    pub(super) fn signing_algs(&mut self, names: &[String]) -> Vec<SigningAlg> {
        let mut algs = Vec::new();
        for name in self.list("id_token_signing_algs", names, SigningAlg::ALL.len(), 16) {
            match SigningAlg::parse(&name) {
                Some(alg) if algs.contains(&alg) => {}
                Some(alg) => algs.push(alg),
                None => {
                    let known = SigningAlg::ALL.map(SigningAlg::name).join(", ");
                    self.violate(
                        "id_token_signing_algs",
                        format!("must be one of {known}: {:?}", quotable(&name)),
                    );
                }
            }
        }
        algs
    }

    pub(super) fn tenant_ids(&mut self, ids: &[String]) -> Vec<String> {
        let ids = self.list("allowed_tenant_ids", ids, 100, 36);
        if let Some(id) = ids.iter().find(|id| !is_guid(id)) {
            let id = quotable(id);
            self.violate("allowed_tenant_ids", format!("must be GUIDs: {id:?}"));
        }
        ids.into_iter().map(|id| id.to_ascii_lowercase()).collect()
    }

    pub(super) fn authorization_params(
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
                    format!("must not set {:?} twice", quotable(&name)),
                );
            }
        }
        out
    }

    pub(super) fn required_claims(&mut self, claims: &[RequiredClaim]) -> Vec<RequiredClaim> {
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

fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| {
            if [8, 13, 18, 23].contains(&i) { b == b'-' } else { b.is_ascii_hexdigit() }
        })
}

/// Takes the place of a refused source; never leaves [`Draft::apply`], which then returns the violations.
pub(super) fn placeholder_url() -> Url {
    Url::parse("https://refused.invalid/").expect("a constant URL parses")
}

const DEFAULT_SCOPES: [&str; 3] = ["openid", "email", "profile"];
const MAX_VIOLATIONS: usize = 32;
/// Bytes of all settings of a connection as they are stored.
const MAX_SETTINGS_SIZE: usize = 32 * 1024;
