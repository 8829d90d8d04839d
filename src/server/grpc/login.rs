//! LoginService over gRPC: parses requests, calls `login`, and converts results.

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status};

use super::convert::{self, Parsed};
use super::refusal::{Refusal, reject};
use crate::identity_token::IdentityTokens;
use crate::login::{Completion, Login, LoginError};
use crate::model::login::{Callback, LoginRequest};
use crate::pb;
use crate::pb::login_service_server::LoginService;
use crate::telemetry::{self, call};

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

    /// [`reject`] with the remedy in the terms of the account.
    async fn refuse(&self, refusal: impl Into<Refusal>) -> Status {
        let refusal = refusal.into();
        let account = call::current(|call| call.account().cloned()).flatten();
        match account {
            Some(slug) => reject(refusal.in_terms(self.login.remedy_terms(&slug).await)),
            None => reject(refusal),
        }
    }
}

#[tonic::async_trait]
impl LoginService for LoginRpc {
    async fn begin_login(
        &self,
        request: Request<pb::BeginLoginRequest>,
    ) -> Result<Response<pb::BeginLoginResponse>, Status> {
        let request = LoginRequest::parse(request.into_inner()).map_err(reject)?;
        let slug = request.slug.clone();
        let begun = match self.login.begin(request).await {
            Ok(begun) => begun,
            Err(error) => return Err(self.refuse(error).await),
        };
        telemetry::login_begun(slug.as_str());
        Ok(Response::new(begun.into()))
    }

    async fn complete_login(
        &self,
        request: Request<pb::CompleteLoginRequest>,
    ) -> Result<Response<pb::CompleteLoginResponse>, Status> {
        let callback = Callback::parse(request.into_inner()).map_err(reject)?;
        // Checked before the state is spent.
        if let Some(tokens) = &self.identity_tokens {
            tokens.ready().map_err(reject)?;
        }
        let mut completed = match self.login.complete(callback).await {
            Err(error) => return Err(self.refuse(error).await),
            Ok(Completion::Finished(completed)) => completed,
            Ok(Completion::Again(answer)) => {
                let answer = pb::CompleteLoginResponse::decode(&*answer);
                tracing::info!("login answered again");
                // Another version may have kept it, in a form that this one can't read.
                return answer
                    .map(Response::new)
                    .map_err(|_| reject(Refusal::of_spent_login(LoginError::StateUsed)));
            }
        };
        let identity = &completed.identity;
        let token = self.identity_tokens.as_ref().map(|tokens| tokens.issue(identity)).transpose();
        let identity_token =
            token.map_err(|error| reject(Refusal::of_spent_login(error)))?.unwrap_or_default();
        telemetry::login_completed(identity.slug.as_str());
        tracing::info!(idp.issuer = %identity.issuer, "login completed ({})", identity.slug);
        let keeper = completed.keeper.take();
        let response = pb::CompleteLoginResponse { identity_token, ..(*completed).into() };
        if let Some(keeper) = keeper {
            self.login.keep_answer(keeper, &response.encode_to_vec());
        }
        Ok(Response::new(response))
    }

    async fn logout_url(
        &self,
        request: Request<pb::LogoutUrlRequest>,
    ) -> Result<Response<pb::LogoutUrlResponse>, Status> {
        let request = convert::logout_request(request.into_inner()).map_err(reject)?;
        let target = match self.login.logout_url(request).await {
            Ok(target) => target,
            Err(error) => return Err(self.refuse(error).await),
        };
        Ok(Response::new(pb::LogoutUrlResponse {
            redirect_url: target.redirect_url,
            ends_idp_session: target.ends_idp_session,
        }))
    }
}
