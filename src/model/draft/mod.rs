//! A connection as support enters it: plain text that is trimmed, checked and completed with defaults
//! here, with all violations reported at once. Must never depend on DNS or on an IdP being up.

pub mod discovery;
mod fields;

use std::collections::BTreeMap;
use std::time::Duration;

use self::fields::{FieldChecks, Parsed, placeholder_url};
use super::Violation;
use super::address::AddressPolicy;
use super::connection::{
    ConnectionSettings, ConnectionState, LogoutStyle, MetadataSource, RequiredClaim,
    TokenEndpointAuthMethod,
};
use super::login::{NONE_AT_AGE_0, Prompt};

/// A connection's settings before they are checked. An empty field stands for its default.
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
    pub prompt: Vec<String>,
    pub login_hint: String,
    pub max_age: Option<Duration>,
}

/// Endpoints before they are checked. An empty one is not given.
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
    Prompt,
    LoginHint,
    MaxAge,
}

impl DraftField {
    /// Parses a field's name in the contract; `None` for a field that an update can't set.
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
            "prompt" => Self::Prompt,
            "login_hint" => Self::LoginHint,
            "max_age" => Self::MaxAge,
            _ => return None,
        })
    }
}

impl Draft {
    /// Trims and checks the settings, and fills in the defaults. `base`: for an update, the stored
    /// settings and the fields that the update names. Only the named fields are checked, and then the rules for
    /// the whole connection: a stored field that the update doesn't name is not checked again, since a
    /// rule may have become stricter since it was stored.
    ///
    /// # Errors
    /// All violations at once.
    pub fn apply(
        self,
        base: Option<(&ConnectionSettings, &[DraftField])>,
        policy: &AddressPolicy,
    ) -> Result<ConnectionSettings, Vec<Violation>> {
        use DraftField as F;
        let stored =
            |field: F| base.filter(|(_, named)| !named.contains(&field)).map(|(stored, _)| stored);
        let mut check = FieldChecks { policy, violations: Vec::new() };
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
        let prompt = field!(Prompt, prompt, check.prompt(&self.prompt));
        let max_age = field!(MaxAge, max_age, self.max_age);
        if prompt.contains(&Prompt::None) && max_age == Some(Duration::ZERO) {
            check.violate("max_age", NONE_AT_AGE_0);
        }
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
            auth_method_by_metadata: field!(
                TokenEndpointAuthMethod,
                auth_method_by_metadata,
                self.auth_method.is_none()
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
            login_hint: field!(LoginHint, login_hint, check.login_hint(&self.login_hint)),
            issuer: check.cross_field_rules(&source, issuer, &tenant_ids),
            prompt,
            max_age,
            allowed_tenant_ids: tenant_ids,
            source: source.unwrap_or_else(|| MetadataSource::Discovery(placeholder_url())),
        };
        check.size(&settings, base.map(|(stored, _)| stored));
        if check.violations.is_empty() { Ok(settings) } else { Err(check.violations) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::connection::ClaimMapping;
    use crate::model::endpoint_url::WELL_KNOWN;

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
    fn all_violations_are_reported_at_once() {
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
    fn each_rule_of_a_field_names_the_field() {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        let claim = |name: &str, values: &[&str]| RequiredClaim {
            name: name.to_owned(),
            values: list(values),
        };
        let template = "https://login.example/{tenantid}/v2.0".to_owned();
        let values: Vec<String> = (0..70).map(|at| format!("{at}{}", "x".repeat(500))).collect();
        let too_large = vec![RequiredClaim { name: "groups".to_owned(), values }];
        for (edit, field) in [
            (Draft { display_name: "x".repeat(201), ..draft() }, "display_name"),
            (Draft { client_id: "a\0".to_owned(), ..draft() }, "client_id"),
            (Draft { client_id: "a\u{200b}b".to_owned(), ..draft() }, "client_id"),
            (Draft { display_name: "a\u{202e}b".to_owned(), ..draft() }, "display_name"),
            (Draft { issuer: "https://a.example/?x".to_owned(), ..draft() }, "issuer"),
            (Draft { issuer: template, ..draft() }, "allowed_tenant_ids"),
            (
                Draft { discovery_url: "https://a.example/login".to_owned(), ..draft() },
                "discovery_url",
            ),
            (Draft { scopes: list(&["openid", "a b"]), ..draft() }, "scopes"),
            (Draft { mapped_email: list(&[""]), ..draft() }, "claim_mapping.email"),
            (Draft { mapped_groups: "x".repeat(257), ..draft() }, "claim_mapping.groups"),
            (Draft { allowed_email_domains: list(&["a@b"]), ..draft() }, "allowed_email_domains"),
            (Draft { allowed_email_domains: list(&["*.b.c"]), ..draft() }, "allowed_email_domains"),
            (Draft { allowed_email_domains: list(&[".b.c"]), ..draft() }, "allowed_email_domains"),
            (Draft { allowed_email_domains: list(&["b..c"]), ..draft() }, "allowed_email_domains"),
            (Draft { allowed_email_domains: list(&["b.c."]), ..draft() }, "allowed_email_domains"),
            (Draft { prompt: list(&["none", "login"]), ..draft() }, "prompt"),
            (Draft { prompt: list(&["create"]), ..draft() }, "prompt"),
            (Draft { login_hint: "x".repeat(513), ..draft() }, "login_hint"),
            (
                Draft { prompt: list(&["none"]), max_age: Some(Duration::ZERO), ..draft() },
                "max_age",
            ),
            (Draft { required_claims: too_large.clone(), ..draft() }, "connection"),
            (Draft { additional_audiences: list(&["x"; 17]), ..draft() }, "additional_audiences"),
            (Draft { required_claims: vec![claim("a", &[])], ..draft() }, "required_claims.values"),
            (
                Draft { required_claims: vec![claim("a", &["b"]), claim("a", &["c"])], ..draft() },
                "required_claims.name",
            ),
        ] {
            assert_eq!(violated(edit), [field]);
        }
    }

    #[test]
    fn a_literal_private_address_is_marked_as_forbidden() {
        let violations = Draft {
            discovery_url: "https://10.0.0.1/.well-known/openid-configuration".to_owned(),
            ..draft()
        }
        .apply(None, &AddressPolicy::default())
        .expect_err("refused");
        assert!(violations.iter().all(|violation| violation.forbidden_address));
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
    fn a_connection_that_is_too_large_can_be_changed_but_must_not_grow() {
        let large =
            ConnectionSettings { additional_audiences: vec!["x".repeat(40_000)], ..stored() };
        let update = |edit: Draft, field| {
            let edited = edit.apply(Some((&large, &[field])), &AddressPolicy::default());
            edited.map_err(|violations| violations[0].field.clone().into_owned())
        };
        let disabled = Draft { state: Some(ConnectionState::Disabled), ..Draft::default() };
        update(disabled, DraftField::State)
            .expect("a connection that breaks a newer rule can be disabled");
        let named = Draft { display_name: "x".repeat(200), ..Draft::default() };
        assert_eq!(update(named, DraftField::DisplayName), Err("connection".to_owned()));
        update(Draft::default(), DraftField::AdditionalAudiences).expect("smaller");
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
