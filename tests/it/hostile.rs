//! What strangers and greedy callers do at the ports, and what they take from the others: nothing. The
//! clients are raw sockets and raw HTTP/2, since no library misbehaves like this.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use peerpanda_sso::clock::SystemClock;
use peerpanda_sso::entropy::{Entropy, SystemEntropy};
use peerpanda_sso::model::limits::ListenerLimits;
use peerpanda_sso::pb;
use peerpanda_sso::pb::login_service_client::LoginServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::binary::Program;
use crate::callers::{caller, get, hash, with_token};
use crate::fake_idp::{FakeIdp, locked};
use crate::harness::{
    Service, begin_request, channel, complete_request, eventually, logged_port, reason,
};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const CHECK: &str = "/grpc.health.v1.Health/Check";
pub(crate) const WATCH: &str = "/grpc.health.v1.Health/Watch";
pub(crate) const GET_IDENTITY: &str = "/peerpanda.sso.v1.IdentityService/GetIdentity";
const BEGIN: &str = "/peerpanda.sso.v1.LoginService/BeginLogin";

/// A connection of raw HTTP/2.
pub(crate) struct Raw {
    sender: SendRequest<Bytes>,
    address: String,
    connection: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

pub(crate) type Opened = (ResponseFuture, SendStream<Bytes>);

impl Raw {
    pub(crate) async fn connect(address: &str) -> Self {
        Self::over(TcpStream::connect(address).await.expect("connected"), address).await
    }

    pub(crate) async fn over(stream: TcpStream, address: &str) -> Self {
        let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        Self { sender, address: address.to_owned(), connection: tokio::spawn(connection) }
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.connection.is_finished()
    }

    /// Sends a call's headers, and no message.
    pub(crate) async fn open(
        &mut self,
        path: &str,
        token: Option<&str>,
    ) -> Result<Opened, h2::Error> {
        let mut request = http::Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.sender = self.sender.clone().ready().await?;
        self.sender.send_request(request.body(()).expect("a request"), false)
    }

    /// Makes a whole call. Gives gRPC's status code.
    pub(crate) async fn call(
        &mut self,
        path: &str,
        token: Option<&str>,
        message: &[u8],
    ) -> Result<Code, h2::Error> {
        let (response, mut body) = self.open(path, token).await?;
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        body.send_data([&[0][..], &length, message].concat().into(), true)?;
        code(response.await?).await
    }
}

async fn code(response: http::Response<RecvStream>) -> Result<Code, h2::Error> {
    let status = |headers: &http::HeaderMap| {
        let value = headers.get("grpc-status")?.to_str().ok()?.parse::<i32>().ok()?;
        Some(Code::from(value))
    };
    if let Some(code) = status(response.headers()) {
        return Ok(code);
    }
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let _ = body.flow_control().release_capacity(data?.len());
    }
    let trailers = body.trailers().await?;
    Ok(trailers.as_ref().and_then(status).unwrap_or(Code::Unknown))
}

fn address(url: &str) -> String {
    url.replace("http://", "")
}

/// Bytes of memory that the program uses.
pub(crate) fn resident(program: &Program) -> usize {
    let file = format!("/proc/{}/statm", program.process.0.id());
    let text = std::fs::read_to_string(file).expect("it runs");
    let pages: usize = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * 4096
}

/// Connects from another address of loopback: another network, as the service counts.
pub(crate) async fn connect_from(from: [u8; 4], to: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((from, 0))).expect("bound");
    socket.connect(to.parse().expect("an address")).await.expect("connected")
}

