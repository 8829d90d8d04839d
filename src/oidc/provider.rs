//! One connection's IdP, ready for use: its metadata and keys, and the calls of a login. openidconnect's generics stop
//! here.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreErrorResponseType, CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreResponseType,
    CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AccessToken, AsyncHttpClient, AuthType, AuthUrl, AuthenticationContextClass,
    AuthenticationFlow, Client, ClientId, CsrfToken, EmptyAdditionalClaims, EndpointNotSet,
    EndpointSet, HttpRequest, HttpResponse, IdToken, IssuerUrl, JsonWebKeySet, LanguageTag,
    LoginHint, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken,
    RequestTokenError, Scope, StandardErrorResponse, TokenResponse, TokenUrl,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use url::Url;

use super::breaker::{CircuitBreaker, Permit};
use super::error::{CallError, ExchangeError, IdTokenError, ProviderError, UserInfoError};
use super::http::{HttpClient, host_of};
use super::json;
use super::keys::{KeySet, VerificationKey};
use super::metadata::{MAX_DOCUMENT, Metadata};
use super::verify::{self, Expected, IssuerPolicy, MAX_TOKEN, VerifiedClaims};
use crate::model::connection::{Connection, Issuer, LogoutStyle, TokenEndpointAuthMethod};
use crate::model::login::{AuthorizationCode, LoginHints, Nonce, PkceVerifier, Prompt, RawIdToken};
use crate::model::text::quotable;
use crate::model::time::{UnixMillis, UnixSeconds};

/// An IdP as one revision of one connection sees it. Immutable; new keys make a new one.
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
    client: OidcClient,
    client_id: String,
    scopes: Vec<Scope>,
    authorization_params: Vec<(String, String)>,
    additional_audiences: Vec<String>,
    logout_style: LogoutStyle,
    http: HttpClient,
}

/// What the authorization request of one login holds.
#[derive(Debug)]
pub struct Authorization<'a> {
    /// RFC 6749 4.1.1.
    pub state: &'a str,
    /// OIDC Core 3.1.2.1.
    pub nonce: &'a Nonce,
    /// RFC 7636 4.1; only its challenge is sent.
    pub verifier: &'a PkceVerifier,
    /// What the caller chose.
    pub hints: &'a LoginHints,
}

/// What came for the code.
#[derive(Debug)]
pub struct Tokens {
    /// Not verified yet.
    pub id_token: RawIdToken,
    access_token: AccessToken,
}

impl Provider {
    /// Fetches what the connection doesn't say itself: the metadata document and the keys.
    pub(super) async fn fetch(
        connection: &Connection,
        redirect_uri: &str,
        http: &HttpClient,
        breaker: Arc<CircuitBreaker>,
    ) -> Result<Self, ProviderError> {
        let metadata = Metadata::of(connection, http).await?;
        let (keys, keys_max_age) = fetch_keys(&metadata.endpoints.jwks, http).await?;
        // The earlier of both documents; where neither says a word, an hour.
        let max_age = [metadata.max_age, keys_max_age]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(FRESH_BY_DEFAULT);
        let fresh_for = max_age.clamp(FRESH_AT_LEAST, FRESH_AT_MOST);
        let issuer_policy = if metadata.issuer.is_tenant_template() {
            if connection.settings.allowed_tenant_ids.is_empty() {
                let hint = "the IdP's issuer is a template for many tenants: enter the tenant's own discovery URL, or the \
                            issuer with allowed_tenant_ids";
                return Err(ProviderError::SettingsUnfit(hint.to_owned()));
            }
            IssuerPolicy::Tenants(
                metadata.issuer.clone(),
                connection.settings.allowed_tenant_ids.clone(),
            )
        } else {
            IssuerPolicy::Exact(metadata.issuer.clone())
        };
        let settings = &connection.settings;
        let fixed = Fixed {
            breaker,
            client: oidc_client(connection, &metadata, redirect_uri)?,
            issuer_policy,
            client_id: settings.client_id.clone(),
            // The crate adds `openid` itself.
            scopes: settings
                .scopes
                .iter()
                .filter(|scope| *scope != "openid")
                .cloned()
                .map(Scope::new)
                .collect(),
            authorization_params: settings.authorization_params.clone().into_iter().collect(),
            additional_audiences: settings.additional_audiences.clone(),
            logout_style: settings.logout_style,
            http: http.clone(),
            metadata,
        };
        Ok(Self { fixed: Arc::new(fixed), keys, fresh_for })
    }

