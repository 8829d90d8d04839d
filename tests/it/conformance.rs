//! The OpenID Foundation's relying-party modules and the published attacks on ID tokens, through the
//! RPCs. The doc comments name the modules; `docs/conformance.md` lists them with the tests' names.

use std::collections::BTreeMap;
use std::path::Path;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::fake_idp::Signer;
use crate::harness::{Service, begin_request, complete_request, reason, refused};

fn encoded(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

/// oidcc-client-test-idtoken-sig-rs256, -es256; RFC 7518 3.1, RFC 8037 3.1; at_hash: OIDC Core 3.1.3.6.
#[tokio::test]
async fn every_accepted_algorithm_logs_in_with_its_at_hash() {
    let mut service = Service::start().await;
    service.idp.behave().at_hash = true;
    for signer in Signer::ALL {
        service.idp.behave().signer = signer;
        service.log_in().await.unwrap_or_else(|status| panic!("{signer:?}: {status}"));
        service.idp.behave().claims = json!({ "at_hash": encoded("another token's") });
        assert_eq!(reason(service.log_in().await), "ID_TOKEN_INVALID", "{signer:?}");
        service.idp.behave().claims = json!({});
    }
}

/// RFC 8725 3.1: an algorithm that the connection does not list; each refusal says what to do.
#[tokio::test]
async fn an_algorithm_that_the_connection_does_not_list_is_refused() {
    let mut service = Service::start().await;
    let listed = service.edit(&["id_token_signing_algs"], |connection| {
        connection.id_token_signing_algs = vec!["ES256".to_owned(), "PS256".to_owned()];
    });
    listed.await.expect("edited");
    for signer in Signer::ALL {
        service.idp.behave().signer = signer;
        let outcome = service.log_in().await;
        if matches!(signer, Signer::Es256 | Signer::Ps256) {
            outcome.expect("listed");
        } else {
            let refusal = refused(outcome);
            assert_eq!(refusal.reason, "ID_TOKEN_SIGNATURE_INVALID", "{signer:?}");
            assert!(refusal.message.contains("accepted here: ES256, PS256"), "{}", refusal.message);
        }
    }
    service.idp.behave().signer = Signer::Rs256;
    for (alg, words) in [
        ("none", "not signed"),
        ("NonE", "not signed"),
        ("HS256", "client secret"),
        ("RS1", "accepted here"),
    ] {
        service.idp.behave().header = json!({ "alg": alg });
        let refusal = refused(service.log_in().await);
        assert!(refusal.message.contains(words), "{alg}: {}", refusal.message);
    }
}

/// oidcc-client-test-invalid-sig-rs256, -es256.
#[tokio::test]
async fn a_corrupted_signature_is_refused_for_every_algorithm() {
    let mut service = Service::start().await;
    for signer in Signer::ALL {
        service.idp.behave().signer = signer;
        service.log_in().await.expect("a login");
        let good = service.idp.last_id_token();
        let (signed, signature) = good.rsplit_once('.').expect("a JWT");
        let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        bytes[9] ^= 1;
        for bad in [
            BASE64_URL_SAFE_NO_PAD.encode(&bytes),
            String::new(),
            "AA".to_owned(),
            format!("{signature}AAAA"),
            BASE64_URL_SAFE_NO_PAD.encode([0; 64]),
        ] {
            service.idp.behave().id_token = Some(format!("{signed}.{bad}"));
            assert_eq!(
                reason(service.log_in().await),
                "ID_TOKEN_SIGNATURE_INVALID",
                "{signer:?} {bad}"
            );
        }
        service.idp.behave().id_token = None;
    }
}

/// oidcc-client-test-idtoken-sig-none; fapi2-…-invalid-null-alg; RFC 8725 3.1.
#[tokio::test]
async fn an_unsigned_token_is_refused_in_every_spelling() {
    let mut service = Service::start().await;
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let (header, payload) = (json!({ "alg": alg, "typ": "JWT" }), json!({ "sub": "alice" }));
        for signature in ["", "AA"] {
            let token = format!(
                "{}.{}.{signature}",
                encoded(&header.to_string()),
                encoded(&payload.to_string())
            );
            service.idp.behave().id_token = Some(token);
            assert_eq!(reason(service.log_in().await), "ID_TOKEN_SIGNATURE_INVALID", "{alg:?}");
        }
    }
}

