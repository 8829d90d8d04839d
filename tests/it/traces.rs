//! Traces: a refusal has the caller's trace id, spans go to the collector, and IdPs get the trace
//! context only if the setting says so.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use peerpanda_sso::clock::SystemClock;
use peerpanda_sso::pb;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::binary::Program;
use crate::fake_idp::{FakeIdp, locked};
use crate::harness::{Service, begin_request, complete_request, eventually, refused};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

fn traced<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let traceparent = format!("00-{TRACE_ID}-b7ad6b7169203331-01");
    request.metadata_mut().insert("traceparent", traceparent.parse().expect("a value"));
    request
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for spans in request.into_inner().resource_spans {
            locked(&self.0).extend(spans.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// A collector and its URL.
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(
            async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await },
        );
        (collector, url)
    }

    fn of_trace(&self) -> Vec<Span> {
        locked(&self.0)
            .iter()
            .filter(|span| hex::encode(&span.trace_id) == TRACE_ID)
            .cloned()
            .collect()
    }
}

#[tokio::test]
async fn every_refusal_names_its_trace() {
    let mut service = Service::start().await;
    let unknown = || pb::BeginLoginRequest { slug: "unknown".to_owned(), ..begin_request() };
    let of_callers = refused(service.login.begin_login(traced(unknown())).await);
    assert_eq!(of_callers.metadata.get("trace_id").map(String::as_str), Some(TRACE_ID));
    let own = |refusal: crate::harness::Refused| {
        refusal.metadata.get("trace_id").cloned().expect("a trace id")
    };
    let (first, second) = (
        own(refused(service.begin(unknown()).await)),
        own(refused(service.begin(unknown()).await)),
    );
    assert!(first.len() == 32 && first != second, "{first} {second}");
    // Also a call that is refused before its message is read.
    let huge = pb::BeginLoginRequest { return_to: Some("x".repeat(300_000)), ..begin_request() };
    assert_eq!(own(refused(service.begin(huge).await)).len(), 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_spans_at_the_collector_and_no_secret_is_in_them() {
    let (collector, url) = Collector::start().await;
    let data = tempfile::tempdir().expect("a directory");
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("SSO_ANSWER_TTL", "0s"),
    ];
    let mut program = Program::serve(data.path(), &settings).await;
    program.set_up(&idp).await;
    let begun =
        program.login.begin_login(traced(begin_request())).await.expect("begun").into_inner();
    let callback = idp.approve(&begun.redirect_url, "alice");
    program.login.complete_login(traced(complete_request(&callback))).await.expect("a login");
    let again = refused(program.login.complete_login(traced(complete_request(&callback))).await);
    assert_eq!(
        (again.reason.as_str(), again.metadata["trace_id"].as_str()),
        ("STATE_USED", TRACE_ID)
    );
    eventually("the spans have arrived", || async {
        collector.of_trace().iter().filter(|span| span.kind == 2).count() == 3
    })
    .await;
    let spans = collector.of_trace();
    let completed =
        spans.iter().find(|span| span.name == "CompleteLogin").expect("the call's span");
    assert_eq!(hex::encode(&completed.parent_span_id), "b7ad6b7169203331");
    let phases = spans
        .iter()
        .filter(|span| span.parent_span_id == completed.span_id)
        .map(|span| span.name.as_str());
    assert_eq!(phases.collect::<Vec<_>>(), ["metadata", "store", "token", "verify"]);
    let shown = format!("{spans:?}");
    assert!(shown.contains("STATE_USED") && shown.contains("acme"));
    for secret in ["CANARY", callback.state.as_str(), "alice"] {
        assert!(!shown.contains(secret), "{secret}");
    }
    let sent_to = |path: &str| {
        idp.seen()
            .iter()
            .filter(|seen| seen.path == path)
            .filter_map(|seen| seen.headers.get("traceparent").cloned())
            .next()
    };
    assert!(sent_to("/token").is_none(), "the IdP gets no trace context");

    // The last spans are sent at shutdown.
    program.login.begin_login(traced(begin_request())).await.expect("begun");
    program.process.signal("TERM");
    let status = tokio::task::spawn_blocking(move || program.process.0.wait())
        .await
        .expect("ended")
        .expect("ended");
    assert_eq!(status.code(), Some(0));
    assert_eq!(collector.of_trace().iter().filter(|span| span.kind == 2).count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_is_sent_to_an_idp_if_configured_and_a_dead_collector_does_not_matter() {
    let data = tempfile::tempdir().expect("a directory");
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let settings =
        [("SSO_TRACE_PROVIDERS", "true"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")];
    let mut program = Program::serve(data.path(), &settings).await;
    program.set_up(&idp).await;
    let begun =
        program.login.begin_login(traced(begin_request())).await.expect("begun").into_inner();
    let callback = idp.approve(&begun.redirect_url, "alice");
    program.login.complete_login(traced(complete_request(&callback))).await.expect("a login");
    let sent = idp
        .seen()
        .iter()
        .find(|seen| seen.path == "/token")
        .and_then(|seen| seen.headers.get("traceparent").cloned());
    assert!(sent.expect("a trace context").to_str().expect("ASCII").contains(TRACE_ID));
    program.process.signal("TERM");
    let ended = tokio::task::spawn_blocking(move || program.process.0.wait());
    let status = tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .expect("in time")
        .expect("ended")
        .expect("ended");
    assert_eq!(status.code(), Some(0));
}