    /// The same IdP with the keys that it publishes now.
    pub(super) async fn with_fresh_keys(&self) -> Result<Self, ProviderError> {
        let (keys, _) = fetch_keys(&self.fixed.metadata.endpoints.jwks, &self.fixed.http).await?;
        Ok(Self { fixed: Arc::clone(&self.fixed), keys, fresh_for: self.fresh_for })
    }

    /// The issuer identifier, or Entra's template of it.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.fixed.metadata.issuer
    }

    /// Whether `iss` of a callback is this IdP's (RFC 9207 2.4). Absent is fine unless the IdP advertises it.
    #[must_use]
    pub fn admits_callback_issuer(&self, iss: Option<&str>) -> bool {
        match (iss, &self.fixed.issuer_policy) {
            (None, _) => !self.fixed.metadata.iss_parameter_supported,
            (Some(iss), IssuerPolicy::Exact(issuer)) => issuer.as_str() == iss,
            (Some(iss), IssuerPolicy::Tenants(template, tenants)) => tenants.iter().any(|tenant| {
                template.as_str().replace(crate::model::connection::TENANT_PLACEHOLDER, tenant)
                    == iss
            }),
        }
    }

    /// The authorization request (OIDC Core 3.1.2.1): code flow, PKCE with S256 (RFC 7636).
    #[must_use]
    pub fn authorization_url(&self, authorization: &Authorization<'_>) -> String {
        let state = CsrfToken::new(authorization.state.to_owned());
        let nonce = openidconnect::Nonce::new(authorization.nonce.expose().to_owned());
        let verifier = PkceCodeVerifier::new(authorization.verifier.expose().to_owned());
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let mut request = self
            .fixed
            .client
            .authorize_url(flow, move || state, move || nonce)
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .add_scopes(self.fixed.scopes.iter().cloned());
        let hints = authorization.hints;
        // The caller's own word stands in for the connection's.
        let is_given = |name: &str| match name {
            "acr_values" => !hints.acr_values.is_empty(),
            "ui_locales" => !hints.ui_locales.is_empty(),
            _ => false,
        };
        for (name, value) in
            self.fixed.authorization_params.iter().filter(|(name, _)| !is_given(name))
        {
            request = request.add_extra_param(name.as_str(), value.as_str());
        }
        if let Some(login_hint) = &hints.login_hint {
            request = request.set_login_hint(LoginHint::new(login_hint.clone()));
        }
        if let Some(max_age) = hints.max_age {
            request = request.set_max_age(max_age);
        }
        for prompt in &hints.prompt {
            request = request.add_prompt(match prompt {
                Prompt::None => CoreAuthPrompt::None,
                Prompt::Login => CoreAuthPrompt::Login,
                Prompt::Consent => CoreAuthPrompt::Consent,
                Prompt::SelectAccount => CoreAuthPrompt::SelectAccount,
            });
        }
        for locale in &hints.ui_locales {
            request = request.add_ui_locale(LanguageTag::new(locale.clone()));
        }
        for value in &hints.acr_values {
            request =
                request.add_auth_context_value(AuthenticationContextClass::new(value.clone()));
        }
        let (url, _, _) = request.url();
        url.into()
    }

    /// Leave to call this IdP's token endpoint, to be asked before the state is spent: there is none while too many
    /// logins of the connection wait for it, or while it hasn't answered lately. `now`: Unix milliseconds.
    ///
    /// # Errors
    /// Why there is none.
    pub fn acquire_permit(&self, now: UnixMillis) -> Result<Permit, ProviderError> {
        let host = || host_of(self.fixed.metadata.endpoints.token.as_str());
        let refused =
            |detail: &str| CallError::Unavailable { host: host(), detail: detail.to_owned() };
        self.fixed.breaker.acquire(now).map_err(|detail| refused(detail).into())
    }

    /// Exchanges the code (RFC 6749 4.1.3). The code and the verifier are moved in: neither can be used again.
    ///
    /// # Errors
    /// See [`ExchangeError`]; the code is spent.
    pub async fn exchange(
        &self,
        code: AuthorizationCode,
        verifier: PkceVerifier,
    ) -> Result<Tokens, ExchangeError> {
        let token_endpoint = TokenEndpoint(self.fixed.http.clone());
        let answer = self
            .fixed
            .client
            .exchange_code(openidconnect::AuthorizationCode::new(code.expose().to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(verifier.expose().to_owned()))
            .request_async(&token_endpoint)
            .await;
        let invalid = |text: &str| ExchangeError::ResponseInvalid(text.to_owned());
        let answer = answer.map_err(|error| match error {
            RequestTokenError::Request(TokenCallError(error)) => error,
            RequestTokenError::Parse(error, _) => {
                ExchangeError::ResponseInvalid(json::describe(error.inner()))
            }
            RequestTokenError::ServerResponse(_) | RequestTokenError::Other(_) => {
                invalid("it is no token response")
            }
        })?;
        if !answer.access_token.secret().bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
            return Err(invalid(
                "its access_token holds characters that no token has (RFC 6749 A.12)",
            ));
        }
        let id_token = answer
            .id_token
            .ok_or_else(|| invalid("it has no id_token: does the client's scope hold openid?"))?;
        Ok(Tokens { id_token, access_token: answer.access_token })
    }

    /// Verifies an ID token of a login; see [`verify`].
    ///
    /// # Errors
    /// See [`IdTokenError`]; for [`IdTokenError::UnknownKey`] fresh keys may help.
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

    /// Asks UserInfo (OIDC Core 5.3): claims of the same subject, plain or signed.
    ///
    /// # Errors
    /// See [`UserInfoError`].
    pub async fn userinfo(
        &self,
        tokens: &Tokens,
        subject: &VerifiedClaims,
        now: UnixSeconds,
    ) -> Result<Map<String, Value>, UserInfoError> {
        let invalid = |text: String| UserInfoError::Invalid(text);
        let Some(url) = &self.fixed.metadata.endpoints.userinfo else {
            return Err(invalid("the IdP has no UserInfo endpoint".to_owned()));
        };
        let bearer = format!("Bearer {}", tokens.access_token.secret());
        let mut bearer = http::HeaderValue::from_str(&bearer)
            .map_err(|_| invalid("the access token is no header value".to_owned()))?;
        bearer.set_sensitive(true);
        let request = http::Request::get(url.as_str())
            .header(http::header::AUTHORIZATION, bearer)
            .header(http::header::ACCEPT, "application/json, application/jwt")
            .body(hyper::body::Bytes::new())
            .map_err(|error| invalid(error.to_string()))?;
        let answer =
            self.fixed.http.send(request, MAX_ANSWER).await.map_err(UserInfoError::Call)?;
        if answer.status != StatusCode::OK {
            return Err(invalid(format!("UserInfo answered HTTP {}", answer.status.as_u16())));
        }
        // No nonce is in it; the expectation of one is not looked at.
        let nonce = Nonce::new(String::new());
        let is_signed = answer.media_type() == "application/jwt";
        read_userinfo(
            &answer.body,
            is_signed,
            &self.keys,
            &self.expected(tokens, &nonce, None, now),
            subject,
        )
    }

    /// Whether this ID token, perhaps expired, is of this issuer and client.
    #[must_use]
    pub fn admits_hint(&self, id_token_hint: &str) -> bool {
        verify::is_hint_for(id_token_hint, &self.fixed.issuer_policy, &self.fixed.client_id)
    }

    /// Where a browser ends its session at the IdP; `None`: this IdP has no logout.
    #[must_use]
    pub fn end_session_url(
        &self,
        post_logout_redirect_uri: &str,
        id_token_hint: Option<&str>,
        state: Option<&str>,
    ) -> Option<String> {
        let client_id = self.fixed.client_id.as_str();
        match self.logout_style()? {
            Logout::RpInitiated(endpoint) => {
                let mut url = endpoint.clone();
                let mut query = url.query_pairs_mut();
                if let Some(hint) = id_token_hint {
                    query.append_pair("id_token_hint", hint);
                }
                query
                    .append_pair("client_id", client_id)
                    .append_pair("post_logout_redirect_uri", post_logout_redirect_uri);
                if let Some(state) = state {
                    query.append_pair("state", state);
                }
                drop(query);
                Some(url.into())
            }
            Logout::Auth0(mut url) => {
                url.query_pairs_mut()
                    .append_pair("client_id", client_id)
                    .append_pair("returnTo", post_logout_redirect_uri);
                Some(url.into())
            }
            Logout::Cognito(mut url) => {
                url.query_pairs_mut()
                    .append_pair("client_id", client_id)
                    .append_pair("logout_uri", post_logout_redirect_uri);
                Some(url.into())
            }
        }
    }

    /// Whether its logout refuses whoever comes without an ID token: Okta's does, on its own domains and a customer's.
    #[must_use]
    pub fn requires_id_token_hint(&self) -> bool {
        let Some(Logout::RpInitiated(endpoint)) = self.logout_style() else { return false };
        endpoint.path().starts_with("/oauth2/") && endpoint.path().ends_with("/v1/logout")
    }

    fn logout_style(&self) -> Option<Logout<'_>> {
        let endpoints = &self.fixed.metadata.endpoints;
        let standard = || endpoints.end_session.as_ref().map(Logout::RpInitiated);
        let at = |base: &Url, path: &str| {
            let mut url = base.clone();
            url.set_path(path);
            url.set_query(None);
            url
        };
        let auth0 = || {
            Url::parse(self.issuer().as_str())
                .ok()
                .map(|issuer| Logout::Auth0(at(&issuer, "/v2/logout")))
        };
        let cognito = || Some(Logout::Cognito(at(&endpoints.authorization, "/logout")));
        let is_at = |url: &str, domain: &str| {
            host_of(url).strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
        };
        let issuer = self.issuer().as_str();
        let is_cognito = || {
            is_at(issuer, "amazonaws.com") && host_of(issuer).starts_with("cognito-idp.")
                || is_at(endpoints.authorization.as_str(), "amazoncognito.com")
        };
        match self.fixed.logout_style {
            LogoutStyle::RpInitiated => standard(),
            LogoutStyle::Auth0V2 => auth0(),
            LogoutStyle::Cognito => cognito(),
            LogoutStyle::None => None,
            // Cognito advertises its own logout as if it were the standard's.
            LogoutStyle::Auto if is_cognito() => cognito(),
            LogoutStyle::Auto => {
                standard().or_else(|| is_at(issuer, "auth0.com").then(auth0).flatten())
            }
        }
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
            access_token: tokens.access_token.secret(),
            now,
        }
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("issuer", self.issuer()).finish_non_exhaustive()
    }
}

