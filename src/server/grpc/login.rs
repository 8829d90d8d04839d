//! LoginService over gRPC.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{self, Parsed};
use super::refusal::CallContext;
use crate::identity_token::IdentityTokens;
use crate::login::Login;
use crate::model::login::{Callback, LoginRequest};
use crate::pb;
use crate::pb::login_service_server::LoginService;
use crate::telemetry;
use crate::telemetry::traces::current_trace_id;

pub(in crate::server) struct LoginRpc {
    login: Arc<Login>,
    identity_tokens: Option<Arc<IdentityTokens>>,
}

impl LoginRpc {
    pub(in crate::server) fn new(
        login: Arc<Login>,
        identity_tokens: Option<Arc<IdentityTokens>>,
    ) -> Self {
        Self { login, identity_tokens }
    }
}

#[tonic::async_trait]
impl LoginService for LoginRpc {
    async fn begin_login(
        &self,
        request: Request<pb::BeginLoginRequest>,
    ) -> Result<Response<pb::BeginLoginResponse>, Status> {
        let request = request.into_inner();
        let ctx = CallContext::new("BeginLogin", &request.slug);
        let request = LoginRequest::parse(request).map_err(|violations| ctx.reject(violations))?;
        let begun = self.login.begin(request).await.map_err(|error| ctx.reject(error))?;
        telemetry::login_begun(ctx.slug());
        Ok(Response::new(begun.into()))
    }

    async fn complete_login(
        &self,
        request: Request<pb::CompleteLoginRequest>,
    ) -> Result<Response<pb::CompleteLoginResponse>, Status> {
        let request = request.into_inner();
        let ctx = CallContext::new("CompleteLogin", &request.slug);
        let callback = Callback::parse(request).map_err(|violations| ctx.reject(violations))?;
        // Asked before the state is spent.
        if let Some(tokens) = &self.identity_tokens {
            tokens.ready().map_err(|error| ctx.reject(error))?;
        }
        let completed = self.login.complete(callback).await.map_err(|error| ctx.reject(error))?;
        let identity = &completed.identity;
        let token = self.identity_tokens.as_ref().map(|tokens| tokens.issue(identity)).transpose();
        let identity_token = token.map_err(|error| ctx.reject(error))?.unwrap_or_default();
        telemetry::login_completed(ctx.slug());
        tracing::info!(
            account.slug = %identity.slug,
            idp.issuer = %identity.issuer,
            trace_id = current_trace_id(),
            "login completed ({})",
            identity.slug
        );
        Ok(Response::new(pb::CompleteLoginResponse { identity_token, ..completed.into() }))
    }

    async fn logout_url(
        &self,
        request: Request<pb::LogoutUrlRequest>,
    ) -> Result<Response<pb::LogoutUrlResponse>, Status> {
        let request = request.into_inner();
        let ctx = CallContext::new("LogoutUrl", &request.slug);
        let request =
            convert::logout_request(request).map_err(|violations| ctx.reject(violations))?;
        let target = self.login.logout_url(request).await.map_err(|error| ctx.reject(error))?;
        Ok(Response::new(pb::LogoutUrlResponse {
            redirect_url: target.redirect_url,
            ends_idp_session: target.ends_idp_session,
        }))
    }
}
