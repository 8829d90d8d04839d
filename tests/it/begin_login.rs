//! BeginLogin, refusals first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use peerpanda_sso::clock::ManualClock;
use peerpanda_sso::config::{Config, Database};
use peerpanda_sso::model::address::AddressPolicy;
use peerpanda_sso::model::slug::Slug;
use peerpanda_sso::oidc::clients::AccountTrust;
use peerpanda_sso::pb;
use serde_json::json;
use tonic::Code;
use url::Url;

use crate::fake_idp::FakeIdp;
use crate::harness::{PUBLIC, Service, begin_request, config, key, reason, refused};

fn parameters(redirect_url: &str) -> HashMap<String, String> {
    Url::parse(redirect_url).expect("a URL").query_pairs().into_owned().collect()
}

#[tokio::test]
async fn all_violations_of_a_malformed_request_are_reported_at_once() {
    let mut service = Service::start().await;
    let refused = refused(
        service
            .begin(pb::BeginLoginRequest {
                slug: "Not A Slug".to_owned(),
                browser_binding: Some("short".to_owned()),
                login_hint: Some("a\nb".to_owned()),
                prompt: vec!["none".to_owned(), "login".to_owned()],
                max_age: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
                ui_locales: vec!["de_DE&x=1".to_owned()],
                acr_values: vec![String::new()],
                ..pb::BeginLoginRequest::default()
            })
            .await,
    );
    assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "BAD_REQUEST"));
    assert_eq!((refused.retry.as_str(), refused.owner.as_str()), ("never", "support"));
    for field in ["slug", "browser_binding", "login_hint", "prompt", "max_age", "ui_locales"] {
        assert!(refused.fields.iter().any(|own| own == field), "{field} in {:?}", refused.fields);
    }
}

#[tokio::test]
async fn an_empty_request_and_an_unknown_slug_are_refused() {
    let mut service = Service::start().await;
    assert_eq!(reason(service.begin(pb::BeginLoginRequest::default()).await), "BAD_REQUEST");
    let unknown =
        pb::BeginLoginRequest { slug: "nobody".to_owned(), ..pb::BeginLoginRequest::default() };
    let refused = refused(service.begin(unknown).await);
    assert_eq!((refused.code, refused.reason.as_str()), (Code::NotFound, "CONNECTION_NOT_FOUND"));
    assert_eq!(refused.metadata["slug"], "nobody");
}

#[tokio::test]
async fn a_message_too_large_is_a_bad_request() {
    let mut service = Service::start().await;
    let huge = pb::BeginLoginRequest { login_hint: Some("x".repeat(1 << 20)), ..begin_request() };
    assert_eq!(reason(service.begin(huge).await), "BAD_REQUEST");
    let large = pb::BeginLoginRequest { login_hint: Some("x".repeat(1 << 17)), ..begin_request() };
    assert_eq!(refused(service.begin(large).await).fields, ["login_hint"]);
    service.log_in().await.expect("the service goes on");
}

/// RFC 9700 4.11.
#[tokio::test]
async fn return_to_is_accepted_only_on_our_origins() {
    let mut service = Service::start().await;
    for bad in [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example/",
        "/a\u{0}b",
        "https://u@getpeerpanda.example/",
        "javascript:x",
    ] {
        let request = pb::BeginLoginRequest { return_to: Some(bad.to_owned()), ..begin_request() };
        assert_eq!(refused(service.begin(request).await).fields, ["return_to"], "{bad}");
        let request =
            pb::BeginLoginRequest { target_link_uri: Some(bad.to_owned()), ..begin_request() };
        assert_eq!(refused(service.begin(request).await).fields, ["target_link_uri"], "{bad}");
    }
    let both = pb::BeginLoginRequest {
        return_to: Some("/a".to_owned()),
        target_link_uri: Some("/b".to_owned()),
        ..begin_request()
    };
    assert_eq!(reason(service.begin(both).await), "BAD_REQUEST");
    for good in ["/reports?q=1", "https://getpeerpanda.example/x", "https://reports.example.com/y"]
    {
        let request = pb::BeginLoginRequest { return_to: Some(good.to_owned()), ..begin_request() };
        let begun = service.begin(request).await.expect(good);
        assert!(!begun.redirect_url.contains("return"), "return_to is never sent to the IdP");
    }
}

