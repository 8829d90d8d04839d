//! A connection's settings as flags.

use std::collections::HashMap;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use super::super::Failure;
use super::document::{METHODS, STYLES, method_name, style_name};
use crate::pb;

/// What is not given is not touched; an empty value clears the field.
#[derive(Args, Default)]
pub(super) struct Fields {
    /// For people.
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// testing or disabled; `activate` makes a connection ACTIVE.
    #[arg(long, value_enum)]
    state: Option<State>,
    /// URL of the metadata document.
    #[arg(long, value_name = "URL")]
    discovery_url: Option<String>,
    /// The issuer, exactly as its tokens name it. Needed with manual endpoints, else read from the document.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Manual endpoints, in place of a discovery URL.
    #[arg(long, value_name = "URL", requires_all = ["token_endpoint", "jwks_uri"])]
    authorization_endpoint: Option<String>,
    /// See --authorization-endpoint.
    #[arg(long, value_name = "URL", requires = "authorization_endpoint")]
    token_endpoint: Option<String>,
    /// See --authorization-endpoint.
    #[arg(long, value_name = "URL", requires = "authorization_endpoint")]
    jwks_uri: Option<String>,
    /// See --authorization-endpoint.
    #[arg(long, value_name = "URL", requires = "authorization_endpoint")]
    userinfo_endpoint: Option<String>,
    /// See --authorization-endpoint.
    #[arg(long, value_name = "URL", requires = "authorization_endpoint")]
    end_session_endpoint: Option<String>,
    /// The client's identifier at the IdP.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// How the client authenticates at the token endpoint.
    #[arg(long, value_name = "METHOD", value_parser = methods())]
    auth_method: Option<pb::TokenEndpointAuthMethod>,
    /// Scopes, comma separated; must hold openid.
    #[arg(long, value_name = "SCOPE,...")]
    scopes: Option<String>,
    /// Claims that are taken as the e-mail, comma separated, the first that is there.
    #[arg(long, value_name = "CLAIM,...")]
    email_claims: Option<String>,
    /// The same for the given name.
    #[arg(long, value_name = "CLAIM,...")]
    given_name_claims: Option<String>,
    /// The same for the family name.
    #[arg(long, value_name = "CLAIM,...")]
    family_name_claims: Option<String>,
    /// Claim with the person's groups.
    #[arg(long, value_name = "CLAIM")]
    groups_claim: Option<String>,
    /// Domains that e-mail addresses must be of, comma separated.
    #[arg(long, value_name = "DOMAIN,...")]
    allowed_email_domains: Option<String>,
    /// Refuse e-mail that isn't said to be verified.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    require_verified_email: Option<bool>,
    /// Algorithms of ID tokens, comma separated.
    #[arg(long, value_name = "ALG,...")]
    id_token_signing_algs: Option<String>,
    /// Audiences that may stand beside the client id, comma separated.
    #[arg(long, value_name = "AUD,...")]
    additional_audiences: Option<String>,
    /// How to log out at the IdP.
    #[arg(long, value_name = "STYLE", value_parser = styles())]
    logout_style: Option<pb::LogoutStyle>,
    /// Entra tenants whose tokens pass, comma separated.
    #[arg(long, value_name = "GUID,...")]
    allowed_tenant_ids: Option<String>,
    /// Constant parameters of the authorization request, comma separated.
    #[arg(long, value_name = "NAME=VALUE,...")]
    authorization_params: Option<String>,
    /// Claims that must have one of the values, comma separated; several values by |.
    #[arg(long, value_name = "NAME=VALUE|VALUE,...")]
    required_claims: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    Testing,
    Disabled,
}

/// By their names, as the file of `apply` has them.
fn methods() -> impl TypedValueParser<Value = pb::TokenEndpointAuthMethod> {
    PossibleValuesParser::new(METHODS.map(method_name)).map(|name| {
        METHODS.into_iter().find(|method| method_name(*method) == name).unwrap_or_default()
    })
}

fn styles() -> impl TypedValueParser<Value = pb::LogoutStyle> {
    PossibleValuesParser::new(STYLES.map(style_name))
        .map(|name| STYLES.into_iter().find(|style| style_name(*style) == name).unwrap_or_default())
}

impl Fields {
    /// Whether claims are mapped.
    pub(super) fn map_claims(&self) -> bool {
        let mapped = [
            &self.email_claims,
            &self.given_name_claims,
            &self.family_name_claims,
            &self.groups_claim,
        ];
        mapped.iter().any(|given| given.is_some())
    }

