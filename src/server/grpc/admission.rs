//! The layer that every call passes first: it opens the call's context, bounds the calls in flight
//! and each call's time, and turns a panic into the refusal of that one call.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use http::{Request, Response};
use tokio::sync::Semaphore;
use tower::{Layer, Service};

use super::refusal::{Refusal, reject};
use crate::model::cause::Cause;
use crate::telemetry::call::Call;
use crate::telemetry::{CallTimer, panicked};

/// Bounds the calls in flight at both listeners together.
#[derive(Clone)]
pub(in crate::server) struct AdmissionLayer {
    permits: Arc<Semaphore>,
}

impl AdmissionLayer {
    pub(in crate::server) fn new(max_in_flight: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(max_in_flight)) }
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Admission<S> {
        Admission { inner, permits: Arc::clone(&self.permits) }
    }
}

#[derive(Clone)]
pub(in crate::server) struct Admission<S> {
    inner: S,
    permits: Arc<Semaphore>,
}

impl<S, B, R> Service<Request<B>> for Admission<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send,
    B: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = Call::start(request.headers(), known_method(request.uri().path()));
        // The service that was polled ready serves this call; its clone serves the next one.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let timer = CallTimer::start(call.method());
        Box::pin(call.run(admit(inner, request, timer, Arc::clone(&self.permits))))
    }
}

async fn admit<S, B, R>(
    mut inner: S,
    request: Request<B>,
    _timer: CallTimer,
    permits: Arc<Semaphore>,
) -> Result<Response<R>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    let respond = |refusal: Refusal| Ok(reject(refusal).into_http());
    // Probes must be answered under overload too.
    let is_exempt = request.uri().path().starts_with("/grpc.health.");
    let permit = if is_exempt { None } else { Some(permits.try_acquire_owned()) };
    let Ok(_permit) = permit.transpose() else {
        return respond(Refusal::new(Cause::InFlightLimit, "too many calls are in flight"));
    };
    // Called within the future, so that a panic before the first await is caught too.
    let answer = AssertUnwindSafe(async { inner.call(request).await }).catch_unwind();
    match tokio::time::timeout(CALL_DEADLINE, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_panic)) => {
            tracing::error!("call panicked");
            panicked();
            respond(Refusal::new(
                Cause::Defect,
                "internal error: the log has details under this trace_id",
            ))
        }
        Err(_) => respond(Refusal::new(Cause::CallDeadline, "the call took too long")),
    }
}

/// The caller chooses the path: only our own methods may become labels of metrics.
fn known_method(path: &str) -> &'static str {
    let of_ours = path.strip_prefix("/peerpanda.sso.v1.").and_then(|rest| rest.split_once('/'));
    let name = of_ours.map_or("", |(_, method)| method);
    METHODS.into_iter().find(|method| *method == name).unwrap_or("other")
}

const METHODS: [&str; 15] = [
    "BeginLogin",
    "CompleteLogin",
    "LogoutUrl",
    "GetIdentity",
    "ListSigningKeys",
    "CreateConnection",
    "GetConnection",
    "ListConnections",
    "UpdateConnection",
    "DeleteConnection",
    "CheckConnection",
    "ActivateConnection",
    "GetSetupGuide",
    "ListLoginAttempts",
    "ListConnectionChanges",
];
/// Longer than the deadline of any verb.
const CALL_DEADLINE: Duration = Duration::from_secs(25);
