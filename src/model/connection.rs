//! One account's OpenID Connect client at its own IdP, already validated: [`draft`](super::draft) refuses
//! what is wrong before it is saved.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::attempt::TestLogin;
use super::check::CheckRecord;
use super::login::{LoginHints, Prompt};
use super::secret::{ClientSecret, ClientSecrets};
use super::signing_alg::SigningAlg;
use super::slug::Slug;
use super::time::UnixMillis;

/// A connection as it is stored.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The account.
    pub slug: Slug,
    /// The revision at which this connection was created. Distinguishes it from an earlier connection of
    /// the same slug.
    pub incarnation: u64,
    /// Grows with every change and is never used twice.
    pub revision: u64,
    /// What support entered, apart from the secrets.
    pub settings: ConnectionSettings,
    /// The issuer that the metadata document named at first use, fixed from then on.
    pub pinned_issuer: Option<Issuer>,
    /// The client's secrets.
    pub secrets: ClientSecrets,
    /// When the service last switched to the standby secret by itself.
    pub secret_switched: Option<UnixMillis>,
    /// The last check of the stored connection.
    pub last_check: Option<CheckRecord>,
    /// The last check of a proposed change.
    pub last_proposal: Option<CheckRecord>,
    /// The last completed test login.
    pub test_login: Option<TestLogin>,
    /// When the connection was created.
    pub create_time: UnixMillis,
    /// When the connection last changed.
    pub update_time: UnixMillis,
}

impl Connection {
    /// The issuer, if it is known: entered by support, or pinned at first use.
    #[must_use]
    pub fn issuer(&self) -> Option<&Issuer> {
        self.settings.issuer.as_ref().or(self.pinned_issuer.as_ref())
    }

    /// With these settings and secrets. The issuer that was read at first use belongs to where it was read.
    #[must_use]
    pub fn with(&self, settings: ConnectionSettings, secrets: ClientSecrets) -> Self {
        let keeps_pin = settings.has_idp_of(&self.settings);
        let pinned_issuer = self.pinned_issuer.clone().filter(|_| keeps_pin);
        Self { settings, secrets, pinned_issuer, ..self.clone() }
    }

    /// Whether both are the same version: the same revision, and of the same content. Apart from what a
    /// version collects while it is in use: the pinned issuer, checks and test logins.
    #[must_use]
    pub fn is_same_version(&self, other: &Self) -> bool {
        self.incarnation == other.incarnation
            && self.revision == other.revision
            && self.settings == other.settings
            && self.secrets.active.expose() == other.secrets.active.expose()
    }

    /// The last check of exactly these settings with this secret, whether stored or proposed.
    #[must_use]
    pub fn check_of(
        &self,
        settings: &ConnectionSettings,
        secret: &ClientSecret,
    ) -> Option<&CheckRecord> {
        let proof = proof_digest(settings, secret);
        let checks = [self.last_check.as_ref(), self.last_proposal.as_ref()];
        checks
            .into_iter()
            .flatten()
            .filter(|check| check.proof == proof)
            .max_by_key(|check| check.time)
    }

    /// The last check of the connection as it is now, or else the last check of an earlier state.
    #[must_use]
    pub fn latest_check(&self) -> Option<&CheckRecord> {
        self.check_of(&self.settings, &self.secrets.active).or(self.last_check.as_ref())
    }

    /// See [`proof_digest`]; of the stored settings with the active secret.
    #[must_use]
    pub fn proof_digest(&self) -> String {
        proof_digest(&self.settings, &self.secrets.active)
    }
}

