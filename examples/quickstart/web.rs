//! A thin web tier, as a model for a real one: it owns the routes that customers see and the
//! browser's cookies, and calls LoginService for everything else. It holds no IdP's secret and
//! parses no token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Form, Path, Query, State};
use axum::http::header::{CACHE_CONTROL, COOKIE, LOCATION, REFERRER_POLICY, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use peerpanda_sso::pb;
use peerpanda_sso::pb::login_service_client::LoginServiceClient;
use tonic::transport::Channel;
use tonic_types::StatusExt;

use crate::idp::random;

pub(crate) struct WebTier {
    sso: LoginServiceClient<Channel>,
    is_https: bool,
    /// Sessions by id. A real web tier keeps them in its own store.
    sessions: Mutex<HashMap<String, Session>>,
}

#[derive(Clone)]
struct Session {
    slug: String,
    identity: pb::Identity,
    /// Sent as id_token_hint at logout.
    id_token: String,
}

impl WebTier {
    pub(crate) async fn connect(
        sso: &str,
        public_origin: &str,
    ) -> Result<Arc<Self>, tonic::transport::Error> {
        let sso = LoginServiceClient::connect(sso.to_owned()).await?;
        Ok(Arc::new(Self {
            sso,
            is_https: public_origin.starts_with("https://"),
            sessions: Mutex::default(),
        }))
    }

    /// A sibling subdomain can't set a `__Host-` cookie. The prefix needs https, so it is omitted
    /// at http://localhost.
    fn cookie_name(&self, name: &str) -> String {
        if self.is_https { format!("__Host-{name}") } else { name.to_owned() }
    }

    fn set_cookie(&self, name: &str, value: &str, max_age: u32) -> String {
        let secure = if self.is_https { "; Secure" } else { "" };
        // Lax, because the IdP's redirect to the callback is a cross-site navigation that must send
        // the cookie.
        format!(
            "{}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={max_age}{secure}",
            self.cookie_name(name)
        )
    }

    fn cookie(&self, headers: &HeaderMap, name: &str) -> Option<String> {
        let name = self.cookie_name(name);
        let pairs = headers
            .get_all(COOKIE)
            .into_iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'));
        pairs
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(own, _)| *own == name)
            .map(|(_, value)| value.to_owned())
    }

    fn session(&self, headers: &HeaderMap) -> Option<Session> {
        let id = self.cookie(headers, SESSION)?;
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn end_session(&self, headers: &HeaderMap) -> Option<Session> {
        let id = self.cookie(headers, SESSION)?;
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }
}

pub(crate) fn router(web: Arc<WebTier>) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/app/accounts/oidc/{slug}/login/", get(login).post(login_by_form))
        .route("/app/accounts/oidc/{slug}/login/callback/", get(callback))
        .route("/app/accounts/oidc/{slug}/logout/", post(logout))
        .layer(middleware::from_fn(private))
        .with_state(web)
}

/// Keeps every page out of caches, referrers and frames.
async fn private(request: axum::extract::Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        "content-security-policy",
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
    );
    response
}

/// The login route is also the registered post-logout redirect URI and the initiate-login URI.
/// After a logout it shows that the user is signed out, and doesn't start a login by itself.
async fn login(
    State(web): State<Arc<WebTier>>,
    Path(slug): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if is_prefetch(&headers) {
        return StatusCode::NO_CONTENT.into_response();
    }
    if let Some(session) = web.session(&headers).filter(|session| session.slug == slug) {
        return signed_in_page(&session).into_response();
    }
    // The button and a third party (OIDC Core 4) start a login. The redirect after a logout
    // doesn't, nor does reloading that page.
    let is_wanted = query.contains_key("start") || query.contains_key("iss");
    if web.cookie(&headers, SIGNED_OUT).is_some() && !is_wanted {
        let still = web.set_cookie(SIGNED_OUT, "1", SIGNED_OUT_SECONDS);
        return ([(SET_COOKIE, still)], page("You are signed out", &start_again(&slug, "Log in")))
            .into_response();
    }
    begin(&web, &slug, &query, &headers).await
}

/// OIDC Core 4: a third party may start a login by POST as well as by GET.
async fn login_by_form(
    State(web): State<Arc<WebTier>>,
    Path(slug): Path<String>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    begin(&web, &slug, &form, &headers).await
}

