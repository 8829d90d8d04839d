//! A strict IdP over a real socket. It behaves well, or misbehaves in the way that a test sets in
//! [`Behaviour`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use peerpanda_sso::clock::Clock;
use peerpanda_sso::pb;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use url::{Url, form_urlencoded};

/// How the IdP behaves; well by default.
pub(crate) struct Behaviour {
    /// Merged into the metadata document; null removes a member.
    pub(crate) metadata: Value,
    /// Merged into the ID token's claims; null removes a claim.
    pub(crate) claims: Value,
    /// Merged into the ID token's header; null removes a member.
    pub(crate) header: Value,
    /// Replaces the ID token.
    pub(crate) id_token: Option<String>,
    /// The key and algorithm that sign ID tokens.
    pub(crate) signer: Signer,
    /// Adds `at_hash` to the ID token.
    pub(crate) at_hash: bool,
    /// Replaces the random access token.
    pub(crate) access_token: Option<String>,
    /// Sends UserInfo as a signed JWT.
    pub(crate) signed_userinfo: bool,
    /// Signs with a key that is not published.
    pub(crate) foreign_key: bool,
    /// Replaces the token endpoint's answer: status and body. `{code_verifier}` stands for the
    /// received one.
    pub(crate) token_answer: Option<(u16, String)>,
    /// The status of the answer to an unknown code.
    pub(crate) unknown_code_status: u16,
    /// `Retry-After` of every answer.
    pub(crate) retry_after: Option<&'static str>,
    /// Merged into the token response; null removes a member.
    pub(crate) token_response: Value,
    /// Replaces an endpoint's answer: status, body, and Location if it is not empty.
    pub(crate) answers: HashMap<&'static str, (u16, String, String)>,
    /// The claims of UserInfo in addition to `sub`; null if the ID token has all claims.
    pub(crate) userinfo: Value,
    /// `Cache-Control` of the metadata document and the keys.
    pub(crate) cache_control: &'static str,
    /// How long the metadata endpoint waits.
    pub(crate) metadata_delay: Duration,
    /// How long the token endpoint waits.
    pub(crate) token_delay: Duration,
    /// Expects client_secret_post, otherwise client_secret_basic.
    pub(crate) expects_post: bool,
    /// Grants tokens to the client itself (client_credentials).
    pub(crate) client_credentials: bool,
    /// Checks no client credentials, only codes.
    pub(crate) trusts_everybody: bool,
    /// Accepted in place of the client secret that was given at the start.
    pub(crate) accepted_secret: Option<String>,
    /// The registered redirect URI; the authorization endpoint shows an error page for any other.
    pub(crate) registered_redirect: Option<String>,
    /// In place of that error page: status and HTML.
    pub(crate) unregistered_page: Option<(u16, &'static str)>,
    /// The page for an unknown client id, in place of that error page.
    pub(crate) unknown_client_page: Option<(u16, &'static str)>,
    /// How an authorization request is answered at the registered redirect URI.
    pub(crate) login: Login,
    /// The error at the redirect URI, and its description.
    pub(crate) authorize_error: (&'static str, &'static str),
    /// How a logout is answered.
    pub(crate) logout: Logout,
    /// The registered post-logout redirect URI.
    pub(crate) registered_logout: Option<String>,
    /// Answers client_credentials of a right secret with this error, and HTTP 401.
    pub(crate) client_credentials_error: Option<&'static str>,
    /// Accepted in addition to the client secret.
    pub(crate) second_secret: Option<String>,
    /// Doesn't decode Basic credentials, against RFC 6749 2.3.1.
    pub(crate) decodes_no_basic: bool,
    /// Seconds by which its clock is ahead; negative: behind.
    pub(crate) clock_ahead: i64,
    /// `Age` of every answer: how many seconds ago its `Date` was.
    pub(crate) age: u32,
    /// Redirects without end in place of that error page.
    pub(crate) redirects_without_end: bool,
    /// Paths of a product's IdP, with the paths of this one that serve them.
    pub(crate) routes: HashMap<String, String>,
    /// Replaces the metadata document.
    pub(crate) document: Option<Value>,
    /// Replaces the key set.
    pub(crate) keys: Option<Value>,
    /// Replaces the content type, by path.
    pub(crate) content_types: HashMap<String, String>,
}

/// What happens to an authorization request of somebody without a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// `prompt=none` is answered at the registered redirect URI.
    AtCallback,
    /// A login page whatever `prompt` is, for the registered redirect URI (Dex).
    Page,
    /// A login page for every redirect URI. Only an invalid request is answered at the registered one
    /// (Spring).
    PageFirst,
    /// Fails at `prompt=none` (django-oauth-toolkit).
    FailsAtNone,
}

/// What happens to a logout without a session and an ID token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logout {
    /// There is nothing at the URL.
    Missing,
    /// Only to the registered URI (Keycloak).
    Compares,
    /// A page whatever the URI is (Canaille).
    Alike,
    /// Refuses every URI without an ID token (Hydra).
    DemandsHint,
}

