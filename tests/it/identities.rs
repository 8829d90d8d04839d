//! Identity tokens: issued, verified offline and by the service, refused, and their keys rotated.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use peerpanda_sso::clock::{Clock, ManualClock, SystemClock};
use peerpanda_sso::config::{Config, Database};
use peerpanda_sso::pb;
use peerpanda_sso::pb::identity_service_client::IdentityServiceClient;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tonic::Code;

use crate::binary::Program;
use crate::fake_idp::FakeIdp;
use crate::harness::{
    PUBLIC, Service, begin_request, channel, complete_request, config, eventually, example,
    from_environment, key, postgres_url, reason, redis_url, refused,
};
use crate::operations::metrics_port;

const AUDIENCE: &str = "https://backends.getpeerpanda.example";

async fn service() -> Service {
    Service::start_with(|config| config.identity_audience = Some(AUDIENCE.to_owned())).await
}

impl Service {
    async fn identity(&self, token: &str) -> Result<pb::Identity, tonic::Status> {
        let mut client = IdentityServiceClient::new(channel(&self.login_url()).await);
        let request = pb::GetIdentityRequest { identity_token: token.to_owned() };
        Ok(client.get_identity(request).await?.into_inner().identity.expect("an Identity"))
    }

    async fn signing_keys(&self) -> JwkSet {
        let mut client = IdentityServiceClient::new(channel(&self.login_url()).await);
        let jwks = client
            .list_signing_keys(pb::ListSigningKeysRequest {})
            .await
            .expect("keys")
            .into_inner()
            .jwks;
        serde_json::from_str(&jwks).expect("a JWK Set")
    }
}

/// Verifies a token as a backend does, with a general JWT library.
fn verified_offline(keys: &JwkSet, token: &str) -> Result<Value, jsonwebtoken::errors::Error> {
    let header = jsonwebtoken::decode_header(token)?;
    assert_eq!(header.typ.as_deref(), Some("identity+jwt"));
    let key = keys
        .find(&header.kid.expect("a kid"))
        .ok_or(jsonwebtoken::errors::ErrorKind::InvalidToken)?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[AUDIENCE]);
    validation.set_issuer(&[PUBLIC]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    Ok(jsonwebtoken::decode::<Value>(token, &DecodingKey::from_jwk(key)?, &validation)?.claims)
}

#[tokio::test]
async fn a_token_is_verified_offline_and_by_the_service() {
    let mut service = service().await;
    service.idp.behave().claims =
        json!({ "auth_time": 1_700_000_000, "acr": "2", "org": { "id": 7 } });
    let first = service.log_in().await.expect("a login");
    let identity = first.identity.expect("an Identity");
    assert_eq!(service.identity(&first.identity_token).await.expect("verified"), identity);

    let keys = service.signing_keys().await;
    let claims = verified_offline(&keys, &first.identity_token).expect("verified");
    let now = service.clock.unix_seconds().0;
    assert_eq!(claims["exp"].as_u64(), Some(now + 3600));
    for (name, expected) in [
        ("slug", json!("acme")),
        ("idp_iss", json!(service.idp.issuer)),
        ("idp_sub", json!("sub-alice")),
        ("email", json!("alice@example.com")),
        ("email_verification", json!("VERIFIED")),
        ("given_name", json!("alice")),
        ("sid", json!("session-1")),
        ("auth_time", json!(1_700_000_000)),
        ("idp_claims", json!({ "email_verified": true, "org": { "id": 7 }, "tid": "tenant-1" })),
    ] {
        assert_eq!(claims[name], expected, "{name}");
    }
    assert!(!claims.to_string().contains("CANARY"));

    // The sub is the same at every login of a person, and differs between people and accounts.
    let again = service.log_in().await.expect("a login").identity_token;
    let other = service.with_another_account().await;
    let bob = service.log_in_at_other(&other).await.expect("a login").identity_token;
    let sub = |token: &str| {
        verified_offline(&keys, token).expect("verified")["sub"].as_str().expect("text").to_owned()
    };
    assert_eq!(sub(&first.identity_token), sub(&again));
    assert_ne!(sub(&first.identity_token), sub(&bob));
}