/// RFC 8725 2.1: a MAC keyed with the public key, in every form that a confused library could accept.
#[tokio::test]
async fn a_mac_keyed_with_the_public_key_is_refused_in_every_encoding() {
    let mut service = Service::start().await;
    service.log_in().await.expect("a login");
    let good = service.idp.last_id_token();
    let payload = good.split('.').nth(1).expect("a payload").to_owned();
    for (alg, algorithm) in
        [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
    {
        for key in service.idp.public_key_forms() {
            for kid in [json!("rsa"), Value::Null] {
                let header = json!({ "alg": alg, "typ": "JWT", "kid": kid });
                let message = format!("{}.{payload}", encoded(&header.to_string()));
                let tag = hmac::sign(&hmac::Key::new(algorithm, &key), message.as_bytes());
                service.idp.behave().id_token =
                    Some(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag)));
                let refused = refused(service.log_in().await);
                assert_eq!(refused.reason, "ID_TOKEN_SIGNATURE_INVALID");
                assert!(
                    refused.message.contains("RS256"),
                    "it says what to do: {}",
                    refused.message
                );
            }
        }
    }
}

/// RFC 7515 4.1.2-4.1.6: keys that a token contains or refers to are never used or fetched.
#[tokio::test]
async fn a_key_in_the_tokens_own_header_is_not_used() {
    let mut service = Service::start().await;
    let own = service.idp.published_keys(|kid| kid == "rsa")["keys"][0].clone();
    let evil = format!("{}/evil", service.idp.issuer);
    service.idp.behave().foreign_key = true;
    for header in [
        json!({ "jwk": own, "kid": null }),
        json!({ "jku": evil }),
        json!({ "x5u": evil }),
        json!({ "x5c": ["MIIB"] }),
        json!({ "kid": "../../../../dev/null" }),
        json!({ "kid": "' OR 1=1 --" }),
        json!({ "kid": "rsa\u{0}" }),
    ] {
        service.idp.behave().header = header.clone();
        assert_eq!(reason(service.log_in().await), "ID_TOKEN_SIGNATURE_INVALID", "{header}");
    }
    assert_eq!(service.idp.count("/evil"), 0);
}

/// oidcc-client-test-kid-absent-single-jwks, -multiple-jwks; OIDC Core 10.1.
#[tokio::test]
async fn a_token_without_a_kid_is_tried_with_the_keys_that_fit() {
    let mut service = Service::start().await;
    service.idp.behave().header = json!({ "kid": null });
    for signer in Signer::ALL {
        service.idp.behave().signer = signer;
        service.log_in().await.unwrap_or_else(|status| panic!("{signer:?}: {status}"));
    }
}

/// RFC 7518 3.3: a key of under 2048 bits; RFC 7517 4.2, 4.3, 4.4: keys for another use.
#[tokio::test]
async fn a_key_that_is_too_short_or_for_another_use_is_ignored() {
    let service = Service::start().await;
    let good = service.idp.published_keys(|kid| kid == "rsa")["keys"][0].clone();
    let with = |name: &str, value: Value| {
        let mut key = good.clone();
        key[name] = value;
        key
    };
    let bits = |bytes: usize, first: u8| {
        let mut modulus = vec![0xff; bytes];
        modulus[0] = first;
        json!(BASE64_URL_SAFE_NO_PAD.encode(modulus))
    };
    for key in [
        with("n", bits(128, 0xff)),
        with("n", bits(255, 0xff)),
        with("n", bits(256, 0x7f)),
        with("n", bits(1025, 0xff)),
        with("n", json!("")),
        with("n", json!(7)),
        with("use", json!("enc")),
        with("key_ops", json!(["encrypt"])),
        with("key_ops", json!("verify")),
        with("alg", json!("RSA-OAEP")),
        with("alg", json!(256)),
        with("kty", json!("oct")),
        json!("not even an object"),
    ] {
        let mut service = Service::start().await;
        let keys = json!({ "keys": [key] });
        service.idp.behave().answers.insert("/keys", (200, keys.to_string(), String::new()));
        assert_eq!(
            reason(service.begin(begin_request()).await),
            "PROVIDER_METADATA_INVALID",
            "{keys}"
        );
    }
}