/// A signing algorithm, with the key that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signer {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Signer {
    pub(crate) const ALL: [Self; 10] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];

    pub(crate) fn alg(self) -> &'static str {
        ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
            [self as usize]
    }

    fn kid(self) -> &'static str {
        match self {
            Self::Es256 => "ec",
            Self::Es384 => "ec384",
            Self::Es512 => "ec521",
            Self::EdDsa => "ed",
            _ => "rsa",
        }
    }

    fn rsa_encoding(self) -> Option<&'static dyn RsaEncoding> {
        Some(match self {
            Self::Rs256 => &signature::RSA_PKCS1_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_SHA512,
            Self::Ps256 => &signature::RSA_PSS_SHA256,
            Self::Ps384 => &signature::RSA_PSS_SHA384,
            Self::Ps512 => &signature::RSA_PSS_SHA512,
            _ => return None,
        })
    }

    /// OIDC Core 3.1.3.6: the left half of the hash that goes with the algorithm.
    fn half_hash(self, text: &str) -> String {
        let algorithm = match self {
            Self::Rs256 | Self::Ps256 | Self::Es256 => &digest::SHA256,
            Self::Rs384 | Self::Ps384 | Self::Es384 => &digest::SHA384,
            Self::Rs512 | Self::Ps512 | Self::Es512 | Self::EdDsa => &digest::SHA512,
        };
        let hash = digest::digest(algorithm, text.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(&hash.as_ref()[..hash.as_ref().len() / 2])
    }
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            metadata: json!({}),
            claims: json!({}),
            header: json!({}),
            id_token: None,
            signer: Signer::Rs256,
            at_hash: false,
            access_token: None,
            signed_userinfo: false,
            foreign_key: false,
            token_answer: None,
            unknown_code_status: 400,
            retry_after: None,
            token_response: json!({}),
            answers: HashMap::new(),
            userinfo: Value::Null,
            cache_control: "public",
            metadata_delay: Duration::ZERO,
            token_delay: Duration::ZERO,
            expects_post: false,
            client_credentials: false,
            trusts_everybody: false,
            accepted_secret: None,
            registered_redirect: None,
            unregistered_page: None,
            unknown_client_page: None,
            login: Login::AtCallback,
            authorize_error: ("login_required", ""),
            logout: Logout::Missing,
            registered_logout: None,
            client_credentials_error: None,
            second_secret: None,
            decodes_no_basic: false,
            clock_ahead: 0,
            age: 0,
            redirects_without_end: false,
            routes: HashMap::new(),
            document: None,
            keys: None,
            content_types: HashMap::new(),
        }
    }
}

/// A request that the IdP received.
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) form: HashMap<String, String>,
}

pub(crate) struct FakeIdp {
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    /// Connections over TLS that ended without a request.
    pub(crate) unused_connections: Arc<AtomicUsize>,
    inner: Arc<Inner>,
}

