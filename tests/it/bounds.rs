//! Bounds on what an IdP sends, in size, depth and time. A raw server sends what no HTTP library
//! would.

use std::io::Write;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::write::GzEncoder;
use peerpanda_sso::pb;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::harness::{Service, begin_request, complete_request, reason, refused};

/// Calls `answer` with each connection after a request has arrived. Gives the server's URL.
async fn raw_server<F>(answer: impl Fn(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/token", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            tokio::spawn(answer(stream));
        }
    });
    url
}

async fn with_token_endpoint(url: String) -> Service {
    let service = Service::start().await;
    service.idp.behave().metadata = json!({ "token_endpoint": url });
    service
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

/// RFC 9110 8.4: an answer that is compressed without being asked for, and a decompression bomb.
#[tokio::test]
async fn a_compressed_answer_is_bounded_by_what_comes_out_of_it() {
    let small = gzipped(br#"{"error":"invalid_grant"}"#);
    let bomb = gzipped(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 256 * 1024);
    for (coding, body, expected) in [
        ("gzip", small.clone(), "CODE_REJECTED"),
        ("x-gzip", small.clone(), "CODE_REJECTED"),
        ("identity", br#"{"error":"invalid_grant"}"#.to_vec(), "CODE_REJECTED"),
        ("gzip", bomb, "TOKEN_RESPONSE_INVALID"),
        ("gzip", b"{}".to_vec(), "TOKEN_RESPONSE_INVALID"),
        ("gzip", small[..10].to_vec(), "TOKEN_RESPONSE_INVALID"),
        ("br", small.clone(), "TOKEN_RESPONSE_INVALID"),
        ("gzip, gzip", small, "TOKEN_RESPONSE_INVALID"),
    ] {
        let head = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-encoding: {coding}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = [head.into_bytes(), body].concat();
        let url = raw_server(move |mut stream| {
            let answer = answer.clone();
            async move { stream.write_all(&answer).await.unwrap_or_default() }
        });
        let mut service = with_token_endpoint(url.await).await;
        assert_eq!(reason(service.log_in().await), expected, "{coding}");
    }
}

/// RFC 9112 5.1 and 5.2: white space before a header's colon, and a header on several lines.
#[tokio::test]
async fn an_answer_with_obsolete_headers_is_read() {
    for headers in [
        "content-type : application/json\r\ncontent-length: 25",
        "x-folded: a\r\n b\r\n\tc\r\ncontent-length: 25",
        "content-length :\r\n 25\r\nx-last:",
    ] {
        let head = format!("HTTP/1.1 400 Bad Request\r\n{headers}\r\n\r\n");
        let url = raw_server(move |mut stream| {
            let answer = format!("{head}{{\"error\":\"invalid_grant\"}}");
            async move { stream.write_all(answer.as_bytes()).await.unwrap_or_default() }
        });
        let mut service = with_token_endpoint(url.await).await;
        assert_eq!(reason(service.log_in().await), "CODE_REJECTED", "{headers:?}");
    }
}

/// Bounds: a login waits for groups that it can do without for 3 s.
#[tokio::test]
async fn a_userinfo_endpoint_that_hangs_delays_a_login_without_groups_and_refuses_none() {
    let url = raw_server(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    });
    let mut service = Service::start().await;
    service.idp.behave().metadata = json!({ "userinfo_endpoint": url.await });
    let map_groups = |connection: &mut pb::Connection| {
        connection.claim_mapping =
            Some(pb::ClaimMapping { groups: "groups".to_owned(), ..Default::default() });
    };
    service.edit(&["claim_mapping"], map_groups).await.expect("edited");
    let started = Instant::now();
    let identity = service.log_in().await.expect("a login").identity.expect("an Identity");
    let took = started.elapsed();
    assert!((3..6).contains(&took.as_secs()), "{took:?}");
    assert_eq!(identity.claim_sources["groups"], "unavailable: UserInfo failed (timeout)");
}

/// Bounds: header counts and sizes, and bodies longer than declared or of undeclared length.
#[tokio::test]
async fn an_answer_with_endless_headers_or_body_is_refused() {
    let many = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let long = format!("x-long: {}\r\n", "x".repeat(256 * 1024));
    for (head, expected) in [
        (format!("HTTP/1.1 200 OK\r\n{many}"), "PROVIDER_UNAVAILABLE"),
        (format!("HTTP/1.1 200 OK\r\n{long}"), "PROVIDER_UNAVAILABLE"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n".to_owned(), "TOKEN_RESPONSE_INVALID"),
        ("HTTP/1.1 200 OK\r\n".to_owned(), "TOKEN_RESPONSE_INVALID"),
        ("no HTTP at all\r\n".to_owned(), "PROVIDER_UNAVAILABLE"),
    ] {
        let shown = head.chars().take(60).collect::<String>();
        let url = raw_server(move |mut stream| {
            let head = format!("{head}\r\n");
            async move {
                let _ = stream.write_all(head.as_bytes()).await;
                while stream.write_all(&[b' '; 16 * 1024]).await.is_ok() {}
            }
        });
        let mut service = with_token_endpoint(url.await).await;
        assert_eq!(reason(service.log_in().await), expected, "{shown}");
    }
}

/// Bounds: the deadline is for the whole answer, however slowly it arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_drips_does_not_stretch_the_deadline() {
    let mut logins = Vec::new();
    for head in ["HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", "HTTP/1.1 200 OK\r\nx-drip: "]
    {
        let url = raw_server(move |mut stream| async move {
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        let mut service = with_token_endpoint(url.await).await;
        let callback = service.approved().await;
        logins.push(tokio::spawn(async move {
            let started = Instant::now();
            let reason = reason(service.complete(complete_request(&callback)).await);
            (reason, started.elapsed())
        }));
    }
    for login in logins {
        let (reason, took) = login.await.expect("ended");
        assert_eq!(reason, "PROVIDER_UNAVAILABLE");
        assert!(took < Duration::from_secs(15), "it took {took:?}");
    }
}

/// Bounds: connecting times out sooner than waiting for an answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_accepts_no_connection_times_out_soon() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
    let full = socket.listen(1).expect("listening");
    let address = full.local_addr().expect("an address");
    let mut queue = Vec::new();
    // The queue holds one or two; further connections wait forever.
    for _ in 0..8 {
        queue.push(tokio::spawn(TcpStream::connect(address)));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut service = with_token_endpoint(format!("http://{address}/token")).await;
    let started = Instant::now();
    assert_eq!(reason(service.log_in().await), "PROVIDER_UNAVAILABLE");
    assert!(started.elapsed() < Duration::from_secs(9), "it took {:?}", started.elapsed());
}

/// Bounds: tokens of 64 KiB, 200 keys, JSON of 24 levels.
#[tokio::test]
async fn what_is_too_long_too_many_or_too_deep_is_refused() {
    let mut service = Service::start().await;
    service.idp.behave().claims = json!({ "padding": "x".repeat(64 * 1024) });
    assert_eq!(reason(service.log_in().await), "TOKEN_RESPONSE_INVALID", "the ID token");
    service.idp.behave().claims = json!({});
    service.idp.behave().access_token = Some("x".repeat(64 * 1024 + 1));
    assert_eq!(reason(service.log_in().await), "TOKEN_RESPONSE_INVALID", "the access token");
    service.idp.behave().access_token = None;
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    service.idp.behave().claims = json!({ "x": nested(22) });
    service.log_in().await.expect("within the limit");
    service.idp.behave().claims = json!({ "x": nested(24) });
    assert_eq!(reason(service.log_in().await), "ID_TOKEN_INVALID");
    service.idp.behave().claims = json!({});
    service.idp.behave().token_response = json!({ "x": nested(24) });
    assert_eq!(reason(service.log_in().await), "TOKEN_RESPONSE_INVALID");

    for (metadata, keys) in
        [(json!({ "x": nested(24) }), None), (json!({}), Some(201)), (json!({}), Some(200))]
    {
        let mut service = Service::start().await;
        service.idp.behave().metadata = metadata;
        if let Some(count) = keys {
            let key = service.idp.published_keys(|kid| kid == "rsa")["keys"][0].clone();
            service.idp.behave().keys = Some(json!({ "keys": vec![key; count] }));
        }
        let begun = service.begin(begin_request()).await;
        if keys == Some(200) {
            begun.expect("200 keys are accepted");
        } else {
            assert_eq!(reason(begun), "PROVIDER_METADATA_INVALID");
        }
    }
}

/// Bounds: a caller that cancels cancels the call to the IdP too.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_cancels_cancels_the_call_to_the_idp() {
    let (events, mut seen) = mpsc::unbounded_channel();
    let url = raw_server(move |mut stream| {
        let events = events.clone();
        async move {
            let _ = events.send("called");
            // Until the other side closes.
            while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
            let _ = events.send("closed");
        }
    });
    let mut service = with_token_endpoint(url.await).await;
    let callback = service.approved().await;
    let mut login = service.login.clone();
    let call = tokio::spawn(async move { login.complete_login(complete_request(&callback)).await });
    assert_eq!(seen.recv().await, Some("called"));
    call.abort();
    let closed = tokio::time::timeout(Duration::from_secs(5), seen.recv()).await;
    assert_eq!(closed.expect("well before the deadline of the call"), Some("closed"));
}

/// RFC 7519 5.2, RFC 8725 3.11: a signed token within a signed token.
#[tokio::test]
async fn a_nested_token_is_refused() {
    let mut service = Service::start().await;
    service.log_in().await.expect("a login");
    let inner = service.idp.last_id_token();
    let encoded = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let header = json!({ "alg": "RS256", "typ": "JWT", "cty": "JWT", "kid": "rsa" }).to_string();
    service.idp.behave().id_token = Some(service.idp.signed(&header, &inner));
    assert_eq!(reason(service.log_in().await), "ID_TOKEN_INVALID");
    service.idp.behave().id_token = Some(service.idp.signed(&header, &json!(inner).to_string()));
    assert_eq!(reason(service.log_in().await), "ID_TOKEN_INVALID");
    let encrypted = format!(
        "{}.{}.{}.{}.{}",
        encoded(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#),
        "AA",
        "AA",
        "AA",
        "AA"
    );
    service.idp.behave().id_token = Some(encrypted);
    let refusal = refused(service.log_in().await);
    assert!(
        refusal.reason == "ID_TOKEN_INVALID" && refusal.message.contains("encrypted"),
        "{refusal:?}"
    );
    service.idp.behave().id_token = None;
    service.log_in().await.expect("the plain token is accepted");
}