/// RFC 8725 3.1: a key that names its algorithm verifies no other.
#[tokio::test]
async fn a_key_that_names_its_algorithm_is_used_with_that_alone() {
    let mut service = Service::start().await;
    let mut keys = service.idp.published_keys(|kid| kid == "rsa");
    keys["keys"][0]["alg"] = json!("PS256");
    service.idp.behave().answers.insert("/keys", (200, keys.to_string(), String::new()));
    service.idp.behave().signer = Signer::Ps256;
    service.log_in().await.expect("the key's own");
    service.idp.behave().signer = Signer::Rs256;
    assert_eq!(reason(service.log_in().await), "ID_TOKEN_SIGNATURE_INVALID");
}

/// oidcc-client-test-userinfo-signed; OIDC Core 5.3.2.
#[tokio::test]
async fn signed_userinfo_is_verified() {
    let mut service = Service::start().await;
    let all = json!({ "email": "a@example.com", "given_name": "A", "family_name": "B" });
    service.idp.behave().userinfo = all.clone();
    service.idp.behave().signed_userinfo = true;
    for signer in Signer::ALL {
        service.idp.behave().signer = signer;
        let identity = service.log_in().await.expect("a login").identity.expect("an Identity");
        assert_eq!(identity.email, "a@example.com");
    }
    for wrong in [
        json!({ "iss": "https://evil.example" }),
        json!({ "aud": "another" }),
        json!({ "exp": 1 }),
        json!({ "sub": "another" }),
    ] {
        let mut claims = all.clone();
        claims
            .as_object_mut()
            .expect("an object")
            .extend(wrong.as_object().expect("an object").clone());
        service.idp.behave().userinfo = claims;
        assert_eq!(reason(service.log_in().await), "USERINFO_INVALID", "{wrong}");
    }
}

/// oidcc-client-test-userinfo-bearer-header (RFC 6750 2.1), and claims that UserInfo must not override.
#[tokio::test]
async fn userinfo_overrides_nothing() {
    let mut service = Service::start().await;
    service.idp.behave().userinfo = json!({
        "email": "a@example.com", "given_name": "A", "family_name": "B", "iss": "https://evil.example", "aud": "another", "exp": 1,
        "sid": "evil", "acr": "evil", "auth_time": 1, "tid": "evil",
    });
    let identity = service.log_in().await.expect("a login").identity.expect("an Identity");
    assert_eq!(
        (identity.issuer, identity.session_id),
        (service.idp.issuer.clone(), Some("session-1".to_owned()))
    );
    assert_eq!((identity.acr, identity.auth_time), (None, None));
    let claims = identity.claims.expect("claims").fields;
    assert_eq!(
        claims["tid"].kind,
        Some(prost_types::value::Kind::StringValue("tenant-1".to_owned()))
    );
    assert!(
        !claims.contains_key("iss") && !claims.contains_key("exp") && !claims.contains_key("aud")
    );
    let in_url = service
        .idp
        .seen()
        .iter()
        .any(|seen| seen.path == "/userinfo" && !seen.headers.contains_key("authorization"));
    assert!(!in_url, "the access token is in the header");
}

/// Aggregated and distributed claims (OIDC Core 5.6.2): passed on unchanged, nothing is fetched.
#[tokio::test]
async fn claims_kept_elsewhere_are_not_fetched() {
    let mut service = Service::start().await;
    let endpoint = format!("{}/elsewhere", service.idp.issuer);
    service.idp.behave().claims = json!({
        "_claim_names": { "groups": "src1" }, "_claim_sources": { "src1": { "endpoint": endpoint, "access_token": "x" } },
    });
    service
        .edit(&["claim_mapping"], |connection| {
            connection.claim_mapping = Some(peerpanda_sso::pb::ClaimMapping {
                groups: "groups".to_owned(),
                ..Default::default()
            });
        })
        .await
        .expect("edited");
    let identity = service.log_in().await.expect("a login").identity.expect("an Identity");
    assert_eq!(identity.groups, Vec::<String>::new());
    assert!(identity.claim_sources["groups"].starts_with("overage"), "an overage is said");
    assert_eq!(service.idp.count("/elsewhere"), 0);
}