struct Inner {
    issuer: String,
    client_id: String,
    client_secret: String,
    clock: Arc<dyn Clock>,
    behaviour: Mutex<Behaviour>,
    seen: Mutex<Vec<Seen>>,
    granted: Mutex<HashMap<String, Granted>>,
    last_id_token: Mutex<String>,
    rejections: AtomicUsize,
    ec_keys: [EcdsaKeyPair; 3],
    ed_key: Ed25519KeyPair,
}

struct Granted {
    code_challenge: String,
    nonce: String,
    redirect_uri: String,
    person: String,
}

/// What the browser brings back from the IdP.
#[derive(Clone, Debug)]
pub(crate) struct Callback {
    pub(crate) code: String,
    pub(crate) state: String,
    pub(crate) iss: String,
}

impl FakeIdp {
    pub(crate) async fn start(clock: Arc<dyn Clock>) -> Self {
        // Characters that the form encoding of RFC 6749 2.3.1 changes.
        Self::start_for(clock, "client:1%+ü", "p@ss:w+r%d/= CANARYclientsecret").await
    }

    pub(crate) async fn start_for(
        clock: Arc<dyn Clock>,
        client_id: &str,
        client_secret: &str,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let issuer =
            format!("http://localhost:{}", listener.local_addr().expect("an address").port());
        Self::serve(listener, issuer, clock, client_id, client_secret)
    }

    /// Serves on `listener`, which is reached as `issuer`.
    pub(crate) fn serve(
        listener: TcpListener,
        issuer: String,
        clock: Arc<dyn Clock>,
        client_id: &str,
        client_secret: &str,
    ) -> Self {
        let inner = Arc::new(Inner {
            issuer: issuer.clone(),
            client_id: client_id.to_owned(),
            client_secret: client_secret.to_owned(),
            clock,
            behaviour: Mutex::default(),
            seen: Mutex::default(),
            granted: Mutex::default(),
            last_id_token: Mutex::default(),
            rejections: AtomicUsize::default(),
            ec_keys: [
                &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
                &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
            ]
            .map(|algorithm| EcdsaKeyPair::generate(algorithm).expect("a key")),
            ed_key: Ed25519KeyPair::generate().expect("a key"),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            issuer,
            client_id: client_id.to_owned(),
            client_secret: client_secret.to_owned(),
            unused_connections: Arc::default(),
            inner,
        }
    }

    pub(crate) fn behave(&self) -> MutexGuard<'_, Behaviour> {
        locked(&self.inner.behaviour)
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        locked(&self.inner.seen)
    }

    pub(crate) fn count(&self, path: &str) -> usize {
        self.seen().iter().filter(|seen| seen.path == path).count()
    }

    /// How often a client was rejected at the token endpoint.
    pub(crate) fn rejections(&self) -> usize {
        self.inner.rejections.load(Ordering::Relaxed)
    }

    /// The codes that were sent to the token endpoint.
    pub(crate) fn codes(&self) -> Vec<String> {
        self.seen().iter().filter_map(|seen| seen.form.get("code").cloned()).collect()
    }

    pub(crate) fn last_id_token(&self) -> String {
        locked(&self.inner.last_id_token).clone()
    }

    /// Any header and payload, signed with the RSA key.
    pub(crate) fn signed(&self, header: &str, payload: &str) -> String {
        self.inner.signed(
            &serde_json::from_str(header).expect("JSON"),
            payload,
            &Behaviour::default(),
        )
    }

    /// The published key set, reduced to some of its keys.
    pub(crate) fn published_keys(&self, is_published: impl Fn(&str) -> bool) -> Value {
        let mut document = self.inner.keys();
        let keys = document["keys"].as_array_mut().expect("an array");
        keys.retain(|key| key["kid"].as_str().is_some_and(&is_published));
        document
    }