/// What support enters for a connection, apart from the secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionSettings {
    /// The name that support sees.
    pub display_name: String,
    /// Whether logins work.
    pub state: ConnectionState,
    /// The exact issuer; `None`: taken from the metadata document at first use.
    pub issuer: Option<Issuer>,
    /// Where the endpoints come from.
    pub source: MetadataSource,
    /// The client's identifier at the IdP.
    pub client_id: String,
    /// How the service authenticates at the token endpoint, unless the metadata decides; no second
    /// method is ever tried.
    pub auth_method: TokenEndpointAuthMethod,
    /// Whether support stated no method. A member of its own, since the version before reads
    /// `auth_method` as a method, and takes no other value.
    #[serde(default)]
    pub auth_method_by_metadata: bool,
    /// Always includes `openid`.
    pub scopes: Vec<String>,
    /// Which claims become the Identity's fields.
    pub claim_mapping: ClaimMapping,
    /// In ASCII lower case. Empty: any domain.
    pub allowed_email_domains: Vec<String>,
    /// Refuse an e-mail address unless its source states that it is verified.
    pub require_verified_email: bool,
    /// Empty: the algorithms that the metadata document lists.
    pub id_token_signing_algs: Vec<SigningAlg>,
    /// Audiences that an ID token may have in addition to `client_id`.
    pub additional_audiences: Vec<String>,
    /// How to log out at the IdP.
    pub logout_style: LogoutStyle,
    /// Required for an issuer with `{tenantid}`. In ASCII lower case.
    pub allowed_tenant_ids: Vec<String>,
    /// Constant parameters added to the authorization request.
    pub authorization_params: BTreeMap<String, String>,
    /// Claims that must have one of the listed values.
    pub required_claims: Vec<RequiredClaim>,
    /// `prompt` of a login that brings none of its own.
    #[serde(default)]
    pub prompt: Vec<Prompt>,
    /// `login_hint` of a login that brings none of its own.
    #[serde(default)]
    pub login_hint: Option<String>,
    /// `max_age` of a login that brings none of its own, in whole seconds.
    #[serde(default, with = "whole_seconds")]
    pub max_age: Option<Duration>,
}

/// A digest of everything that decides whether a login works, including the secret. A check or a test
/// login proves exactly what has the same digest.
#[must_use]
pub fn proof_digest(settings: &ConnectionSettings, secret: &ClientSecret) -> String {
    format!("{}:{}", settings.login_digest(), secret.fingerprint())
}

impl ConnectionSettings {
    /// Whether both use the same metadata, so that an issuer pinned under one is valid under the other.
    #[must_use]
    pub fn has_idp_of(&self, other: &Self) -> bool {
        self.source == other.source && self.issuer == other.issuer
    }

    /// A login's hints; those that the caller left open are the connection's.
    #[must_use]
    pub fn complete_hints(&self, given: LoginHints) -> LoginHints {
        LoginHints {
            prompt: if given.prompt.is_empty() { self.prompt.clone() } else { given.prompt },
            login_hint: given.login_hint.or_else(|| self.login_hint.clone()),
            max_age: given.max_age.or(self.max_age),
            ..given
        }
    }

    /// The authentication method that support stated; `None`: the metadata decides.
    #[must_use]
    pub fn stated_auth_method(&self) -> Option<TokenEndpointAuthMethod> {
        (!self.auth_method_by_metadata).then_some(self.auth_method)
    }

