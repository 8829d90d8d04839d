//! LoginService over gRPC.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use super::convert::{self, Parsed};
use super::status::{CallContext, Refusal};
use crate::clock::Clock;
use crate::identity_token::Identities;
use crate::login::attempts::{AttemptLog, Tested};
use crate::login::{Login, LoginProgress};
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
    fn record(&self, account: &Slug, progress: &LoginProgress, end: Result<(), &Refusal>) {
        if !progress.is_ours {
            return self.attempts.record_unrecognized(account);
        }
        let (reason, owner, idp_error) = end.err().map(Refusal::kept).unwrap_or_default();
        let claims_present = progress.claims_missing.as_ref().map(|missing| {
            REQUIRED_CLAIMS
                .into_iter()
                .filter(|name| !missing.iter().any(|own| own == name))
                .map(str::to_owned)
                .collect()
        });
        let connection = progress.connection.as_ref();
        let is_test = connection
            .is_some_and(|connection| connection.settings.state == ConnectionState::Testing);
        let tested = connection.filter(|_| is_test && end.is_ok()).map(|connection| Tested {
            incarnation: connection.incarnation,
            digest: connection.proof_digest(),
        });
        let attempt = Attempt {
            time: self.clock.unix_millis(),
            reason: reason.to_owned(),
            owner: owner.to_owned(),
            trace_id: current_trace_id(),
            idp_error,
            claims_present,
            issuer: progress.issuer.clone(),
            phases: progress
                .phases
                .0
                .iter()
                .map(|(phase, took)| ((*phase).to_owned(), micros(*took)))
                .collect(),
            is_test,
        };
        self.attempts.record(account, attempt, tested);
    }
}

/// Notes also what its caller gave up: its future is dropped in the middle then, with its state spent.
struct RecordOnDrop<'a> {
    rpc: &'a LoginRpc,
    account: Slug,
    progress: LoginProgress,
    is_recorded: bool,
}

impl Drop for RecordOnDrop<'_> {
    fn drop(&mut self) {
        if !self.is_recorded && self.progress.is_ours {
            self.rpc.record(&self.account, &self.progress, Err(&Refusal::given_up()));
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[tonic::async_trait]
impl LoginService for LoginRpc {
    async fn begin_login(
        &self,
        request: Request<pb::BeginLoginRequest>,
    ) -> Result<Response<pb::BeginLoginResponse>, Status> {
        let request = request.into_inner();
        let ctx = CallContext::new("BeginLogin", &request.slug);
        let request = LoginRequest::parse(request)
            .map_err(|violations| ctx.reject(Refusal::violations(violations)))?;
        let begun = self.login.begin(request).await.map_err(|error| ctx.reject(error.into()))?;
        telemetry::login_begun(ctx.as_str());
        Ok(Response::new(begun.into()))
    }

    async fn complete_login(
        &self,
        request: Request<pb::CompleteLoginRequest>,
    ) -> Result<Response<pb::CompleteLoginResponse>, Status> {
        let request = request.into_inner();
        let ctx = CallContext::new("CompleteLogin", &request.slug);
        let callback = Callback::parse(request)
            .map_err(|violations| ctx.reject(Refusal::violations(violations)))?;
        // Asked before the state is spent.
        self.identities
            .as_ref()
            .map_or(Ok(()), |identities| identities.ready())
            .map_err(|error| ctx.reject(error.into()))?;
        let account = callback.slug.clone();
        let mut guard = RecordOnDrop {
            rpc: self,
            account,
            progress: LoginProgress::default(),
            is_recorded: false,
        };
        let completed =
            self.login.complete(callback, &mut guard.progress).await.map_err(Refusal::from);
        let issued = |identity| {
            self.identities
                .as_ref()
                .map_or(Ok(String::new()), |identities| identities.issue(identity))
        };
        let completed = match completed {
            Ok(completed) => match issued(&completed.identity) {
                Ok(identity_token) => Ok((completed, identity_token)),
                Err(error) => Err(error.into()),
            },
            Err(refusal) => Err(refusal),
        };
        guard.is_recorded = true;
        self.record(&guard.account, &guard.progress, completed.as_ref().map(|_| ()));
        let (completed, identity_token) = completed.map_err(|refusal| ctx.reject(refusal))?;
        telemetry::login_completed(ctx.as_str());
        tracing::info!(account.slug = %completed.identity.slug, idp.issuer = %completed.identity.issuer, trace_id = current_trace_id(), "a login was completed");
        Ok(Response::new(pb::CompleteLoginResponse { identity_token, ..completed.into() }))
    }

    async fn logout_url(
        &self,
        request: Request<pb::LogoutUrlRequest>,
    ) -> Result<Response<pb::LogoutUrlResponse>, Status> {
        let request = request.into_inner();
        let ctx = CallContext::new("LogoutUrl", &request.slug);
        let request = convert::logout_request(request)
            .map_err(|violations| ctx.reject(Refusal::violations(violations)))?;
        let target =
            self.login.logout_url(request).await.map_err(|error| ctx.reject(error.into()))?;
        Ok(Response::new(pb::LogoutUrlResponse {
            redirect_url: target.redirect_url,
            ends_idp_session: target.ends_idp_session,
        }))
    }
}