    /// The public RSA key in every form that a verifier could take for an HMAC key by mistake.
    pub(crate) fn public_key_forms(&self) -> Vec<Vec<u8>> {
        let der = rsa_key().public_key().as_ref().to_vec();
        let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(rsa_key().public_key())
            .expect("DER")
            .as_ref()
            .to_vec();
        let pem = |label: &str, der: &[u8]| {
            let text = BASE64_STANDARD.encode(der);
            let lines: Vec<&str> = text
                .as_bytes()
                .chunks(64)
                .map(|line| std::str::from_utf8(line).expect("ASCII"))
                .collect();
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
        };
        let jwk = self.published_keys(|kid| kid == "rsa")["keys"][0].clone();
        vec![
            pem("PUBLIC KEY", &spki).into_bytes(),
            pem("PUBLIC KEY", &spki).trim_end().as_bytes().to_vec(),
            pem("RSA PUBLIC KEY", &der).into_bytes(),
            der[9..265].to_vec(),
            der,
            spki,
            jwk["n"].as_str().expect("text").as_bytes().to_vec(),
            jwk.to_string().into_bytes(),
            self.client_secret.as_bytes().to_vec(),
            Vec::new(),
        ]
    }

    pub(crate) fn discovery_url(&self) -> String {
        format!("{}/.well-known/openid-configuration", self.issuer)
    }

    /// The connection of the account `slug` to this IdP, by discovery.
    pub(crate) fn connection(&self, slug: &str) -> pb::Connection {
        pb::Connection {
            slug: slug.to_owned(),
            discovery_url: self.discovery_url(),
            client_id: self.client_id.clone(),
            client_secret: self.client_secret.clone(),
            ..pb::Connection::default()
        }
    }

    /// The person logs in and agrees. Checks the authorization request as a strict IdP does.
    pub(crate) fn approve(&self, redirect_url: &str, person: &str) -> Callback {
        let url = Url::parse(redirect_url).expect("an absolute URL");
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let parameter = |name: &str| {
            let mut values =
                pairs.iter().filter(|(own, _)| own == name).map(|(_, value)| value.clone());
            let value = values.next();
            assert!(values.next().is_none(), "{name} occurs twice in {redirect_url}");
            value.unwrap_or_default()
        };
        assert_eq!(parameter("response_type"), "code");
        assert_eq!(parameter("client_id"), self.client_id);
        assert_eq!(parameter("code_challenge_method"), "S256");
        assert!(parameter("scope").split(' ').any(|scope| scope == "openid"));
        assert_eq!(parameter("nonce").len(), 43);
        let code = format!("CANARYcode{}", random());
        let granted = Granted {
            code_challenge: parameter("code_challenge"),
            nonce: parameter("nonce"),
            redirect_uri: parameter("redirect_uri"),
            person: person.to_owned(),
        };
        locked(&self.inner.granted).insert(code.clone(), granted);
        Callback { code, state: parameter("state"), iss: self.issuer.clone() }
    }
}

async fn answer(
    State(idp): State<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut response = behaved(State(Arc::clone(&idp)), method, uri, headers, body).await;
    if let Some(retry_after) = locked(&idp.behaviour).retry_after {
        response.headers_mut().insert("retry-after", retry_after.parse().expect("a header"));
    }
    let (ahead, age) = {
        let behaviour = locked(&idp.behaviour);
        (behaviour.clock_ahead, behaviour.age)
    };
    let now = idp.clock.unix_seconds().0.saturating_add_signed(ahead) - u64::from(age);
    let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(now));
    response.headers_mut().insert("date", date.parse().expect("a header"));
    if age > 0 {
        response.headers_mut().insert("age", age.into());
    }
    response
}

