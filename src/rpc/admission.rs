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

use super::status::{Refusal, SlugOf};
use crate::telemetry::{Call, panicked};

/// Admits so many calls at once, to both listeners together.
#[derive(Clone)]
pub(super) struct AdmissionLayer {
    room: Arc<Semaphore>,
}

impl AdmissionLayer {
    pub(super) fn new(max_in_flight: usize) -> Self {
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
pub(super) struct Admission<S> {
    inner: S,
    room: Arc<Semaphore>,
}

impl<S, B, R> Service<Request<B>> for Admission<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = known_method(request.uri().path());
        let call = Call::begins(method);
        let respond = move |refusal: Refusal| Ok(SlugOf::unread().refused(refusal).into_http());
        // Whoever asks how it goes must get an answer from a full house too.
        let is_exempt = request.uri().path().starts_with("/grpc.health.");
        let room = if is_exempt { None } else { Some(Arc::clone(&self.room).try_acquire_owned()) };
        let room = match room.transpose() {
            Ok(room) => room,
            Err(_) => {
                return Box::pin(
                    async move { respond(Refusal::overloaded("the service has as many calls in flight as it takes")) },
                );
            }
        };
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Box::pin(async move {
            let (_room, _call) = (room, call);
            match tokio::time::timeout(CALL_DEADLINE, answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_panic)) => {
                    tracing::error!(rpc.method = method, "a call panicked");
                    panicked();
                    respond(Refusal::defect())
                }
                Err(_) => respond(Refusal::overloaded("the call took longer than any may")),
            }
        })
    }
}

/// The path is the caller's: what isn't a method of ours must not become a label.
fn known_method(path: &str) -> &'static str {
    let of_ours = path.strip_prefix("/peerpanda.sso.v1.").and_then(|rest| rest.split_once('/'));
    let name = of_ours.map_or("", |(_, method)| method);
    METHODS.into_iter().find(|method| *method == name).unwrap_or("other")
}

const METHODS: [&str; 10] = [
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
];
/// Longer than any call has by itself.
const CALL_DEADLINE: Duration = Duration::from_secs(25);
