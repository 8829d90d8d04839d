//! The listener for those who run the service: metrics, and whether it lives and is ready. Plain HTTP, since kubelet's
//! probes and Prometheus speak that; nothing here is secret, and nothing can be changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::telemetry::Metrics;

/// Whether people can log in here now.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says so.
    pub fn set(&self, is_ready: bool) {
        self.0.store(is_ready, Ordering::Release);
    }

    fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Clone)]
struct Shown {
    metrics: Metrics,
    readiness: Readiness,
}

/// Answers `/metrics`, `/livez` and `/readyz` until it is aborted.
#[must_use]
pub fn serve(listener: TcpListener, metrics: Metrics, readiness: Readiness) -> JoinHandle<()> {
    let routes = Router::new()
        .route("/metrics", get(render))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(Shown { metrics, readiness });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "the metrics listener failed");
        }
    })
}

async fn render(State(shown): State<Shown>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shown.metrics.render()).into_response()
}

async fn ready(State(shown): State<Shown>) -> Response {
    if shown.readiness.is_ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: draining, or a store is away\n").into_response()
    }
}
