//! Against a certified OpenID Provider from outside this project: `oidc-provider`, driven through
//! its login, consent and logout forms as a browser does.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use peerpanda_sso::pb;
use url::Url;

use crate::fake_idp::Callback;
use crate::harness::{
    PUBLIC, Process, Service, begin_request, complete_request, from_environment, reason,
};
use crate::quickstart::{Browser, Page};

struct Provider {
    _process: Process,
    issuer: String,
}

const SECRET: &str = "s3cret with: odd +%/= characters";

fn start() -> Provider {
    let client = |id: &str, method: &str, slug: &str| {
        serde_json::json!({
            "client_id": id, "client_secret": SECRET, "token_endpoint_auth_method": method,
            "redirect_uris": [format!("{PUBLIC}/app/accounts/oidc/{slug}/login/callback/")],
            "post_logout_redirect_uris": [format!("{PUBLIC}/app/accounts/oidc/{slug}/login/")],
        })
    };
    let clients = serde_json::json!([
        client("basic", "client_secret_basic", "by-basic"),
        client("post", "client_secret_post", "by-post"),
        client("manual", "client_secret_basic", "manual"),
    ]);
    let mut child = Command::new("node")
        .arg(format!("{}/server.js", from_environment("SSO_TEST_PROVIDER")))
        .arg(clients.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("node runs: tests/run installs it");
    let stdout = child.stdout.take().expect("piped");
    let process = Process(child);
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let issuer = lines.find(|line| line.starts_with("http")).expect("the provider listens");
    // It continues to log, and a pipe without a reader would end it.
    std::thread::spawn(move || lines.for_each(drop));
    Provider { _process: process, issuer }
}

async fn set_up(service: &mut Service, provider: &Provider) {
    let issuer = &provider.issuer;
    let by_discovery =
        |slug: &str, client_id: &str, method: pb::TokenEndpointAuthMethod| pb::Connection {
            slug: slug.to_owned(),
            discovery_url: format!("{issuer}/.well-known/openid-configuration"),
            client_id: client_id.to_owned(),
            client_secret: SECRET.to_owned(),
            token_endpoint_auth_method: method.into(),
            ..pb::Connection::default()
        };
    let basic = by_discovery("by-basic", "basic", pb::TokenEndpointAuthMethod::ClientSecretBasic);
    let post = by_discovery("by-post", "post", pb::TokenEndpointAuthMethod::ClientSecretPost);
    let manual = pb::Connection {
        slug: "manual".to_owned(),
        client_id: "manual".to_owned(),
        discovery_url: String::new(),
        issuer: issuer.clone(),
        endpoints: Some(pb::ProviderEndpoints {
            authorization_endpoint: format!("{issuer}/auth"),
            token_endpoint: format!("{issuer}/token"),
            jwks_uri: format!("{issuer}/jwks"),
            userinfo_endpoint: format!("{issuer}/me"),
            end_session_endpoint: format!("{issuer}/session/end"),
        }),
        ..basic.clone()
    };
    for connection in [basic, post, manual] {
        service.create(connection).await.expect("created");
    }
}

/// Follows the provider's pages and submits its forms until it redirects to another origin.
async fn drive(browser: &mut Browser, provider: &Provider, start: &str, person: &str) -> Url {
    let mut page = browser.get(start).await;
    let mut at = Url::parse(start).expect("a URL");
    for _ in 0..20 {
        if page.status.is_redirection() {
            let next = at.join(&page.location()).expect("a URL");
            if !next.as_str().starts_with(&provider.issuer) {
                return next;
            }
            at = next;
            page = browser.get(at.as_str()).await;
            continue;
        }
        assert!(page.status.is_success(), "{}: {} {}", at, page.status, page.body);
        let (action, form) = form_of(&page, person);
        at = at.join(&action).expect("a URL");
        page = browser.post(at.as_str(), &form).await;
    }
    panic!("the provider never sends the browser back");
}

/// The first form of a page: its action, and its fields as a person fills them in.
fn form_of(page: &Page, person: &str) -> (String, String) {
    let attribute = |tag: &str, name: &str| {
        let rest = tag.split_once(&format!("{name}=\""))?.1;
        Some(rest.split_once('"')?.0.replace("&amp;", "&"))
    };
    let form = page.body.split_once("<form").unwrap_or_else(|| panic!("a form in {}", page.body)).1;
    let action = attribute(form, "action").expect("an action");
    let mut fields = url::form_urlencoded::Serializer::new(String::new());
    for tag in page.body.split("<input").skip(1) {
        let Some(name) = attribute(tag, "name") else { continue };
        let value = match name.as_str() {
            "login" => person.to_owned(),
            "password" => "any".to_owned(),
            _ => attribute(tag, "value").unwrap_or_default(),
        };
        fields.append_pair(&name, &value);
    }
    // The confirmation button of the logout page.
    if page.body.contains("name=\"logout\"") {
        fields.append_pair("logout", "yes");
    }
    (action, fields.finish())
}

fn callback_of(url: &Url) -> Callback {
    let parameter = |name: &str| {
        url.query_pairs()
            .find(|(own, _)| own == name)
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    Callback { code: parameter("code"), state: parameter("state"), iss: parameter("iss") }
}

/// oidcc-client-test-scope-userinfo-claims; oidcc-client-test-discovery-openid-config,
/// -jwks-uri-keys; oidcc-client-test-rp-init-logout.
#[tokio::test(flavor = "multi_thread")]
async fn people_log_in_and_out_by_basic_and_post_and_manual_endpoints() {
    let provider = start();
    let mut service =
        Service::start_with(|config| config.answer_ttl = std::time::Duration::ZERO).await;
    set_up(&mut service, &provider).await;
    for slug in ["by-basic", "by-post", "manual"] {
        let mut browser = Browser::default();
        let request = pb::BeginLoginRequest { slug: slug.to_owned(), ..begin_request() };
        let begun = service.begin(request).await.expect("begun");
        let back = drive(&mut browser, &provider, &begun.redirect_url, "grace").await;
        assert_eq!(
            back.as_str().split('?').next(),
            Some(&*format!("{PUBLIC}/app/accounts/oidc/{slug}/login/callback/"))
        );
        let callback = callback_of(&back);
        let request =
            pb::CompleteLoginRequest { slug: slug.to_owned(), ..complete_request(&callback) };
        let completed = service
            .complete(request.clone())
            .await
            .unwrap_or_else(|status| panic!("{slug}: {status:?}"));
        let identity = completed.identity.expect("an Identity");
        assert_eq!(
            (identity.subject.as_str(), identity.email.as_str()),
            ("grace", "grace@example.com")
        );
        assert_eq!(
            (identity.issuer.as_str(), identity.claim_sources["email"].as_str()),
            (provider.issuer.as_str(), "userinfo.email")
        );
        assert_eq!(reason(service.complete(request).await), "STATE_USED");

        let logout = pb::LogoutUrlRequest {
            slug: slug.to_owned(),
            id_token_hint: Some(completed.id_token),
            state: Some("s1".to_owned()),
            ..pb::LogoutUrlRequest::default()
        };
        let logout = service.login.logout_url(logout).await.expect("an URL").into_inner();
        assert!(logout.ends_idp_session);
        let back = drive(&mut browser, &provider, &logout.redirect_url, "grace").await;
        assert_eq!(back.as_str(), format!("{PUBLIC}/app/accounts/oidc/{slug}/login/?state=s1"));
    }
}

/// RFC 9700 4.5.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_and_a_used_code_are_the_providers_refusals() {
    let provider = start();
    let mut service = Service::start().await;
    set_up(&mut service, &provider).await;
    let mut browser = Browser::default();
    let begin = || pb::BeginLoginRequest { slug: "by-basic".to_owned(), ..begin_request() };
    let mut codes = Vec::new();
    for _ in 0..2 {
        let begun = service.begin(begin()).await.expect("begun");
        codes
            .push(callback_of(&drive(&mut browser, &provider, &begun.redirect_url, "grace").await));
    }
    let request = |callback: &Callback| pb::CompleteLoginRequest {
        slug: "by-basic".to_owned(),
        ..complete_request(callback)
    };
    service.complete(request(&codes[0])).await.expect("a login");
    let injected = pb::CompleteLoginRequest { code: codes[0].code.clone(), ..request(&codes[1]) };
    assert_eq!(reason(service.complete(injected).await), "CODE_REJECTED");

    let wrong = pb::Connection {
        slug: "wrong".to_owned(),
        client_secret: "wrong".to_owned(),
        client_id: "basic".to_owned(),
        discovery_url: format!("{}/.well-known/openid-configuration", provider.issuer),
        ..pb::Connection::default()
    };
    service.create(wrong).await.expect("created");
    let begun = service
        .begin(pb::BeginLoginRequest { slug: "wrong".to_owned(), ..begin_request() })
        .await
        .expect("begun");
    let callback =
        Callback { code: "made-up".to_owned(), state: begun.state, iss: provider.issuer.clone() };
    let request =
        pb::CompleteLoginRequest { slug: "wrong".to_owned(), ..complete_request(&callback) };
    assert_eq!(reason(service.complete(request).await), "CLIENT_REJECTED");
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_find_what_is_wrong_at_a_real_provider() {
    use pb::CheckOutcome::{Fail, Pass, Warn};
    let provider = start();
    let mut service = Service::start().await;
    set_up(&mut service, &provider).await;
    for slug in ["by-basic", "by-post", "manual"] {
        let checked = service.check(slug).await.expect("checked");
        for id in [
            "metadata.document",
            "jwks.keys",
            "client.credentials",
            "client.redirect_uri",
            "logout.endpoint",
        ] {
            assert_eq!(checked.outcome(id), Pass, "{slug}, {id}: {}", checked.found(id));
        }
    }
    let base = service.get("by-basic").await.expect("there");
    let with = |slug: &str, change: &dyn Fn(&mut pb::Connection)| {
        let mut connection = pb::Connection {
            slug: slug.to_owned(),
            client_secret: SECRET.to_owned(),
            issuer: String::new(),
            ..base.clone()
        };
        change(&mut connection);
        connection
    };
    let post = pb::TokenEndpointAuthMethod::ClientSecretPost;
    for (connection, id, outcome) in [
        (with("by-basic", &|c| c.client_secret = "wrong".to_owned()), "client.credentials", Fail),
        // This provider accepts both methods from every client.
        (
            with("by-basic", &|c| c.token_endpoint_auth_method = post.into()),
            "client.credentials",
            Pass,
        ),
        (with("by-basic", &|c| c.client_id = "nobody".to_owned()), "client.credentials", Fail),
        (with("elsewhere", &|_| {}), "client.redirect_uri", Fail),
        (with("elsewhere", &|_| {}), "logout.endpoint", Fail),
        (
            with("by-basic", &|c| c.issuer = format!("{}/", provider.issuer)),
            "metadata.issuer",
            Fail,
        ),
        (
            with("by-basic", &|c| {
                c.claim_mapping = Some(pb::ClaimMapping {
                    email: vec!["upn".to_owned()],
                    ..pb::ClaimMapping::default()
                });
            }),
            "metadata.claims",
            Warn,
        ),
    ] {
        let slug = connection.slug.clone();
        if let Ok(old) = service.get(&slug).await {
            let request =
                pb::DeleteConnectionRequest { slug: slug.clone(), revision: old.revision };
            service.admin.delete_connection(request).await.expect("deleted");
        }
        service.create(connection).await.expect("created");
        let checked = service.check(&slug).await.expect("checked");
        assert_eq!(checked.outcome(id), outcome, "{id}: {}", checked.found(id));
    }
    assert!(
        service.check("by-basic").await.expect("checked").results["metadata.claims"]
            .found
            .contains("upn")
    );
}
