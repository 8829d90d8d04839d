//! A stored client secret is sent only to the IdP and for the client for which it was entered, whoever
//! changes the connection: support by a call, or somebody by writing to the database.

use std::path::Path;
use std::sync::Arc;

use peerpanda_sso::app::{Environment, reseal};
use peerpanda_sso::clock::{Clock, ManualClock};
use peerpanda_sso::config::Database;
use peerpanda_sso::entropy::SystemEntropy;
use peerpanda_sso::pb;
use peerpanda_sso::pb::CheckOutcome::{Inconclusive, Pass};
use peerpanda_sso::store::seal::Keyring;

use crate::fake_idp::FakeIdp;
use crate::harness::{Service, begin_request, config, key, reason, refused};

fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
}

/// Everything that an IdP received, to look for a secret in.
fn received(idp: &FakeIdp) -> String {
    let seen = idp.seen();
    let texts = seen.iter().map(|seen| format!("{:?} {:?}", seen.headers, seen.form));
    texts.collect()
}

fn basic(id: &str, secret: &str) -> String {
    use base64::Engine;
    let encoded =
        |text: &str| -> String { url::form_urlencoded::byte_serialize(text.as_bytes()).collect() };
    base64::prelude::BASE64_STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret)))
}

#[tokio::test]
async fn a_check_of_a_proposal_never_sends_the_stored_secret_elsewhere() {
    let mut service = Service::testing().await;
    let thief = FakeIdp::start(Arc::clone(&service.clock) as Arc<dyn Clock>).await;
    let proposal = |secret: &str| pb::CheckConnectionRequest {
        slug: "acme".to_owned(),
        proposal: Some(pb::Connection {
            discovery_url: thief.discovery_url(),
            client_secret: secret.to_owned(),
            ..pb::Connection::default()
        }),
        update_mask: mask(if secret.is_empty() {
            &["discovery_url"]
        } else {
            &["discovery_url", "client_secret"]
        }),
    };
    let checked = service.check_with(proposal("")).await.expect("checked");
    assert_eq!(checked.outcome("client.credentials"), Inconclusive);
    let found = checked.found("client.credentials");
    assert!(found.contains("made-up secret"), "{found}");
    assert!(thief.count("/token") >= 1, "the token endpoint was asked");
    let (id, secret) = (service.idp.client_id.clone(), service.idp.client_secret.clone());
    let text = received(&thief);
    assert!(!text.contains(&secret) && !text.contains(&basic(&id, &secret)), "{text}");

    // A check is recorded with who asked for it, what was proposed, and which hosts were asked.
    let changes = service.changes().await;
    let record = &changes[0];
    assert_eq!((record.action.as_str(), record.actor.as_str()), ("check_proposal", "anybody"));
    assert_eq!(record.hosts, ["localhost"]);
    let fields: Vec<_> = record.fields.iter().map(|field| field.field.as_str()).collect();
    assert_eq!(fields, ["discovery_url"]);

    // A secret of the proposal itself is sent.
    service.check_with(proposal("CANARYproposed")).await.expect("checked");
    assert!(received(&thief).contains(&basic(&id, "CANARYproposed")));
    service.check("acme").await.expect("checked");
    assert_eq!(service.changes().await[0].action, "check");
}

