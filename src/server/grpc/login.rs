//! LoginService over gRPC.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use super::convert::{self, Parsed};
use super::status::{Refusal, SlugOf};
use crate::clock::Clock;
use crate::identity_token::Identities;
use crate::login::attempts::{AttemptLog, Tested};
use crate::login::{Login, Trail};
use crate::model::connection::ConnectionState;
use crate::model::login::{Callback, LoginRequest};
use crate::model::proving::{Attempt, REQUIRED_CLAIMS};
use crate::model::slug::Slug;
use crate::pb;
use crate::pb::login_service_server::LoginService;
use crate::telemetry;
use crate::telemetry::traces::current_trace_id;

pub(in crate::server) struct LoginRpc {
    login: Arc<Login>,
    identities: Option<Arc<Identities>>,
    attempts: Arc<AttemptLog>,
    clock: Arc<dyn Clock>,
}

impl LoginRpc {
    pub(in crate::server) fn new(
        login: Arc<Login>,
        identities: Option<Arc<Identities>>,
        attempts: Arc<AttemptLog>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { login, identities, attempts, clock }
    }

    /// Notes for support what became of a callback.
    fn note(&self, account: &Slug, trail: &Trail, end: Result<(), &Refusal>) {
        if !trail.is_ours {
            return self.attempts.note_foreign(account);
        }
        let (reason, owner, idp_error) = end.err().map(Refusal::kept).unwrap_or_default();
        let claims_present = trail.claims_missing.as_ref().map(|missing| {
            REQUIRED_CLAIMS.into_iter().filter(|name| !missing.iter().any(|own| own == name)).map(str::to_owned).collect()
        });
        let connection = trail.connection.as_ref();
        let is_test = connection.is_some_and(|connection| connection.settings.state == ConnectionState::Testing);
        let tested = connection
            .filter(|_| is_test && end.is_ok())
            .map(|connection| Tested { incarnation: connection.incarnation, digest: connection.proof_digest() });
        let attempt = Attempt {
            time: self.clock.unix_millis(),
            reason: reason.to_owned(),
            owner: owner.to_owned(),
            trace_id: current_trace_id(),
            idp_error,
            claims_present,
            issuer: trail.issuer.clone(),
            phases: trail.phases.0.iter().map(|(phase, took)| ((*phase).to_owned(), micros(*took))).collect(),
            is_test,
        };
        self.attempts.note(account, attempt, tested);
    }
}

/// Notes also what its caller gave up: its future is dropped in the middle then, with its state spent.
struct Noting<'a> {
    rpc: &'a LoginRpc,
    account: Slug,
    trail: Trail,
    is_noted: bool,
}

impl Drop for Noting<'_> {
    fn drop(&mut self) {
        if !self.is_noted && self.trail.is_ours {
            self.rpc.note(&self.account, &self.trail, Err(&Refusal::given_up()));
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
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
        let account = callback.slug.clone();
        let mut noting = Noting { rpc: self, account, trail: Trail::default(), is_noted: false };
        let completed = self.login.complete(callback, &mut noting.trail).await.map_err(Refusal::from);
        let issued = |identity| self.identities.as_ref().map_or(Ok(String::new()), |identities| identities.issue(identity));
        let completed = match completed {
            Ok(completed) => match issued(&completed.identity) {
                Ok(identity_token) => Ok((completed, identity_token)),
                Err(error) => Err(error.into()),
            },
            Err(refusal) => Err(refusal),
        };
        noting.is_noted = true;
        self.note(&noting.account, &noting.trail, completed.as_ref().map(|_| ()));
        let (completed, identity_token) = completed.map_err(|refusal| slug.refused(refusal))?;
        telemetry::login_completed(slug.as_str());
        tracing::info!(account.slug = %completed.identity.slug, idp.issuer = %completed.identity.issuer, trace_id = current_trace_id(), "a login was completed");
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
