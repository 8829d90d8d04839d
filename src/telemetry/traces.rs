//! Spans: W3C Trace Context in and out of the process, and export to a collector by OTLP. A span
//! holds the method, the account and the reason of a refusal, never what a call carried.

use std::sync::LazyLock;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceState, TracerProvider};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, filter::FilterExt};

use super::TelemetryError;
use super::call::current_span_context;

/// Sends spans to a collector.
#[must_use = "the last spans are lost unless it is stopped"]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Sampling, batching, headers and the resource follow the `OTEL_...` variables.
    pub(super) fn start(endpoint: &str) -> Result<Self, TelemetryError> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let builder = Resource::builder().with_attribute(version);
        // The SDK calls a service unknown_service if neither OTEL_SERVICE_NAME nor
        // OTEL_RESOURCE_ATTRIBUTES names it.
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
        Ok(Self(provider))
    }

    /// Exports this crate's spans. Events are log lines and aren't exported.
    pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let is_own_span = |metadata: &Metadata<'_>| {
            metadata.is_span() && metadata.target().starts_with("peerpanda_sso")
        };
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(SERVICE_NAME))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(filter_fn(is_own_span).and(LevelFilter::DEBUG))
    }

    /// Sends the spans that are still in memory, within a few seconds.
    pub async fn stop(self) {
        // It blocks until the exporter's own thread is done.
        let stopped =
            tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
        if let Ok(Err(error)) = stopped {
            tracing::warn!(%error, "failed to send the last spans");
        }
    }
}

/// Adds the current call's trace to a request to another service.
pub fn inject(headers: &mut HeaderMap) {
    if let Some(span) = current_span_context() {
        let context = Context::new().with_remote_span_context(span);
        PROPAGATOR.inject_context(&context, &mut HeadersOut(headers));
    }
}

/// The caller's span; `None`: it sent none, or a malformed one.
pub(super) fn extract(headers: &HeaderMap) -> Option<SpanContext> {
    // Most calls have none.
    headers.get("traceparent")?;
    let context = PROPAGATOR.extract_with_context(&Context::new(), &Headers(headers));
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

/// A trace of our own, which isn't exported.
pub(super) fn new_trace() -> SpanContext {
    let ids = RandomIdGenerator::default();
    let (trace_id, span_id) = (ids.new_trace_id(), ids.new_span_id());
    SpanContext::new(trace_id, span_id, TraceFlags::default(), false, TraceState::NONE)
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

static PROPAGATOR: LazyLock<TraceContextPropagator> = LazyLock::new(TraceContextPropagator::new);

const SERVICE_NAME: &str = "peerpanda-sso";
const SERVICE_NAME_KEY: Key = Key::from_static_str("service.name");
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::call::Call;

    #[tokio::test]
    async fn a_request_to_an_idp_carries_the_callers_trace() {
        let callers = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("traceparent"),
            HeaderValue::from_static(callers),
        )]);
        let sent = Call::start(&headers, "Test").run(async {
            let mut sent = HeaderMap::new();
            inject(&mut sent);
            sent
        });
        let sent = sent.await;
        assert!(sent.get("traceparent").is_some_and(|value| {
            value.to_str().is_ok_and(|text| text.contains("0af7651916cd43dd"))
        }));
        let mut outside = HeaderMap::new();
        inject(&mut outside);
        assert!(outside.is_empty());
    }
}
