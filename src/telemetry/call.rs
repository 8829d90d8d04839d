//! The gRPC call that the current task serves: its method, account and trace. It is kept in a
//! task-local variable and not in the call's span, so that log lines, refusals and requests to IdPs
//! have it whatever the log level, at no cost while nothing is logged. The gRPC server opens it,
//! everybody may read it; it must never hold what a call carried.

use std::cell::OnceCell;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use tracing::field::Empty;
use tracing::{Instrument, Span, debug_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::traces;
use crate::model::slug::Slug;

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    method: &'static str,
    account: OnceCell<Slug>,
    peer: Option<IpAddr>,
    /// The calling program, and the person who uses it.
    caller: OnceCell<(Arc<str>, Option<String>)>,
    trace: SpanContext,
    span: Span,
}

impl Call {
    /// Continues the caller's trace (W3C Trace Context), or starts one.
    #[must_use]
    pub fn start(headers: &HeaderMap, method: &'static str) -> Self {
        let callers = traces::extract(headers);
        let span = debug_span!(
            parent: None,
            "call",
            otel.name = method,
            otel.kind = "server",
            otel.status_description = Empty,
            rpc.system = "grpc",
            rpc.method = method,
            account.slug = Empty,
            sso.reason = Empty,
            sso.owner = Empty,
        );
        let exported = if span.is_disabled() { None } else { export(&span, callers.as_ref()) };
        let trace = exported.or(callers).unwrap_or_else(traces::new_trace);
        let (account, caller) = (OnceCell::new(), OnceCell::new());
        Self { method, account, peer: None, caller, trace, span }
    }

    /// Says where the call comes from.
    #[must_use]
    pub fn from_peer(self, address: IpAddr) -> Self {
        Self { peer: Some(address), ..self }
    }

    /// Does the call's work: within it, the functions of this module speak of this call.
    pub async fn run<T>(self, work: impl Future<Output = T>) -> T {
        let span = self.span.clone();
        CURRENT.scope(self, work.instrument(span)).await
    }

    /// Name of the gRPC method; `other` for one that isn't ours.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// The account that the call is about, once its slug is parsed.
    #[must_use]
    pub fn account(&self) -> Option<&Slug> {
        self.account.get()
    }

    /// Where the call comes from.
    #[must_use]
    pub fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// The name of the calling program, once it is authenticated.
    #[must_use]
    pub fn caller(&self) -> Option<&str> {
        self.caller.get().map(|(caller, _)| &**caller)
    }

    /// The person who uses the calling program, if it names one.
    #[must_use]
    pub fn operator(&self) -> Option<&str> {
        self.caller.get().and_then(|(_, operator)| operator.as_deref())
    }

    /// 32 hex digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.trace.trace_id().to_string()
    }
}

/// Makes the span the child of the caller's. `None`: no OpenTelemetry layer is installed.
fn export(span: &Span, callers: Option<&SpanContext>) -> Option<SpanContext> {
    if let Some(callers) = callers {
        let parent = Context::new().with_remote_span_context(callers.clone());
        // Fails only where there is no OpenTelemetry layer.
        let _ = span.set_parent(parent);
    }
    Some(span.context().span().span_context().clone()).filter(SpanContext::is_valid)
}

/// Reads the current call; `None` outside of calls.
pub fn current<T>(read: impl FnOnce(&Call) -> T) -> Option<T> {
    CURRENT.try_with(read).ok()
}

/// The trace id of the current call; empty outside of calls.
#[must_use]
pub fn trace_id() -> String {
    current(Call::trace_id).unwrap_or_default()
}

/// Says which account the current call is about; only the first time counts.
pub fn set_account(slug: &Slug) {
    let _ = current(|call| {
        if call.account.set(slug.clone()).is_ok() {
            call.span.record("account.slug", slug.as_str());
        }
    });
}

/// Says who made the current call; only the first time counts.
pub fn set_caller(caller: &Arc<str>, operator: Option<&str>) {
    let _ = current(|call| call.caller.set((Arc::clone(caller), operator.map(str::to_owned))));
}

/// Runs work in another task as a part of the current call.
pub fn within_current<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let call = current(Call::clone);
    async move {
        match call {
            Some(call) => call.run(work).await,
            None => work.await,
        }
    }
}

/// Marks the current call's span as refused.
pub(super) fn record_refusal(reason: &'static str, owner: &'static str) {
    let _ = current(|call| {
        call.span.record("sso.reason", reason);
        call.span.record("sso.owner", owner);
        call.span.record("otel.status_description", reason);
    });
}

/// A span for one phase of the current call.
pub(super) fn phase_span(phase: &'static str) -> Span {
    debug_span!("phase", otel.name = phase)
}

/// The span that a request to another service belongs to.
pub(super) fn current_span_context() -> Option<SpanContext> {
    let span = Span::current().context().span().span_context().clone();
    Some(span).filter(SpanContext::is_valid).or_else(|| current(|call| call.trace.clone()))
}

tokio::task_local! {
    static CURRENT: Call;
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    async fn trace_id_of_call(headers: &HeaderMap) -> String {
        Call::start(headers, "Test").run(async { trace_id() }).await
    }

    #[tokio::test]
    async fn a_call_continues_its_callers_trace_or_starts_one() {
        let mut headers = HeaderMap::new();
        let (first, second) = (trace_id_of_call(&headers).await, trace_id_of_call(&headers).await);
        assert!(first != second && first.len() == 32, "{first} {second}");
        let callers = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        headers.insert("traceparent", HeaderValue::from_static(callers));
        assert_eq!(trace_id_of_call(&headers).await, "0af7651916cd43dd8448eb211c80319c");
        for bad in
            ["", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "s3cret", "00-xx-yy-zz"]
        {
            headers.insert("traceparent", HeaderValue::from_static(bad));
            let own = trace_id_of_call(&headers).await;
            assert!(own.len() == 32 && !own.trim_matches('0').is_empty(), "{own}");
        }
        assert_eq!(trace_id(), "", "outside of calls");
    }

    #[tokio::test]
    async fn work_in_another_task_belongs_to_the_call() {
        let slug = Slug::parse("acme").expect("a slug");
        let seen = Call::start(&HeaderMap::new(), "Test").run(async {
            set_account(&slug);
            let read = || current(|call| (call.method(), call.account().cloned(), call.trace_id()));
            let other = tokio::spawn(within_current(async move { read() })).await.expect("ended");
            (read(), other)
        });
        let (here, there) = seen.await;
        assert_eq!(here, there);
        assert_eq!(here.expect("a call").1, Some(slug));
    }
}
