//! One account's OpenID Connect client at its own IdP, as validated: what can be wrong with it was refused when it was
//! saved (see [`draft`](super::draft)).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use url::Url;

use super::attempt::TestLogin;
use super::check::CheckRecord;
use super::secret::{ClientSecret, ClientSecrets};
use super::signing_alg::SigningAlg;
use super::slug::Slug;
use super::time::UnixMillis;

/// A connection as it is stored.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The account.
    pub slug: Slug,
    /// The revision at which this connection was created: tells it from an earlier one of the same slug.
    pub incarnation: u64,
    /// Grows with every change and is never used twice.
    pub revision: u64,
    /// What support entered.
    pub settings: ConnectionSettings,
    /// The issuer that the metadata document named at first use; kept from then on.
    pub pinned_issuer: Option<Issuer>,
    /// The client's secrets.
    pub secrets: ClientSecrets,
    /// When the two secrets last changed places by themselves, in milliseconds since the Unix epoch.
    pub secret_switched: Option<UnixMillis>,
    /// What the last check of it as it was found.
    pub last_check: Option<CheckRecord>,
    /// What the last check of a proposed change found.
    pub last_proposal: Option<CheckRecord>,
    /// The last login as a trial: the digest of the settings of then, and the time.
    pub test_login: Option<TestLogin>,
    /// Milliseconds since the Unix epoch.
    pub create_time: UnixMillis,
    /// Milliseconds since the Unix epoch.
    pub update_time: UnixMillis,
}

impl Connection {
    /// The issuer, where it is known: entered, or pinned at first use.
    #[must_use]
    pub fn issuer(&self) -> Option<&Issuer> {
        self.settings.issuer.as_ref().or(self.pinned_issuer.as_ref())
    }

    /// The last check of these settings with this secret, as they are or as they were proposed.
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

    /// The last check of the connection as it is; else the last one at all.
    #[must_use]
    pub fn latest_check(&self) -> Option<&CheckRecord> {
        self.check_of(&self.settings, &self.secrets.active).or(self.last_check.as_ref())
    }

    /// Of all by which a login works now.
    #[must_use]
    pub fn proof_digest(&self) -> String {
        proof_digest(&self.settings, &self.secrets.active)
    }
}

/// What support enters for a connection, apart from the secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionSettings {
    /// For people.
    pub display_name: String,
    /// What the connection is good for.
    pub state: ConnectionState,
    /// Exact string; `None`: read from the metadata document.
    pub issuer: Option<Issuer>,
    /// Where the endpoints come from.
    pub source: MetadataSource,
    /// The client's identifier at the IdP.
    pub client_id: String,
    /// Exactly one method per request.
    pub auth_method: TokenEndpointAuthMethod,
    /// Holds `openid`.
    pub scopes: Vec<String>,
    /// Which claims become the Identity's fields.
    pub claim_mapping: ClaimMapping,
    /// ASCII lower case; empty: any.
    pub allowed_email_domains: Vec<String>,
    /// Refuse e-mail that isn't said to be verified.
    pub require_verified_email: bool,
    /// Empty: what discovery lists.
    pub id_token_signing_algs: Vec<SigningAlg>,
    /// Audiences allowed beside `client_id`.
    pub additional_audiences: Vec<String>,
    /// How to log out at the IdP.
    pub logout_style: LogoutStyle,
    /// For an issuer with `{tenantid}` in it; ASCII lower case.
    pub allowed_tenant_ids: Vec<String>,
    /// Constant extras of the authorization request.
    pub authorization_params: BTreeMap<String, String>,
    /// Claims that must have one of the listed values.
    pub required_claims: Vec<RequiredClaim>,
}

/// Of all by which a login works, the secret with it: what a check or a trial has proven is of these.
#[must_use]
pub fn proof_digest(settings: &ConnectionSettings, secret: &ClientSecret) -> String {
    format!("{}:{}", settings.login_digest(), secret.fingerprint())
}

impl ConnectionSettings {
    /// Whether both read the same IdP's metadata: then an issuer that was read from it is still its issuer.
    #[must_use]
    pub fn has_idp_of(&self, other: &Self) -> bool {
        self.source == other.source && self.issuer == other.issuer
    }

    /// Of all that decides whether a login works, but for the secrets: a new display name doesn't change it.
    #[must_use]
    pub fn login_digest(&self) -> String {
        let Self {
            display_name: _,
            state: _,
            logout_style: _,
            issuer,
            source,
            client_id,
            auth_method,
            scopes,
            claim_mapping,
            allowed_email_domains,
            require_verified_email,
            id_token_signing_algs,
            additional_audiences,
            allowed_tenant_ids,
            authorization_params,
            required_claims,
        } = self;
        let relevant = serde_json::json!([
            issuer,
            source,
            client_id,
            auth_method,
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
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, relevant.to_string().as_bytes());
        hex::encode(&digest.as_ref()[..16])
    }
}

/// Where a connection's endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetadataSource {
    /// The IdP's metadata document (OIDC Discovery 4).
    Discovery(Url),
    /// Typed in by hand.
    Manual(Box<Endpoints>),
}

/// An IdP's endpoints, typed in by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// OIDC Core 3.1.2.
    pub authorization: Url,
    /// OIDC Core 3.1.3.
    pub token: Url,
    /// RFC 7517 5.
    pub jwks: Url,
    /// OIDC Core 5.3.
    pub userinfo: Option<Url>,
    /// OIDC RP-Initiated Logout 2.
    pub end_session: Option<Url>,
}

/// What a connection is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// Logins work, and say that they are trials.
    Testing,
    /// Logins work.
    Active,
    /// Logins are refused.
    Disabled,
}

/// OIDC Core 9.
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
    /// Told from the metadata and the issuer.
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
    /// For the e-mail address.
    pub email: Vec<String>,
    /// For the given name.
    pub given_name: Vec<String>,
    /// For the family name.
    pub family_name: Vec<String>,
    /// For the groups; `None`: groups are not asked for.
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

/// A claim that must have one of these values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequiredClaim {
    /// The claim's name.
    pub name: String,
    /// Compared exactly.
    pub values: Vec<String>,
}

/// An issuer identifier (OIDC Core 1.2): an exact string, never normalised.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Issuer(String);

impl Issuer {
    /// Takes the string as it stands. Whoever calls has checked that it is a URL.
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

/// What stands in Entra's multi-tenant issuer where a token has its tenant's id.
pub const TENANT_PLACEHOLDER: &str = "{tenantid}";

/// The three URIs that a customer registers at its IdP, for one account.
#[derive(Clone, Debug)]
pub struct CustomerUris<'a> {
    public_origin: &'a str,
    slug: &'a Slug,
}

impl<'a> CustomerUris<'a> {
    /// `public_origin`: scheme, host and port, without a slash at the end.
    #[must_use]
    pub fn new(public_origin: &'a str, slug: &'a Slug) -> Self {
        Self { public_origin, slug }
    }

    /// Where the IdP sends the browser with the code.
    #[must_use]
    pub fn redirect_uri(&self) -> String {
        format!("{}/app/accounts/oidc/{}/login/callback/", self.public_origin, self.slug)
    }

    /// Where a login starts; also the post-logout redirect URI.
    #[must_use]
    pub fn login_uri(&self) -> String {
        format!("{}/app/accounts/oidc/{}/login/", self.public_origin, self.slug)
    }
}