fn few_connections(limits: &mut ListenerLimits) {
    *limits = ListenerLimits {
        connections: 32,
        unknown: 16,
        unknown_per_network: 8,
        handshake: Duration::from_millis(500),
        stranger_message: Duration::from_millis(500),
        caller_message: Duration::from_millis(500),
        ..ListenerLimits::default()
    };
}

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_announces_large_messages_grows_nothing() {
    let data = tempfile::tempdir().expect("a directory");
    let program = Program::serve(data.path(), &[]).await;
    let before = resident(&program);
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut raw = Raw::connect(&address(&program.login_url)).await;
        for _ in 0..160 {
            let Ok((response, mut body)) = raw.open(CHECK, None).await else { break };
            body.reserve_capacity(4 << 20);
            // The prefix of a message of 4 MiB, and as much of it as the service takes.
            let _ = body
                .send_data([&[0, 0, 0x3f, 0xff, 0xff][..], &[0; 60 * 1024]].concat().into(), false);
            open.push((response, body));
        }
        open.push(raw.open(CHECK, None).await.expect("open"));
        std::mem::forget(raw.connection);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let grown = resident(&program).saturating_sub(before);
    assert!(grown < 48 * MIB, "grew by {} MiB", grown / MIB);
    assert_eq!(program.health("").await, 1, "and others are told how it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_watches_and_unfinished_calls_keep_nobody_from_asking_how_it_is() {
    let service = Service::start_with(|config| few_connections(&mut config.listener_limits)).await;
    let login = address(&service.login_url());
    let mut raw = Raw::connect(&login).await;
    let mut watches = Vec::new();
    let mut refused = 0;
    for _ in 0..100 {
        let (response, mut body) = raw.open(WATCH, None).await.expect("open");
        body.send_data(Bytes::from_static(&[0; 5]), true).expect("sent");
        let response = response.await.expect("an answer");
        match response.headers().get("grpc-status") {
            Some(_) => refused += 1,
            None => watches.push(response),
        }
    }
    assert_eq!((watches.len(), refused), (64, 36), "one network's share of the watches");
    let mut unfinished = Vec::new();
    for _ in 0..400 {
        unfinished.push(raw.open(CHECK, None).await.expect("open"));
    }
    let mut another = Raw::over(connect_from([127, 0, 3, 1], &login).await, &login).await;
    assert_eq!(another.call(CHECK, None, &[]).await.expect("an answer"), Code::Ok);
    // Each ends: most because others took their place, the rest because no message arrived.
    for (response, _body) in unfinished {
        let ended = tokio::time::timeout(Duration::from_secs(5), response).await.expect("in time");
        let code = code(ended.expect("an answer")).await.expect("a status");
        assert_eq!(code, Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_keep_no_caller_out() {
    let mut service =
        Service::start_with(|config| few_connections(&mut config.listener_limits)).await;
    let login = address(&service.login_url());
    service.log_in().await.expect("a caller that is connected");
    let mut silent = Vec::new();
    for n in 0..200_u8 {
        let mut stream = connect_from([127, 0, 1, n % 50 + 1], &login).await;
        let _ = stream.write_all(&PREFACE[..usize::from(n) % PREFACE.len()]).await;
        silent.push(stream);
    }
    let started = Instant::now();
    LoginServiceClient::new(channel(&service.login_url()).await)
        .begin_login(begin_request())
        .await
        .expect("a new caller is served");
    assert!(started.elapsed() < Duration::from_secs(3), "it took {:?}", started.elapsed());
    service.log_in().await.expect("and the one that was connected before");
    for mut stream in silent {
        let mut rest = Vec::new();
        let closed = stream.read_to_end(&mut rest);
        let _ = tokio::time::timeout(Duration::from_secs(5), closed).await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_callers_fill_says_that_it_is_full() {
    let service = Service::start_with(|config| {
        config.listener_limits =
            ListenerLimits { connections: 4, unknown: 2, ..ListenerLimits::default() };
        config.metrics_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    })
    .await;
    let login = address(&service.login_url());
    // With the harness's own connection there are four.
    let mut callers = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::connect(&login).await;
        assert_eq!(raw.call(BEGIN, None, &[]).await.expect("an answer"), Code::InvalidArgument);
        callers.push(raw);
    }
    let mut own = service.login.clone();
    let _ = own.begin_login(begin_request()).await;
    let mut refused = TcpStream::connect(&login).await.expect("connected");
    assert_eq!(refused.read(&mut [0]).await.unwrap_or_default(), 0, "closed at once");
    let port = service.metrics_port();
    let readiness = || async { crate::operations::get(port, "/readyz").await.0 };
    assert_eq!(readiness().await, 503);
    drop(callers);
    eventually("it is ready again", || async { readiness().await == 200 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_calls_does_not_delay_the_shutdown() {
    let data = tempfile::tempdir().expect("a directory");
    let mut program = Program::serve(data.path(), &[]).await;
    let login = address(&program.login_url);
    let mut half = TcpStream::connect(&login).await.expect("connected");
    half.write_all(&PREFACE[..12]).await.expect("sent");
    let mut idle = Raw::connect(&login).await;
    let _unfinished = idle.open(CHECK, None).await.expect("open");
    let mut whole = TcpStream::connect(&login).await.expect("connected");
    whole.write_all(PREFACE).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let started = Instant::now();
    program.process.signal("TERM");
    let status =
        tokio::task::spawn_blocking(move || program.process.0.wait()).await.expect("waits");
    assert!(status.expect("ended").success());
    assert!(started.elapsed() < Duration::from_secs(8), "it took {:?}", started.elapsed());
    assert!(!locked(&program.log).iter().any(|line| line.contains("calls that were in flight")));
}

async fn with_callers(data: &Path) -> Program {
    let token = |token: &str| format!("token_sha256 = [\"{}\"]", hash(token));
    let callers = [
        caller("web", "login", &token("CANARYweb")),
        caller("backend", "identity", &token("CANARYbackend")),
        caller("other-backend", "identity", &token("CANARYother")),
        caller("support", "admin", &token("CANARYsupport")),
    ];
    let file = data.join("callers.toml");
    std::fs::write(&file, callers.concat()).expect("written");
    let settings = [
        ("SSO_CALLERS_FILE", file.to_str().expect("UTF-8")),
        ("SSO_MAX_IN_FLIGHT", "64"),
        ("SSO_IDENTITY_AUDIENCE", "backends"),
    ];
    Program::serve(data, &settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_of_one_role_takes_nothing_from_the_others() {
    let data = tempfile::tempdir().expect("a directory");
    let mut program = with_callers(data.path()).await;
    let login = address(&program.login_url);
    let mut greedy = Raw::connect(&login).await;
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(greedy.open(GET_IDENTITY, Some("CANARYbackend")).await.expect("open"));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = program.login.begin_login(with_token(begin_request(), "CANARYweb")).await;
    assert_eq!(reason(begun), "CONNECTION_NOT_FOUND", "the web tier is served");
    let got = program.admin.get_connection(with_token(get(), "CANARYsupport")).await;
    assert_eq!(reason(got), "CONNECTION_NOT_FOUND", "support is served");
    let mut modest = Raw::connect(&login).await;
    let code = modest.call(GET_IDENTITY, Some("CANARYother"), &[]).await.expect("an answer");
    assert_ne!(code, Code::ResourceExhausted, "and so is another backend");
    let mut codes = Vec::new();
    for (response, _body) in open {
        let ended = tokio::time::timeout(Duration::from_secs(10), response).await;
        codes
            .push(self::code(ended.expect("in time").expect("an answer")).await.expect("a status"));
    }
    let refused = codes.iter().filter(|code| **code == Code::ResourceExhausted).count();
    let late = codes.iter().filter(|code| **code == Code::InvalidArgument).count();
    assert_eq!((refused, late), (100 - 24, 24), "three quarters of the 32 that the role has");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_cancelled_calls_ends_no_other_call() {
    let mut service = Service::start().await;
    let callback = service.approved().await;
    service.idp.behave().token_delay = Duration::from_secs(2);
    let mut login = service.login.clone();
    let completing =
        tokio::spawn(async move { login.complete_login(complete_request(&callback)).await });
    eventually("the exchange has begun", || async { service.idp.count("/token") == 1 }).await;
    // On the same connection, as many as it may have open.
    let mut cancelled = Vec::new();
    for _ in 0..400 {
        let mut login = service.login.clone();
        let slow = pb::BeginLoginRequest { slug: "nobody".to_owned(), ..begin_request() };
        cancelled.push(tokio::spawn(async move { login.begin_login(slow).await }));
    }
    tokio::task::yield_now().await;
    cancelled.iter().for_each(tokio::task::JoinHandle::abort);
    completing.await.expect("ended").expect("the login in flight is completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_too_much_metadata_is_refused_alone() {
    let mut service = Service::start().await;
    let callback = service.approved().await;
    service.idp.behave().token_delay = Duration::from_secs(1);
    let mut login = service.login.clone();
    let completing =
        tokio::spawn(async move { login.complete_login(complete_request(&callback)).await });
    eventually("the exchange has begun", || async { service.idp.count("/token") == 1 }).await;
    let mut raw = Raw::connect(&address(&service.login_url())).await;
    let (in_flight, mut body) = raw.open(BEGIN, None).await.expect("open");
    for size in [20_000, 60_000, 80_000] {
        let mut request = tonic::Request::new(begin_request());
        let value = "x".repeat(size).parse().expect("a header");
        request.metadata_mut().insert("x-long", value);
        assert!(service.login.begin_login(request).await.is_err(), "{size}");
        let request = http::Request::post(format!("http://{}{BEGIN}", raw.address))
            .header("content-type", "application/grpc")
            .header("x-long", "x".repeat(size));
        raw.sender = raw.sender.clone().ready().await.expect("the connection lives");
        let request = request.body(()).expect("a request");
        let (response, _) = raw.sender.send_request(request, true).expect("sent");
        let is_refused = match response.await {
            Ok(response) => {
                response.status() == 431 || code(response).await.is_ok_and(|code| code != Code::Ok)
            }
            Err(error) => error.is_reset(),
        };
        assert!(is_refused, "{size}");
    }
    body.send_data(Bytes::from_static(&[0; 5]), true).expect("sent");
    let answered = code(in_flight.await.expect("the connection lives")).await;
    assert_eq!(answered.expect("a status"), Code::InvalidArgument);
    completing.await.expect("ended").expect("the login in flight is completed");
}

/// The health protocol: a service may become known later.
#[tokio::test]
async fn a_watch_of_an_unknown_service_stays_open() {
    let service = Service::start().await;
    let mut health = HealthClient::new(channel(&service.login_url()).await);
    let request = HealthCheckRequest { service: "not.here.yet".to_owned() };
    let mut states = health.watch(request.clone()).await.expect("a stream").into_inner();
    let first = states.next().await.expect("a state").expect("a state");
    assert_eq!(first.status, 3, "SERVICE_UNKNOWN");
    let more = tokio::time::timeout(Duration::from_millis(300), states.next()).await;
    assert!(more.is_err(), "it stays open: {more:?}");
    assert_eq!(health.check(request).await.expect_err("unknown").code(), Code::NotFound);
}

#[tokio::test]
async fn a_compressed_request_is_read_and_bounded_by_what_comes_out_of_it() {
    let service = Service::start().await;
    let mut login = LoginServiceClient::new(channel(&service.login_url()).await)
        .send_compressed(CompressionEncoding::Gzip);
    login.begin_login(begin_request()).await.expect("begun");
    let bomb = pb::BeginLoginRequest { login_hint: Some("x".repeat(10 << 20)), ..begin_request() };
    let refusal = login.begin_login(bomb).await.expect_err("too large");
    assert!(
        matches!(refusal.code(), Code::InvalidArgument | Code::ResourceExhausted),
        "{refusal:?}"
    );
    login.begin_login(begin_request()).await.expect("the connection still works");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_keep_no_probe_from_the_metrics_listener() {
    let data = tempfile::tempdir().expect("a directory");
    let program = Program::serve(data.path(), &[("SSO_METRICS_LISTEN", "127.0.0.1:0")]).await;
    let port = logged_port(&locked(&program.log), "metrics.address").expect("logged");
    let mut half = Vec::new();
    for n in 0..300_u16 {
        let from = [127, 0, 2, u8::try_from(n % 100 + 1).expect("small")];
        let mut stream = connect_from(from, &format!("127.0.0.1:{port}")).await;
        stream.write_all(b"G").await.expect("sent");
        half.push(stream);
    }
    let (status, metrics) = crate::operations::get(port, "/metrics").await;
    assert_eq!(status, 200);
    let open =
        metrics.lines().find(|line| line.starts_with("sso_connections_open{listener=\"metrics\"}"));
    let count: usize =
        open.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a number");
    assert!(count <= 64, "{count} connections");
    // Sooner than the deadline for a request, which would close them too.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let is_open = |stream: &TcpStream| matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
    let still_open = half.iter().filter(|stream| is_open(stream)).count();
    assert!((1..=64).contains(&still_open), "{still_open} connections are open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_stranger_is_named_by_address_and_can_not_fill_the_log() {
    let data = tempfile::tempdir().expect("a directory");
    let mut program = with_callers(data.path()).await;
    for _ in 0..200 {
        assert_eq!(reason(program.login.begin_login(begin_request()).await), "CALLER_UNKNOWN");
    }
    let mut known = with_token(begin_request(), "CANARYweb");
    known.metadata_mut().insert("sso-operator", "j%C3%B6rg".parse().expect("a header"));
    assert_eq!(reason(program.login.begin_login(known).await), "CONNECTION_NOT_FOUND");
    eventually("the caller is logged", || async {
        let log = locked(&program.log);
        log.iter().any(|line| line.contains("caller=\"web\" operator=\"jörg\""))
    })
    .await;
    let log = locked(&program.log);
    let strangers: Vec<_> = log.iter().filter(|line| line.contains("CALLER_UNKNOWN")).collect();
    assert!((10..100).contains(&strangers.len()), "{} lines", strangers.len());
    assert!(strangers.iter().all(|line| line.contains("network.peer.address=127.0.0.1")));
}

/// Frames of HTTP/2 with a plausible head, in random order and with random lengths.
async fn send_noise(address: &str, until: Instant) {
    let random = || {
        let mut bytes = [0; 64];
        SystemEntropy.fill(&mut bytes);
        bytes
    };
    while Instant::now() < until {
        let Ok(mut stream) = TcpStream::connect(address).await else { continue };
        let _ = stream.write_all(PREFACE).await;
        let _ = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
        for _ in 0..200 {
            let noise = random();
            let length = u16::from_be_bytes([noise[0] & 3, noise[1]]);
            // Mostly the length that is announced.
            let body = if noise[2] < 200 { length } else { u16::from(noise[3]) };
            let stream_id = if noise[4] < 64 { 0 } else { noise[5] & 15 };
            let head =
                [0, (length >> 8) as u8, length as u8, noise[6] % 12, noise[7], 0, 0, 0, stream_id];
            let body: Vec<u8> = (0..body).map(|n| noise[usize::from(n) % 64]).collect();
            if stream.write_all(&[&head[..], &body].concat()).await.is_err() {
                break;
            }
        }
    }
}

async fn noise_takes_nothing(duration: Duration) {
    let data = tempfile::tempdir().expect("a directory");
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let mut program = Program::serve(data.path(), &[]).await;
    program.set_up(&idp).await;
    program.log_in(&idp).await.expect("a login before");
    let before = resident(&program);
    let until = Instant::now() + duration;
    let noise: Vec<_> = [&program.login_url, &program.admin_url]
        .into_iter()
        .flat_map(|url| [address(url), address(url)])
        .map(|address| tokio::spawn(async move { send_noise(&address, until).await }))
        .collect();
    while Instant::now() < until {
        program.log_in(&idp).await.expect("a login meanwhile");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for sender in noise {
        sender.await.expect("ended");
    }
    program.log_in(&idp).await.expect("a login after");
    let grown = resident(&program).saturating_sub(before);
    assert!(grown < 64 * MIB, "grew by {} MiB", grown / MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_in_random_order_take_nothing() {
    noise_takes_nothing(Duration::from_secs(4)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute; tests/run runs it after the fault suite"]
async fn frames_in_random_order_take_nothing_for_a_minute() {
    noise_takes_nothing(Duration::from_secs(60)).await;
}
