//! Proves a standby secret before it takes the place of the active one: both are tried with a made-up
//! code. So neither a gateway's error nor a stranger's code puts a secret into use that the IdP doesn't
//! know.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::Provider;
use super::token::TokenEndpoint;
use crate::entropy::Entropy;
use crate::model::connection::Connection;
use crate::model::login::{AuthorizationCode, PkceVerifier};

impl Provider {
    /// Whether the IdP rejects the active secret and accepts the standby secret, by two requests to the
    /// token endpoint.
    pub async fn accepts_standby(
        &self,
        connection: &Connection,
        redirect_uri: &str,
        entropy: &dyn Entropy,
    ) -> bool {
        let random = || {
            let mut bytes = [0; 32];
            entropy.fill(&mut bytes);
            BASE64_URL_SAFE_NO_PAD.encode(bytes)
        };
        let (metadata, http) = (&self.fixed.metadata, &self.fixed.http);
        let Some(standby) = &connection.secrets.standby else { return false };
        let standby = TokenEndpoint::new(
            &connection.settings.client_id,
            standby.expose(),
            metadata.auth_method,
            &metadata.endpoints.token,
            redirect_uri,
        );
        let Ok(standby) = standby else { return false };
        let code = || (AuthorizationCode::new(random()), PkceVerifier::new(random()));
        let (made_up, verifier) = code();
        let by_active = self.fixed.token.exchange(made_up, verifier, http).await;
        if !by_active.is_err_and(|error| error.rejects_secret()) {
            return false;
        }
        let (made_up, verifier) = code();
        let by_standby = standby.exchange(made_up, verifier, http).await;
        by_standby.is_err_and(|error| error.rejects_code_only())
    }
}
