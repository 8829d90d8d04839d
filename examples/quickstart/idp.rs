//! A small OpenID Provider for development: one client, a login page that accepts any name, and ID
//! tokens signed with ES256. It checks the redirect URI, PKCE, the client secret and that a code is
//! used once, but no password: never let anyone else reach it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use aws_lc_rs::{digest, rand};
use axum::Router;
use axum::extract::{Form, Query, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use crate::web::escaped;

/// The only registered client.
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl Client {
    pub(crate) fn generate() -> Self {
        Self { id: format!("client-{}", random()), secret: random() }
    }
}

pub(crate) struct Idp {
    issuer: String,
    client: Client,
    redirect_uri: String,
    post_logout_redirect_uri: String,
    key: EcdsaKeyPair,
    codes: Mutex<HashMap<String, Granted>>,
}

struct Granted {
    code_challenge: String,
    nonce: Option<String>,
    person: Person,
}

#[derive(Clone)]
struct Person {
    given_name: String,
    family_name: String,
    email: String,
}

impl Idp {
    pub(crate) fn new(
        issuer: String,
        client: Client,
        redirect_uri: String,
        post_logout_redirect_uri: String,
    ) -> Arc<Self> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .expect("a P-256 key can be generated");
        Arc::new(Self {
            issuer,
            client,
            redirect_uri,
            post_logout_redirect_uri,
            key,
            codes: Mutex::default(),
        })
    }

    fn id_token(&self, granted: &Granted) -> String {
        let now = now();
        let person = &granted.person;
        let subject = digest::digest(&digest::SHA256, person.email.as_bytes());
        let claims = json!({
            "iss": self.issuer,
            "sub": BASE64_URL_SAFE_NO_PAD.encode(&subject.as_ref()[..16]),
            "aud": self.client.id,
            "iat": now,
            "exp": now + 300,
            "auth_time": now,
            "nonce": granted.nonce,
            "email": person.email,
            "email_verified": true,
            "given_name": person.given_name,
            "family_name": person.family_name,
            "name": format!("{} {}", person.given_name, person.family_name),
        });
        let encoded = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!(
            "{}.{}",
            encoded(&json!({ "alg": "ES256", "typ": "JWT", "kid": "dev" })),
            encoded(&claims)
        );
        let signature = self
            .key
            .sign(&aws_lc_rs::rand::SystemRandom::new(), signed.as_bytes())
            .expect("the key signs");
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    fn knows_client(&self, headers: &HeaderMap, form: &HashMap<String, String>) -> bool {
        let basic = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Basic "));
        let (id, secret) = match basic
            .and_then(|basic| BASE64_STANDARD.decode(basic).ok())
            .and_then(|b| String::from_utf8(b).ok())
        {
            Some(pair) => {
                let (id, secret) = pair.split_once(':').unwrap_or_default();
                (form_decoded(id), form_decoded(secret))
            }
            None => (field(form, "client_id").to_owned(), field(form, "client_secret").to_owned()),
        };
        id == self.client.id && secret == self.client.secret
    }
}

pub(crate) fn router(idp: Arc<Idp>) -> Router {
    Router::new()
        .route("/.well-known/openid-configuration", get(metadata))
        .route("/keys", get(keys))
        .route("/authorize", get(login_page).post(log_in))
        .route("/token", post(token))
        .route("/logout", get(logout))
        .with_state(idp)
}

async fn metadata(State(idp): State<Arc<Idp>>) -> Response {
    let at = |path: &str| format!("{}{path}", idp.issuer);
    axum_json(json!({
        "issuer": idp.issuer,
        "authorization_endpoint": at("/authorize"),
        "token_endpoint": at("/token"),
        "jwks_uri": at("/keys"),
        "end_session_endpoint": at("/logout"),
        "response_types_supported": ["code"],
        "scopes_supported": ["openid", "email", "profile"],
        "claims_supported": ["sub", "email", "given_name", "family_name", "name"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    }))
}

async fn keys(State(idp): State<Arc<Idp>>) -> Response {
    // An uncompressed point: 0x04, x, y.
    let point = idp.key.public_key().as_ref();
    let coordinate = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    axum_json(json!({ "keys": [{
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "dev",
        "x": coordinate(&point[1..33]), "y": coordinate(&point[33..65]),
    }] }))
}

async fn login_page(
    State(idp): State<Arc<Idp>>,
    Query(request): Query<HashMap<String, String>>,
) -> Response {
    if let Err(refusal) = check_request(&idp, &request) {
        return (StatusCode::BAD_REQUEST, page("This login request is invalid", &refusal))
            .into_response();
    }
    // This IdP keeps no sessions, so nobody is logged in yet (OIDC Core 3.1.2.6).
    if field(&request, "prompt") == "none" {
        let Ok(mut back) = Url::parse(&idp.redirect_uri) else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        back.query_pairs_mut()
            .append_pair("error", "login_required")
            .append_pair("state", field(&request, "state"));
        back.query_pairs_mut().append_pair("iss", &idp.issuer);
        return (StatusCode::SEE_OTHER, [("location", back.to_string())]).into_response();
    }
    let hidden: String = request
        .iter()
        .map(|(name, value)| {
            format!("<input type=hidden name=\"{}\" value=\"{}\">", escaped(name), escaped(value))
        })
        .collect();
    let hint = request.get("login_hint").map_or("ada@example.com", String::as_str);
    page(
        "Log in at the development IdP",
        &format!(
            "<form method=post action=/authorize>{hidden}\
             <p><label>E-mail <input name=email type=email value=\"{}\" required></label>\
             <p><label>Given name <input name=given_name value=Ada required></label>\
             <p><label>Family name <input name=family_name value=Lovelace required></label>\
             <p><button name=decision value=allow>Log in</button> <button name=decision value=deny formnovalidate>Cancel</button></form>",
            escaped(hint)
        ),
    )
    .into_response()
}

async fn log_in(
    State(idp): State<Arc<Idp>>,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    if let Err(refusal) = check_request(&idp, &form) {
        return (StatusCode::BAD_REQUEST, page("This login request is invalid", &refusal))
            .into_response();
    }
    let Ok(mut back) = Url::parse(&idp.redirect_uri) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    if field(&form, "decision") == "deny" {
        back.query_pairs_mut()
            .append_pair("error", "access_denied")
            .append_pair("error_description", "The user cancelled the login.");
    } else {
        let person = Person {
            given_name: field(&form, "given_name").to_owned(),
            family_name: field(&form, "family_name").to_owned(),
            email: field(&form, "email").to_owned(),
        };
        let granted = Granted {
            code_challenge: field(&form, "code_challenge").to_owned(),
            nonce: form.get("nonce").cloned(),
            person,
        };
        let code = random();
        idp.codes.lock().unwrap_or_else(PoisonError::into_inner).insert(code.clone(), granted);
        back.query_pairs_mut().append_pair("code", &code);
    }
    back.query_pairs_mut()
        .append_pair("state", field(&form, "state"))
        .append_pair("iss", &idp.issuer);
    Redirect::to(back.as_str()).into_response()
}

async fn token(
    State(idp): State<Arc<Idp>>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let refused =
        |status, error: &str| (status, axum_json(json!({ "error": error }))).into_response();
    if !idp.knows_client(&headers, &form) {
        return refused(StatusCode::UNAUTHORIZED, "invalid_client");
    }
    let granted =
        idp.codes.lock().unwrap_or_else(PoisonError::into_inner).remove(field(&form, "code"));
    let challenge = digest::digest(&digest::SHA256, field(&form, "code_verifier").as_bytes());
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(challenge);
    match granted {
        Some(granted)
            if granted.code_challenge == challenge
                && field(&form, "redirect_uri") == idp.redirect_uri =>
        {
            axum_json(json!({
                "access_token": random(), "token_type": "Bearer", "expires_in": 300, "id_token": idp.id_token(&granted),
            }))
        }
        _ => refused(StatusCode::BAD_REQUEST, "invalid_grant"),
    }
}

async fn logout(
    State(idp): State<Arc<Idp>>,
    Query(request): Query<HashMap<String, String>>,
) -> Response {
    if field(&request, "post_logout_redirect_uri") != idp.post_logout_redirect_uri {
        return (
            StatusCode::BAD_REQUEST,
            page("This logout request is invalid", "post_logout_redirect_uri is not registered"),
        )
            .into_response();
    }
    let Ok(mut back) = Url::parse(&idp.post_logout_redirect_uri) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    if let Some(state) = request.get("state") {
        back.query_pairs_mut().append_pair("state", state);
    }
    // This IdP keeps no sessions, so there is nothing to end.
    Redirect::to(back.as_str()).into_response()
}

fn check_request(idp: &Idp, request: &HashMap<String, String>) -> Result<(), String> {
    let expected = [
        ("response_type", "code"),
        ("client_id", idp.client.id.as_str()),
        ("redirect_uri", idp.redirect_uri.as_str()),
        ("code_challenge_method", "S256"),
    ];
    match expected.iter().find(|(name, value)| field(request, name) != *value) {
        Some((name, value)) => Err(format!("{name} must be {}", escaped(value))),
        None => Ok(()),
    }
}

fn page(title: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><h1>{title}</h1>{body}</html>"
    ))
}

fn axum_json(value: Value) -> Response {
    (
        [("content-type", "application/json"), (CACHE_CONTROL.as_str(), "no-store")],
        value.to_string(),
    )
        .into_response()
}

fn field<'a>(form: &'a HashMap<String, String>, name: &str) -> &'a str {
    form.get(name).map_or("", String::as_str)
}

fn form_decoded(text: &str) -> String {
    form_urlencoded::parse(format!("x={text}").as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the development IdP has its own clock, like a real one"
)]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(crate) fn random() -> String {
    let mut bytes = [0; 24];
    rand::fill(&mut bytes).expect("the operating system provides random bytes");
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