enum Logout<'a> {
    RpInitiated(&'a Url),
    Auth0(Url),
    Cognito(Url),
}

async fn fetch_keys(
    url: &Url,
    http: &HttpClient,
) -> Result<(KeySet, Option<Duration>), ProviderError> {
    let invalid = |detail: String| ProviderError::MetadataInvalid {
        document: "key set",
        host: host_of(url.as_str()),
        detail,
    };
    let answer = http.get(url, "application/jwk-set+json, application/json", MAX_DOCUMENT).await?;
    if !answer.status.is_success() {
        return Err(invalid(format!("HTTP {}", answer.status.as_u16())));
    }
    let keys = KeySet::parse(&answer.body).map_err(invalid)?;
    Ok((keys, answer.max_age()))
}

/// Reads UserInfo's answer, plain or signed.
pub(super) fn read_userinfo(
    body: &[u8],
    is_signed: bool,
    keys: &KeySet,
    expected: &Expected<'_>,
    subject: &VerifiedClaims,
) -> Result<Map<String, Value>, UserInfoError> {
    let invalid = |text: String| UserInfoError::Invalid(text);
    let claims = if is_signed {
        let text =
            std::str::from_utf8(body).map_err(|_| invalid("UserInfo is no text".to_owned()))?;
        verify::signed_userinfo(text.trim(), keys, expected)
            .map_err(|error| invalid(format!("signed UserInfo: {error}")))?
    } else {
        json::parse_object(body).map_err(|detail| invalid(format!("UserInfo: {detail}")))?
    };
    // OIDC Core 5.3.2: the sub must be there and match exactly.
    if claims.get("sub").and_then(Value::as_str) != Some(subject.subject.as_str()) {
        return Err(invalid("UserInfo is of another subject than the ID token".to_owned()));
    }
    Ok(claims)
}