#[tokio::test]
async fn a_begin_without_a_browser_binding_is_refused_where_one_is_required() {
    let mut service = Service::start_with(|config| config.require_browser_binding = true).await;
    let request = pb::BeginLoginRequest { browser_binding: None, ..begin_request() };
    assert_eq!(refused(service.begin(request).await).fields, ["browser_binding"]);
    service.begin(begin_request()).await.expect("with one it begins");
}

#[tokio::test]
async fn a_login_does_not_begin_at_a_disabled_connection() {
    let mut service = Service::start().await;
    service
        .edit(&["state"], |connection| connection.state = pb::ConnectionState::Disabled.into())
        .await
        .expect("disabled");
    let refused = refused(service.begin(begin_request()).await);
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::FailedPrecondition, "CONNECTION_DISABLED")
    );
}

/// oidcc-client-test-3rd-party-init-login; injected parameters.
#[tokio::test]
async fn a_third_party_must_name_the_connections_own_issuer() {
    let mut service = Service::start().await;
    let evil = pb::BeginLoginRequest {
        iss: Some("http://localhost:1/evil".to_owned()),
        ..begin_request()
    };
    let refused = refused(service.begin(evil).await);
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::PermissionDenied, "ISSUER_MISMATCH")
    );
    let right = pb::BeginLoginRequest {
        iss: Some(service.idp.issuer.clone()),
        login_hint: Some("ada@example.com&prompt=none".to_owned()),
        target_link_uri: Some("/inbox".to_owned()),
        ..begin_request()
    };
    let begun = service.begin(right).await.expect("begun");
    assert_eq!(parameters(&begun.redirect_url)["login_hint"], "ada@example.com&prompt=none");
    assert!(!parameters(&begun.redirect_url).contains_key("prompt"));
}

/// oidcc-client-test.
#[tokio::test]
async fn the_authorization_request_is_complete_and_fresh() {
    let mut service = Service::start().await;
    let request = pb::BeginLoginRequest {
        prompt: vec!["login".to_owned(), "consent".to_owned()],
        max_age: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        ui_locales: vec!["de-CH".to_owned(), "en".to_owned()],
        acr_values: vec!["urn:mace:incommon:iap:silver".to_owned()],
        ..begin_request()
    };
    let begun = service.begin(request).await.expect("begun");
    let sent = parameters(&begun.redirect_url);
    assert!(begun.redirect_url.starts_with(&format!("{}/authorize?", service.idp.issuer)));
    assert_eq!(sent["redirect_uri"], format!("{PUBLIC}/app/accounts/oidc/acme/login/callback/"));
    assert_eq!(sent["scope"], "openid email profile");
    assert_eq!((sent["prompt"].as_str(), sent["max_age"].as_str()), ("login consent", "3600"));
    assert_eq!(
        (sent["ui_locales"].as_str(), sent["acr_values"].as_str()),
        ("de-CH en", "urn:mace:incommon:iap:silver")
    );
    assert_eq!(sent["state"], begun.state);

    let mut seen = HashSet::new();
    for _ in 0..200 {
        let begun = service.begin(begin_request()).await.expect("begun");
        let sent = parameters(&begun.redirect_url);
        for name in ["state", "nonce", "code_challenge"] {
            assert!(sent[name].len() >= 22, "128 bits or more");
            assert!(seen.insert(sent[name].clone()), "{name} was sent twice");
        }
    }
}

