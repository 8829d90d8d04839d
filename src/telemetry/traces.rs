//! Traces: each call has a trace id, its caller's (W3C Trace Context) or one of its own, which stands in its refusal and in
//! the log. Where a collector is named, the call and the phases of its login are spans that go there by OTLP. A span holds
//! the method, the account, and the reason of a refusal, never what a call carried.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{
    FutureExt, Span as _, SpanContext, SpanKind, Status, TraceContextExt, TraceFlags, TraceState,
    Tracer, TracerProvider,
};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracer, SdkTracerProvider};

/// Spans on their way to a collector.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Sends spans to this collector (OTLP over gRPC), once in a process. Sampling, batching, headers and the resource are
    /// as the `OTEL_…` variables say. Within a tokio runtime.
    ///
    /// # Errors
    /// The URL is none, or something else sends spans already.
    pub fn start(endpoint: &str) -> Result<Self, String> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(|error| error.to_string())?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let builder = Resource::builder().with_attribute(version);
        // By the variables' word, or by none, which the SDK calls unknown_service.
        let given = Resource::builder().build().get(&SERVICE_NAME_KEY);
        let is_named = given.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
        let resource = if is_named {
            builder.build()
        } else {
            builder.with_service_name(SERVICE_NAME).build()
        };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        TRACER
            .set(provider.tracer(SERVICE_NAME))
            .map_err(|_| "spans are being sent already".to_owned())?;
        Ok(Self(provider))
    }

    /// Sends what is still here, in a short time.
    pub async fn stop(self) {
        // It waits for a thread of its own.
        let stopped =
            tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
        if let Ok(Err(error)) = stopped {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// One call's trace.
pub struct CallTrace(Context);

impl CallTrace {
    /// Goes on with the caller's trace, or begins one.
    #[must_use]
    pub fn begins(headers: &HeaderMap, method: &'static str) -> Self {
        let callers =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
        if let Some(tracer) = TRACER.get() {
            let span = tracer.span_builder(method).with_kind(SpanKind::Server);
            let span = span.with_attributes([
                KeyValue::new("rpc.system", "grpc"),
                KeyValue::new("rpc.method", method),
            ]);
            return Self(callers.with_span(span.start_with_context(tracer, &callers)));
        }
        if callers.span().span_context().is_valid() {
            return Self(callers);
        }
        let ids = RandomIdGenerator::default();
        let (trace_id, span_id) = (ids.new_trace_id(), ids.new_span_id());
        let own =
            SpanContext::new(trace_id, span_id, TraceFlags::default(), false, TraceState::NONE);
        Self(Context::new().with_remote_span_context(own))
    }

    /// Does the call's work within its trace.
    pub async fn within<T>(self, work: impl Future<Output = T>) -> T {
        let done = work.with_context(self.0.clone()).await;
        self.0.span().end();
        done
    }
}

/// The trace id of the call that is being worked on: 32 hex digits; empty outside of calls.
#[must_use]
pub fn current_trace_id() -> String {
    let context = Context::current();
    let span = context.span();
    let span = span.span_context();
    if span.is_valid() { span.trace_id().to_string() } else { String::new() }
}

/// Work that goes on beside its call, within the call's trace.
pub fn with_current<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    work.with_current_context()
}

/// Notes on the call's span how it was refused.
pub(super) fn refused(account: &str, reason: &'static str, owner: &'static str) {
    let context = Context::current();
    let span = context.span();
    if span.is_recording() {
        span.set_attribute(KeyValue::new("account.slug", account.to_owned()));
        span.set_attribute(KeyValue::new("sso.reason", reason));
        span.set_attribute(KeyValue::new("sso.owner", owner));
        span.set_status(Status::error(reason));
    }
}

/// Makes one phase of a login a span.
pub(super) async fn phase<T>(name: &'static str, work: impl Future<Output = T>) -> T {
    let Some(tracer) = TRACER.get() else { return work.await };
    let context = Context::current();
    let context = context.with_span(tracer.start_with_context(name, &context));
    let done = work.with_context(context.clone()).await;
    context.span().end();
    done
}

/// The same for work that doesn't wait.
pub(super) fn phase_now<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    let Some(tracer) = TRACER.get() else { return work() };
    let mut span = tracer.start_with_context(name, &Context::current());
    let done = work();
    span.end();
    done
}

/// Tells whom we call in which trace this is (W3C Trace Context).
pub fn give(headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(&Context::current(), &mut HeadersOut(headers));
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersOut<'a>(&'a mut HeaderMap);

impl Injector for HeadersOut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(key.as_bytes()), HeaderValue::from_str(&value))
        {
            self.0.insert(name, value);
        }
    }
}

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

const SERVICE_NAME: &str = "peerpanda-sso";
const SERVICE_NAME_KEY: Key = Key::from_static_str("service.name");
/// For the last spans at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    async fn trace_id_of_call(headers: &HeaderMap) -> String {
        CallTrace::begins(headers, "Test").within(async { current_trace_id() }).await
    }

    #[tokio::test]
    async fn a_call_has_its_callers_trace_or_one_of_its_own() {
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
        assert_eq!(current_trace_id(), "", "outside of calls there is none");
    }

    #[tokio::test]
    async fn whom_we_call_is_told_the_trace() {
        let callers = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("traceparent"),
            HeaderValue::from_static(callers),
        )]);
        let given = CallTrace::begins(&headers, "Test").within(async {
            let mut given = HeaderMap::new();
            give(&mut given);
            given
        });
        let given = given.await;
        assert!(given.get("traceparent").is_some_and(|value| {
            value.to_str().is_ok_and(|text| text.contains("0af7651916cd43dd"))
        }));
    }
}