/// Calls the token endpoint for the crate. An OAuth error answer ends here, told apart by who was refused; the content
/// type isn't looked at, since the body's form decides.
struct TokenEndpoint(HttpClient);

impl<'c> AsyncHttpClient<'c> for TokenEndpoint {
    type Error = TokenCallError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, TokenCallError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let answer = self.0.send(request.map(Into::into), MAX_ANSWER).await;
            let answer = answer.map_err(|error| TokenCallError(ExchangeError::Call(error)))?;
            if answer.status != StatusCode::OK {
                return Err(TokenCallError(token_error(answer.status, &answer.body)));
            }
            let mut response = HttpResponse::new(answer.body.to_vec());
            *response.status_mut() = answer.status;
            Ok(response)
        })
    }
}

/// RFC 6749 5.2.
pub(super) fn token_error(status: StatusCode, body: &[u8]) -> ExchangeError {
    let document = json::parse_object(body).unwrap_or_default();
    let text = |name: &str| document.get(name).and_then(Value::as_str).map(quotable);
    let description = text("error_description");
    match (text("error"), status) {
        (Some(idp_error), _)
            if matches!(idp_error.as_str(), "invalid_client" | "unauthorized_client") =>
        {
            ExchangeError::ClientRejected { idp_error, description }
        }
        (Some(idp_error), _) if idp_error == "invalid_grant" => {
            ExchangeError::CodeRejected { idp_error, description }
        }
        (idp_error, StatusCode::UNAUTHORIZED) => ExchangeError::ClientRejected {
            idp_error: idp_error.unwrap_or_else(|| "HTTP 401".to_owned()),
            description,
        },
        (Some(idp_error), _) => ExchangeError::ResponseInvalid(format!("error {idp_error:?}")),
        (None, status) => ExchangeError::ResponseInvalid(format!("HTTP {}", status.as_u16())),
    }
}

