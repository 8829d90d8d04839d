//! Connections as a YAML file: what `apply` reads and `export` writes. Secrets are read from it, and never written to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::super::Failure;
use super::secrets;
use crate::pb;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    connections: Vec<Account>,
}

/// One connection; what isn't named stays as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Account {
    pub(super) slug: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) display_name: Option<String>,
    /// testing, active or disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) issuer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) discovery_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) endpoints: Option<Endpoints>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) client_id: Option<String>,
    /// client_secret_basic or client_secret_post.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token_endpoint_auth_method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scopes: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) claim_mapping: Option<Mapping>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) allowed_email_domains: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) require_verified_email: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id_token_signing_algs: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) additional_audiences: Option<Vec<String>>,
    /// auto, rp_initiated, auth0_v2, cognito or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) logout_style: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) allowed_tenant_ids: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) authorization_params: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) required_claims: Option<BTreeMap<String, Vec<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) client_secret_expires: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) standby_client_secret_expires: Option<String>,
    /// Beside the file, where it is relative.
    #[serde(default, skip_serializing)]
    client_secret_file: Option<PathBuf>,
    #[serde(default, skip_serializing)]
    standby_client_secret_file: Option<PathBuf>,
    #[serde(default, skip_serializing)]
    pub(super) client_secret: Option<SecretString>,
    #[serde(default, skip_serializing)]
    pub(super) standby_client_secret: Option<SecretString>,
    /// Why it can't be applied.
    #[serde(skip)]
    pub(super) problem: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Endpoints {
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    userinfo_endpoint: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    end_session_endpoint: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mapping {
    #[serde(default)]
    email: Vec<String>,
    #[serde(default)]
    given_name: Vec<String>,
    #[serde(default)]
    family_name: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    groups: String,
}

/// Reads a file, and the secrets that it names.
pub(super) fn read(file: &Path) -> Result<Vec<Account>, Failure> {
    let wrong = |what: String| Failure::Usage(format!("{}: {what}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let limits = serde_saphyr::options! { budget: None };
    // The parser's own text would quote the file, in which a secret can stand.
    let document: Document =
        serde_saphyr::from_str_with_options(&text, limits).map_err(|error| {
            let place =
                error.location().map_or_else(String::new, |at| format!(" at line {}", at.line()));
            wrong(format!("it isn't a list of connections{place}: see `connection apply --help`"))
        })?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let secret = |named: &Option<PathBuf>| {
        named.as_ref().map(|named| secrets::read(&folder.join(named))).transpose()
    };
    let mut accounts = document.connections;
    for account in &mut accounts {
        // One that is wrong doesn't hold the others up.
        let both = |what: &str| format!("{what} and {what}_file must not both be given");
        if account.client_secret.is_some() && account.client_secret_file.is_some() {
            account.problem = Some(both("client_secret"));
        }
        if account.standby_client_secret.is_some() && account.standby_client_secret_file.is_some() {
            account.problem = Some(both("standby_client_secret"));
        }
        match (secret(&account.client_secret_file), secret(&account.standby_client_secret_file)) {
            (Ok(active), Ok(standby)) => {
                account.client_secret = active.or(account.client_secret.take());
                account.standby_client_secret = standby.or(account.standby_client_secret.take());
            }
            (Err(error), _) | (_, Err(error)) => account.problem = Some(error.to_string()),
        }
    }
    let mut slugs: Vec<&str> = accounts.iter().map(|account| account.slug.as_str()).collect();
    slugs.sort_unstable();
    if let Some(twice) = slugs.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(wrong(format!("{} stands twice", twice[0])));
    }
    Ok(accounts)
}

/// The file's text.
pub(super) fn write(accounts: &[Account]) -> Result<String, Failure> {
    let document = Document { connections: accounts.to_vec() };
    serde_saphyr::to_string(&document).map_err(|error| Failure::Usage(error.to_string()))
}

impl From<&pb::Connection> for Account {
    fn from(connection: &pb::Connection) -> Self {
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let list = |items: &Vec<String>| Some(items.clone()).filter(|items| !items.is_empty());
        let time = |time: &Option<prost_types::Timestamp>| time.as_ref().map(ToString::to_string);
        let endpoints =
            connection.endpoints.as_ref().filter(|_| connection.discovery_url.is_empty());
        Self {
            slug: connection.slug.clone(),
            display_name: given(&connection.display_name),
            state: Some(state_name(connection.state()).to_owned()),
            issuer: given(&connection.issuer),
            discovery_url: given(&connection.discovery_url),
            endpoints: endpoints.map(|endpoints| Endpoints {
                authorization_endpoint: endpoints.authorization_endpoint.clone(),
                token_endpoint: endpoints.token_endpoint.clone(),
                jwks_uri: endpoints.jwks_uri.clone(),
                userinfo_endpoint: endpoints.userinfo_endpoint.clone(),
                end_session_endpoint: endpoints.end_session_endpoint.clone(),
            }),
            client_id: given(&connection.client_id),
            token_endpoint_auth_method: Some(
                method_name(connection.token_endpoint_auth_method()).to_owned(),
            ),
            scopes: list(&connection.scopes),
            claim_mapping: connection.claim_mapping.as_ref().map(|mapping| Mapping {
                email: mapping.email.clone(),
                given_name: mapping.given_name.clone(),
                family_name: mapping.family_name.clone(),
                groups: mapping.groups.clone(),
            }),
            allowed_email_domains: list(&connection.allowed_email_domains),
            require_verified_email: Some(connection.require_verified_email)
                .filter(|required| *required),
            id_token_signing_algs: list(&connection.id_token_signing_algs),
            additional_audiences: list(&connection.additional_audiences),
            logout_style: Some(style_name(connection.logout_style()).to_owned()),
            allowed_tenant_ids: list(&connection.allowed_tenant_ids),
            authorization_params: Some(
                connection.authorization_params.clone().into_iter().collect::<BTreeMap<_, _>>(),
            )
            .filter(|params| !params.is_empty()),
            required_claims: Some(
                connection
                    .required_claims
                    .iter()
                    .map(|claim| (claim.name.clone(), claim.values.clone()))
                    .collect::<BTreeMap<_, _>>(),
            )
            .filter(|claims| !claims.is_empty()),
            client_secret_expires: time(&connection.client_secret_expire_time),
            standby_client_secret_expires: time(&connection.standby_client_secret_expire_time),
            client_secret_file: None,
            standby_client_secret_file: None,
            client_secret: None,
            standby_client_secret: None,
            problem: None,
        }
    }
}

impl Account {
    /// The message, and the names of the fields that this names; the state apart, which has verbs of its own.
    pub(super) fn to_message(&self) -> Result<(pb::Connection, Vec<String>), String> {
        let mut connection =
            pb::Connection { slug: self.slug.clone(), ..pb::Connection::default() };
        let mut paths = Vec::new();
        macro_rules! take {
            ($field:ident) => {
                if let Some(value) = &self.$field {
                    connection.$field = value.clone();
                    paths.push(stringify!($field).to_owned());
                }
            };
        }
        take!(display_name);
        take!(issuer);
        take!(discovery_url);
        take!(client_id);
        take!(scopes);
        take!(allowed_email_domains);
        take!(require_verified_email);
        take!(id_token_signing_algs);
        take!(additional_audiences);
        take!(allowed_tenant_ids);
        if let Some(endpoints) = &self.endpoints {
            connection.endpoints = Some(pb::ProviderEndpoints {
                authorization_endpoint: endpoints.authorization_endpoint.clone(),
                token_endpoint: endpoints.token_endpoint.clone(),
                jwks_uri: endpoints.jwks_uri.clone(),
                userinfo_endpoint: endpoints.userinfo_endpoint.clone(),
                end_session_endpoint: endpoints.end_session_endpoint.clone(),
            });
            paths.push("endpoints".to_owned());
        }
        // Either, not both: the one takes the other's place.
        match (&self.discovery_url, &self.endpoints) {
            (Some(_), None) => paths.push("endpoints".to_owned()),
            (None, Some(_)) => paths.push("discovery_url".to_owned()),
            _ => {}
        }
        if let Some(mapping) = &self.claim_mapping {
            connection.claim_mapping = Some(pb::ClaimMapping {
                email: mapping.email.clone(),
                given_name: mapping.given_name.clone(),
                family_name: mapping.family_name.clone(),
                groups: mapping.groups.clone(),
            });
            paths.push("claim_mapping".to_owned());
        }
        if let Some(method) = &self.token_endpoint_auth_method {
            let found = METHODS.into_iter().find(|known| method_name(*known) == method);
            let found = found.ok_or(
                "token_endpoint_auth_method must be client_secret_basic or client_secret_post",
            )?;
            connection.token_endpoint_auth_method = found.into();
            paths.push("token_endpoint_auth_method".to_owned());
        }
        if let Some(style) = &self.logout_style {
            let found = STYLES.into_iter().find(|known| style_name(*known) == style);
            let found = found
                .ok_or("logout_style must be auto, rp_initiated, auth0_v2, cognito or none")?;
            connection.logout_style = found.into();
            paths.push("logout_style".to_owned());
        }
        if let Some(params) = &self.authorization_params {
            connection.authorization_params = params.clone().into_iter().collect();
            paths.push("authorization_params".to_owned());
        }
        if let Some(claims) = &self.required_claims {
            let claim = |(name, values): (&String, &Vec<String>)| pb::RequiredClaim {
                name: name.clone(),
                values: values.clone(),
            };
            connection.required_claims = claims.iter().map(claim).collect();
            paths.push("required_claims".to_owned());
        }
        if let Some(time) = &self.client_secret_expires {
            connection.client_secret_expire_time = secrets::parse_time(time)
                .map_err(|what| format!("client_secret_expires {what}"))?;
            paths.push("client_secret_expire_time".to_owned());
        }
        if let Some(time) = &self.standby_client_secret_expires {
            let read = secrets::parse_time(time)
                .map_err(|what| format!("standby_client_secret_expires {what}"))?;
            connection.standby_client_secret_expire_time = read;
            paths.push("standby_client_secret_expire_time".to_owned());
        }
        if let Some(secret) = &self.client_secret {
            connection.client_secret = secret.expose_secret().to_owned();
            paths.push("client_secret".to_owned());
        }
        if let Some(secret) = &self.standby_client_secret {
            connection.standby_client_secret = secret.expose_secret().to_owned();
            paths.push("standby_client_secret".to_owned());
        }
        Ok((connection, paths))
    }
}

pub(super) const METHODS: [pb::TokenEndpointAuthMethod; 2] =
    [pb::TokenEndpointAuthMethod::ClientSecretBasic, pb::TokenEndpointAuthMethod::ClientSecretPost];
pub(super) const STYLES: [pb::LogoutStyle; 5] = [
    pb::LogoutStyle::Auto,
    pb::LogoutStyle::RpInitiated,
    pb::LogoutStyle::Auth0V2,
    pb::LogoutStyle::Cognito,
    pb::LogoutStyle::None,
];

pub(super) fn state_name(state: pb::ConnectionState) -> &'static str {
    match state {
        pb::ConnectionState::Unspecified => "",
        pb::ConnectionState::Testing => "testing",
        pb::ConnectionState::Active => "active",
        pb::ConnectionState::Disabled => "disabled",
    }
}

pub(super) fn method_name(method: pb::TokenEndpointAuthMethod) -> &'static str {
    match method {
        pb::TokenEndpointAuthMethod::Unspecified => "",
        pb::TokenEndpointAuthMethod::ClientSecretBasic => "client_secret_basic",
        pb::TokenEndpointAuthMethod::ClientSecretPost => "client_secret_post",
    }
}

pub(super) fn style_name(style: pb::LogoutStyle) -> &'static str {
    match style {
        pb::LogoutStyle::Unspecified => "",
        pb::LogoutStyle::Auto => "auto",
        pb::LogoutStyle::RpInitiated => "rp_initiated",
        pb::LogoutStyle::Auth0V2 => "auth0_v2",
        pb::LogoutStyle::Cognito => "cognito",
        pb::LogoutStyle::None => "none",
    }
}
