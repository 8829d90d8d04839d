//! Logs, metrics and traces of the whole process: a leaf that every layer may call. Log lines and
//! spans never hold a secret, code, token, state, nonce or verifier: those types print
//! `[redacted]`, and no error quotes an IdP's answer. The labels of metrics take a bounded number
//! of values.

pub mod call;
mod log;
mod metrics;
mod process;
mod throttle;
pub mod traces;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry};

pub use log::LogFormat;
pub use metrics::*;
pub use throttle::LogThrottle;
pub use traces::Traces;

/// Sends the process's log lines to standard error and, if there is a collector (an OTLP URL), its
/// spans to the collector. Can be called once, within a tokio runtime. The result must be stopped
/// before the process ends, or the last spans are lost.
///
/// # Errors
/// The collector's URL can't be used, or a subscriber is already installed.
pub fn init(
    format: LogFormat,
    filter: EnvFilter,
    collector: Option<&str>,
) -> Result<Option<Traces>, TelemetryError> {
    let traces = collector.map(Traces::start).transpose()?;
    // Without a collector there is no OpenTelemetry layer: then spans, which have the level debug,
    // cost nothing at the default log level.
    Registry::default()
        .with(log::LogLayer::to_stderr(format).with_filter(filter))
        .with(traces.as_ref().map(Traces::layer))
        .try_init()
        .map_err(TelemetryError::Subscriber)?;
    Ok(traces)
}

/// Why logs, metrics or traces can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The collector can't be used.
    #[error("invalid OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Collector(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Something else receives the process's log lines.
    #[error("failed to install the log subscriber: {0}")]
    Subscriber(TryInitError),
    /// Something else receives the process's metrics.
    #[error("failed to install the metrics recorder: {0}")]
    Recorder(#[from] metrics_exporter_prometheus::BuildError),
}
