//! Entry points for the fuzzer, one for each kind of input from an IdP. Each takes the bytes as
//! they are received, and panics if an invariant is broken. The fixtures also serve this module's
//! unit tests.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::json;
use url::Url;

use super::claims;
use super::json::parse_object;
use super::keys::KeySet;
use super::metadata::Discovery;
use super::provider::token::{read_tokens, token_error};
use super::provider::userinfo;
use super::verify::{self, Expected, IssuerPolicy, VerifiedClaims};
use crate::model::address::AddressPolicy;
use crate::model::connection::{
    ClaimMapping, Connection, ConnectionSettings, ConnectionState, Issuer, LogoutStyle,
    MetadataSource, TokenEndpointAuthMethod,
};
use crate::model::login::{Nonce, RawIdToken};
use crate::model::secret::{ClientSecret, ClientSecrets};
use crate::model::signing_alg::SigningAlg;
use crate::model::slug::Slug;
use crate::model::text::is_hidden;
use crate::model::time::{UnixMillis, UnixSeconds};

/// A metadata document: every accepted endpoint may be called, and the issuer is the expected one.
pub fn discovery(bytes: &[u8]) {
    let url = Url::parse("https://idp.example/.well-known/openid-configuration").expect("a URL");
    let connection = connection(MetadataSource::Discovery(url.clone()));
    let Ok(document) = parse_object(bytes) else { return };
    let discovery = Discovery::read(&document, &connection, &url, &AddressPolicy::default());
    if let Ok(metadata) = discovery.complete() {
        assert_eq!(metadata.issuer.as_str().trim_end_matches('/'), ISSUER);
        assert!(!metadata.algs.is_empty());
        let endpoints = &metadata.endpoints;
        let optional = [&endpoints.userinfo, &endpoints.end_session].into_iter().flatten();
        for endpoint in [&endpoints.authorization, &endpoints.token, &endpoints.jwks]
            .into_iter()
            .chain(optional)
        {
            assert!(
                endpoint.scheme() == "https"
                    && endpoint.has_host()
                    && endpoint.username().is_empty(),
                "{endpoint}"
            );
        }
    }
}

/// A key set: no key verifies a made-up signature.
pub fn key_set(bytes: &[u8]) {
    let Ok(keys) = KeySet::parse(bytes) else { return };
    for alg in SigningAlg::ALL {
        for key in keys.candidates(alg, None) {
            assert!(!key.verifies(alg, b"message", bytes));
        }
    }
}

/// A token endpoint's answer: tokens are bounded and never shown, errors have no hidden
/// characters.
pub fn token_response(bytes: &[u8]) {
    if let Ok(tokens) = read_tokens(bytes) {
        let (id_token, access_token) = (tokens.id_token.expose(), tokens.access_token.expose());
        let shown = format!("{tokens:?}");
        for token in [id_token, access_token] {
            assert!(token.len() <= verify::MAX_TOKEN);
            assert!(token.len() <= 20 || !shown.contains(token));
        }
    }
    for status in [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED] {
        let text = token_error(status, bytes).to_string();
        assert!(!text.chars().any(is_hidden), "{text:?}");
    }
}

/// An ID token: the bytes themselves, and a correctly signed token whose header and payload are the
/// bytes before and after the first line break.
pub fn id_token(bytes: &[u8]) {
    let (issuer, nonce) =
        (IssuerPolicy::Exact(Issuer::new(ISSUER.to_owned())), Nonce::new("nonce".to_owned()));
    let keys = key_pair();
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = verify::id_token(
            &RawIdToken::new(text.to_owned()),
            &keys.published,
            &expected(&issuer, &nonce),
        );
        let _ = verify::owner_of_hint(text, &issuer, CLIENT);
    }
    let mut halves = bytes.splitn(2, |byte| *byte == b'\n');
    let (header, payload) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
    let token = RawIdToken::new(keys.signed(header, payload));
    let Ok(verified) = verify::id_token(&token, &keys.published, &expected(&issuer, &nonce)) else {
        return;
    };
    assert_eq!(verified.issuer.as_str(), ISSUER);
    assert!((1..=255).contains(&verified.subject.len()) && verified.subject.is_ascii());
    assert_eq!(verified.all["nonce"], "nonce");
    check_identity(verified, None);
}