/// RFC 6749 3.1: no parameter can be injected.
#[tokio::test]
async fn a_connections_constant_parameters_are_sent_once() {
    let mut service = Service::start().await;
    service
        .edit(&["authorization_params"], |connection| {
            connection.authorization_params = [("hd", "corp.com"), ("acr_values", "low")]
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .into();
        })
        .await
        .expect("edited");
    let begun = service.begin(begin_request()).await.expect("begun");
    assert_eq!(
        (
            parameters(&begun.redirect_url)["hd"].as_str(),
            parameters(&begun.redirect_url)["acr_values"].as_str()
        ),
        ("corp.com", "low")
    );
    let begun = service
        .begin(pb::BeginLoginRequest { acr_values: vec!["high".to_owned()], ..begin_request() })
        .await
        .expect("begun");
    assert_eq!(begun.redirect_url.matches("acr_values=").count(), 1);
    assert_eq!(parameters(&begun.redirect_url)["acr_values"], "high");
    for name in
        ["state", "Redirect_URI", "nonce", "code_challenge", "request", "client_id", "prompt"]
    {
        let refused = refused(
            service
                .edit(&["authorization_params"], |connection| {
                    connection.authorization_params = [(name.to_owned(), "x".to_owned())].into();
                })
                .await,
        );
        assert_eq!(refused.fields, ["authorization_params"], "{name}");
    }
}

/// oidcc-client-test-discovery-issuer-mismatch; RFC 9700 4.9.1.
#[tokio::test]
async fn a_login_does_not_begin_with_unusable_metadata_and_does_once_it_is_fixed() {
    let mut service = Service::start().await;
    let other = json!({ "issuer": format!("{}INVALID", service.idp.issuer) });
    for (metadata, expected) in [
        (other, "issuer"),
        (json!({ "authorization_endpoint": null }), "authorization_endpoint"),
        (json!({ "token_endpoint": "ftp://idp.example.com/" }), "token_endpoint"),
        (json!({ "id_token_signing_alg_values_supported": ["HS256"] }), "HS256"),
        (json!({ "authorization_endpoint": "http://localhost/a?state=x" }), "state"),
    ] {
        service.idp.behave().metadata = metadata;
        let refused = refused(service.begin(begin_request()).await);
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::FailedPrecondition, "PROVIDER_METADATA_INVALID")
        );
        assert!(refused.message.contains(expected), "{expected:?} in {:?}", refused.message);
        service.clock.advance(Duration::from_secs(2));
    }
    service.idp.behave().metadata = json!({});
    service.log_in().await.expect("the right document is used at once");
}

#[tokio::test]
async fn an_unavailable_idp_is_reported_as_unavailable() {
    let mut service = Service::start().await;
    service.idp.behave().answers.insert("/keys", (503, String::new(), String::new()));
    let refused = refused(service.begin(begin_request()).await);
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::Unavailable, "PROVIDER_UNAVAILABLE")
    );
    assert_eq!((refused.retry.as_str(), refused.owner.as_str()), ("call", "transient"));
}

