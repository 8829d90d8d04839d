//! No log line, error or Debug output holds a secret of a login.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use peerpanda_sso::clock::SystemClock;
use peerpanda_sso::pb;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::json;

use crate::binary::Program;
use crate::fake_idp::{FakeIdp, locked};
use crate::harness::{BINDING, begin_request, complete_request, key, postgres_url, redis_url};

/// The names of a JSON object's members, repeated ones included.
struct MemberNames(Vec<String>);

impl<'de> Deserialize<'de> for MemberNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = MemberNames;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MemberNames, A::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = map.next_entry()? {
                    names.push(name);
                }
                Ok(MemberNames(names))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// RFC 9700 4.2.4: secrets in logs and errors.
#[tokio::test(flavor = "multi_thread")]
async fn logs_at_trace_and_errors_hold_no_secret() {
    let data = tempfile::tempdir().expect("a directory");
    let (key, postgres, redis) = (key(), postgres_url().await, redis_url());
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let encoded_key = key.encoded();
    let settings = [
        ("SSO_REDIS_URL", redis.as_str()),
        ("SSO_DATABASE_URL", postgres.as_str()),
        ("SSO_ENCRYPTION_KEYS", encoded_key.as_str()),
        ("SSO_LOG_FORMAT", "json"),
        ("RUST_LOG", "trace"),
    ];
    let mut program = Program::serve(data.path(), &settings).await;
    program.set_up(&idp).await;
    crate::harness::eventually("Redis answers", || {
        let mut login = program.login.clone();
        async move { login.begin_login(begin_request()).await.is_ok() }
    })
    .await;
    let mut canaries = vec![
        idp.client_secret.clone(),
        BASE64_STANDARD.encode(&idp.client_secret),
        url::form_urlencoded::byte_serialize(idp.client_secret.as_bytes()).collect(),
        BINDING.to_owned(),
        key.encoded().to_string(),
        "CANARY".to_owned(),
    ];
    let basic =
        |part: &str| url::form_urlencoded::byte_serialize(part.as_bytes()).collect::<String>();
    canaries.push(BASE64_STANDARD.encode(format!(
        "{}:{}",
        basic(&idp.client_id),
        basic(&idp.client_secret)
    )));

    let mut errors = Vec::new();
    let mut log_in = async |request: pb::BeginLoginRequest, code: Option<&str>| {
        let begun = program.login.clone().begin_login(request).await.expect("begun").into_inner();
        let url = url::Url::parse(&begun.redirect_url).expect("a URL");
        canaries.extend(
            url.query_pairs()
                .filter(|(name, _)| name == "state" || name == "nonce")
                .map(|(_, value)| value.into_owned()),
        );
        let callback = idp.approve(&begun.redirect_url, "alice");
        canaries.push(callback.code.clone());
        let mut request = complete_request(&callback);
        if let Some(code) = code {
            request.code = code.to_owned();
        }
        match program.login.clone().complete_login(request).await {
            Ok(completed) => canaries.push(completed.into_inner().id_token),
            Err(status) => errors.push(format!("{status:?} {status}")),
        }
    };
    log_in(begin_request(), None).await;
    log_in(begin_request(), Some("CANARYwrong")).await;
    idp.behave().userinfo = json!({ "email": "CANARYmail" });
    log_in(begin_request(), None).await;
    idp.behave().foreign_key = true;
    log_in(begin_request(), None).await;
    idp.behave().token_response = json!({ "access_token": "CANARY\n", "id_token": 1 });
    log_in(begin_request(), None).await;
    idp.behave().token_answer = Some((200, "CANARY{\"id_token\":".to_owned()));
    log_in(begin_request(), None).await;
    let hint = pb::LogoutUrlRequest {
        slug: "acme".to_owned(),
        id_token_hint: Some("CANARYhint".to_owned()),
        ..Default::default()
    };
    errors
        .push(format!("{:?}", program.login.clone().logout_url(hint).await.expect_err("refused")));
    assert_eq!(errors.len(), 6, "all of these were refused: {errors:?}");

    // The verifier is sent to the token endpoint only.
    let verifiers: Vec<String> =
        idp.seen().iter().filter_map(|seen| seen.form.get("code_verifier").cloned()).collect();
    assert!(verifiers.len() >= 6);
    canaries.extend(verifiers);
    canaries.push(idp.last_id_token());
    program.process.signal("TERM");
    crate::harness::eventually("the program has stopped", || async {
        locked(&program.log).iter().any(|line| line.contains("\"message\":\"stopped\""))
    })
    .await;

    let log = locked(&program.log).join("\n");
    assert!(
        log.contains("\"level\":\"TRACE\"") && log.contains("login completed (acme)"),
        "the log is complete"
    );
    for line in log.lines() {
        let MemberNames(mut names) = serde_json::from_str(line).expect("a JSON object");
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "member names are unique: {line}");
        for name in ["timestamp", "level", "message", "target"] {
            assert!(names.iter().any(|own| own == name), "{name} is missing: {line}");
        }
    }
    let texts = [log, errors.join("\n")];
    for canary in canaries.iter().filter(|canary| !canary.is_empty()) {
        let bytes: Vec<String> = canary.bytes().take(24).map(|byte| byte.to_string()).collect();
        let forms = [canary.clone(), BASE64_URL_SAFE_NO_PAD.encode(canary), bytes.join(", ")];
        for (text, form) in texts.iter().flat_map(|text| forms.iter().map(move |form| (text, form)))
        {
            if let Some(at) = text.find(form.as_str()) {
                let line = text[..at].rfind('\n').map_or(0, |start| start + 1);
                panic!("a canary in: {}", text[line..].chars().take(600).collect::<String>());
            }
        }
    }
}

/// RFC 9700 4.2.4: secrets in logs and errors.
#[test]
fn debug_output_redacts() {
    use peerpanda_sso::model::login::{
        AuthorizationCode, BrowserBinding, Nonce, PkceVerifier, RawIdToken, StateParameter,
    };
    use peerpanda_sso::model::secret::ClientSecret;
    let text = || "CANARY".to_owned();
    let shown = format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        ClientSecret::from_store(text()),
        AuthorizationCode::new(text()),
        BrowserBinding::new(text()),
        Nonce::new(text()),
        PkceVerifier::new(text()),
        RawIdToken::new(text()),
        StateParameter::new(text()),
        key(),
    );
    assert!(!shown.contains("CANARY"), "{shown}");
    assert_eq!(shown.to_lowercase().matches("[redacted]").count(), 8, "{shown}");
}