    /// The stated authentication method, or the possible ones, for a person.
    #[must_use]
    pub fn auth_method_text(&self) -> &'static str {
        let stated = self.stated_auth_method().map(TokenEndpointAuthMethod::name);
        stated.unwrap_or("client_secret_basic or client_secret_post")
    }

    /// What the client secrets of these settings are entered for.
    #[must_use]
    pub fn secret_binding(&self) -> SecretBinding {
        let url = match &self.source {
            MetadataSource::Discovery(url) => url,
            MetadataSource::Manual(endpoints) => &endpoints.token,
        };
        let origin = url.origin().ascii_serialization();
        SecretBinding { origin, client_id: self.client_id.clone() }
    }

    /// How many bytes they have as stored.
    #[must_use]
    pub fn size(&self) -> usize {
        serde_json::to_vec(self).map_or(usize::MAX, |json| json.len())
    }

    /// A digest of the settings that decide whether a login works. A new display name doesn't change it.
    #[must_use]
    pub fn login_digest(&self) -> String {
        let Self {
            display_name: _,
            state: _,
            logout_style: _,
            issuer,
            source,
            client_id,
            auth_method: _,
            auth_method_by_metadata: _,
            scopes,
            claim_mapping,
            allowed_email_domains,
            require_verified_email,
            id_token_signing_algs,
            additional_audiences,
            allowed_tenant_ids,
            authorization_params,
            required_claims,
            prompt,
            login_hint,
            max_age,
        } = self;
        let mut relevant = serde_json::json!([
            issuer,
            source,
            client_id,
            self.stated_auth_method(),
            scopes,
            claim_mapping,
            allowed_email_domains,
            require_verified_email,
            id_token_signing_algs,
            additional_audiences,
            allowed_tenant_ids,
            authorization_params,
            required_claims,
        ]);
        // Only where there are any, so that what was proven before these settings existed stays proven.
        let has_hints = !prompt.is_empty() || login_hint.is_some() || max_age.is_some();
        if let (true, Some(relevant)) = (has_hints, relevant.as_array_mut()) {
            let max_age = max_age.map(|age| age.as_secs());
            relevant.push(serde_json::json!([prompt, login_hint, max_age]));
        }
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, relevant.to_string().as_bytes());
        hex::encode(&digest.as_ref()[..16])
    }
}

mod whole_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(|duration| duration.as_secs()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_secs))
    }
}

/// For what a client secret was entered: where it may be sent, and for which client. A secret is sealed
/// with it, so that whoever changes a connection, in the database or by a call, can't have the stored
/// secret sent elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretBinding {
    /// The origin of the discovery URL; with manual endpoints, of the token endpoint.
    pub origin: String,
    /// The client's identifier.
    pub client_id: String,
}

/// Where a connection's endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetadataSource {
    /// The IdP's metadata document (OIDC Discovery 4).
    Discovery(Url),
    /// Endpoints entered by support.
    Manual(Box<Endpoints>),
}

/// An IdP's endpoints as support entered them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The authorization endpoint (OIDC Core 3.1.2).
    pub authorization: Url,
    /// The token endpoint (OIDC Core 3.1.3).
    pub token: Url,
    /// The URL of the key set (RFC 7517 5).
    pub jwks: Url,
    /// The UserInfo endpoint (OIDC Core 5.3).
    pub userinfo: Option<Url>,
    /// The end session endpoint (OIDC RP-Initiated Logout 2).
    pub end_session: Option<Url>,
}

/// Whether logins work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// Logins work and are marked as test logins.
    Testing,
    /// Logins work.
    Active,
    /// Logins are refused.
    Disabled,
}

/// How the service authenticates at the token endpoint (OIDC Core 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenEndpointAuthMethod {
    /// In the Authorization header, form-urlencoded first (RFC 6749 2.3.1).
    ClientSecretBasic,
    /// In the body.
    ClientSecretPost,
}

impl TokenEndpointAuthMethod {
    /// The name in the IANA registry.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
        }
    }
}

/// How to end a session at the IdP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogoutStyle {
    /// Derived from the metadata and the issuer.
    Auto,
    /// OIDC RP-Initiated Logout 1.0.
    RpInitiated,
    /// `/v2/logout?client_id&returnTo`.
    Auth0V2,
    /// `/logout?client_id&logout_uri`.
    Cognito,
    /// No logout at the IdP.
    None,
}

/// Claim names in order of preference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimMapping {
    /// Claims for the e-mail address.
    pub email: Vec<String>,
    /// Claims for the given name.
    pub given_name: Vec<String>,
    /// Claims for the family name.
    pub family_name: Vec<String>,
    /// The claim with the groups; `None`: groups are not read.
    pub groups: Option<String>,
}

