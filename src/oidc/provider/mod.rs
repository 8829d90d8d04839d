//! One connection's IdP, ready for use: its metadata and keys, and the calls of a login. Made by
//! [`super::providers`] and used by [`crate::login`]. openidconnect's types stop in this folder.

pub(super) mod authorization;
pub(super) mod logout;
mod standby;
pub(super) mod token;
pub(super) mod userinfo;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use openidconnect::core::CoreClient;
use openidconnect::{ClientId, IssuerUrl, JsonWebKeySet, RedirectUrl};
use serde_json::{Map, Value};
use url::Url;

pub use super::verify::HintOwner;
pub use authorization::Authorization;
pub use token::Tokens;

use authorization::AuthorizationEndpoint;
use logout::{Logout, LogoutKind, LogoutParameters};
use token::TokenEndpoint;

use super::breaker::{CircuitBreaker, Permit};
use super::error::{
    CallError, Document, ExchangeError, IdTokenError, Problem, ProviderError, UserInfoError,
};
use super::http::{Answer, HttpClient, host_of};
use super::keys::{self, KeySet};
use super::metadata::Metadata;
use super::verify::{self, Expected, IssuerPolicy, VerifiedClaims};
use crate::model::cause::Cause;
use crate::model::connection::{Connection, Issuer, LogoutStyle, TENANT_PLACEHOLDER};
use crate::model::documents::IdpDocuments;
use crate::model::login::{AuthorizationCode, Nonce, PkceVerifier};
use crate::model::redact::Redactor;
use crate::model::time::{MonotonicMillis, UnixSeconds};

/// An IdP for one revision of one connection. Immutable; fresh keys make a new one.
#[derive(Clone)]
pub struct Provider {
    fixed: Arc<Fixed>,
    keys: KeySet,
    /// How long metadata and keys may be used before they are fetched again.
    pub(super) fresh_for: Duration,
}

struct Fixed {
    breaker: Arc<CircuitBreaker>,
    metadata: Metadata,
    issuer_policy: IssuerPolicy,
    authorization: AuthorizationEndpoint,
    token: TokenEndpoint,
    client_id: String,
    additional_audiences: Vec<String>,
    logout_style: LogoutStyle,
    http: HttpClient,
    /// Of the client's secrets: errors of a fetch are logged and kept.
    redactor: Redactor,
}

/// The documents of an IdP, as it sent them.
pub(super) struct Published {
    /// `None`: the endpoints are manual.
    pub(super) metadata: Option<Bytes>,
    pub(super) keys: Bytes,
}

impl Published {
    /// Bytes of both.
    pub(super) fn size(&self) -> usize {
        self.metadata.as_ref().map_or(0, Bytes::len) + self.keys.len()
    }
}

impl Provider {
    /// Fetches the metadata document, unless the endpoints are manual, and the keys.
    pub(super) async fn fetch(
        connection: &Connection,
        redirect_uri: &str,
        http: &HttpClient,
        breaker: Arc<CircuitBreaker>,
    ) -> Result<(Self, Published), ProviderError> {
        let fetched = Self::fetch_unredacted(connection, redirect_uri, http, breaker).await;
        fetched.map_err(|error| redacted(error, &redactor_of(connection)))
    }

    async fn fetch_unredacted(
        connection: &Connection,
        redirect_uri: &str,
        http: &HttpClient,
        breaker: Arc<CircuitBreaker>,
    ) -> Result<(Self, Published), ProviderError> {
        let (metadata, document) = Metadata::of(connection, http).await?;
        let (keys, answer) = keys::fetch(&metadata.endpoints.jwks, http).await?;
        let max_ages = [document.as_ref().and_then(Answer::max_age), answer.max_age()];
        let fresh_for = max_ages.into_iter().flatten().min().unwrap_or(FRESH_BY_DEFAULT);
        let provider =
            Self::new(connection, redirect_uri, http, breaker, metadata, keys, fresh_for)?;
        let metadata = document.map(|answer| answer.body);
        Ok((provider, Published { metadata, keys: answer.body }))
    }

    /// An IdP by documents that were fetched earlier.
    pub(super) fn of(
        connection: &Connection,
        redirect_uri: &str,
        http: &HttpClient,
        breaker: Arc<CircuitBreaker>,
        documents: &IdpDocuments,
    ) -> Result<Self, ProviderError> {
        let document = documents.metadata.as_deref();
        let metadata = Metadata::read(connection, document, http.addresses())?;
        let keys = keys::read(&metadata.endpoints.jwks, documents.keys.as_bytes())?;
        let fresh_for = documents.fresh_for;
        Self::new(connection, redirect_uri, http, breaker, metadata, keys, fresh_for)
    }