#[tokio::test]
async fn an_update_to_another_idp_or_client_needs_the_secret_again() {
    let mut service = Service::start().await;
    let secret = "CANARYstandby".to_owned();
    service
        .edit(&["standby_client_secret"], |connection| connection.standby_client_secret = secret)
        .await
        .expect("edited");
    let other = FakeIdp::start(Arc::clone(&service.clock) as Arc<dyn Clock>).await;
    let url = other.discovery_url();
    let endpoints = pb::ProviderEndpoints {
        authorization_endpoint: format!("{}/authorize", service.idp.issuer),
        token_endpoint: format!("{}/token", other.issuer),
        jwks_uri: format!("{}/keys", service.idp.issuer),
        ..pb::ProviderEndpoints::default()
    };
    type Change<'a> = Box<dyn Fn(&mut pb::Connection) + 'a>;
    let elsewhere: [(&[&str], Change<'_>); 3] = [
        (&["discovery_url"], Box::new(|it| it.discovery_url = url.clone())),
        (&["client_id"], Box::new(|it| it.client_id = "another".to_owned())),
        (
            &["endpoints", "discovery_url", "issuer"],
            Box::new(|it| {
                it.endpoints = Some(endpoints.clone());
                it.discovery_url = String::new();
                it.issuer = "https://idp.example".to_owned();
            }),
        ),
    ];
    for (paths, change) in &elsewhere {
        let refusal = refused(service.edit(paths, change).await);
        assert_eq!(refusal.fields, ["client_secret", "standby_client_secret"], "{paths:?}");
        let with_secret: Vec<&str> = paths.iter().copied().chain(["client_secret"]).collect();
        let entered = |connection: &mut pb::Connection| {
            change(connection);
            connection.client_secret = "CANARYentered".to_owned();
        };
        let refusal = refused(service.edit(&with_secret, entered).await);
        assert_eq!(refusal.fields, ["standby_client_secret"], "{paths:?}");
    }
    // The path at the same origin may change, as may everything else.
    let same = format!("{}/realm/.well-known/openid-configuration", service.idp.issuer);
    service
        .edit(&["discovery_url"], |connection| connection.discovery_url = same)
        .await
        .expect("edited");
    let (paths, change) = &elsewhere[1];
    let all: Vec<&str> =
        paths.iter().copied().chain(["client_secret", "standby_client_secret"]).collect();
    let entered = |connection: &mut pb::Connection| {
        change(connection);
        connection.client_secret = "CANARYentered".to_owned();
    };
    let edited = service.edit(&all, entered).await.expect("edited");
    assert!(edited.standby_secret_fingerprint.is_empty(), "an empty one removes it");
}

#[tokio::test]
async fn the_secret_of_an_active_connection_changes_only_if_it_is_proven_or_by_force() {
    let mut service = Service::start().await;
    service.idp.behave().client_credentials = true;
    let active = service.get("acme").await.expect("there");
    let with = |secret: &str| pb::Connection { client_secret: secret.to_owned(), ..active.clone() };
    let refusal = refused(service.update(&["client_secret"], with("CANARYwrong")).await);
    assert_eq!(refusal.reason, "CHECK_REQUIRED");
    assert!(refusal.message.contains("new client secret"), "{}", refusal.message);
    let right = service.idp.client_secret.clone();
    service
        .edit(&["client_secret"], |connection| connection.client_secret = "CANARYwrong".to_owned())
        .await
        .expect("by force");
    assert!(service.changes().await[0].is_forced);

    let proposal = pb::CheckConnectionRequest {
        slug: "acme".to_owned(),
        proposal: Some(with(&right)),
        update_mask: mask(&["client_secret"]),
    };
    service.idp.behave().registered_redirect =
        Some(service.get("acme").await.expect("there").redirect_uri);
    let checked = service.check_with(proposal).await.expect("checked");
    assert_eq!(checked.outcome("client.credentials"), Pass);
    let current = service.get("acme").await.expect("there");
    let right = pb::Connection { client_secret: right, ..current };
    let updated = service.update(&["client_secret"], right).await.expect("updated");
    assert!(updated.effect.contains("new client secret"), "{}", updated.effect);
    service.log_in().await.expect("a login");
}

/// Changes the row of `acme` behind the service's back.
async fn rewrite(file: &Path, sql: &'static str, value: impl Into<Vec<u8>>) {
    let url = format!("sqlite://{}", file.display());
    let pool = sqlx::SqlitePool::connect(&url).await.expect("opened");
    sqlx::query(sql).bind(value.into()).execute(&pool).await.expect("rewritten");
    pool.close().await;
}

#[tokio::test]
async fn a_row_that_was_pointed_elsewhere_does_not_give_its_secret_away() {
    let (data, key) = (tempfile::tempdir().expect("a directory"), key());
    let file = data.path().join("sso.db");
    let over = || config(Database::Sqlite(file.clone()), None, &key);
    let clock = Arc::new(ManualClock::starting_now());
    let mut service = Service::over(over(), Arc::clone(&clock)).await;
    service.create(service.connection()).await.expect("created");
    let thief = FakeIdp::start(clock as Arc<dyn Clock>).await;
    let moved = "UPDATE connections \
                 SET settings = json_set(settings, '$.source.discovery', CAST($1 AS TEXT))";
    rewrite(&file, moved, thief.discovery_url()).await;
    assert_eq!(reason(service.begin(begin_request()).await), "CONNECTION_UNREADABLE");
    assert_eq!(thief.count("/token"), 0);
}

/// 0.1 sealed a secret for the account alone.
#[tokio::test]
async fn a_secret_that_was_sealed_by_an_earlier_version_works_and_is_sealed_again() {
    let (data, key) = (tempfile::tempdir().expect("a directory"), key());
    let file = data.path().join("sso.db");
    let over = || config(Database::Sqlite(file.clone()), None, &key);
    let mut service = Service::over(over(), Arc::new(ManualClock::starting_now())).await;
    service.create(service.connection()).await.expect("created");
    let keyring = || Keyring::new(vec![key.clone()]).expect("a key");
    let secret = service.idp.client_secret.clone();
    let former =
        keyring().seal(&SystemEntropy, "connections/acme/client_secret", secret.as_bytes());
    rewrite(&file, "UPDATE connections SET client_secret = $1", former).await;
    service.log_in().await.expect("a login");

    let database = Database::Sqlite(file.clone());
    let resealed = reseal(&database, keyring(), &Environment::default()).await.expect("resealed");
    assert_eq!((resealed.changed, resealed.all), (1, 2), "though the key is the newest");
    let resealed = reseal(&database, keyring(), &Environment::default()).await.expect("resealed");
    assert_eq!((resealed.changed, resealed.all), (0, 2));
    drop(service);
    let mut service = Service::over(over(), Arc::new(ManualClock::starting_now())).await;
    assert!(!service.get("acme").await.expect("there").secret_fingerprint.is_empty());
}
