//! The quickstart as a newcomer runs it, and its web tier as a browser uses it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use axum::body::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;

use crate::harness::{Process, example};

/// A browser with one jar of cookies. It doesn't follow redirects.
#[derive(Default)]
pub(crate) struct Browser {
    cookies: HashMap<String, String>,
}

pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Page {
    pub(crate) fn location(&self) -> String {
        self.headers.get("location").expect("a redirect").to_str().expect("ASCII").to_owned()
    }
}

impl Browser {
    pub(crate) async fn get(&mut self, url: &str) -> Page {
        self.send("GET", url, String::new(), &[]).await
    }

    pub(crate) async fn post(&mut self, url: &str, form: &str) -> Page {
        self.send(
            "POST",
            url,
            form.to_owned(),
            &[("content-type", "application/x-www-form-urlencoded")],
        )
        .await
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        url: &str,
        body: String,
        headers: &[(&str, &str)],
    ) -> Page {
        let url = url::Url::parse(url).expect("an absolute URL");
        let address = (
            url.host_str().expect("a host").to_owned(),
            url.port_or_known_default().expect("a port"),
        );
        let stream = tokio::net::TcpStream::connect(address).await.expect("connected");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let cookies: Vec<_> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let target = url[url::Position::BeforePath..url::Position::AfterQuery].to_owned();
        let mut request =
            http::Request::builder().method(method).uri(target).header("host", url.authority());
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender
            .send_request(request.body(Full::new(Bytes::from(body))).expect("a request"))
            .await
            .expect("an answer");
        let (head, body) = response.into_parts();
        for cookie in head.headers.get_all("set-cookie") {
            let cookie = cookie.to_str().expect("ASCII");
            let (name, value) =
                cookie.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            if cookie.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let body =
            String::from_utf8_lossy(&body.collect().await.expect("a body").to_bytes()).into_owned();
        Page { status: head.status, headers: head.headers, body }
    }
}

struct Quickstart {
    _process: Process,
    login_page: String,
    printed: Vec<String>,
}

fn start() -> Quickstart {
    start_with(&[])
}

fn start_with(arguments: &[&str]) -> Quickstart {
    let program = example("quickstart");
    let mut child = Command::new(&program)
        .args(["--no-browser", "--port", "0"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let stdout = child.stdout.take().expect("piped");
    let process = Process(child);
    let mut printed = Vec::new();
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let is_last = line.contains("Ctrl-C");
        printed.push(line);
        if is_last {
            break;
        }
    }
    let login_page = printed
        .iter()
        .map(|line| line.trim())
        .find(|line| line.starts_with("http"))
        .expect("the page to open")
        .to_owned();
    Quickstart { _process: process, login_page, printed }
}

/// Sends the form of the development IdP's login page. Returns where it redirects the browser.
async fn approve(browser: &mut Browser, authorization_url: &str, decision: &str) -> String {
    let page = browser.get(authorization_url).await;
    assert!(page.status.is_success() && page.body.contains("<form method=post"), "{}", page.body);
    let (endpoint, query) = authorization_url.split_once('?').expect("a query");
    let form = format!(
        "{query}&email=ada%40example.com&given_name=Ada&family_name=%3Cb%3E&decision={decision}"
    );
    browser.post(endpoint, &form).await.location()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_login_shows_the_identity_and_signs_nobody_in() {
    let quickstart = start_with(&["--trial"]);
    let mut browser = Browser::default();
    let begun = browser.get(&quickstart.login_page).await;
    let callback = approve(&mut browser, &begun.location(), "allow").await;
    let landed = browser.get(&callback).await;
    assert!(
        landed.body.contains("Test passed") && landed.body.contains("ada@example.com"),
        "{}",
        landed.body
    );
    let again = browser.get(&quickstart.login_page).await;
    assert!(again.location().contains("/authorize"), "nobody is signed in: {:?}", again.headers);
}

/// oidcc-client-test-rp-init-logout-other-state, -no-state.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_logs_in_and_out() {
    let quickstart = start();
    assert_eq!(
        quickstart.printed.iter().filter(|line| line.trim().starts_with("grpcurl ")).count(),
        2
    );
    let mut browser = Browser::default();
    let begun = browser.get(&quickstart.login_page).await;
    assert_eq!(begun.headers["cache-control"], "no-store");
    assert!(
        begun.headers["set-cookie"].to_str().expect("ASCII").contains("HttpOnly; SameSite=Lax")
    );
    let callback = approve(&mut browser, &begun.location(), "allow").await;

    // A prefetch doesn't use up the login.
    let ahead = browser
        .send("GET", &callback, String::new(), &[("sec-purpose", "prefetch;prerender")])
        .await;
    assert_eq!(ahead.status, StatusCode::NO_CONTENT);
    let landed = browser.get(&callback).await;
    assert_eq!(
        (landed.status, landed.location()),
        (StatusCode::SEE_OTHER, "/app/accounts/oidc/demo/login/".to_owned())
    );
    let identity = browser.get(&quickstart.login_page).await;
    assert!(
        identity.body.contains("Welcome, Ada") && identity.body.contains("ada@example.com"),
        "{}",
        identity.body
    );
    assert!(identity.body.contains("&lt;b&gt;"), "what the IdP says is escaped");

    // The same callback leads to the same page, once its answer is kept; with another code it doesn't.
    let mut again = browser.get(&callback).await;
    for _ in 0..100 {
        if again.status == StatusCode::SEE_OTHER {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        again = browser.get(&callback).await;
    }
    assert_eq!(again.location(), "/app/accounts/oidc/demo/login/");
    let again = browser.get(&callback.replace("code=", "code=x")).await;
    assert!(
        again.body.contains("used already") && again.body.contains("start=1"),
        "{}",
        again.body
    );

    let logout = quickstart.login_page.replace("/login/", "/logout/");
    assert_eq!(browser.get(&logout).await.status, StatusCode::METHOD_NOT_ALLOWED);
    let at_idp = browser.post(&logout, "").await.location();
    let back = browser.get(&at_idp).await.location();
    assert_eq!(back, quickstart.login_page);
    for _ in 0..2 {
        let signed_out = browser.get(&back).await;
        assert!(
            signed_out.status.is_success() && signed_out.body.contains("You are signed out"),
            "{}",
            signed_out.body
        );
    }
    let started = browser.get(&format!("{back}?start=1")).await;
    assert!(started.location().contains("/authorize?"), "the button starts a login");
}

/// RFC 9700 4.7.
#[tokio::test(flavor = "multi_thread")]
async fn parallel_tabs_all_finish_and_a_stranger_does_not() {
    let quickstart = start();
    let mut browser = Browser::default();
    let first = browser.get(&quickstart.login_page).await.location();
    let second = browser.get(&quickstart.login_page).await.location();
    let (first, second) = (
        approve(&mut browser, &first, "allow").await,
        approve(&mut browser, &second, "allow").await,
    );
    let other_browser = Browser::default().get(&second).await;
    assert!(other_browser.body.contains("BROWSER_MISMATCH"), "{}", other_browser.body);
    assert_eq!(browser.get(&second).await.status, StatusCode::SEE_OTHER);
    let session = browser.cookies["session"].clone();
    assert_eq!(browser.get(&first).await.status, StatusCode::SEE_OTHER);
    assert_ne!(browser.cookies["session"], session, "the session id is renewed at each login");

    let refused = Browser::default();
    let mut browser = refused;
    let begun = browser.get(&quickstart.login_page).await.location();
    let denied = approve(&mut browser, &begun, "deny").await;
    let page = browser.get(&denied).await;
    assert!(
        page.body.contains("cancelled or refused") && page.body.contains("Start again"),
        "{}",
        page.body
    );
    let doubled = browser.get(&format!("{denied}&state=x")).await;
    assert_eq!(doubled.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_addresses_get_a_page_and_the_login_stays_usable() {
    let quickstart = start();
    let mut browser = Browser::default();
    let begun = browser.get(&quickstart.login_page).await.location();
    let callback = approve(&mut browser, &begun, "allow").await;
    let (base, state) = (format!("{}callback/", quickstart.login_page), "%FF%FE");
    for (url, status, says) in [
        (format!("{base}?code=%FF&state={state}"), 400, "BAD_REQUEST"),
        (format!("{base}?code=a&state={state}"), 400, "STATE_INVALID"),
        (format!("{base}?code=a&state={}", "x".repeat(600)), 400, "BAD_REQUEST"),
        (base.clone(), 400, "BAD_REQUEST"),
        (base.replace("/demo/", "/nobody/"), 400, "BAD_REQUEST"),
        (quickstart.login_page.replace("/demo/", "/nobody/"), 404, "CONNECTION_NOT_FOUND"),
        (quickstart.login_page.replace("/demo/", "/De%20mo/"), 400, "BAD_REQUEST"),
        (format!("{}?return_to=//evil.example", quickstart.login_page), 400, "BAD_REQUEST"),
        (quickstart.login_page.replace("/demo/", "/%FF/"), 400, ""),
    ] {
        let page = browser.get(&url).await;
        assert_eq!(page.status.as_u16(), status, "{url}: {}", page.body);
        assert!(page.body.contains(says), "{url}: {}", page.body);
    }
    assert_eq!(
        browser.get(&callback).await.status,
        StatusCode::SEE_OTHER,
        "the login can still be completed"
    );
}