async fn begin(
    web: &WebTier,
    slug: &str,
    query: &HashMap<String, String>,
    headers: &HeaderMap,
) -> Response {
    // One binding for each browser, so that logins in several tabs can all be completed.
    let known = web.cookie(headers, BINDING).filter(|value| value.len() >= 16);
    let binding = known.clone().unwrap_or_else(random);
    let request = pb::BeginLoginRequest {
        slug: slug.to_owned(),
        browser_binding: Some(binding.clone()),
        return_to: query.get("return_to").cloned(),
        iss: query.get("iss").cloned(),
        login_hint: query.get("login_hint").cloned(),
        target_link_uri: query
            .get("target_link_uri")
            .filter(|_| !query.contains_key("return_to"))
            .cloned(),
        ..pb::BeginLoginRequest::default()
    };
    match web.sso.clone().begin_login(request).await {
        Ok(begun) => {
            let mut response = see_other(&begun.into_inner().redirect_url);
            if known.is_none() {
                add_cookie(&mut response, &web.set_cookie(BINDING, &binding, 24 * 60 * 60));
            }
            add_cookie(&mut response, &web.set_cookie(SIGNED_OUT, "", 0));
            response
        }
        Err(status) => refused_page(slug, &status),
    }
}

async fn callback(
    State(web): State<Arc<WebTier>>,
    Path(slug): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    // A prefetch must not use up the login before the user follows the redirect.
    if is_prefetch(&headers) {
        return StatusCode::NO_CONTENT.into_response();
    }
    // RFC 6749 3.1: a parameter must not be repeated.
    let names = ["code", "state", "iss", "error", "error_description"];
    if names.iter().any(|name| query.iter().filter(|(own, _)| own == name).count() > 1) {
        return (
            StatusCode::BAD_REQUEST,
            page(
                "The response of your identity provider is invalid",
                &start_again(&slug, "Try again"),
            ),
        )
            .into_response();
    }
    let mut parameters: HashMap<String, String> = query.into_iter().collect();
    let request = pb::CompleteLoginRequest {
        slug: slug.clone(),
        code: parameters.remove("code").unwrap_or_default(),
        state: parameters.remove("state").unwrap_or_default(),
        iss: parameters.remove("iss"),
        error: parameters.remove("error"),
        error_description: parameters.remove("error_description"),
        browser_binding: web.cookie(&headers, BINDING),
    };
    let completed = match web.sso.clone().complete_login(request).await {
        Ok(completed) => completed.into_inner(),
        Err(status) => return refused_page(&slug, &status),
    };
    let Some(identity) = completed.identity else {
        return (
            StatusCode::BAD_GATEWAY,
            page("Something went wrong. Please try again.", &start_again(&slug, "Try again")),
        )
            .into_response();
    };
    // The connection isn't live yet: a test login shows what the IdP sent, and signs nobody in.
    if completed.connection_state == pb::ConnectionState::Testing as i32 {
        return trial_page(&identity).into_response();
    }
    // A new session id at every login makes a planted one worthless (session fixation).
    web.end_session(&headers);
    let id = random();
    let session = Session { slug: slug.clone(), identity, id_token: completed.id_token };
    web.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), session);
    let target = match completed.return_to.as_str() {
        "" => format!("/app/accounts/oidc/{slug}/login/"),
        return_to => return_to.to_owned(),
    };
    let mut response = see_other(&target);
    add_cookie(&mut response, &web.set_cookie(SESSION, &id, 8 * 60 * 60));
    response
}

/// Only by POST, so that a link or an image on another site can't sign the user out.
async fn logout(
    State(web): State<Arc<WebTier>>,
    Path(slug): Path<String>,
    headers: HeaderMap,
) -> Response {
    let session = web.end_session(&headers);
    let request = pb::LogoutUrlRequest {
        slug: slug.clone(),
        id_token_hint: session.map(|session| session.id_token),
        ..pb::LogoutUrlRequest::default()
    };
    let mut response = match web.sso.clone().logout_url(request).await {
        Ok(target) => see_other(&target.into_inner().redirect_url),
        // The web tier's own session has ended in any case.
        Err(_) => see_other(&format!("/app/accounts/oidc/{slug}/login/")),
    };
    add_cookie(&mut response, &web.set_cookie(SESSION, "", 0));
    add_cookie(&mut response, &web.set_cookie(SIGNED_OUT, "1", SIGNED_OUT_SECONDS));
    response
}

async fn home() -> Response {
    page(
        "PeerPanda",
        "<p><a href=\"/app/accounts/oidc/demo/login/\">Log in to the account demo</a>",
    )
    .into_response()
}

