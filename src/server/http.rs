//! The HTTP listener for operators: metrics for Prometheus, probes for kubelet, and the JWKS of
//! identity tokens. Plaintext and open to all, so it must never serve a secret or change anything.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::Health;
use super::listener::{accept, serve_http1};
use super::pool::{Place, Pool};
use crate::clock::Clock;
use crate::identity_token::IdentityTokens;
use crate::model::limits::ListenerLimits;
use crate::tasks::Tasks;
use crate::telemetry::{BackgroundTask, Listener, Metrics};

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
    clock: Arc<dyn Clock>,
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
    let pool = Arc::new(Pool::new(Listener::Metrics, LIMITS, clock));
    let stopping = tasks.stopping();
    let serve = move |stream, place| {
        let served = serve_http1(stream, routes.clone(), LIMITS.handshake, stopping.clone());
        async move {
            served.await;
            // Not before: without its place, the connection isn't counted.
            drop::<Arc<Place>>(place);
        }
    };
    let accepting = accept(listener, None, pool, |_| {}, tasks.clone(), serve);
    tasks.spawn_essential(BackgroundTask::MetricsListener, accepting);
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
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: draining, a store is unavailable, or no connection is free\n",
        )
            .into_response()
    }
}

/// Everybody is a stranger here: probes, scrapers and backends that read the key set. A newcomer takes
/// the place of the oldest.
const LIMITS: ListenerLimits = ListenerLimits {
    connections: 256,
    unknown: 64,
    unknown_per_network: 16,
    handshake: Duration::from_secs(5),
    unknown_idle: Duration::from_secs(60),
    known_idle: Duration::from_secs(60),
    stranger_message: Duration::from_secs(2),
    caller_message: Duration::from_secs(2),
};
