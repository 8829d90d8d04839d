//! The listener for those who run the service: metrics, and whether it lives and is ready. Plain HTTP, since kubelet's
//! probes and Prometheus speak that; nothing here is secret, and nothing can be changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::identity_token::IdentityTokens;
use crate::telemetry::{self, Metrics};

/// Whether people can log in here now.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says so.
    pub fn set(&self, is_ready: bool) {
        self.0.store(is_ready, Ordering::Release);
        telemetry::ready(is_ready);
    }

    fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Clone)]
struct Shown {
    metrics: Metrics,
    readiness: Readiness,
    identity_tokens: Option<Arc<IdentityTokens>>,
}

/// Answers `/metrics`, `/livez` and `/readyz` until it is aborted, and `/.well-known/jwks.json` where identity tokens are
/// issued.
#[must_use]
pub fn serve(
    listener: TcpListener,
    metrics: Metrics,
    readiness: Readiness,
    identity_tokens: Option<Arc<IdentityTokens>>,
) -> JoinHandle<()> {
    let upkeep = metrics.clone();
    let routes = Router::new()
        .route("/metrics", get(render))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/.well-known/jwks.json", get(jwks))
        .with_state(Shown { metrics, readiness, identity_tokens });
    tokio::spawn(async move {
        let served = axum::serve(listener, routes).into_future();
        tokio::select! {
            served = served => {
                if let Err(error) = served {
                    tracing::error!(%error, "the metrics listener failed");
                }
            }
            () = upkeep.keep_up() => {}
        }
    })
}

async fn render(State(shown): State<Shown>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shown.metrics.render())
        .into_response()
}

async fn jwks(State(shown): State<Shown>) -> Response {
    match shown.identity_tokens {
        Some(identity_tokens) if identity_tokens.ready().is_ok() => {
            let headers = [
                (CONTENT_TYPE, "application/jwk-set+json"),
                (CACHE_CONTROL, "public, max-age=3600"),
            ];
            (headers, identity_tokens.jwks()).into_response()
        }
        Some(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "no signing key is known yet\n").into_response()
        }
        None => (StatusCode::NOT_FOUND, "SSO_IDENTITY_AUDIENCE is not set\n").into_response(),
    }
}

async fn ready(State(shown): State<Shown>) -> Response {
    if shown.readiness.is_ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: draining, or a store is away\n")
            .into_response()
    }
}
