//! The proxy that IdPs are called through, if the operator sets one: a tunnel by CONNECT (RFC 9110
//! 9.3.6), so that TLS is with the IdP and the proxy sees its host name alone. Used by the address
//! guard in `oidc/address.rs`. The proxy's password must never be shown.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Uri;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use url::{Position, Url};
use zeroize::Zeroizing;

use super::error::ProxyError;

/// Where the proxy is, and how the service authenticates there.
#[derive(Clone, Debug)]
pub struct Proxy {
    pub(super) uri: Uri,
    /// The value of Proxy-Authorization.
    authorization: Option<SecretString>,
}

impl Proxy {
    /// Parses `http://USER:PASSWORD@HOST:PORT`, of which user and password may be left out. `None`: it
    /// is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_origin = matches!(&url[Position::BeforePath..], "" | "/");
        if url.scheme() != "http" || !is_origin || !url.has_host() {
            return None;
        }
        let port = url.port_or_known_default()?;
        let uri = format!("http://{}:{port}/", url.host_str()?).parse().ok()?;
        if url.username().is_empty() && url.password().is_none() {
            return Some(Self { uri, authorization: None });
        }
        let mut pair = Zeroizing::new(percent_decoded(url.username())?);
        if pair.contains(&b':') {
            return None;
        }
        pair.push(b':');
        pair.extend(percent_decoded(url.password().unwrap_or_default())?);
        let authorization = format!("Basic {}", BASE64_STANDARD.encode(&*pair));
        Some(Self { uri, authorization: Some(authorization.into()) })
    }

    /// Turns a connection to the proxy into one to `host`, which is as in a URL.
    pub(super) async fn tunnel(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        host: &str,
        port: u16,
    ) -> Result<(), ProxyError> {
        let mut request = Zeroizing::new(format!("CONNECT {host}:{port} HTTP/1.1\r\n"));
        request.push_str(&format!("Host: {host}:{port}\r\n"));
        if let Some(authorization) = &self.authorization {
            request.push_str("Proxy-Authorization: ");
            request.push_str(authorization.expose_secret());
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        let broken = |_| ProxyError::Malformed;
        stream.write_all(request.as_bytes()).await.map_err(broken)?;
        // A client speaks first in TLS and in HTTP, so that nothing follows the head.
        let mut head = Vec::with_capacity(512);
        while !head.windows(END.len()).any(|end| end == END) {
            if head.len() >= MAX_HEAD || stream.read_buf(&mut head).await.map_err(broken)? == 0 {
                break;
            }
        }
        match status(&head) {
            Some(200..=299) if head.ends_with(END) => Ok(()),
            Some(200..=299) | None => Err(ProxyError::Malformed),
            Some(status) => Err(ProxyError::Status(status)),
        }
    }
}

/// The status of a response's first line.
fn status(head: &[u8]) -> Option<u16> {
    let digits = head.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Some(bytes)
}

const END: &[u8] = b"\r\n\r\n";
/// Bytes of the proxy's answer to CONNECT.
const MAX_HEAD: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_an_http_origin_with_or_without_credentials() {
        for (text, expected) in [
            ("http://proxy.example:3128", Some(("proxy.example:3128", None))),
            ("http://proxy.example/", Some(("proxy.example:80", None))),
            ("http://[::1]:3128", Some(("[::1]:3128", None))),
            ("http://u:p%40%3a@proxy:1", Some(("proxy:1", Some("u:p@:")))),
            ("http://u@proxy:1", Some(("proxy:1", Some("u:")))),
            ("http://a%3Ab:c@proxy:1", None),
            ("https://proxy:1", None),
            ("socks5://proxy:1", None),
            ("http://proxy:1/path", None),
            ("proxy:3128", None),
            ("http://", None),
        ] {
            let proxy = Proxy::parse(text);
            let shown = format!("{proxy:?}");
            let read = proxy.map(|proxy| {
                let authority = proxy.uri.authority().expect("an authority").to_string();
                (authority, proxy.authorization.map(|value| value.expose_secret().to_owned()))
            });
            let expected = expected.map(|(authority, credentials)| {
                let basic = |text| format!("Basic {}", BASE64_STANDARD.encode(text));
                (authority.to_owned(), credentials.map(basic))
            });
            assert_eq!(read, expected, "{text}");
            let secret = expected.and_then(|(_, secret)| secret);
            assert!(secret.is_none_or(|secret| !shown.contains(&secret)), "{shown}");
        }
    }

    #[tokio::test]
    async fn only_a_success_of_the_proxy_opens_a_tunnel() {
        let proxy = Proxy::parse("http://u:p@proxy:1").expect("a proxy");
        for (answer, expected) in [
            ("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n", Ok(())),
            ("HTTP/1.0 200 OK\r\n\r\n", Ok(())),
            ("HTTP/1.1 407 Required\r\n\r\n", Err(ProxyError::Status(407))),
            ("HTTP/1.1 503 Unavailable\r\n\r\n<html>", Err(ProxyError::Status(503))),
            ("HTTP/1.1 200 OK\r\n\r\nmore", Err(ProxyError::Malformed)),
            ("HTTP/1.1 200 OK\r\n", Err(ProxyError::Malformed)),
            ("SSH-2.0\r\n\r\n", Err(ProxyError::Malformed)),
            ("", Err(ProxyError::Malformed)),
        ] {
            let (mut ours, mut theirs) = tokio::io::duplex(16 * 1024);
            let served = async {
                theirs.write_all(answer.as_bytes()).await.expect("written");
                theirs.shutdown().await.expect("ended");
                let mut request = String::new();
                theirs.read_to_string(&mut request).await.expect("read");
                request
            };
            let opened = async {
                let opened = proxy.tunnel(&mut ours, "idp.example", 443).await;
                drop(ours);
                opened
            };
            let (opened, request) = tokio::join!(opened, served);
            assert_eq!(opened, expected, "{answer}");
            assert!(request.starts_with("CONNECT idp.example:443 HTTP/1.1\r\n"), "{request}");
            assert!(request.contains("\r\nProxy-Authorization: Basic dTpw\r\n"), "{request}");
        }
    }
}