    /// The fields that were given, and their names in the contract. `mapping`: what stays of it where a claim isn't named.
    pub(super) fn read(
        &self,
        mapping: Option<pb::ClaimMapping>,
    ) -> Result<(pb::Connection, Vec<String>), Failure> {
        let mut connection = pb::Connection::default();
        let mut paths = Vec::new();
        let mut named = |name: &str| paths.push(name.to_owned());
        let text = |given: &Option<String>,
                    field: &mut String,
                    name: &str,
                    named: &mut dyn FnMut(&str)| {
            if let Some(given) = given {
                field.clone_from(given);
                named(name);
            }
        };
        text(&self.display_name, &mut connection.display_name, "display_name", &mut named);
        text(&self.issuer, &mut connection.issuer, "issuer", &mut named);
        text(&self.client_id, &mut connection.client_id, "client_id", &mut named);
        text(&self.discovery_url, &mut connection.discovery_url, "discovery_url", &mut named);
        let list = |given: &Option<String>,
                    field: &mut Vec<String>,
                    name: &str,
                    named: &mut dyn FnMut(&str)| {
            if let Some(given) = given {
                *field = items(given);
                named(name);
            }
        };
        list(&self.scopes, &mut connection.scopes, "scopes", &mut named);
        list(
            &self.allowed_email_domains,
            &mut connection.allowed_email_domains,
            "allowed_email_domains",
            &mut named,
        );
        list(
            &self.id_token_signing_algs,
            &mut connection.id_token_signing_algs,
            "id_token_signing_algs",
            &mut named,
        );
        list(
            &self.additional_audiences,
            &mut connection.additional_audiences,
            "additional_audiences",
            &mut named,
        );
        list(
            &self.allowed_tenant_ids,
            &mut connection.allowed_tenant_ids,
            "allowed_tenant_ids",
            &mut named,
        );
        if let Some(state) = self.state {
            let state = match state {
                State::Testing => pb::ConnectionState::Testing,
                State::Disabled => pb::ConnectionState::Disabled,
            };
            connection.state = state.into();
            named("state");
        }
        if let Some(authorization) = &self.authorization_endpoint {
            connection.endpoints = Some(pb::ProviderEndpoints {
                authorization_endpoint: authorization.clone(),
                token_endpoint: self.token_endpoint.clone().unwrap_or_default(),
                jwks_uri: self.jwks_uri.clone().unwrap_or_default(),
                userinfo_endpoint: self.userinfo_endpoint.clone().unwrap_or_default(),
                end_session_endpoint: self.end_session_endpoint.clone().unwrap_or_default(),
            });
            named("endpoints");
            // Either, not both.
            if self.discovery_url.is_none() {
                named("discovery_url");
            }
        } else if self.discovery_url.as_ref().is_some_and(|url| !url.is_empty()) {
            named("endpoints");
        }
        if let Some(method) = self.auth_method {
            connection.token_endpoint_auth_method = method.into();
            named("token_endpoint_auth_method");
        }
        if self.map_claims() {
            let mut mapping = mapping.unwrap_or_default();
            for (given, claims) in [
                (&self.email_claims, &mut mapping.email),
                (&self.given_name_claims, &mut mapping.given_name),
                (&self.family_name_claims, &mut mapping.family_name),
            ] {
                if let Some(given) = given {
                    *claims = items(given);
                }
            }
            if let Some(groups) = &self.groups_claim {
                mapping.groups.clone_from(groups);
            }
            connection.claim_mapping = Some(mapping);
            named("claim_mapping");
        }
        if let Some(required) = self.require_verified_email {
            connection.require_verified_email = required;
            named("require_verified_email");
        }
        if let Some(style) = self.logout_style {
            connection.logout_style = style.into();
            named("logout_style");
        }
        if let Some(given) = &self.authorization_params {
            let pairs =
                items(given).iter().map(|item| pair(item)).collect::<Result<HashMap<_, _>, _>>()?;
            connection.authorization_params = pairs;
            named("authorization_params");
        }
        if let Some(given) = &self.required_claims {
            let claims =
                items(given).iter().map(|item| pair(item)).collect::<Result<Vec<_>, _>>()?;
            let claim = |(name, values): (String, String)| {
                let values = values.split('|').map(str::to_owned).collect();
                pb::RequiredClaim { name, values }
            };
            connection.required_claims = claims.into_iter().map(claim).collect();
            named("required_claims");
        }
        Ok((connection, paths))
    }
}

fn items(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

fn pair(item: &str) -> Result<(String, String), Failure> {
    let (name, value) = item
        .split_once('=')
        .ok_or_else(|| Failure::Usage(format!("{item:?} must be NAME=VALUE")))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