async fn behaved(
    State(idp): State<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let form: HashMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
    let path = locked(&idp.behaviour)
        .routes
        .get(uri.path())
        .cloned()
        .unwrap_or_else(|| uri.path().to_owned());
    locked(&idp.seen).push(Seen {
        path: path.clone(),
        headers: headers.clone(),
        form: form.clone(),
    });
    if let Some((status, body, location)) =
        locked(&idp.behaviour).answers.get(path.as_str()).cloned()
    {
        let status = StatusCode::from_u16(status).expect("a status");
        return (
            status,
            [("location", location), ("content-type", "application/json".to_owned())],
            body,
        )
            .into_response();
    }
    let content_type = locked(&idp.behaviour).content_types.get(path.as_str()).cloned();
    let mut response = match (method.as_str(), path.as_str()) {
        ("GET", "/.well-known/openid-configuration") => {
            let delay = locked(&idp.behaviour).metadata_delay;
            let cache_control = locked(&idp.behaviour).cache_control;
            tokio::time::sleep(delay).await;
            ([("cache-control", cache_control)], axum_json(&idp.metadata())).into_response()
        }
        ("GET", "/keys") => {
            let cache_control = locked(&idp.behaviour).cache_control;
            ([("cache-control", cache_control)], axum_json(&idp.keys())).into_response()
        }
        ("POST", "/token") => {
            let delay = locked(&idp.behaviour).token_delay;
            tokio::time::sleep(delay).await;
            idp.token(&headers, &form)
        }
        ("GET", "/userinfo") => idp.userinfo(&headers),
        ("GET", "/authorize") => idp.authorize(&uri),
        ("GET", "/logout") => idp.log_out(&uri),
        _ => StatusCode::NOT_FOUND.into_response(),
    };
    if let Some(content_type) = content_type {
        response.headers_mut().insert("content-type", content_type.parse().expect("a media type"));
    }
    response
}

impl Inner {
    fn metadata(&self) -> Value {
        if let Some(document) = &locked(&self.behaviour).document {
            return document.clone();
        }
        let at = |path: &str| format!("{}{path}", self.issuer);
        let mut document = json!({
            "issuer": self.issuer,
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "jwks_uri": at("/keys"),
            "userinfo_endpoint": at("/userinfo"),
            "end_session_endpoint": at("/logout?tenant=1"),
            "response_types_supported": ["code", "id_token code"],
            "id_token_signing_alg_values_supported": [
                "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "ES256K", "HS256", "none",
            ],
            "authorization_response_iss_parameter_supported": true,
            "op_policy_uri": "",
        });
        merge(&mut document, &locked(&self.behaviour).metadata);
        document
    }

