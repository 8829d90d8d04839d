//! LogoutUrl: where a browser ends its session at the IdP.

use std::time::Duration;

use super::{Login, LoginError, within_deadline};
use crate::model::Violation;
use crate::model::connection::CustomerUris;
use crate::model::login::RawIdToken;
use crate::model::slug::Slug;
use crate::oidc::provider::HintOwner;

/// Which session to end, and where to return.
#[derive(Debug)]
pub struct LogoutRequest {
    /// The account.
    pub slug: Slug,
    /// The session's ID token.
    pub id_token_hint: Option<RawIdToken>,
    /// `None`: the account's own.
    pub post_logout_redirect_uri: Option<String>,
    /// Returned with the person (OIDC RP-Initiated Logout 2).
    pub state: Option<String>,
}

/// Where to send the browser.
#[derive(Debug)]
pub struct LogoutTarget {
    /// Never empty.
    pub redirect_url: String,
    /// Whether it ends the session at the IdP.
    pub ends_idp_session: bool,
}

impl Login {
    /// Builds the logout URL (OIDC RP-Initiated Logout 2), or the post-logout redirect URI where the IdP
    /// has no logout or nothing is known of it. Works for a disabled connection too: a person who is logged
    /// in may leave.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn logout_url(&self, request: LogoutRequest) -> Result<LogoutTarget, LoginError> {
        within_deadline(self.logout_target(request)).await
    }

    async fn logout_target(&self, request: LogoutRequest) -> Result<LogoutTarget, LoginError> {
        let registered = CustomerUris::new(&self.policy.public_origin, &request.slug).login_uri();
        if request.post_logout_redirect_uri.as_ref().is_some_and(|uri| *uri != registered) {
            let expected = format!("must be the account's registered one, {registered:?}");
            return Err(LoginError::BadRequest(vec![Violation::new(
                "post_logout_redirect_uri",
                expected,
            )]));
        }
        let connection =
            self.connections.get(&request.slug).await?.ok_or(LoginError::ConnectionNotFound)?;
        let provider = tokio::time::timeout(PROVIDER_WAIT, self.providers.of(&connection)).await;
        // Whoever wants to leave is let go, whatever is wrong with the IdP.
        let Ok(Ok(provider)) = provider else {
            tracing::info!("the session at the IdP stays: its metadata is not available");
            return Ok(LogoutTarget { redirect_url: registered, ends_idp_session: false });
        };
        let given = request.id_token_hint.as_ref().map(|hint| hint.expose());
        let refused = |rule| LoginError::BadRequest(vec![Violation::new("id_token_hint", rule)]);
        let owner = given.map(|hint| provider.owner_of_hint(hint));
        let is_required = provider.requires_id_token_hint();
        let url = match owner {
            Some(HintOwner::Nobody) => return Err(refused("must be an ID token")),
            None if is_required => {
                return Err(refused(
                    "must be given: this IdP refuses a logout without the session's ID token",
                ));
            }
            // The person logged in before the connection's issuer or client changed. The IdP would
            // refuse the token.
            Some(HintOwner::Foreign) if is_required => None,
            Some(HintOwner::Foreign) | None => Some(None),
            Some(HintOwner::Ours) => Some(given),
        };
        let url = url
            .and_then(|hint| provider.end_session_url(&registered, hint, request.state.as_deref()));
        Ok(match url {
            Some(redirect_url) => LogoutTarget { redirect_url, ends_idp_session: true },
            None => LogoutTarget { redirect_url: registered, ends_idp_session: false },
        })
    }
}

/// How long a person who leaves waits for metadata that isn't known yet.
const PROVIDER_WAIT: Duration = Duration::from_secs(3);