    fn new(
        connection: &Connection,
        redirect_uri: &str,
        http: &HttpClient,
        breaker: Arc<CircuitBreaker>,
        metadata: Metadata,
        keys: KeySet,
        fresh_for: Duration,
    ) -> Result<Self, ProviderError> {
        let settings = &connection.settings;
        let issuer = metadata.issuer.clone();
        let issuer_policy = if issuer.is_tenant_template() {
            IssuerPolicy::Tenants(issuer, settings.allowed_tenant_ids.clone())
        } else {
            IssuerPolicy::Exact(issuer)
        };
        let endpoints = &metadata.endpoints;
        let authorization =
            AuthorizationEndpoint::new(settings, &endpoints.authorization, redirect_uri);
        let secret = connection.secrets.active.expose();
        let token = TokenEndpoint::new(
            &settings.client_id,
            secret,
            metadata.auth_method,
            &endpoints.token,
            redirect_uri,
        );
        let fixed = Fixed {
            breaker,
            issuer_policy,
            authorization: authorization.map_err(ProviderError::Invalid)?,
            token: token.map_err(ProviderError::Invalid)?,
            client_id: settings.client_id.clone(),
            additional_audiences: settings.additional_audiences.clone(),
            logout_style: settings.logout_style,
            http: http.clone(),
            metadata,
            redactor: redactor_of(connection),
        };
        let fresh_for = fresh_for.clamp(FRESH_AT_LEAST, FRESH_AT_MOST);
        Ok(Self { fixed: Arc::new(fixed), keys, fresh_for })
    }

    /// The same IdP with the keys that it publishes now, and those as it sent them.
    pub(super) async fn with_fresh_keys(
        &self,
        http: &HttpClient,
    ) -> Result<(Self, Bytes), ProviderError> {
        let fetched = keys::fetch(&self.fixed.metadata.endpoints.jwks, http).await;
        let (keys, answer) = fetched.map_err(|error| redacted(error, &self.fixed.redactor))?;
        let provider = Self { fixed: Arc::clone(&self.fixed), keys, fresh_for: self.fresh_for };
        Ok((provider, answer.body))
    }

    /// The issuer identifier, or Entra's template of it.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.fixed.metadata.issuer
    }

    /// Whether `iss` of a callback is this IdP's (RFC 9207 2.4). It may be absent unless the IdP
    /// advertises it.
    #[must_use]
    pub fn admits_callback_issuer(&self, iss: Option<&str>) -> bool {
        match (iss, &self.fixed.issuer_policy) {
            (None, _) => !self.fixed.metadata.iss_parameter_supported,
            (Some(iss), IssuerPolicy::Exact(issuer)) => issuer.as_str() == iss,
            (Some(iss), IssuerPolicy::Tenants(template, tenants)) => tenants
                .iter()
                .any(|tenant| template.as_str().replace(TENANT_PLACEHOLDER, tenant) == iss),
        }
    }

    /// The URL of a login's authorization request.
    #[must_use]
    pub fn authorization_url(&self, authorization: &Authorization<'_>) -> String {
        self.fixed.authorization.url(authorization).into()
    }

    /// Permission to call the token endpoint, needed before a login's state is spent.
    ///
    /// # Errors
    /// Too many logins of the connection wait for the IdP, or it has not answered lately.
    pub fn acquire_permit(&self, now: MonotonicMillis) -> Result<Permit, ProviderError> {
        self.fixed.breaker.acquire(now).map_err(|outage| {
            let host = host_of(&self.fixed.metadata.endpoints.token);
            let error = CallError::Unavailable { host, outage };
            ProviderError::Call { document: Document::TokenResponse, error }
        })
    }

    /// Exchanges the code (RFC 6749 4.1.3). Code and verifier are moved in, since neither can be
    /// used again.
    ///
    /// # Errors
    /// See [`ExchangeError`]; the code is spent.
    pub async fn exchange(
        &self,
        code: AuthorizationCode,
        verifier: PkceVerifier,
    ) -> Result<Tokens, ExchangeError> {
        self.fixed.token.exchange(code, verifier, &self.fixed.http).await
    }

    /// Verifies the ID token of a login; see [`verify`].
    ///
    /// # Errors
    /// See [`IdTokenError`]; [`IdTokenError::needs_fresh_keys`] says whether to try again.
    pub fn verify(
        &self,
        tokens: &Tokens,
        nonce: &Nonce,
        max_age: Option<Duration>,
        now: UnixSeconds,
    ) -> Result<VerifiedClaims, IdTokenError> {
        verify::id_token(&tokens.id_token, &self.keys, &self.expected(tokens, nonce, max_age, now))
    }

    /// Whether there is a UserInfo endpoint.
    #[must_use]
    pub fn has_userinfo(&self) -> bool {
        self.fixed.metadata.endpoints.userinfo.is_some()
    }

    /// Calls UserInfo (OIDC Core 5.3) for further claims of the same subject. No claims without an
    /// endpoint.
    ///
    /// # Errors
    /// See [`UserInfoError`].
    pub async fn userinfo(
        &self,
        tokens: &Tokens,
        subject: &VerifiedClaims,
        now: UnixSeconds,
    ) -> Result<Map<String, Value>, UserInfoError> {
        let Some(url) = &self.fixed.metadata.endpoints.userinfo else { return Ok(Map::new()) };
        let fetched = userinfo::fetch(url, &tokens.access_token, &self.fixed.http).await;
        let (body, is_signed) = fetched?;
        // UserInfo has no nonce, so this one is compared with nothing.
        let nonce = Nonce::new(String::new());
        let expected = self.expected(tokens, &nonce, None, now);
        userinfo::read(&body, is_signed, &self.keys, &expected, &subject.subject)
            .map_err(UserInfoError::Invalid)
    }

    /// Whose ID token this is, which may have expired.
    #[must_use]
    pub fn owner_of_hint(&self, id_token_hint: &str) -> HintOwner {
        verify::owner_of_hint(id_token_hint, &self.fixed.issuer_policy, &self.fixed.client_id)
    }

    /// Where a browser ends its session at the IdP; `None` if the IdP has no logout.
    #[must_use]
    pub fn end_session_url(
        &self,
        post_logout_redirect_uri: &str,
        id_token_hint: Option<&str>,
        state: Option<&str>,
    ) -> Option<String> {
        let client_id = &self.fixed.client_id;
        let parameters =
            LogoutParameters { client_id, post_logout_redirect_uri, id_token_hint, state };
        Some(self.logout()?.url(&parameters).into())
    }

    /// Whether the IdP refuses a logout without an ID token.
    #[must_use]
    pub fn requires_id_token_hint(&self) -> bool {
        self.logout().is_some_and(|logout| logout.requires_id_token_hint())
    }

    fn logout(&self) -> Option<LogoutKind<'_>> {
        let Fixed { logout_style, metadata, .. } = &*self.fixed;
        let logout = Logout {
            style: *logout_style,
            issuer: metadata.issuer.as_str(),
            authorization: &metadata.endpoints.authorization,
            end_session: metadata.endpoints.end_session.as_ref(),
        };
        logout.kind()
    }

    fn expected<'a>(
        &'a self,
        tokens: &'a Tokens,
        nonce: &'a Nonce,
        max_age: Option<Duration>,
        now: UnixSeconds,
    ) -> Expected<'a> {
        Expected {
            issuer: &self.fixed.issuer_policy,
            client_id: &self.fixed.client_id,
            additional_audiences: &self.fixed.additional_audiences,
            algs: &self.fixed.metadata.algs,
            nonce,
            max_age,
            access_token: tokens.access_token.expose(),
            now,
        }
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("issuer", self.issuer()).finish_non_exhaustive()
    }
}

