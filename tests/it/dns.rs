//! Name resolution: IdPs whose names have silent name servers hold up nobody else.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use peerpanda_sso::clock::Clock;
use peerpanda_sso::pb;
use peerpanda_sso::pb::login_service_client::LoginServiceClient;
use serde_json::json;
use tokio::net::{TcpListener, UdpSocket};

use crate::fake_idp::FakeIdp;
use crate::harness::{Service, begin_request, complete_request, refused};

/// A name server: names below `good.test` are at 127.0.0.1, `missing.test` does not exist, and it is
/// silent about all others.
pub(crate) struct FakeDns {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeDns {
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let (name, answer) = answer(&buffer[..length]);
                all.lock().unwrap_or_else(PoisonError::into_inner).push(name);
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer, client).await;
                }
            }
        });
        Self { address, asked }
    }

    fn count(&self, name: &str) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|asked| *asked == name).count()
    }
}

/// The name in a question (RFC 1035 4.1.2), and the answer to it.
fn answer(question: &[u8]) -> (String, Option<Vec<u8>>) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while question[at] != 0 {
        let length = usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..=at + length]).to_lowercase());
        at += length + 1;
    }
    let (name, end) = (labels.join("."), at + 5);
    let is_address = question[at + 2] == 1;
    let (is_good, is_missing) = (name.ends_with("good.test"), name == "missing.test");
    let (code, count) = (if is_missing { 3 } else { 0 }, u8::from(is_good && is_address));
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(&question[12..end]);
    if count == 1 {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    (name, (is_good || is_missing).then_some(answer))
}

/// An IdP that is reached as `host`, and its account `slug`.
async fn with_idp(service: &mut Service, slug: &str, host: &str) -> (FakeIdp, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let clock = Arc::clone(&service.clock) as Arc<dyn Clock>;
    let idp = FakeIdp::serve(listener, format!("http://{host}:{port}"), clock, "client", "secret");
    service.create(idp.connection(slug)).await.expect("created");
    (idp, port)
}

fn begin_at(slug: &str) -> pb::BeginLoginRequest {
    pb::BeginLoginRequest { slug: slug.to_owned(), ..begin_request() }
}

/// A thread for each name would make the others wait for a thread.
#[tokio::test(flavor = "multi_thread")]
async fn names_with_silent_name_servers_hold_up_no_other_account() {
    let dns = FakeDns::start().await;
    let mut service =
        Service::start_with(|config| config.provider_name_server = Some(dns.address)).await;
    let mut waiting = Vec::new();
    for account in 0..12 {
        let slug = format!("silent{account}");
        let (idp, port) = with_idp(&mut service, &slug, &format!("idp{account}.good.test")).await;
        let token_endpoint = format!("http://token{account}.silent.test:{port}/token");
        idp.behave().metadata = json!({ "token_endpoint": token_endpoint });
        // A connection carries 512 calls.
        let client = LoginServiceClient::connect(service.login_url()).await.expect("connected");
        for _ in 0..64 {
            let begun = service.begin(begin_at(&slug)).await.expect("begun");
            let callback = idp.approve(&begun.redirect_url, "alice");
            let request =
                pb::CompleteLoginRequest { slug: slug.clone(), ..complete_request(&callback) };
            let mut login = client.clone();
            waiting.push(async move { login.complete_login(request).await });
        }
    }
    let (idp, _) = with_idp(&mut service, "good", "good.test").await;
    let waiting: Vec<_> = waiting.into_iter().map(tokio::spawn).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    #[expect(clippy::disallowed_methods, reason = "measures real time")]
    let started = Instant::now();
    let begun = service.begin(begin_at("good")).await.expect("begun");
    let callback = idp.approve(&begun.redirect_url, "bob");
    let request =
        pb::CompleteLoginRequest { slug: "good".to_owned(), ..complete_request(&callback) };
    service.complete(request).await.expect("a login at an IdP whose name resolves");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(!waiting[0].is_finished(), "the others were still waiting");
    for call in waiting {
        let refusal = refused(call.await.expect("ended"));
        assert_eq!(refusal.reason, "PROVIDER_UNAVAILABLE", "{refusal:?}");
        assert_eq!(refusal.metadata["cause"], "dns_no_answer", "{refusal:?}");
    }
    // The 64 calls share the lookup: A and AAAA, each sent again a few times.
    assert!(dns.count("token0.silent.test") <= 20, "{}", dns.count("token0.silent.test"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_serves_all_who_ask_for_the_name() {
    let dns = FakeDns::start().await;
    let mut service =
        Service::start_with(|config| config.provider_name_server = Some(dns.address)).await;
    let (idp, _) = with_idp(&mut service, "good", "good.test").await;
    for _ in 0..5 {
        let begun = service.begin(begin_at("good")).await.expect("begun");
        let callback = idp.approve(&begun.redirect_url, "alice");
        let request =
            pb::CompleteLoginRequest { slug: "good".to_owned(), ..complete_request(&callback) };
        service.complete(request).await.expect("a login");
    }
    assert_eq!(dns.count("good.test"), 2, "A and AAAA");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_exist_is_told_from_one_that_nobody_answers_for() {
    let dns = FakeDns::start().await;
    let mut service =
        Service::start_with(|config| config.provider_name_server = Some(dns.address)).await;
    for (slug, host, cause) in
        [("missing", "missing.test", "dns"), ("silent", "silent.test", "dns_no_answer")]
    {
        with_idp(&mut service, slug, host).await;
        let refusal = refused(service.begin(begin_at(slug)).await);
        assert_eq!(refusal.reason, "PROVIDER_UNAVAILABLE", "{refusal:?}");
        assert_eq!(refusal.metadata["cause"], cause, "{refusal:?}");
    }
}