/// A UserInfo response: the bytes themselves, and as the payload of a correctly signed JWT.
pub fn userinfo(bytes: &[u8]) {
    let (issuer, nonce) =
        (IssuerPolicy::Exact(Issuer::new(ISSUER.to_owned())), Nonce::new(String::new()));
    let keys = key_pair();
    let expected = expected(&issuer, &nonce);
    let signed = keys.signed(br#"{"alg":"EdDSA"}"#, bytes);
    for (body, is_signed) in [(bytes, false), (bytes, true), (signed.as_bytes(), true)] {
        let subject = subject();
        let claims = userinfo::read(body, is_signed, &keys.published, &expected, &subject.subject);
        if let Ok(claims) = claims {
            assert_eq!(claims["sub"], "ada");
            check_identity(subject, Some(&claims));
        }
    }
}

fn check_identity(
    verified: VerifiedClaims,
    userinfo: Option<&serde_json::Map<String, serde_json::Value>>,
) {
    let slug = Slug::parse("acme").expect("a slug");
    let settings =
        connection(MetadataSource::Discovery(Url::parse(ISSUER).expect("a URL"))).settings;
    let (issuer, subject) = (verified.issuer.clone(), verified.subject.clone());
    let _ = claims::userinfo_need(&verified, &settings);
    let Ok(identity) = claims::identity(&slug, verified, userinfo, &settings) else { return };
    assert!(identity.issuer == issuer && identity.subject == subject);
    assert_eq!(identity.email.matches('@').count(), 1);
    assert!(!identity.given_name.is_empty() && !identity.family_name.is_empty());
    assert!(!identity.claims.contains_key("nonce") && !identity.claims.contains_key("iss"));
}

fn subject() -> VerifiedClaims {
    let all = json!({ "iss": ISSUER, "sub": "ada", "auth_time": 7, "sid": "s" });
    let all = all.as_object().expect("an object").clone();
    VerifiedClaims {
        issuer: Issuer::new(ISSUER.to_owned()),
        subject: "ada".to_owned(),
        issued_at: NOW,
        all,
    }
}

pub(super) fn expected<'a>(issuer: &'a IssuerPolicy, nonce: &'a Nonce) -> Expected<'a> {
    Expected {
        issuer,
        client_id: CLIENT,
        additional_audiences: &[],
        algs: &SigningAlg::ALL,
        nonce,
        max_age: None,
        access_token: "access",
        now: NOW,
    }
}

pub(super) struct Keys {
    pair: Ed25519KeyPair,
    pub(super) published: KeySet,
}

impl Keys {
    pub(super) fn signed(&self, header: &[u8], payload: &[u8]) -> String {
        let message = format!(
            "{}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(header),
            BASE64_URL_SAFE_NO_PAD.encode(payload)
        );
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.pair.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

pub(super) fn key_pair() -> &'static Keys {
    static KEYS: std::sync::OnceLock<Keys> = std::sync::OnceLock::new();
    KEYS.get_or_init(|| {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("32 bytes");
        let x = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key());
        let jwks = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": x }] });
        let published = KeySet::parse(jwks.to_string().as_bytes()).expect("a key set");
        Keys { pair, published }
    })
}

pub(super) fn connection(source: MetadataSource) -> Connection {
    Connection {
        slug: Slug::parse("acme").expect("a slug"),
        incarnation: 1,
        revision: 1,
        settings: ConnectionSettings {
            display_name: String::new(),
            state: ConnectionState::Active,
            issuer: None,
            source,
            client_id: CLIENT.to_owned(),
            auth_method: TokenEndpointAuthMethod::ClientSecretBasic,
            auth_method_by_metadata: true,
            scopes: vec!["openid".to_owned()],
            claim_mapping: ClaimMapping {
                groups: Some("groups".to_owned()),
                ..ClaimMapping::default()
            },
            allowed_email_domains: Vec::new(),
            require_verified_email: false,
            id_token_signing_algs: Vec::new(),
            additional_audiences: Vec::new(),
            logout_style: LogoutStyle::Auto,
            allowed_tenant_ids: Vec::new(),
            authorization_params: BTreeMap::new(),
            required_claims: Vec::new(),
            prompt: Vec::new(),
            login_hint: None,
            max_age: None,
        },
        pinned_issuer: None,
        secrets: ClientSecrets::one(ClientSecret::from_store("secret".to_owned())),
        secret_switched: None,
        last_check: None,
        last_proposal: None,
        test_login: None,
        create_time: UnixMillis(0),
        update_time: UnixMillis(0),
    }
}

const ISSUER: &str = "https://idp.example";
const CLIENT: &str = "client";
const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