/// The identity as a table.
fn claims(identity: &pb::Identity) -> String {
    let verification =
        pb::EmailVerification::try_from(identity.email_verification).unwrap_or_default();
    let rows = [
        ("slug", identity.slug.as_str()),
        ("issuer", &identity.issuer),
        ("subject", &identity.subject),
        ("email", &identity.email),
        ("email_verification", verification.as_str_name()),
        ("given_name", &identity.given_name),
        ("family_name", &identity.family_name),
        ("name", identity.name.as_deref().unwrap_or_default()),
    ];
    let rows: String =
        rows.iter().map(|(name, value)| format!("<tr><th>{name}<td>{}", escaped(value))).collect();
    format!("<table>{rows}</table>")
}

fn trial_page(identity: &pb::Identity) -> Html<String> {
    let note = "<p>This was a test login, so you are not signed in. These are the details that we received. \
         Please tell PeerPanda's support that the test worked.";
    page("Test passed", &format!("{note}{}", claims(identity)))
}

fn signed_in_page(session: &Session) -> Html<String> {
    let (identity, table) = (&session.identity, claims(&session.identity));
    let title = format!("Welcome, {}", escaped(&identity.given_name));
    let slug = escaped(&session.slug);
    page(
        &title,
        &format!(
            "{table}<form method=post action=\"/app/accounts/oidc/{slug}/logout/\"><button>Log out</button></form>"
        ),
    )
}

/// The page for a refused login: says what to do, by the refusal's reason. Never shows the message,
/// which is written for support.
fn refused_page(slug: &str, status: &tonic::Status) -> Response {
    let info = status.get_details_error_info();
    let reason = info.as_ref().map_or("UNKNOWN", |info| info.reason.as_str());
    let (code, title) = match reason {
        "STATE_EXPIRED" => (StatusCode::BAD_REQUEST, "The login took too long"),
        "STATE_USED" => (StatusCode::BAD_REQUEST, "This login was used already"),
        "STATE_INVALID" | "BROWSER_MISMATCH" | "CONNECTION_CHANGED" | "NONCE_MISMATCH" => {
            (StatusCode::BAD_REQUEST, "This login can't be completed in this browser")
        }
        "IDP_REFUSED" => (StatusCode::FORBIDDEN, "The login was cancelled or refused"),
        "BAD_REQUEST" => (StatusCode::BAD_REQUEST, "This address is invalid"),
        "CONNECTION_NOT_FOUND" => (StatusCode::NOT_FOUND, "There is no login page at this address"),
        "CONNECTION_DISABLED" => (StatusCode::FORBIDDEN, "Login is disabled for this account"),
        "PROVIDER_UNAVAILABLE" | "STORE_UNAVAILABLE" | "OVERLOADED" => {
            (StatusCode::SERVICE_UNAVAILABLE, "Login is unavailable at the moment")
        }
        _ => (StatusCode::FORBIDDEN, "The login was refused"),
    };
    let body = format!(
        "<p>If you contact support, mention {}.</p>{}",
        escaped(reason),
        start_again(slug, "Start again")
    );
    (code, page(title, &body)).into_response()
}

fn start_again(slug: &str, label: &str) -> String {
    format!(
        "<p><a href=\"/app/accounts/oidc/{}/login/?start=1\" role=button>{label}</a>",
        escaped(slug)
    )
}

fn is_prefetch(headers: &HeaderMap) -> bool {
    let says = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.to_ascii_lowercase().contains("prefetch"))
    };
    says("sec-purpose") || says("purpose") || says("x-moz")
}

fn see_other(target: &str) -> Response {
    match HeaderValue::from_str(target) {
        Ok(target) => (StatusCode::SEE_OTHER, [(LOCATION, target)]).into_response(),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

fn add_cookie(response: &mut Response, cookie: &str) {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}

fn page(title: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>{title}</title>\
         <style>body{{font-family:sans-serif;max-width:42em;margin:3em auto;padding:0 1em}}th{{text-align:left;padding-right:1em}}\
         td{{font-family:monospace}}</style><h1>{title}</h1>{body}</html>"
    ))
}

/// Escapes text for HTML.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

const BINDING: &str = "sso_binding";
const SESSION: &str = "session";
const SIGNED_OUT: &str = "signed_out";
const SIGNED_OUT_SECONDS: u32 = 300;