impl Default for ClaimMapping {
    fn default() -> Self {
        Self {
            email: vec!["email".to_owned()],
            given_name: vec!["given_name".to_owned()],
            family_name: vec!["family_name".to_owned()],
            groups: None,
        }
    }
}

/// A claim that must have one of the listed values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequiredClaim {
    /// The claim's name.
    pub name: String,
    /// Compared exactly.
    pub values: Vec<String>,
}

/// An issuer identifier (OIDC Core 1.2): an exact string, never normalized.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Issuer(String);

impl Issuer {
    /// Takes the string unchanged. The caller has checked that it is a URL.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The exact string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is Entra's multi-tenant template.
    #[must_use]
    pub fn is_tenant_template(&self) -> bool {
        self.0.contains(TENANT_PLACEHOLDER)
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The placeholder in Entra's multi-tenant issuer; a token has its tenant's id in this place.
pub const TENANT_PLACEHOLDER: &str = "{tenantid}";

/// The URIs that a customer registers at its IdP for one account.
#[derive(Clone, Debug)]
pub struct CustomerUris<'a> {
    public_origin: &'a str,
    slug: &'a Slug,
}

impl<'a> CustomerUris<'a> {
    /// `public_origin`: scheme, host and port, without a trailing slash.
    #[must_use]
    pub fn new(public_origin: &'a str, slug: &'a Slug) -> Self {
        Self { public_origin, slug }
    }

    /// The redirect URI, to which the IdP sends the browser with the code.
    #[must_use]
    pub fn redirect_uri(&self) -> String {
        format!("{}/app/accounts/oidc/{}/login/callback/", self.public_origin, self.slug)
    }

    /// Where a login starts: the initiate login URI, and also the post-logout redirect URI.
    #[must_use]
    pub fn login_uri(&self) -> String {
        format!("{}/app/accounts/oidc/{}/login/", self.public_origin, self.slug)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As version 0.1.0 stored them.
    const STORED: &str = r#"{
        "display_name": "Acme", "state": "active", "issuer": null,
        "source": { "discovery": "https://idp.example/.well-known/openid-configuration" },
        "client_id": "client", "auth_method": "client_secret_post", "scopes": ["openid"],
        "claim_mapping": {
            "email": ["email"], "given_name": ["given_name"], "family_name": ["family_name"],
            "groups": null
        },
        "allowed_email_domains": [], "require_verified_email": false,
        "id_token_signing_algs": [], "additional_audiences": [], "logout_style": "auto",
        "allowed_tenant_ids": [], "authorization_params": {}, "required_claims": []
    }"#;

    #[test]
    fn settings_of_an_earlier_version_keep_their_meaning_and_their_digest() {
        let settings: ConnectionSettings = serde_json::from_str(STORED).expect("readable");
        assert_eq!(settings.stated_auth_method(), Some(TokenEndpointAuthMethod::ClientSecretPost));
        // The checks and test logins that prove a connection are recorded with it.
        assert_eq!(settings.login_digest(), "16c42c06fb08269a28e15ac814d36a42");
        let unstated = ConnectionSettings { auth_method_by_metadata: true, ..settings.clone() };
        assert_ne!(unstated.login_digest(), settings.login_digest());
        let basic = TokenEndpointAuthMethod::ClientSecretBasic;
        let other = ConnectionSettings { auth_method: basic, ..unstated.clone() };
        assert_eq!(other.login_digest(), unstated.login_digest(), "the metadata decides");
        let hinted = ConnectionSettings { max_age: Some(Duration::ZERO), ..settings.clone() };
        assert_ne!(hinted.login_digest(), settings.login_digest());
        let json = serde_json::to_string(&hinted).expect("JSON");
        assert_eq!(serde_json::from_str::<ConnectionSettings>(&json).expect("readable"), hinted);
        // The version before finds a method that it knows.
        let json = serde_json::to_value(&unstated).expect("JSON");
        assert_eq!(json["auth_method"], "client_secret_post");
    }
}