/// RFC 8725 2.4: duplicate and escaped members, at any depth.
#[tokio::test]
async fn a_duplicate_member_is_refused_everywhere() {
    let mut service = Service::start().await;
    service.log_in().await.expect("a login");
    for answer in [r#"{"keys":[],"keys":[]}"#, r#"{"keys":[{"kty":"RSA","\u006bty":"RSA"}]}"#] {
        let mut service = Service::start().await;
        service.idp.behave().answers.insert("/keys", (200, answer.to_owned(), String::new()));
        assert_eq!(reason(service.begin(begin_request()).await), "PROVIDER_METADATA_INVALID");
    }
    for header in [r#"{"alg":"RS256","alg":"none"}"#, r#"{"alg":"RS256","\u0061lg":"RS256"}"#] {
        service.idp.behave().id_token = Some(format!("{}.{}.AA", encoded(header), encoded("{}")));
        assert_eq!(reason(service.log_in().await), "ID_TOKEN_INVALID", "{header}");
    }
}

/// OIDC Core 16.5, RFC 9700 4.5.3: an ID token of another login proves nothing for this one.
#[tokio::test]
async fn a_replayed_id_token_is_refused() {
    let mut service = Service::start().await;
    service.log_in().await.expect("a login");
    service.idp.behave().id_token = Some(service.idp.last_id_token());
    assert_eq!(reason(service.log_in().await), "NONCE_MISMATCH");
}

/// RFC 9700 4.5: a code of one login in another; PKCE binds it to the login that began it.
#[tokio::test]
async fn an_injected_code_is_refused() {
    let mut service = Service::start().await;
    let (victim, attacker) = (service.approved().await, service.approved().await);
    let injected = peerpanda_sso::pb::CompleteLoginRequest {
        code: victim.code.clone(),
        ..complete_request(&attacker)
    };
    assert_eq!(reason(service.complete(injected).await), "CODE_REJECTED");
}

/// Token responses as IdPs send them: token_type in any case or missing, expires_in as a string or
/// missing, unknown members.
#[tokio::test]
async fn odd_token_responses_are_read() {
    let mut service = Service::start().await;
    for patch in [
        json!({ "token_type": "BEARER" }),
        json!({ "token_type": null }),
        json!({ "expires_in": null }),
        json!({ "expires_in": 3599.5, "scope": ["a"], "refresh_token": 7, "x": { "y": [] } }),
    ] {
        service.idp.behave().token_response = patch.clone();
        service.log_in().await.unwrap_or_else(|status| panic!("{patch}: {status}"));
    }
    for patch in [
        json!({ "id_token": null }),
        json!({ "id_token": 7 }),
        json!({ "access_token": null }),
        json!({ "access_token": ["a"] }),
    ] {
        service.idp.behave().token_response = patch.clone();
        assert_eq!(reason(service.log_in().await), "TOKEN_RESPONSE_INVALID", "{patch}");
    }
}

/// Bodies have bounds: 1 MiB for documents, 256 KiB for token responses.
#[tokio::test]
async fn an_endless_body_is_refused() {
    let mut service = Service::start().await;
    service.idp.behave().token_response = json!({ "padding": "x".repeat(256 * 1024) });
    assert_eq!(reason(service.log_in().await), "TOKEN_RESPONSE_INVALID");
    let mut service = Service::start().await;
    service.idp.behave().metadata = json!({ "padding": "x".repeat(1024 * 1024) });
    assert_eq!(reason(service.begin(begin_request()).await), "PROVIDER_METADATA_INVALID");
}

/// Every test that `docs/conformance.md` names exists, and cites its source.
#[test]
fn the_conformance_table_names_existing_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeMap::new();
    let mut folders = vec![root.join("tests/it"), root.join("src")];
    while let Some(folder) = folders.pop() {
        let in_source = folder.starts_with(root.join("src"));
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(path).expect("a file");
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            for window in lines.windows(3) {
                let name =
                    window[2].split("fn ").nth(1).and_then(|rest| rest.split(['(', '<']).next());
                let is_test = window[1].ends_with("test]") || window[1].contains("test(");
                if let Some(name) = name.filter(|_| is_test) {
                    tests.insert(name.to_owned(), window[0].starts_with("///") || in_source);
                }
            }
        }
    }
    let table =
        std::fs::read_to_string(root.join("docs/conformance.md")).expect("docs/conformance.md");
    let rows: Vec<&str> =
        table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| id")).collect();
    assert!(rows.len() > 30, "{} rows", rows.len());
    for row in rows {
        let named: Vec<&str> =
            row.rsplit('|').nth(1).expect("a cell").split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "a row without a test: {row}");
        for name in named {
            let says = tests.get(name).unwrap_or_else(|| {
                panic!("docs/conformance.md names {name}, which does not exist")
            });
            assert!(says, "{name} does not cite its source");
        }
    }
}
