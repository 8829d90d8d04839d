//! The layer that every call passes first: it opens the call's context, finds out who calls, bounds the
//! calls that are open and each call's time, and turns a panic into the refusal of that one call.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tower::{Layer, Service};

use super::auth::{Authorizer, Role};
use super::body::{MessageMeter, RequestBody, ResponseBody};
use super::capacity::{CallPermit, Capacity, Full, StrangerCall, StreamPermit};
use super::refusal::{Refusal, reject};
use super::routes::{CONNECTION_SERVICE, IDENTITY_SERVICE, LOGIN_SERVICE};
use crate::model::cause::Cause;
use crate::model::limits::ListenerLimits;
use crate::server::peer::OpenCall;
use crate::server::pool::Place;
use crate::telemetry::call::{self, Call};
use crate::telemetry::{CallTimer, panicked};

/// Admits calls at both listeners.
#[derive(Clone)]
pub(in crate::server) struct AdmissionLayer(Arc<Rules>);

struct Rules {
    authorizer: Authorizer,
    capacity: Capacity,
    limits: ListenerLimits,
}

impl AdmissionLayer {
    pub(in crate::server) fn new(
        authorizer: Authorizer,
        max_in_flight: usize,
        limits: ListenerLimits,
    ) -> Self {
        Self(Arc::new(Rules { authorizer, capacity: Capacity::new(max_in_flight), limits }))
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Admission<S> {
        Admission { inner, rules: Arc::clone(&self.0) }
    }
}

#[derive(Clone)]
pub(in crate::server) struct Admission<S> {
    inner: S,
    rules: Arc<Rules>,
}

/// What a call occupies until the last byte of its answer is sent.
pub(in crate::server) struct Held {
    _permit: Permit,
    call: OpenCall,
    _timer: CallTimer,
}

#[expect(dead_code, reason = "held for what their drop does")]
enum Permit {
    Caller(CallPermit),
    Call(StrangerCall),
    Stream(StreamPermit),
}

/// The service that a path belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    /// One of ours: for callers with this role.
    Guarded(Role),
    /// Health, or a method that doesn't exist: open to all.
    Open,
    /// A stream that is open to all: the watch of the health, and reflection.
    OpenStream,
}

type Answer<B> = Response<ResponseBody<B, Option<Held>>>;

impl<S, B, R> Service<Request<B>> for Admission<S>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    R: Default + Send + 'static,
{
    type Response = Answer<R>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer<R>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (target, method) = target(request.uri().path());
        let place = request.extensions().get::<Arc<Place>>().cloned();
        let call = Call::start(request.headers(), method);
        let call = match &place {
            Some(place) => call.from_peer(place.peer.address.ip()),
            None => call,
        };
        // The service that was polled ready serves this call; its clone serves the next one.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let (rules, timer) = (Arc::clone(&self.rules), CallTimer::start(method));
        Box::pin(call.run(async move {
            let admitted = match &place {
                Some(place) => rules.admit(target, &request, place, timer),
                // Only the listeners call this service, and they say where a call comes from.
                None => Err(Refusal::boxed(Cause::Defect, "the call has no connection")),
            };
            Ok(match admitted {
                Ok(admitted) => admitted.run(inner, request).await,
                Err(refusal) => reject(refusal).into_http(),
            })
        }))
    }
}

/// A call that may be answered.
struct Admitted {
    held: Held,
    meter: Arc<MessageMeter>,
    message_timeout: Duration,
    /// Cancelled when other strangers' calls need the place.
    displaced: Option<CancellationToken>,
    role: Option<Role>,
}

