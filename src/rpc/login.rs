//! LoginService over gRPC.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{self, Parsed};
use super::status::{Refusal, SlugOf};
use crate::identity::Identities;
use crate::login::Login;
use crate::model::login::{Callback, LoginRequest};
use crate::pb;
use crate::pb::login_service_server::LoginService;
use crate::telemetry;
use crate::telemetry::traces::current_trace_id;

pub(super) struct LoginRpc {
    login: Arc<Login>,
    identities: Option<Arc<Identities>>,
}

impl LoginRpc {
    pub(super) fn new(login: Arc<Login>, identities: Option<Arc<Identities>>) -> Self {
        Self { login, identities }
    }
}

#[tonic::async_trait]
impl LoginService for LoginRpc {
    async fn begin_login(&self, request: Request<pb::BeginLoginRequest>) -> Result<Response<pb::BeginLoginResponse>, Status> {
        let request = request.into_inner();
        let slug = SlugOf::request("BeginLogin", &request.slug);
        let request = LoginRequest::parse(request).map_err(|violations| slug.refused(Refusal::violations(violations)))?;
        let begun = self.login.begin(request).await.map_err(|error| slug.refused(error.into()))?;
        telemetry::login_begun(slug.as_str());
        Ok(Response::new(begun.into()))
    }

    async fn complete_login(
        &self,
        request: Request<pb::CompleteLoginRequest>,
    ) -> Result<Response<pb::CompleteLoginResponse>, Status> {
        let request = request.into_inner();
        let slug = SlugOf::request("CompleteLogin", &request.slug);
        let callback = Callback::parse(request).map_err(|violations| slug.refused(Refusal::violations(violations)))?;
        // Asked before the state is spent.
        self.identities.as_ref().map_or(Ok(()), |identities| identities.ready()).map_err(|error| slug.refused(error.into()))?;
        let completed = self.login.complete(callback).await.map_err(|error| slug.refused(error.into()))?;
        telemetry::login_completed(slug.as_str());
        tracing::info!(account.slug = %completed.identity.slug, idp.issuer = %completed.identity.issuer, trace_id = current_trace_id(), "a login was completed");
        let identity_token = match &self.identities {
            Some(identities) => identities.issue(&completed.identity).map_err(|error| slug.refused(error.into()))?,
            None => String::new(),
        };
        Ok(Response::new(pb::CompleteLoginResponse { identity_token, ..completed.into() }))
    }

    async fn logout_url(&self, request: Request<pb::LogoutUrlRequest>) -> Result<Response<pb::LogoutUrlResponse>, Status> {
        let request = request.into_inner();
        let slug = SlugOf::request("LogoutUrl", &request.slug);
        let request = convert::logout_request(request).map_err(|violations| slug.refused(Refusal::violations(violations)))?;
        let target = self.login.logout_url(request).await.map_err(|error| slug.refused(error.into()))?;
        Ok(Response::new(pb::LogoutUrlResponse { redirect_url: target.redirect_url, ends_idp_session: target.ends_idp_session }))
    }
}
