//! The proxy that IdPs are called through.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::binary::Program;
use crate::harness::{eventually, refused};
use crate::tls::idp_over_tls;

/// A proxy that finds every host at 127.0.0.1.
struct FakeProxy {
    address: String,
    /// The heads of the requests that it received.
    heads: Arc<Mutex<Vec<String>>>,
}

impl FakeProxy {
    /// `answer`: to each CONNECT, in place of a tunnel.
    async fn start(answer: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, Arc::clone(&all), answer));
            }
        });
        Self { address, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(
    mut client: TcpStream,
    heads: Arc<Mutex<Vec<String>>>,
    answer: Option<&'static str>,
) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(char::from(byte));
    }
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    heads.lock().unwrap_or_else(PoisonError::into_inner).push(head);
    if let Some(answer) = answer {
        let _ = client.write_all(answer.as_bytes()).await;
        // It keeps the connection open.
        let _ = client.read_u8().await;
        return;
    }
    let port = target.rsplit(':').next().unwrap_or_default();
    let mut idp = TcpStream::connect(format!("127.0.0.1:{port}")).await.expect("connected");
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.expect("written");
    let _ = copy_bidirectional(&mut client, &mut idp).await;
}

/// The IdP's name is known to the proxy alone, and TLS is with the IdP.
#[tokio::test(flavor = "multi_thread")]
async fn an_idp_is_called_through_the_proxy_that_is_set() {
    let data = tempfile::tempdir().expect("a directory");
    let (ca, idp) = idp_over_tls("idp.example", "idp.example", false).await;
    let ca_file = data.path().join("ca.pem");
    std::fs::write(&ca_file, ca).expect("written");
    let proxy = FakeProxy::start(None).await;
    let settings = [
        ("SSO_PROVIDER_PROXY", format!("http://sso:CANARY@{}", proxy.address)),
        ("SSO_PROVIDER_CA_FILE", ca_file.display().to_string()),
        ("SSO_ALLOW_INSECURE_PROVIDERS", "false".to_owned()),
        ("HTTPS_PROXY", "http://127.0.0.1:1".to_owned()),
        ("RUST_LOG", "trace".to_owned()),
    ];
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut program = Program::serve(data.path(), &settings).await;
    program.set_up(&idp).await;
    program.log_in(&idp).await.expect("a login");
    let authority = idp.issuer.trim_start_matches("https://");
    for head in proxy.heads() {
        assert!(head.starts_with(&format!("CONNECT {authority} HTTP/1.1\r\n")), "{head}");
        // sso:CANARY
        assert!(head.contains("\r\nProxy-Authorization: Basic c3NvOkNBTkFSWQ==\r\n"), "{head}");
    }
    assert!(!proxy.heads().is_empty());
    let log = program.log.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
    assert!(!log.contains("CANARY") && !log.contains("c3NvOkNBTkFSWQ"), "no credentials");
    assert!(!log.contains("without a proxy"), "the variable is replaced by the setting");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_proxy_refuses_is_told_from_what_the_idp_does() {
    for (answer, cause, text) in [
        (Some("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"), "proxy", "HTTP 407"),
        (Some("HTTP/1.1 403 Forbidden\r\n\r\n<html>"), "proxy", "HTTP 403"),
        (Some("HTTP/1.1 503 Service Unavailable\r\n\r\n"), "connect", "HTTP 503"),
        (None, "proxy", "cannot be reached"),
    ] {
        let data = tempfile::tempdir().expect("a directory");
        let (_, idp) = idp_over_tls("idp.example", "idp.example", false).await;
        let address = match answer {
            Some(_) => FakeProxy::start(answer).await.address,
            None => "127.0.0.1:1".to_owned(),
        };
        let url = format!("http://{address}");
        let mut program = Program::serve(data.path(), &[("SSO_PROVIDER_PROXY", &url)]).await;
        program.set_up(&idp).await;
        let refusal = refused(program.log_in(&idp).await);
        assert_eq!(refusal.reason, "PROVIDER_UNAVAILABLE", "{refusal:?}");
        assert_eq!(refusal.metadata["cause"], cause, "{refusal:?}");
        assert!(refusal.message.contains(text), "{refusal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_variable_that_has_no_effect_is_reported_at_the_start() {
    let data = tempfile::tempdir().expect("a directory");
    let program = Program::serve(data.path(), &[("HTTPS_PROXY", "http://u:CANARY@proxy:1")]).await;
    eventually("the warning", || async {
        let log = program.log.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
        assert!(!log.contains("CANARY"));
        log.contains("SSO_PROVIDER_PROXY") && log.contains("HTTPS_PROXY")
    })
    .await;
}