fn redactor_of(connection: &Connection) -> Redactor {
    Redactor::of_client(&connection.settings.client_id, &connection.secrets)
}

fn redacted(mut error: ProviderError, redactor: &Redactor) -> ProviderError {
    error.redact(redactor);
    error
}

/// The URL with these parameters after those of its own query.
pub(super) fn with_parameters<'a>(
    mut url: Url,
    sent: impl Iterator<Item = (&'a str, &'a str)>,
) -> Url {
    let own = url.query().map_or(0, str::len);
    url.query_pairs_mut().extend_pairs(sent);
    plus_as_percent_20(&mut url, own);
    url
}

/// Writes the spaces after the first `own` bytes of the query as `%20`, which every server reads, and not
/// as `+`, which is a space in forms only. A plus sign is `%2B` there.
fn plus_as_percent_20(url: &mut Url, own: usize) {
    if let Some((own, sent)) = url.query().and_then(|query| query.split_at_checked(own))
        && sent.contains('+')
    {
        let query = format!("{own}{}", sent.replace('+', "%20"));
        url.set_query(Some(&query));
    }
}

/// The crate's client, for building requests only: tokens are verified in [`verify`], so it gets no
/// keys, and neither kind of request names the issuer, so any URL serves as one.
fn client(client_id: &str, endpoint: &Url, redirect_uri: &str) -> Result<CoreClient, Problem> {
    let redirect_uri = RedirectUrl::new(redirect_uri.to_owned()).map_err(|error| {
        let text = format!("invalid redirect URI {redirect_uri:?}: {error}");
        Problem::new(Cause::SettingsIncomplete, text)
    })?;
    let issuer = IssuerUrl::from_url(endpoint.clone());
    let client_id = ClientId::new(client_id.to_owned());
    let client = CoreClient::new(client_id, issuer, JsonWebKeySet::new(Vec::new()));
    Ok(client.set_redirect_uri(redirect_uri))
}

/// Where neither document says how long it may be used.
const FRESH_BY_DEFAULT: Duration = Duration::from_secs(60 * 60);
const FRESH_AT_LEAST: Duration = Duration::from_secs(5 * 60);
const FRESH_AT_MOST: Duration = Duration::from_secs(24 * 60 * 60);
