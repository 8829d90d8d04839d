//! What every call passes first: there is room for it, it ends in time, and a defect in it is its own.

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

use super::refusal::{CallContext, Refusal};
use crate::model::cause::Cause;
use crate::telemetry::traces::{CallTrace, current_trace_id};
use crate::telemetry::{Call, panicked};

/// Admits so many calls at once, to both listeners together.
#[derive(Clone)]
pub(in crate::server) struct AdmissionLayer {
    room: Arc<Semaphore>,
}

impl AdmissionLayer {
    pub(in crate::server) fn new(max_in_flight: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(max_in_flight)) }
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Admission<S> {
        Admission { inner, room: Arc::clone(&self.room) }
    }
}

#[derive(Clone)]
pub(in crate::server) struct Admission<S> {
    inner: S,
    room: Arc<Semaphore>,
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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let method = known_method(request.uri().path());
        request.extensions_mut().insert(Method(method));
        let trace = CallTrace::begins(request.headers(), method);
        // The one that was polled ready goes; its copy waits for the next call.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        Box::pin(trace.within(admit(inner, request, method, Arc::clone(&self.room))))
    }
}

/// The method that a request names, for whoever refuses it before it is read.
#[derive(Clone, Copy)]
pub(in crate::server) struct Method(pub(in crate::server) &'static str);

async fn admit<S, B, R>(
    mut inner: S,
    request: Request<B>,
    method: &'static str,
    room: Arc<Semaphore>,
) -> Result<Response<R>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    let _call = Call::begins(method);
    let respond =
        |refusal: Refusal| Ok(CallContext::without_account(method).reject(refusal).into_http());
    // Whoever asks how it goes must get an answer from a full house too.
    let is_exempt = request.uri().path().starts_with("/grpc.health.");
    let room = if is_exempt { None } else { Some(room.try_acquire_owned()) };
    let Ok(_room) = room.transpose() else {
        return respond(Refusal::new(Cause::InFlightLimit, "too many calls are in flight"));
    };
    // Called within the future, so that a panic before its first await is caught too.
    let answer = AssertUnwindSafe(async { inner.call(request).await }).catch_unwind();
    match tokio::time::timeout(CALL_DEADLINE, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_panic)) => {
            tracing::error!(rpc.method = method, trace_id = current_trace_id(), "a call panicked");
            panicked();
            respond(Refusal::new(
                Cause::Defect,
                "internal error; the log has more under the trace id",
            ))
        }
        Err(_) => respond(Refusal::new(Cause::CallDeadline, "the call took too long")),
    }
}

/// The path is the caller's: what isn't a method of ours must not become a label.
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
/// Longer than any call has by itself.
const CALL_DEADLINE: Duration = Duration::from_secs(25);
