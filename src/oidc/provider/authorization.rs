//! The authorization request (OIDC Core 3.1.2.1): code flow, PKCE with S256 (RFC 7636). Built by
//! openidconnect, whose types stop here. A login and a check build their requests with this code,
//! so that a check sends what a login sends.

use openidconnect::core::{CoreAuthPrompt, CoreClient, CoreResponseType};
use openidconnect::{
    AuthUrl, AuthenticationContextClass, AuthenticationFlow, CsrfToken, EndpointSet, LanguageTag,
    LoginHint, PkceCodeChallenge, PkceCodeVerifier, Scope,
};
use url::Url;

use super::{client, plus_as_percent_20};
use crate::model::connection::ConnectionSettings;
use crate::model::login::{LoginHints, Nonce, PkceVerifier, Prompt};
use crate::oidc::error::Problem;

/// The parts of one login's authorization request that differ from login to login.
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

/// The authorization endpoint with the parts of the request that one connection always sends. Built
/// once per revision of the connection: building it costs more than the rest of a BeginLogin.
pub(in crate::oidc) struct AuthorizationEndpoint {
    client: CoreClient<EndpointSet>,
    /// Without `openid`, which the crate adds itself.
    scopes: Vec<Scope>,
    params: Vec<(String, String)>,
    /// Bytes of the endpoint's own query.
    own_query: usize,
}

impl AuthorizationEndpoint {
    pub(in crate::oidc) fn new(
        settings: &ConnectionSettings,
        endpoint: &Url,
        redirect_uri: &str,
    ) -> Result<Self, Problem> {
        let client = client(&settings.client_id, endpoint, redirect_uri)?
            .set_auth_uri(AuthUrl::from_url(endpoint.clone()));
        let scopes = settings.scopes.iter().filter(|scope| *scope != "openid");
        Ok(Self {
            client,
            scopes: scopes.cloned().map(Scope::new).collect(),
            params: settings.authorization_params.clone().into_iter().collect(),
            own_query: endpoint.query().map_or(0, str::len),
        })
    }

    /// Where to send the browser.
    pub(in crate::oidc) fn url(&self, authorization: &Authorization<'_>) -> Url {
        let state = CsrfToken::new(authorization.state.to_owned());
        let nonce = openidconnect::Nonce::new(authorization.nonce.expose().to_owned());
        let verifier = PkceCodeVerifier::new(authorization.verifier.expose().to_owned());
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let mut request = self
            .client
            .authorize_url(flow, move || state, move || nonce)
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .add_scopes(self.scopes.iter().cloned());
        let hints = authorization.hints;
        // The caller's values replace those of the connection.
        let is_replaced = |name: &str| match name {
            "acr_values" => !hints.acr_values.is_empty(),
            "ui_locales" => !hints.ui_locales.is_empty(),
            "prompt" => !hints.prompt.is_empty(),
            _ => false,
        };
        for (name, value) in self.params.iter().filter(|(name, _)| !is_replaced(name)) {
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
        let mut url = request.url().0;
        plus_as_percent_20(&mut url, self.own_query);
        url
    }
}