    fn keys(&self) -> Value {
        if let Some(keys) = &locked(&self.behaviour).keys {
            return keys.clone();
        }
        let rsa = rsa_key();
        let encoded = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let ec = |key: &EcdsaKeyPair, kid: &str, crv: &str| {
            let (x, y) =
                key.public_key().as_ref()[1..].split_at(key.public_key().as_ref().len() / 2);
            json!({ "kty": "EC", "crv": crv, "use": "sig", "kid": kid, "x": encoded(x), "y": encoded(y) })
        };
        // PKCS#1 DER of a 2048-bit key: 9 bytes of headers, the modulus, and the exponent 65537.
        let modulus = &rsa.public_key().as_ref()[9..265];
        json!({ "keys": [
            { "kty": "RSA", "use": "enc", "kid": "enc", "n": encoded(modulus), "e": "AQAB" },
            { "kty": "EC", "crv": "secp256k1", "kid": "odd", "x": "AA", "y": "AA" },
            { "kty": "RSA", "kid": "rsa", "n": encoded(modulus),
              "e": "AQAB" },
            ec(&self.ec_keys[0], "ec", "P-256"),
            ec(&self.ec_keys[1], "ec384", "P-384"),
            ec(&self.ec_keys[2], "ec521", "P-521"),
            { "kty": "OKP", "crv": "X25519", "kid": "x", "x": encoded(&[7; 32]) },
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "alg": "EdDSA", "x": encoded(self.ed_key.public_key().as_ref()) },
        ] })
    }

    fn token(&self, headers: &HeaderMap, form: &HashMap<String, String>) -> Response {
        let behaviour = locked(&self.behaviour);
        let is_known = behaviour.trusts_everybody || self.knows_client(headers, form, &behaviour);
        if !is_known {
            self.rejections.fetch_add(1, Ordering::Relaxed);
        }
        if let Some((status, body)) = &behaviour.token_answer {
            let status = StatusCode::from_u16(*status).expect("a status");
            let verifier = form.get("code_verifier").map_or("", String::as_str);
            let body = body.replace("{code_verifier}", verifier);
            return (status, [("content-type", "application/json")], body).into_response();
        }
        let refused = |status: StatusCode, error: &str| {
            (status, axum_json(&json!({ "error": error }))).into_response()
        };
        if !is_known {
            return refused(StatusCode::UNAUTHORIZED, "invalid_client");
        }
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        if let ("client_credentials", Some(error)) =
            (field("grant_type"), behaviour.client_credentials_error)
        {
            return refused(StatusCode::UNAUTHORIZED, error);
        }
        if field("grant_type") == "client_credentials" {
            return if behaviour.client_credentials {
                axum_json(&json!({ "access_token": "CANARYservice", "token_type": "bearer" }))
            } else {
                refused(StatusCode::BAD_REQUEST, "unsupported_grant_type")
            };
        }
        let Some(granted) = locked(&self.granted).remove(field("code")) else {
            let status = StatusCode::from_u16(behaviour.unknown_code_status).expect("a status");
            return refused(status, "invalid_grant");
        };
        let challenge = aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            field("code_verifier").as_bytes(),
        );
        let is_right = field("grant_type") == "authorization_code"
            && field("redirect_uri") == granted.redirect_uri
            && BASE64_URL_SAFE_NO_PAD.encode(challenge) == granted.code_challenge;
        if !is_right {
            return refused(StatusCode::BAD_REQUEST, "invalid_grant");
        }
        let access_token = format!("CANARYaccess{}.{}", granted.person, random());
        let access_token = behaviour.access_token.clone().unwrap_or(access_token);
        let id_token = behaviour
            .id_token
            .clone()
            .unwrap_or_else(|| self.id_token(&behaviour, &granted, &access_token));
        locked(&self.last_id_token).clone_from(&id_token);
        let mut response = json!({
            "access_token": access_token, "token_type": "bearer", "expires_in": "3600", "id_token": id_token,
            "refresh_token": "CANARYrefresh", "ext_expires_in": 3600,
        });
        merge(&mut response, &behaviour.token_response);
        axum_json(&response)
    }

    fn knows_client(
        &self,
        headers: &HeaderMap,
        form: &HashMap<String, String>,
        behaviour: &Behaviour,
    ) -> bool {
        let secret = behaviour.accepted_secret.as_ref().unwrap_or(&self.client_secret);
        let is_right =
            |given: &String| given == secret || Some(given) == behaviour.second_secret.as_ref();
        let basic =
            headers.get("authorization").map(|value| value.to_str().expect("ASCII").to_owned());
        if behaviour.expects_post {
            return basic.is_none()
                && form.get("client_id") == Some(&self.client_id)
                && form.get("client_secret").is_some_and(is_right);
        }
        let pair = basic
            .and_then(|basic| BASE64_STANDARD.decode(basic.strip_prefix("Basic ")?).ok())
            .unwrap_or_default();
        let pair = String::from_utf8(pair).unwrap_or_default();
        if form.contains_key("client_secret") {
            return false;
        }
        if behaviour.decodes_no_basic {
            return pair
                .strip_prefix(&format!("{}:", self.client_id))
                .is_some_and(|given| is_right(&given.to_owned()));
        }
        let decoded: Vec<String> = pair.split(':').map(form_decoded).collect();
        matches!(decoded.as_slice(), [id, given] if *id == self.client_id && is_right(given))
    }

    fn id_token(&self, behaviour: &Behaviour, granted: &Granted, access_token: &str) -> String {
        let now = self.clock.unix_seconds().0;
        let person = &granted.person;
        let mut claims = json!({
            "iss": self.issuer, "sub": format!("sub-{person}"), "aud": self.client_id, "iat": now, "exp": now + 300,
            "nonce": granted.nonce, "email": format!("{person}@example.com"), "email_verified": true,
            "given_name": person, "family_name": "Example", "amr": "pwd", "sid": "session-1", "tid": "tenant-1",
        });
        if behaviour.at_hash {
            claims["at_hash"] = behaviour.signer.half_hash(access_token).into();
        }
        if !behaviour.userinfo.is_null() {
            for name in ["email", "email_verified", "given_name", "family_name"] {
                claims.as_object_mut().expect("an object").remove(name);
            }
        }
        merge(&mut claims, &behaviour.claims);
        let mut header =
            json!({ "alg": behaviour.signer.alg(), "typ": "JWT", "kid": behaviour.signer.kid() });
        merge(&mut header, &behaviour.header);
        self.signed(&header, &claims.to_string(), behaviour)
    }

    fn signed(&self, header: &Value, payload: &str, behaviour: &Behaviour) -> String {
        let message = format!("{}.{}", encoded(&header.to_string()), encoded(payload));
        let random = SystemRandom::new();
        let by_ec = |key: &EcdsaKeyPair| {
            key.sign(&random, message.as_bytes()).expect("signed").as_ref().to_vec()
        };
        let signature = match (behaviour.signer.rsa_encoding(), behaviour.signer) {
            (Some(encoding), _) => {
                let key = if behaviour.foreign_key { foreign_rsa_key() } else { rsa_key() };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, message.as_bytes(), &mut signature).expect("signed");
                signature
            }
            (None, Signer::Es384) => by_ec(&self.ec_keys[1]),
            (None, Signer::Es512) => by_ec(&self.ec_keys[2]),
            (None, Signer::EdDsa) => self.ed_key.sign(message.as_bytes()).as_ref().to_vec(),
            (None, _) => by_ec(&self.ec_keys[0]),
        };
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// What a browser without a session is sent to: two redirects, with a cookie.
    fn authorize(&self, uri: &Uri) -> Response {
        let query: HashMap<String, String> =
            form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let field = |name: &str| query.get(name).map_or("", String::as_str);
        let behaviour = locked(&self.behaviour);
        let is_registered = behaviour.registered_redirect.as_deref() == Some(field("redirect_uri"));
        let is_known = field("client_id") == self.client_id;
        let page = |(status, html): (u16, &'static str)| {
            let status = StatusCode::from_u16(status).expect("a status");
            (status, [("content-type", "text/html")], html).into_response()
        };
        const LOGIN_PAGE: (u16, &str) = (200, "<html><body>Log in</body></html>");
        let prompt = field("prompt");
        let is_invalid = prompt == "none login";
        let (error, description) = behaviour.authorize_error;
        let answer = match behaviour.login {
            Login::PageFirst if is_registered && is_known && is_invalid => Some("invalid_request"),
            Login::PageFirst => return page(LOGIN_PAGE),
            Login::AtCallback | Login::Page | Login::FailsAtNone if !is_known || !is_registered => {
                if behaviour.redirects_without_end {
                    let again = [("location", uri.to_string())];
                    return (StatusCode::FOUND, again).into_response();
                }
                let page_of = match is_known {
                    true => behaviour.unregistered_page,
                    false => behaviour.unknown_client_page,
                };
                return page(page_of.unwrap_or((400, UNREGISTERED)));
            }
            Login::Page => return page(LOGIN_PAGE),
            Login::FailsAtNone if prompt == "none" => return page((500, "Server Error (500)")),
            Login::AtCallback | Login::FailsAtNone if is_invalid => Some("invalid_request"),
            Login::AtCallback if prompt == "none" => Some(error),
            Login::AtCallback | Login::FailsAtNone => None,
        };
        let Some(error) = answer else { return page(LOGIN_PAGE) };
        let target = if query.contains_key("hop") {
            let mut target = Url::parse(field("redirect_uri")).expect("a URL");
            target
                .query_pairs_mut()
                .append_pair("error", error)
                .append_pair("error_description", description)
                .append_pair("state", field("state"))
                .append_pair("iss", &self.issuer);
            target.to_string()
        } else {
            format!("/authorize?{}&hop=1", uri.query().unwrap_or_default())
        };
        (
            StatusCode::FOUND,
            [("location", target), ("set-cookie", "hop=1; Path=/; HttpOnly".to_owned())],
        )
            .into_response()
    }

    fn log_out(&self, uri: &Uri) -> Response {
        let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        let query: HashMap<String, String> = query.into_owned().collect();
        let behaviour = locked(&self.behaviour);
        let wanted = query.get("post_logout_redirect_uri");
        let page = |status: StatusCode, text: &'static str| {
            (status, [("content-type", "text/html")], text).into_response()
        };
        let redirect = |to: String| (StatusCode::FOUND, [("location", to)]).into_response();
        match (behaviour.logout, wanted) {
            (Logout::Missing, _) => StatusCode::NOT_FOUND.into_response(),
            (Logout::Alike | Logout::Compares | Logout::DemandsHint, None) | (Logout::Alike, _) => {
                page(StatusCode::OK, "Do you want to log out?")
            }
            (Logout::Compares, Some(wanted)) if Some(wanted) == behaviour.registered_logout.as_ref() => {
                redirect(wanted.clone())
            }
            (Logout::Compares, Some(_)) => page(StatusCode::BAD_REQUEST, "Invalid redirect uri"),
            (Logout::DemandsHint, Some(_)) => redirect(
                "/error?error=invalid_request&error_description=post_logout_redirect_uri+is+set+but+\
                 id_token_hint+is+missing"
                    .to_owned(),
            ),
        }
    }

    fn userinfo(&self, headers: &HeaderMap) -> Response {
        let behaviour = locked(&self.behaviour);
        let bearer = headers
            .get("authorization")
            .map(|value| value.to_str().expect("ASCII").to_owned())
            .unwrap_or_default();
        let Some(person) =
            bearer.strip_prefix("Bearer CANARYaccess").and_then(|rest| rest.split('.').next())
        else {
            return StatusCode::UNAUTHORIZED.into_response();
        };
        let mut claims = json!({ "sub": format!("sub-{person}") });
        merge(&mut claims, &behaviour.userinfo);
        if behaviour.signed_userinfo {
            let header = json!({ "alg": behaviour.signer.alg(), "kid": behaviour.signer.kid() });
            let mut signed = json!({ "iss": self.issuer, "aud": self.client_id });
            merge(&mut signed, &claims);
            return (
                [("content-type", "application/jwt")],
                self.signed(&header, &signed.to_string(), &behaviour),
            )
                .into_response();
        }
        axum_json(&claims)
    }
}

