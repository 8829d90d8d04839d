//! What answers where the service should: after a call without an answer of the service, the listener
//! is asked once more in plain HTTP/1.1, since the answer tells a listener with TLS, one without, and
//! one of another protocol apart. Sends no credentials.

use std::time::Duration;

use http::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::client::root_cause;

/// Explains a status that something other than the service made, such as a listener of another kind.
pub(super) fn words(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => format!(
            "this listener doesn't offer the called service ({}): support's commands need the admin \
             listener (SSO_ADMIN_LISTEN)",
            status.message()
        ),
        Code::Cancelled | Code::DeadlineExceeded => {
            "it took longer than --timeout allows".to_owned()
        }
        _ => {
            let cause = root_cause(status);
            // Without a source, it is the status with its code.
            if std::error::Error::source(status).is_none() {
                status.message().to_owned()
            } else {
                cause
            }
        }
    }
}

/// What is wrong with the listener at `url`, if it is the wrong kind.
pub(super) async fn probe(url: &Uri) -> Option<String> {
    let is_tls = url.scheme_str() == Some("https");
    let host = url.host()?;
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let answer = timeout(PATIENCE, ask(host, port)).await.ok()?.ok()?;
    let other = |scheme: &str| format!("{scheme}://{host}:{port}");
    match (is_tls, Answer::of(&answer)?) {
        (true, Answer::Tls) => None,
        (true, Answer::Http1 | Answer::Http2) => {
            Some(format!("it doesn't speak TLS: use {}", other("http")))
        }
        (false, Answer::Tls) => Some(format!("it speaks TLS: use {}", other("https"))),
        (false, Answer::Http1) => Some(
            "an HTTP server that doesn't speak gRPC answers there: use the admin listener \
             (SSO_ADMIN_LISTEN)"
                .to_owned(),
        ),
        (false, Answer::Http2) => None,
    }
}

async fn ask(host: &str, port: u16) -> std::io::Result<Vec<u8>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut stream = TcpStream::connect((host, port)).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = vec![0; MAX_ANSWER];
    let mut length = 0;
    while length < answer.len() {
        match stream.read(&mut answer[length..]).await {
            Ok(0) | Err(_) => break,
            Ok(more) => length += more,
        }
    }
    answer.truncate(length);
    Ok(answer)
}

/// What a listener speaks.
enum Answer {
    Tls,
    Http1,
    Http2,
}

impl Answer {
    fn of(bytes: &[u8]) -> Option<Self> {
        // A TLS alert (RFC 8446 5.1), and the frame that a server of HTTP/2 begins with (RFC 9113 3.4).
        match bytes {
            [21, 3, ..] => Some(Self::Tls),
            [b'H', b'T', b'T', b'P', b'/', ..] => Some(Self::Http1),
            [_, _, _, 4, ..] => Some(Self::Http2),
            _ => None,
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes that tell the protocol.
const MAX_ANSWER: usize = 7;