impl Rules {
    fn admit<B>(
        &self,
        target: Target,
        request: &Request<B>,
        place: &Arc<Place>,
        timer: CallTimer,
    ) -> Result<Admitted, Box<Refusal>> {
        let (peer, strangers) = (&place.peer, self.capacity.strangers());
        let fields = request.headers().iter();
        let header_bytes: usize =
            fields.map(|(name, value)| name.as_str().len() + value.len()).sum();
        if header_bytes > MAX_HEADERS {
            let text = format!("the call's metadata has more than {MAX_HEADERS} bytes");
            return Err(Refusal::boxed(Cause::HeadersTooLarge, text));
        }
        let (permit, meter, displaced) = match target {
            Target::Guarded(role) => {
                let caller = self.authorizer.authenticate(role, request.headers(), peer)?;
                place.set_known();
                call::set_caller(&caller.name, caller.operator.as_deref());
                let permit = self.capacity.acquire(role, caller.name, caller.shares_role);
                let permit = permit.map_err(full)?;
                let meter = MessageMeter::new(Some(permit.bytes()));
                (Permit::Caller(permit), meter, None)
            }
            Target::Open => {
                let call = strangers.begin_call(peer.network());
                let displaced = call.token.clone();
                (Permit::Call(call), MessageMeter::new(None), Some(displaced))
            }
            Target::OpenStream => {
                let permit = strangers.begin_stream(peer.network());
                let permit = permit.ok_or_else(|| {
                    Refusal::boxed(Cause::StreamLimit, "too many streams without credentials")
                })?;
                (Permit::Stream(permit), MessageMeter::new(None), None)
            }
        };
        let role = match target {
            Target::Guarded(role) => Some(role),
            Target::Open | Target::OpenStream => None,
        };
        let message_timeout = match role {
            Some(_) => self.limits.caller_message,
            None => self.limits.stranger_message,
        };
        let call = peer.begin_call(role.is_some());
        let held = Held { _permit: permit, call, _timer: timer };
        Ok(Admitted { held, meter: Arc::new(meter), message_timeout, displaced, role })
    }
}

fn full(full: Full) -> Box<Refusal> {
    match full {
        Full::Role { limit } => Refusal::boxed(
            Cause::InFlightLimit,
            format!("too many calls of this service are open: {limit}"),
        ),
        Full::Caller { limit } => Refusal::boxed(
            Cause::CallerInFlightLimit,
            format!("this caller has its share of the calls that may be open: {limit}"),
        ),
    }
}

impl Admitted {
    async fn run<S, B, R>(self, mut inner: S, request: Request<B>) -> Answer<R>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>, Error = Infallible>,
        B: Body,
        R: Default,
    {
        let Self { held, meter, message_timeout, displaced, role } = self;
        let time = timeout(request.headers()).map_or(CALL_DEADLINE, |own| own.min(CALL_DEADLINE));
        let began = Instant::now();
        let request = request.map(|body| RequestBody::new(body, Arc::clone(&meter)));
        // Called within the future, so that a panic before the first await is caught too.
        let answer = AssertUnwindSafe(async { inner.call(request).await }).catch_unwind();
        let mut answer = pin!(answer);
        let mut cancelled = CancelledOnDrop { held: Some(held) };
        let mut timer = pin!(tokio::time::sleep(message_timeout.min(time)));
        let mut is_message_due = message_timeout < time;
        let answer = loop {
            tokio::select! {
                biased;
                answer = answer.as_mut() => break answer,
                () = meter.over_budget() => {
                    let text = "too many bytes of requests are held";
                    return cancelled.end(Refusal::new(Cause::RequestBytesLimit, text));
                }
                () = timer.as_mut() => {
                    if !is_message_due {
                        if time < CALL_DEADLINE {
                            return cancelled.end_with(Status::deadline_exceeded(
                                "the caller's own deadline has passed",
                            ));
                        }
                        let refusal = Refusal::new(Cause::CallDeadline, "the call took too long");
                        // A login's state may be spent: the call must not be repeated.
                        return cancelled.end(match call::current(Call::method) {
                            Some("CompleteLogin") => Refusal::of_spent_login(refusal),
                            _ => refusal,
                        });
                    }
                    if !meter.is_complete() {
                        let text = format!("the request's message didn't arrive within {message_timeout:?}");
                        return cancelled.end(Refusal::new(Cause::RequestIncomplete, text));
                    }
                    is_message_due = false;
                    timer.as_mut().reset(began + time);
                }
                () = cancellation(displaced.as_ref()) => {
                    let text = "other calls without credentials took the place of this one";
                    return cancelled.end(Refusal::new(Cause::RequestIncomplete, text));
                }
            }
        };
        let Ok(Ok(response)) = answer else {
            tracing::error!("call panicked");
            panicked();
            let text = "internal error: the log has details under this trace_id";
            return cancelled.end(Refusal::new(Cause::Defect, text));
        };
        if role == Some(Role::Admin) {
            tracing::info!("admin call answered");
        }
        let held = cancelled.held.take();
        response.map(|body| ResponseBody::new(body, held))
    }
}