/// The crate wants its HTTP client's errors to be of one type.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct TokenCallError(ExchangeError);

type OidcClient = Client<
    EmptyAdditionalClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    VerificationKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    TokenAnswer,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
    EndpointNotSet,
>;

/// Built once per connection revision: from strings it costs more than the rest of a begun login.
fn oidc_client(
    connection: &Connection,
    metadata: &Metadata,
    redirect_uri: &str,
) -> Result<OidcClient, ProviderError> {
    let unfit = |what: &str| ProviderError::SettingsUnfit(format!("the {what} is no URL"));
    let auth_type = match connection.settings.auth_method {
        TokenEndpointAuthMethod::ClientSecretBasic => AuthType::BasicAuth,
        TokenEndpointAuthMethod::ClientSecretPost => AuthType::RequestBody,
    };
    // The crate only parses the issuer; the one that tokens are compared with is the metadata's, as a string.
    let issuer =
        IssuerUrl::new(metadata.issuer.as_str().to_owned()).map_err(|_| unfit("issuer"))?;
    Ok(Client::new(
        ClientId::new(connection.settings.client_id.clone()),
        issuer,
        JsonWebKeySet::new(Vec::new()),
    )
    .set_client_secret(openidconnect::ClientSecret::new(
        connection.secrets.active.expose().to_owned(),
    ))
    .set_auth_type(auth_type)
    .set_auth_uri(AuthUrl::from_url(metadata.endpoints.authorization.clone()))
    .set_token_uri(TokenUrl::from_url(metadata.endpoints.token.clone()))
    .set_redirect_uri(
        RedirectUrl::new(redirect_uri.to_owned()).map_err(|_| unfit("redirect URI"))?,
    ))
}