/// OIDC Core 16.20 and RFC 9700 4.9.1: the address guard, at save and at use.
#[tokio::test]
async fn a_private_address_is_neither_saved_nor_called() {
    // A service that may call private addresses stores the name; one that may not refuses it when it connects.
    let data = tempfile::tempdir().expect("a directory");
    let key = key();
    let on_this = |allow_insecure: bool| {
        let database = Database::Sqlite(data.path().join("sso.db"));
        let mut config = config(database, None, &key);
        config.provider_addresses.allow_insecure = allow_insecure;
        config
    };
    let mut lenient = Service::over(on_this(true), Arc::new(ManualClock::starting_now())).await;
    for (slug, host) in
        [("name", "localhost"), ("v4", "127.0.0.1"), ("v6", "[::1]"), ("hex", "0x7f000001")]
    {
        let discovery_url = format!("https://{host}:9/.well-known/openid-configuration");
        lenient
            .create(pb::Connection { slug: slug.to_owned(), discovery_url, ..lenient.connection() })
            .await
            .expect(slug);
    }
    let mut strict = Service::over(on_this(false), Arc::new(ManualClock::starting_now())).await;
    for slug in ["name", "v4", "v6", "hex"] {
        let request = pb::BeginLoginRequest { slug: slug.to_owned(), ..begin_request() };
        assert_eq!(reason(strict.begin(request).await), "PROVIDER_ADDRESS_FORBIDDEN", "{slug}");
    }
    let allowed = Config {
        provider_addresses: AddressPolicy {
            allowed_networks: vec!["127.0.0.0/8".parse().expect("a network")],
            ..AddressPolicy::default()
        },
        ..on_this(false)
    };
    let mut allowed = Service::over(allowed, Arc::new(ManualClock::starting_now())).await;
    for (slug, expected) in [("v4", "PROVIDER_UNAVAILABLE"), ("v6", "PROVIDER_ADDRESS_FORBIDDEN")] {
        let request = pb::BeginLoginRequest { slug: slug.to_owned(), ..begin_request() };
        assert_eq!(
            reason(allowed.begin(request).await),
            expected,
            "127.0.0.0/8 is called, and nothing answers there: {slug}"
        );
    }
    for host in ["169.254.169.254", "localhost", "10.1.2.3:8443", "[::ffff:127.0.0.1]"] {
        let discovery_url = format!("https://{host}/.well-known/openid-configuration");
        let connection =
            pb::Connection { slug: "new".to_owned(), discovery_url, ..strict.connection() };
        assert_eq!(reason(strict.create(connection).await), "PROVIDER_ADDRESS_FORBIDDEN", "{host}");
    }
}

/// The same guard: one customer's metadata must not lead into the network of another.
#[tokio::test]
async fn an_address_that_is_allowed_for_one_account_is_refused_for_another() {
    let data = tempfile::tempdir().expect("a directory");
    let (key, clock) = (key(), Arc::new(ManualClock::starting_now()));
    let over = || config(Database::Sqlite(data.path().join("sso.db")), None, &key);
    let inside = |slug: &str, host: &str, idp: &FakeIdp| pb::Connection {
        slug: slug.to_owned(),
        discovery_url: format!("https://{host}:9/.well-known/openid-configuration"),
        ..idp.connection(slug)
    };
    let mut lenient = Service::over(over(), Arc::clone(&clock)).await;
    for slug in ["acme", "globex"] {
        lenient.create(inside(slug, "localhost", &lenient.idp)).await.expect(slug);
    }
    let acme = Slug::parse("acme").expect("a slug");
    let networks = vec!["127.0.0.0/8".parse().expect("a network")];
    let trust = AccountTrust { networks, ..AccountTrust::default() };
    let scoped = Config {
        provider_addresses: AddressPolicy::default(),
        account_trust: [(acme, trust)].into(),
        ..over()
    };
    let mut service = Service::over(scoped, clock).await;
    for (slug, at_use, at_save) in [
        ("acme", "PROVIDER_UNAVAILABLE", None),
        ("globex", "PROVIDER_ADDRESS_FORBIDDEN", Some("PROVIDER_ADDRESS_FORBIDDEN")),
    ] {
        let begin = pb::BeginLoginRequest { slug: slug.to_owned(), ..begin_request() };
        assert_eq!(reason(service.begin(begin).await), at_use, "{slug}");
        let checked = service.check(slug).await.expect("checked");
        let is_guarded = checked.found("metadata.document").contains("loopback address");
        assert_eq!(is_guarded, at_save.is_some(), "{}", checked.found("metadata.document"));
        let mut connection = inside(slug, "127.0.0.1", &service.idp);
        connection.revision = service.get(slug).await.expect("there").revision;
        let update = pb::UpdateConnectionRequest {
            connection: Some(connection.clone()),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["discovery_url".to_owned(), "client_secret".to_owned()],
            }),
            ..pb::UpdateConnectionRequest::default()
        };
        let updated = service.admin.update_connection(update).await;
        assert_eq!(updated.err().map(|status| reason::<()>(Err(status))).as_deref(), at_save);
        let delete = pb::DeleteConnectionRequest {
            slug: slug.to_owned(),
            revision: service.get(slug).await.expect("there").revision,
        };
        service.admin.delete_connection(delete).await.expect("deleted");
        let created = service.create(connection).await;
        assert_eq!(created.err().map(|status| reason::<()>(Err(status))).as_deref(), at_save);
    }
}

