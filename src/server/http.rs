//! The HTTP listener for operators: metrics for Prometheus, probes for kubelet, and the JWKS of
//! identity tokens. Plaintext and open to all, so it must never serve a secret or change anything.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::Health;
use crate::identity_token::IdentityTokens;
use crate::tasks::Tasks;
use crate::telemetry::{BackgroundTask, Metrics};

#[derive(Clone)]
struct Sources {
    metrics: Metrics,
    health: Health,
    identity_tokens: Option<Arc<IdentityTokens>>,
}

/// Serves `/metrics`, `/livez`, `/readyz` and `/.well-known/jwks.json` until the shutdown begins.
pub fn serve(
    listener: TcpListener,
    metrics: Metrics,
    health: Health,
    identity_tokens: Option<Arc<IdentityTokens>>,
    tasks: &Tasks,
) {
    let upkeep = metrics.clone();
    tasks.spawn_restarting(BackgroundTask::MetricsUpkeep, move || upkeep.clone().upkeep());
    let routes = Router::new()
        .route("/metrics", get(render_metrics))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/.well-known/jwks.json", get(jwks))
        .with_state(Sources { metrics, health, identity_tokens });
    let stopping = tasks.stopping();
    tasks.spawn_essential(BackgroundTask::MetricsListener, async move {
        let serving = axum::serve(listener, routes).into_future();
        if let Some(Err(error)) = stopping.run_until_cancelled_owned(serving).await {
            tracing::error!(%error, "metrics listener failed");
        }
    });
}

async fn render_metrics(State(sources): State<Sources>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], sources.metrics.render())
        .into_response()
}

async fn jwks(State(sources): State<Sources>) -> Response {
    match sources.identity_tokens {
        Some(identity_tokens) if identity_tokens.ready().is_ok() => {
            let headers = [
                (CONTENT_TYPE, "application/jwk-set+json"),
                (CACHE_CONTROL, "public, max-age=3600"),
            ];
            (headers, identity_tokens.jwks()).into_response()
        }
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "the signing keys are not loaded yet\n")
            .into_response(),
        None => (StatusCode::NOT_FOUND, "SSO_IDENTITY_AUDIENCE is not set\n").into_response(),
    }
}

async fn ready(State(sources): State<Sources>) -> Response {
    if sources.health.is_ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: draining, or a store is unavailable\n")
            .into_response()
    }
}