/// A token response, read leniently where a login doesn't depend on it (`expires_in` and `token_type` as IdPs send them)
/// and strictly elsewhere: the crate's own type refuses the whole response for one odd member.
#[derive(Clone, Debug)]
pub(super) struct TokenAnswer {
    pub(super) access_token: AccessToken,
    pub(super) id_token: Option<RawIdToken>,
    token_type: CoreTokenType,
}

impl<'de> Deserialize<'de> for TokenAnswer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = json::strict_object(deserializer)?;
        let mut text = |name: &'static str| match members.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.len() <= MAX_TOKEN => Ok(Some(text)),
            Some(Value::String(_)) => {
                Err(json::own_error(format_args!("its {name} has more than {MAX_TOKEN} bytes")))
            }
            Some(_) => Err(json::own_error(format_args!("its {name} is no string"))),
        };
        let id_token = text("id_token")?.map(RawIdToken::new);
        let access_token = text("access_token")?
            .ok_or_else(|| json::own_error(format_args!("it has no access_token")))?;
        Ok(Self {
            access_token: AccessToken::new(access_token),
            id_token,
            token_type: CoreTokenType::Bearer,
        })
    }
}

/// The crate asks that its responses can be written too; a token never is.
impl Serialize for TokenAnswer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl OAuth2TokenResponse for TokenAnswer {
    type TokenType = CoreTokenType;

    fn access_token(&self) -> &AccessToken {
        &self.access_token
    }

    fn token_type(&self) -> &CoreTokenType {
        &self.token_type
    }

    fn expires_in(&self) -> Option<std::time::Duration> {
        None
    }

    fn refresh_token(&self) -> Option<&RefreshToken> {
        None
    }

    fn scopes(&self) -> Option<&Vec<Scope>> {
        None
    }
}

/// The ID token stays raw: [`verify`] reads it.
impl
    TokenResponse<
        EmptyAdditionalClaims,
        CoreGenderClaim,
        CoreJweContentEncryptionAlgorithm,
        CoreJwsSigningAlgorithm,
    > for TokenAnswer
{
    fn id_token(
        &self,
    ) -> Option<
        &IdToken<
            EmptyAdditionalClaims,
            CoreGenderClaim,
            CoreJweContentEncryptionAlgorithm,
            CoreJwsSigningAlgorithm,
        >,
    > {
        None
    }
}

const FRESH_BY_DEFAULT: Duration = Duration::from_secs(60 * 60);
const FRESH_AT_LEAST: Duration = Duration::from_secs(5 * 60);
const FRESH_AT_MOST: Duration = Duration::from_secs(24 * 60 * 60);
/// Token and UserInfo answers.
const MAX_ANSWER: usize = 256 * 1024;