/// Tells a call that its client cancelled, which drops its future, from one that was answered.
struct CancelledOnDrop {
    held: Option<Held>,
}

impl CancelledOnDrop {
    fn end<R: Default>(self, refusal: Refusal) -> Answer<R> {
        self.end_with(reject(refusal))
    }

    fn end_with<R: Default>(mut self, status: Status) -> Answer<R> {
        self.held = None;
        status.into_http()
    }
}

impl Drop for CancelledOnDrop {
    fn drop(&mut self) {
        if let Some(held) = &self.held {
            held.call.cancelled();
        }
    }
}

async fn cancellation(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

/// The caller's own deadline (gRPC over HTTP/2, Timeout): at most 8 digits and a unit.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 60 * 60)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// What a path leads to, and the name of the method. The caller chooses the path: only known methods may
/// become labels of metrics.
fn target(path: &str) -> (Target, &'static str) {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/'))
    else {
        return (Target::Open, "other");
    };
    let target = match service {
        LOGIN_SERVICE => Target::Guarded(Role::Login),
        IDENTITY_SERVICE => Target::Guarded(Role::Identity),
        CONNECTION_SERVICE => Target::Guarded(Role::Admin),
        "grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection" => {
            return (Target::OpenStream, "other");
        }
        "grpc.health.v1.Health" if method == "Watch" => return (Target::OpenStream, "other"),
        _ => return (Target::Open, "other"),
    };
    (target, METHODS.into_iter().find(|name| *name == method).unwrap_or("other"))
}

const METHODS: [&str; 16] = [
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
    "RestoreConnection",
];
/// Bytes of one call's metadata: a bearer token, a trace context, and whatever a proxy adds.
const MAX_HEADERS: usize = 16 * 1024;
/// Longer than the deadline of any verb.
const CALL_DEADLINE: Duration = Duration::from_secs(25);

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_callers_own_deadline_is_read() {
        for (text, expected) in [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("15S", Some(15_000)),
            ("99999999m", Some(99_999_999)),
            ("5000u", Some(5)),
            ("7000000n", Some(7)),
            ("", None),
            ("S", None),
            ("1", None),
            ("1x", None),
            ("-1S", None),
            ("123456789S", None),
            ("1é", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_bytes(text.as_bytes()).expect("a"));
            assert_eq!(timeout(&headers), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn a_path_leads_to_its_service_and_only_known_methods_are_labels() {
        let role = |path| match target(path) {
            (Target::Guarded(role), method) => (Some(role), method),
            (Target::Open | Target::OpenStream, method) => (None, method),
        };
        for (path, expected) in [
            ("/peerpanda.sso.v1.LoginService/BeginLogin", (Some(Role::Login), "BeginLogin")),
            ("/peerpanda.sso.v1.LoginService/Made/Up", (Some(Role::Login), "other")),
            (
                "/peerpanda.sso.v1.IdentityService/GetIdentity",
                (Some(Role::Identity), "GetIdentity"),
            ),
            ("/peerpanda.sso.v1.ConnectionService/", (Some(Role::Admin), "other")),
            ("/peerpanda.sso.v1.LoginServiceX/BeginLogin", (None, "other")),
            ("/grpc.health.v1.Health/Check", (None, "other")),
            ("", (None, "other")),
        ] {
            assert_eq!(role(path), expected, "{path}");
        }
        for path in ["/grpc.health.v1.Health/Watch", "/grpc.reflection.v1.ServerReflection/X"] {
            assert!(matches!(target(path).0, Target::OpenStream), "{path}");
        }
    }
}
