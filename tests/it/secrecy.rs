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
use crate::fake_idp::{Behaviour, FakeIdp, locked};
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
    assert_hold_no(&canaries, &[log, errors.join("\n")]);
}

/// RFC 9700 4.2.4: an IdP's error texts may repeat whatever it was sent or has issued.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_idp_repeats_reaches_no_log_status_attempt_or_check() {
    let data = tempfile::tempdir().expect("a directory");
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let settings = [("SSO_LOG_FORMAT", "json"), ("RUST_LOG", "trace")];
    let mut program = Program::serve(data.path(), &settings).await;
    program.set_up(&idp).await;
    let form =
        |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", form(&idp.client_id), form(&idp.client_secret));
    let of_client =
        [idp.client_secret.clone(), form(&idp.client_secret), BASE64_STANDARD.encode(&pair)];
    let mut canaries = of_client.to_vec();
    canaries.push(PERSON.to_owned());
    let mut texts = Vec::new();
    let mut refused = 0;

    // How an IdP repeats a text: in the callback, at the token endpoint and in an ID token's header.
    for place in ["callback", "description", "error", "error of a 401", "header", "userinfo"] {
        // A callback has an error or a code.
        let count = if place == "callback" { 5 } else { 6 };
        for echoed in 0..count {
            let begun = program.login.clone().begin_login(begin_request()).await.expect("begun");
            let url = url::Url::parse(&begun.into_inner().redirect_url).expect("a URL");
            let parameter = |name: &str| {
                let mut pairs = url.query_pairs();
                pairs.find(|(own, _)| own == name).map(|(_, value)| value.into_owned())
            };
            let (state, nonce) =
                (parameter("state").expect("sent"), parameter("nonce").expect("sent"));
            let callback = idp.approve(url.as_str(), "alice");
            canaries.extend([state.clone(), nonce.clone(), callback.code.clone()]);
            let access_token = format!("CANARYaccessalice.{state}");
            let of_login = [state, nonce, callback.code.clone()];
            let secret = of_client.iter().chain(&of_login).nth(echoed).expect("six").clone();
            let long = format!("{}{secret}", "x".repeat(100));
            let mut request = complete_request(&callback);
            *idp.behave() = Behaviour::default();
            match place {
                "callback" => {
                    request.code = String::new();
                    request.error = Some(secret.clone());
                    // The secret at the cut.
                    let words = format!("{} {PERSON} {secret}", "x".repeat(260));
                    request.error_description = Some(words);
                }
                "description" => {
                    let description = format!("{secret} {{code_verifier}} {PERSON} {long}");
                    let body =
                        json!({ "error": "invalid_grant", "error_description": description });
                    idp.behave().token_answer = Some((400, body.to_string()));
                }
                "error" => {
                    let body = json!({ "error": secret, "error_description": "{code_verifier}" });
                    idp.behave().token_answer = Some((400, body.to_string()));
                }
                "error of a 401" => {
                    let body = json!({ "error": "{code_verifier}", "error_description": secret });
                    idp.behave().token_answer = Some((401, body.to_string()));
                }
                "header" => {
                    let changes = [json!({ "kid": secret }), json!({ "typ": long })];
                    idp.behave().header = changes[echoed % 2].clone();
                }
                _ => {
                    let (token, twice) = (&access_token, &secret);
                    idp.behave().access_token = Some(token.clone());
                    idp.behave().userinfo = json!({});
                    let member = if echoed == 0 { token } else { twice };
                    let name = serde_json::to_string(member).expect("JSON");
                    let body = format!("{{{name}:1,{name}:2}}");
                    idp.behave().answers.insert("/userinfo", (200, body, String::new()));
                    canaries.push(token.clone());
                }
            }
            let status = program.login.clone().complete_login(request).await.expect_err(place);
            texts.push(format!("{status:?} {status}"));
            refused += 1;
        }
    }
    *idp.behave() = Behaviour::default();
    canaries.extend(idp.seen().iter().filter_map(|seen| seen.form.get("code_verifier").cloned()));

    // The documents, which are fetched again for a new revision.
    for (at, secret) in of_client.iter().enumerate() {
        idp.behave().metadata = json!({ "issuer": format!("https://idp.example/{secret}") });
        let get = pb::GetConnectionRequest { slug: "acme".to_owned() };
        let read = program.admin.get_connection(get).await.expect("read").into_inner().connection;
        let connection =
            pb::Connection { display_name: format!("name {at}"), ..read.expect("one") };
        let update = pb::UpdateConnectionRequest {
            connection: Some(connection),
            update_mask: Some(prost_types::FieldMask { paths: vec!["display_name".to_owned()] }),
            ..pb::UpdateConnectionRequest::default()
        };
        program.admin.update_connection(update).await.expect("updated");
        let status = program.login.clone().begin_login(begin_request()).await.expect_err("refused");
        texts.push(format!("{status:?} {status}"));
        refused += 1;
    }
    let body = json!({ "error": "invalid_client", "error_description": format!("{pair} {:?}", of_client) });
    idp.behave().token_answer = Some((401, body.to_string()));
    let check = pb::CheckConnectionRequest { slug: "acme".to_owned(), ..Default::default() };
    let mut results = program.admin.check_connection(check).await.expect("a check").into_inner();
    while let Some(found) = results.message().await.expect("a result") {
        texts.push(format!("{found:?}"));
    }

    let request = pb::ListLoginAttemptsRequest {
        slug: "acme".to_owned(),
        page_size: 0,
        ..Default::default()
    };
    crate::harness::eventually("the attempts are written", || {
        let (mut admin, request) = (program.admin.clone(), request.clone());
        async move {
            let listed = admin.list_login_attempts(request).await.expect("listed").into_inner();
            // Those that are refused alike are one attempt.
            let counts = listed.attempts.iter().map(|attempt| attempt.count);
            counts.sum::<u32>() == refused
        }
    })
    .await;
    let listed = program.admin.list_login_attempts(request).await.expect("listed").into_inner();
    assert!(listed.attempts.iter().any(|attempt| attempt.idp_error.contains("[redacted]")));
    texts.push(format!("{listed:?}"));
    program.process.signal("TERM");
    crate::harness::eventually("the program has stopped", || async {
        locked(&program.log).iter().any(|line| line.contains("\"message\":\"stopped\""))
    })
    .await;
    texts.push(locked(&program.log).join("\n"));
    let debug = |text: &String| format!("{text:?}").trim_matches('"').to_owned();
    canaries.extend(canaries.iter().map(debug).collect::<Vec<_>>());
    assert_hold_no(&canaries, &texts);
    // The beginning of a secret, where a text was cut.
    let beginnings = canaries.iter().map(|canary| canary.chars().take(12).collect::<String>());
    assert_hold_no(&beginnings.collect::<Vec<_>>(), &texts);
}

/// Whom an IdP names.
const PERSON: &str = "ada.canary@example.com";

/// Panics at the first text that holds one of the canaries in a form in which it may be shown.
fn assert_hold_no(canaries: &[String], texts: &[String]) {
    for canary in canaries.iter().filter(|canary| !canary.is_empty()) {
        let bytes: Vec<String> = canary.bytes().take(24).map(|byte| byte.to_string()).collect();
        let forms = [canary.clone(), BASE64_URL_SAFE_NO_PAD.encode(canary), bytes.join(", ")];
        for (text, form) in texts.iter().flat_map(|text| forms.iter().map(move |form| (text, form)))
        {
            if let Some(at) = text.find(form.as_str()) {
                let line = text[..at].rfind('\n').map_or(0, |start| start + 1);
                let end = at + text[at..].floor_char_boundary(600);
                panic!("the canary {canary:?} in: {}", &text[line..end]);
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