pub(crate) fn merge(into: &mut Value, patch: &Value) {
    let (Some(into), Some(patch)) = (into.as_object_mut(), patch.as_object()) else { return };
    for (name, value) in patch {
        if value.is_null() {
            into.remove(name);
        } else {
            into.insert(name.clone(), value.clone());
        }
    }
}

/// What the IdP says of an unregistered redirect URI, and of an unknown client.
const UNREGISTERED: &str = "<html><head><title>x</title></head><body><h1>Error</h1>\
    <p>redirect_uri_mismatch: it is not registered</p></body></html>";

fn axum_json(value: &Value) -> Response {
    ([("content-type", "application/json")], value.to_string()).into_response()
}

fn encoded(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

fn form_decoded(text: &str) -> String {
    form_urlencoded::parse(format!("x={text}").as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

pub(crate) fn random() -> String {
    let mut bytes = [0; 12];
    aws_lc_rs::rand::fill(&mut bytes).expect("randomness");
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Shared by all tests, since generating a key takes longer than a test.
fn rsa_key() -> &'static RsaKeyPair {
    static KEY: OnceLock<RsaKeyPair> = OnceLock::new();
    KEY.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"))
}

fn foreign_rsa_key() -> &'static RsaKeyPair {
    static KEY: OnceLock<RsaKeyPair> = OnceLock::new();
    KEY.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"))
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An empty JSON object, for the fields of [`Behaviour`].
pub(crate) fn no_claims() -> Value {
    Value::Object(Map::new())
}