#[tokio::test]
async fn anything_but_an_identity_token_is_refused() {
    let mut service = service().await;
    let completed = service.log_in().await.expect("a login");
    let good = completed.identity_token;
    let parts: Vec<&str> = good.split('.').collect();
    let decoded = |part: &str| -> Value {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64url"))
            .expect("JSON")
    };
    let encoded = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let (header, payload) = (decoded(parts[0]), decoded(parts[1]));
    let with = |value: &Value, name: &str, new: Value| {
        let mut value = value.clone();
        value[name] = new;
        encoded(&value)
    };
    let foreign = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let by_foreign_key = |header: &str, payload: &str| {
        let signature = foreign
            .sign(&SystemRandom::new(), format!("{header}.{payload}").as_bytes())
            .expect("signed");
        format!("{header}.{payload}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    };
    for (what, token) in [
        ("nothing", String::new()),
        ("too few parts", "a.b".to_owned()),
        ("five parts", "a.b.c.d.e".to_owned()),
        ("an ID token", completed.id_token),
        (
            "an access token's typ",
            format!("{}.{}.{}", with(&header, "typ", json!("at+jwt")), parts[1], parts[2]),
        ),
        ("no signature", format!("{}.{}.", with(&header, "alg", json!("none")), parts[1])),
        ("a MAC", format!("{}.{}.{}", with(&header, "alg", json!("HS256")), parts[1], parts[2])),
        (
            "altered claims",
            format!(
                "{}.{}.{}",
                parts[0],
                with(&payload, "email", json!("mallory@example.com")),
                parts[2]
            ),
        ),
        ("a signature by a foreign key", by_foreign_key(parts[0], parts[1])),
        ("an unknown key", by_foreign_key(&with(&header, "kid", json!("unknown")), parts[1])),
        (
            "an extension",
            format!("{}.{}.{}", with(&header, "crit", json!(["exp"])), parts[1], parts[2]),
        ),
    ] {
        let refusal = refused(service.identity(&token).await);
        assert_eq!(
            (refusal.code, refusal.reason.as_str()),
            (Code::PermissionDenied, "IDENTITY_TOKEN_INVALID"),
            "{what}"
        );
    }
    service.clock.advance(Duration::from_secs(3599));
    service.identity(&good).await.expect("valid until it expires");
    service.clock.advance(Duration::from_secs(1));
    assert_eq!(reason(service.identity(&good).await), "IDENTITY_TOKEN_EXPIRED");
}

#[tokio::test]
async fn a_token_for_another_audience_or_of_another_service_is_refused() {
    let data = tempfile::tempdir().expect("a directory");
    let (key, clock) = (key(), Arc::new(ManualClock::starting_now()));
    let on = |audience: &str, origin: &str| Config {
        identity_audience: Some(audience.to_owned()),
        public_origin: origin.to_owned(),
        ..config(Database::Sqlite(data.path().join("sso.db")), None, &key)
    };
    let mut one = Service::over(on(AUDIENCE, PUBLIC), Arc::clone(&clock)).await;
    let connection = one.connection();
    one.create(connection).await.expect("created");
    let token = one.log_in().await.expect("a login").identity_token;
    // Same keys, same database.
    let other_audience =
        Service::over(on("https://other.example", PUBLIC), Arc::clone(&clock)).await;
    assert_eq!(reason(other_audience.identity(&token).await), "IDENTITY_TOKEN_INVALID");
    let other_issuer = Service::over(on(AUDIENCE, "https://staging.example"), clock).await;
    assert_eq!(reason(other_issuer.identity(&token).await), "IDENTITY_TOKEN_INVALID");
    one.identity(&token).await.expect("a token for this audience by this service");
}

#[tokio::test]
async fn without_an_audience_no_token_is_issued_and_the_service_is_off() {
    let mut service = Service::start().await;
    assert_eq!(service.log_in().await.expect("a login").identity_token, "");
    assert_eq!(service.identity("x").await.expect_err("not offered").code(), Code::Unimplemented);
}

/// One stored key that can't be opened keeps nobody from logging in, and the next one follows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_signing_key_that_can_not_be_opened_is_passed_over() {
    let (data, key) = (tempfile::tempdir().expect("a directory"), key());
    let clock = Arc::new(ManualClock::starting_now());
    let file = data.path().join("sso.db");
    let on = || {
        let mut config = config(Database::Sqlite(file.clone()), None, &key);
        config.identity_audience = Some(AUDIENCE.to_owned());
        config.identity_key_lifetime = Duration::from_secs(4 * 86_400);
        config
    };
    let mut before = Service::over(on(), Arc::clone(&clock)).await;
    let connection = before.connection();
    before.create(connection).await.expect("created");
    before.log_in().await.expect("a login");
    let url = format!("sqlite://{}", file.display());
    let mut database = sqlx::SqliteConnection::connect(&url).await.expect("connected");
    sqlx::query("INSERT INTO signing_keys VALUES (2, $1, $2)")
        .bind(i64::try_from(clock.unix_seconds().0).expect("fits"))
        .bind(b"sealed under a lost key".as_slice())
        .execute(&mut database)
        .await
        .expect("inserted");

    let mut after = Service::over(on(), Arc::clone(&clock)).await;
    let begun = after.begin(begin_request()).await.expect("begun");
    let callback = before.idp.approve(&begun.redirect_url, "alice");
    let token = after.complete(complete_request(&callback)).await.expect("a login").identity_token;
    after.identity(&token).await.expect("verified");
    // When the next key is due, it gets a generation after that of the unreadable key.
    clock.advance(Duration::from_secs(3 * 86_400));
    eventually("a second key is published", || async {
        after.signing_keys().await.keys.len() == 2
    })
    .await;
}

/// A key is published before it signs and until its last token has expired. Replicas share the keys.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_with_overlap_and_shared_by_replicas() {
    let (url, key, clock) = (postgres_url().await, key(), Arc::new(ManualClock::starting_now()));
    let on = || {
        let database = Database::Postgres(url.clone().into());
        let mut config = config(database, Some(redis_url()), &key);
        config.identity_audience = Some(AUDIENCE.to_owned());
        config.identity_key_lifetime = Duration::from_secs(4 * 86_400);
        config
    };
    // Both start together on an empty database and make one key.
    let (mut one, two) = tokio::join!(
        Service::over(on(), Arc::clone(&clock)),
        Service::over(on(), Arc::clone(&clock))
    );
    let connection = one.connection();
    one.create(connection).await.expect("created");
    let first_token = one.log_in().await.expect("a login").identity_token;
    let first_keys = one.signing_keys().await;
    assert_eq!(first_keys.keys.len(), 1);
    assert_eq!(two.signing_keys().await, first_keys);
    two.identity(&first_token).await.expect("verified by the other replica");

    // A day before its lifetime ends, one of the replicas publishes the next key, which doesn't sign yet.
    clock.advance(Duration::from_secs(3 * 86_400));
    eventually("a second key is published", || async {
        one.signing_keys().await.keys.len() == 2 && two.signing_keys().await.keys.len() == 2
    })
    .await;
    let kid = |token: &str| jsonwebtoken::decode_header(token).expect("a header").kid;
    let still = one.log_in().await.expect("a login").identity_token;
    assert_eq!(kid(&still), kid(&first_token));
    // A day later the new key signs, and the old one is still published.
    clock.advance(Duration::from_secs(86_400));
    let mut last = String::new();
    for _ in 0..100 {
        last = one.log_in().await.expect("a login").identity_token;
        if kid(&last) != kid(&first_token) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_ne!(kid(&last), kid(&first_token));
    verified_offline(&first_keys, &last).expect_err("a key set without the new key");
    two.identity(&last).await.expect("verified");
    assert_eq!(one.signing_keys().await.keys.len(), 2);
    // The old key is deleted once its last token has expired.
    clock.advance(Duration::from_secs(3600 + 120));
    eventually("the old key is deleted", || async { one.signing_keys().await.keys.len() == 1 })
        .await;
}

/// Runs a backend with this token on its standard input. Returns whether it accepts the person, and its
/// output.
async fn backend(mut command: Command, token: String) -> (bool, String) {
    let run = move || {
        let child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the backend runs");
        child.stdin.take().expect("piped").write_all(token.as_bytes()).expect("written");
        child.wait_with_output().expect("ended")
    };
    let output = tokio::task::spawn_blocking(run).await.expect("ended");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_backends_accept_a_person_and_refuse_other_tokens() {
    let data = tempfile::tempdir().expect("a directory");
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let settings = [
        ("SSO_IDENTITY_AUDIENCE", AUDIENCE),
        ("SSO_PUBLIC_URL", PUBLIC),
        ("SSO_METRICS_LISTEN", "127.0.0.1:0"),
    ];
    let mut program = Program::serve(data.path(), &settings).await;
    let metrics = format!("127.0.0.1:{}", metrics_port(&program));
    program.set_up(&idp).await;
    eventually("a signing key is made", || {
        let mut login = program.login.clone();
        async move { login.begin_login(begin_request()).await.is_ok() }
    })
    .await;
    let completed = program.log_in(&idp).await.expect("a login");
    let rust = |audience: &str| {
        let mut command = Command::new(example("backend"));
        command.args([&program.login_url, PUBLIC, audience]);
        command
    };
    let python = |audience: &str| {
        let mut command = Command::new(from_environment("SSO_TEST_PYTHON"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/clients/python/backend.py");
        command.args([
            script,
            &format!("http://{metrics}/.well-known/jwks.json"),
            PUBLIC,
            audience,
        ]);
        command
    };
    for backend_of in [&rust as &dyn Fn(&str) -> Command, &python] {
        let (is_accepted, text) =
            backend(backend_of(AUDIENCE), completed.identity_token.clone()).await;
        assert!(is_accepted && text.contains("is alice@example.com of acme"), "{text}");
        let changed = completed.identity_token.replacen('.', ".e30", 1);
        for (audience, token) in [
            ("https://other.example", completed.identity_token.clone()),
            (AUDIENCE, completed.id_token.clone()),
            (AUDIENCE, changed),
        ] {
            let (is_accepted, text) = backend(backend_of(audience), token).await;
            assert!(!is_accepted, "{text}");
        }
    }
}