/// A plus sign is a space in forms only (RFC 3986 2.2); some IdPs read it as itself.
#[tokio::test]
async fn spaces_are_sent_as_percent_20() {
    let mut service = Service::start().await;
    let authorization = format!("{}/authorize?audience=a+b", service.idp.issuer);
    service.idp.behave().metadata = json!({ "authorization_endpoint": authorization });
    let request =
        pb::BeginLoginRequest { login_hint: Some("ada+x @y.z".to_owned()), ..begin_request() };
    let url = service.begin(request).await.expect("begun").redirect_url;
    let query = url.split_once('?').expect("a query").1;
    assert!(query.starts_with("audience=a+b&"), "the endpoint's own query stays: {query}");
    assert!(query.contains("scope=openid%20email%20profile&"), "{query}");
    assert!(query.contains("login_hint=ada%2Bx%20%40y.z"), "{query}");
    assert_eq!(query.matches('+').count(), 1, "{query}");
}

#[tokio::test]
async fn hints_of_the_connection_are_sent_unless_the_login_brings_its_own() {
    let mut service = Service::start().await;
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let edited = service.edit(&["prompt", "login_hint", "max_age"], |connection| {
        connection.prompt = vec!["login".to_owned(), "consent".to_owned()];
        connection.login_hint = " @corp.example ".to_owned();
        connection.max_age = seconds(600);
    });
    let edited = edited.await.expect("edited");
    assert_eq!(edited.prompt, ["login", "consent"]);
    assert_eq!((edited.login_hint.as_str(), edited.max_age), ("@corp.example", seconds(600)));
    let own = pb::BeginLoginRequest {
        prompt: vec!["select_account".to_owned()],
        login_hint: Some("ada@corp.example".to_owned()),
        max_age: seconds(0),
        ..begin_request()
    };
    for (request, expected) in [
        (begin_request(), ["login consent", "@corp.example", "600"]),
        (own, ["select_account", "ada@corp.example", "0"]),
    ] {
        let sent = parameters(&service.begin(request).await.expect("begun").redirect_url);
        let sent = ["prompt", "login_hint", "max_age"].map(|name| sent[name].as_str().to_owned());
        assert_eq!(sent, expected);
    }
    // The default demands a recent login, as the caller's own would.
    service.idp.behave().claims = json!({ "auth_time": 1_000_000_000 });
    assert_eq!(refused(service.log_in().await).metadata["cause"], "auth_time");
    let record = service.admin.list_connection_changes(pb::ListConnectionChangesRequest {
        slug: "acme".to_owned(),
        ..pb::ListConnectionChangesRequest::default()
    });
    let changes = record.await.expect("listed").into_inner().changes;
    let fields = changes.iter().flat_map(|change| &change.fields);
    let texts: Vec<_> = fields.map(|it| (it.field.as_str(), it.after.as_str())).collect();
    assert!(texts.contains(&("max_age", "600")), "{texts:?}");
    let cleared = service.edit(&["prompt", "login_hint", "max_age"], |connection| {
        connection.prompt.clear();
        connection.login_hint.clear();
        connection.max_age = None;
    });
    cleared.await.expect("edited");
    let sent = parameters(&service.begin(begin_request()).await.expect("begun").redirect_url);
    assert!(!sent.contains_key("prompt") && !sent.contains_key("max_age"), "{sent:?}");
}
