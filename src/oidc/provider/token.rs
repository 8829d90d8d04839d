//! The token endpoint (RFC 6749 3.2): its requests, built by openidconnect, and its answers, read
//! here. A login and a check use the same requests. The crate's own reader is not used: it refuses
//! a whole response for one member of an unexpected type that no login needs.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Bytes;
use openidconnect::core::CoreClient;
use openidconnect::{
    AuthType, AuthorizationCode as CrateCode, ClientSecret as CrateSecret, EndpointNotSet,
    EndpointSet, HttpRequest, HttpResponse, PkceCodeVerifier, RequestTokenError, Scope, TokenUrl,
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::client;
use crate::model::cause::Cause;
use crate::model::connection::TokenEndpointAuthMethod;
use crate::model::login::{AuthorizationCode, PkceVerifier, RawIdToken, oauth_error};
use crate::model::redact::Redactor;
use crate::model::text::{MAX_DESCRIPTION, quotable, sanitize};
use crate::oidc::error::{CallError, Defect, ExchangeError, Problem, TokenRefusal};
use crate::oidc::http::{HttpClient, host_of};
use crate::oidc::idps::known_error;
use crate::oidc::json;
use crate::oidc::verify::MAX_TOKEN;

/// A token endpoint with the client that authenticates there.
pub(in crate::oidc) struct TokenEndpoint {
    client: CoreClient<
        EndpointNotSet,
        EndpointNotSet,
        EndpointNotSet,
        EndpointNotSet,
        EndpointSet,
        EndpointNotSet,
    >,
    url: Url,
}

/// The tokens that a code was exchanged for.
#[derive(Debug)]
pub struct Tokens {
    /// Not verified yet.
    pub id_token: RawIdToken,
    pub(in crate::oidc) access_token: AccessToken,
}

impl Tokens {
    /// Has `redactor` remove them.
    pub fn add_to(&self, redactor: &mut Redactor) {
        redactor.add(self.id_token.expose());
        redactor.add(self.access_token.expose());
    }
}

impl TokenEndpoint {
    pub(in crate::oidc) fn new(
        client_id: &str,
        secret: &str,
        auth_method: TokenEndpointAuthMethod,
        endpoint: &Url,
        redirect_uri: &str,
    ) -> Result<Self, Problem> {
        let auth_type = match auth_method {
            TokenEndpointAuthMethod::ClientSecretBasic => AuthType::BasicAuth,
            TokenEndpointAuthMethod::ClientSecretPost => AuthType::RequestBody,
        };
        let client = client(client_id, endpoint, redirect_uri)?
            .set_client_secret(CrateSecret::new(secret.to_owned()))
            .set_auth_type(auth_type)
            .set_token_uri(TokenUrl::from_url(endpoint.clone()));
        Ok(Self { client, url: endpoint.clone() })
    }

    /// Exchanges a code (RFC 6749 4.1.3).
    pub(super) async fn exchange(
        &self,
        code: AuthorizationCode,
        verifier: PkceVerifier,
        http: &HttpClient,
    ) -> Result<Tokens, ExchangeError> {
        let request = self.code_request(&code, &verifier).map_err(ExchangeError::Call)?;
        let answer = http.send(request, MAX_ANSWER).await.map_err(ExchangeError::Call)?;
        if answer.status != StatusCode::OK {
            return Err(token_error(answer.status, &answer.body));
        }
        read_tokens(&answer.body)
    }

    /// The request of a code exchange: what a login sends, and a check with a made-up code.
    pub(in crate::oidc) fn code_request(
        &self,
        code: &AuthorizationCode,
        verifier: &PkceVerifier,
    ) -> Result<Request<Bytes>, CallError> {
        let request = self.client.exchange_code(CrateCode::new(code.expose().to_owned()));
        let request =
            request.set_pkce_verifier(PkceCodeVerifier::new(verifier.expose().to_owned()));
        self.taken_from(request.request(&take))
    }

    /// The request of a token for the client itself (RFC 6749 4.4), by which a check proves the
    /// client's secret.
    pub(in crate::oidc) fn client_credentials_request(
        &self,
        scope: Option<String>,
    ) -> Result<Request<Bytes>, CallError> {
        let request = self.client.exchange_client_credentials();
        let request = request.add_scopes(scope.map(Scope::new));
        self.taken_from(request.request(&take))
    }

    /// The request that the crate handed to [`take`] in place of an HTTP client.
    fn taken_from<T, E: openidconnect::ErrorResponse>(
        &self,
        result: Result<T, RequestTokenError<Taken, E>>,
    ) -> Result<Request<Bytes>, CallError> {
        let Err(RequestTokenError::Request(Taken(request))) = result else {
            return Err(CallError::Unusable { host: host_of(&self.url), defect: Defect::Url });
        };
        let mut request = (*request).map(Bytes::from);
        if let Some(basic) = request.headers_mut().get_mut(AUTHORIZATION) {
            basic.set_sensitive(true);
        }
        Ok(request)
    }
}

/// Replaces a request's Basic credentials by the same without the encoding of RFC 6749 2.3.1. Some IdPs
/// expect it, by which a check explains a rejection; no login sends it.
pub(in crate::oidc) fn with_unencoded_basic(
    request: &mut Request<Bytes>,
    client_id: &str,
    secret: &str,
) {
    let pair = Zeroizing::new(format!("{client_id}:{secret}"));
    let basic = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())));
    if let Ok(mut basic) = HeaderValue::from_str(&basic) {
        basic.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, basic);
    }
}

/// The crate gives a request to an HTTP client only. This one sends nothing and returns the request
/// as its error, so that one client, in [`crate::oidc::http`], makes all calls.
fn take(request: HttpRequest) -> Result<HttpResponse, Taken> {
    Err(Taken(Box::new(request)))
}

#[derive(thiserror::Error)]
#[error("a request that was not sent")]
struct Taken(Box<HttpRequest>);

/// A request holds a code and a secret.
impl std::fmt::Debug for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Taken([redacted])")
    }
}

/// Sent to UserInfo, and hashed for `at_hash`; never shown.
pub(in crate::oidc) struct AccessToken(String);

impl AccessToken {
    pub(in crate::oidc) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccessToken([redacted])")
    }
}

/// A token response (RFC 6749 5.1, OIDC Core 3.1.3.3). `expires_in` is not read.
pub(in crate::oidc) fn read_tokens(body: &[u8]) -> Result<Tokens, ExchangeError> {
    let read: TokenResponse =
        serde_json::from_slice(json::without_byte_order_mark(body)).map_err(|error| {
            let is_page = json::is_page(body);
            let cause = if is_page { Cause::TokenNotJson } else { Cause::TokenMalformed };
            Problem::new(cause, json::describe_document(body, &error))
        })?;
    // Some IdPs send an error with HTTP 200. Tokens in the same answer must not be used.
    if let Some(idp_error) = read.error.as_deref().and_then(oauth_error) {
        return Err(refusal(StatusCode::OK, Some(idp_error), read.description.as_deref()));
    }
    // RFC 6749 7.1: a token of a type that the client doesn't know must not be used.
    let is_other = |kind: &String| !kind.is_empty() && !kind.eq_ignore_ascii_case("bearer");
    if let Some(kind) = read.token_type.filter(is_other) {
        let text = format!("its token_type is {:?}, expected Bearer", quotable(&kind));
        return Err(Problem::new(Cause::TokenNotBearer, text).into());
    }
    let missing = |cause, text| move || Problem::new(cause, text);
    let access_token = read
        .access_token
        .ok_or_else(missing(Cause::AccessTokenMissing, "it has no access_token"))?;
    if !access_token.0.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        let text = "its access_token has characters that RFC 6749 A.12 does not allow";
        return Err(Problem::new(Cause::TokenMalformed, text).into());
    }
    let id_token = read.id_token.ok_or_else(missing(
        Cause::IdTokenMissing,
        "it has no id_token: is the client allowed the scope openid?",
    ))?;
    Ok(Tokens { id_token, access_token })
}

struct TokenResponse {
    access_token: Option<AccessToken>,
    id_token: Option<RawIdToken>,
    token_type: Option<String>,
    error: Option<String>,
    description: Option<String>,
}

impl<'de> Deserialize<'de> for TokenResponse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = json::strict_object(deserializer)?;
        let mut text = |name: &'static str| match members.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.len() <= MAX_TOKEN => Ok(Some(text)),
            Some(Value::String(_)) => {
                Err(json::safe_error(format_args!("its {name} has more than {MAX_TOKEN} bytes")))
            }
            Some(_) => Err(json::safe_error(format_args!("its {name} is not a string"))),
        };
        let id_token = text("id_token")?.map(RawIdToken::new);
        let access_token = text("access_token")?.map(AccessToken);
        let (token_type, error) = (text("token_type")?, text("error")?);
        let description = text("error_description")?;
        Ok(Self { access_token, id_token, token_type, error, description })
    }
}

/// Reads an answer that holds no tokens (RFC 6749 5.2).
pub(in crate::oidc) fn token_error(status: StatusCode, body: &[u8]) -> ExchangeError {
    let document = json::parse_object(body).unwrap_or_default();
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let idp_error = text("error").and_then(oauth_error);
    if idp_error.is_none() && json::is_page(body) {
        return status_error(status, ", and a page in place of JSON");
    }
    refusal(status, idp_error, text("error_description"))
}

/// A description that is known of a product says more than the error code, which differs between IdPs.
fn refusal(
    status: StatusCode,
    idp_error: Option<String>,
    description: Option<&str>,
) -> ExchangeError {
    let class = match (idp_error.as_deref(), status) {
        (Some("invalid_client"), _) => Cause::InvalidClient,
        (Some("unauthorized_client"), _) => Cause::ClientNotAuthorized,
        (Some("invalid_grant"), _) => Cause::InvalidGrant,
        (_, StatusCode::UNAUTHORIZED) => Cause::TokenHttp401,
        (_, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE)
        | (None, _) => return status_error(status, ""),
        (Some(_), _) => Cause::TokenOauthError,
    };
    let known = description.and_then(known_error).and_then(|error| error.token);
    ExchangeError::from(TokenRefusal {
        cause: known.unwrap_or(class),
        idp_error: idp_error.unwrap_or_else(|| format!("HTTP {}", status.as_u16())),
        description: description.map(|text| sanitize(text, MAX_DESCRIPTION)),
    })
}

fn status_error(status: StatusCode, and: &str) -> ExchangeError {
    let text = format!("HTTP {}{and}", status.as_u16());
    match status {
        StatusCode::UNAUTHORIZED => ExchangeError::ClientRejected(TokenRefusal {
            cause: Cause::TokenHttp401,
            idp_error: text,
            description: None,
        }),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE => {
            ExchangeError::EndpointGone(Problem::new(Cause::TokenHttpStatus, text))
        }
        _ => ExchangeError::ResponseInvalid(Problem::new(Cause::TokenHttpStatus, text)),
    }
}

/// Bytes of a token or UserInfo response.
pub(in crate::oidc) const MAX_ANSWER: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_without_tokens_has_its_cause() {
        for (status, body, expected) in [
            (400, r#"{"error":"invalid_client"}"#, Cause::InvalidClient),
            (401, r#"{"error":"unauthorized_client"}"#, Cause::ClientNotAuthorized),
            (401, "<html>", Cause::TokenHttp401),
            (401, r#"{"error":"other"}"#, Cause::TokenHttp401),
            (400, r#"{"error":"invalid_grant"}"#, Cause::InvalidGrant),
            (400, r#"{"error":"invalid_scope"}"#, Cause::TokenOauthError),
            (404, "", Cause::TokenHttpStatus),
            (404, r#"{"error":"Not Found"}"#, Cause::TokenHttpStatus),
            (404, r#"{"error":"invalid_grant"}"#, Cause::InvalidGrant),
            (400, r#"{"errorCode":"E0000011"}"#, Cause::TokenHttpStatus),
            (403, "<html>", Cause::TokenHttpStatus),
            (
                400,
                r#"{"error":"invalid_request","error_description":"AADSTS90002: Tenant 'x' not found"}"#,
                Cause::ClientUnknown,
            ),
            (
                401,
                r#"{"error":"invalid_client","error_description":"AADSTS7000222: expired"}"#,
                Cause::SecretExpired,
            ),
            (
                400,
                r#"{"error":"invalid_grant","error_description":"AADSTS50105: not assigned"}"#,
                Cause::TokenPersonNotAssigned,
            ),
            (
                400,
                r#"{"error":"invalid_grant","error_description":"Not of any product"}"#,
                Cause::InvalidGrant,
            ),
            (400, r#"{"error":""}"#, Cause::TokenHttpStatus),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let cause = token_error(status, body.as_bytes()).cause();
            assert_eq!(cause, expected, "{status} {body}");
        }
    }

    #[test]
    fn an_error_outside_of_rfc_6749_is_not_repeated() {
        let long = "x".repeat(65);
        for error in ["CANARY\\\"", &long, "CANARY\u{202e}"] {
            for status in [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED] {
                let body = format!(r#"{{"error":"{error}","error_description":"d"}}"#);
                let text = token_error(status, body.as_bytes()).to_string();
                assert!(text.contains("other") && !text.contains("CANARY"), "{text}");
            }
        }
    }

    #[test]
    fn each_defect_of_a_token_response_has_its_cause() {
        for (body, expected) in [
            ("", Some(Cause::TokenMalformed)),
            ("\u{feff} \n<!doctype html>", Some(Cause::TokenNotJson)),
            ("[]", Some(Cause::TokenMalformed)),
            (r#"{"access_token":"a","id_token":"b","id_token":"c"}"#, Some(Cause::TokenMalformed)),
            (r#"{"access_token":7,"id_token":"b"}"#, Some(Cause::TokenMalformed)),
            ("{\"access_token\":\"a\\nb\",\"id_token\":\"b\"}", Some(Cause::TokenMalformed)),
            (r#"{"id_token":"b"}"#, Some(Cause::AccessTokenMissing)),
            (r#"{"access_token":"a"}"#, Some(Cause::IdTokenMissing)),
            (r#"{"access_token":"a","id_token":null}"#, Some(Cause::IdTokenMissing)),
            (r#"{"access_token":"a","id_token":"b","expires_in":"1"}"#, None),
            (r#"{"access_token":"a","id_token":"b","token_type":"bEARER","error":null}"#, None),
            (r#"{"access_token":"a","id_token":"b","error":""}"#, None),
            (r#"{"access_token":"a","id_token":"b","token_type":7}"#, Some(Cause::TokenMalformed)),
            (
                r#"{"access_token":"a","id_token":"b","token_type":"DPoP"}"#,
                Some(Cause::TokenNotBearer),
            ),
            (r#"{"access_token":"a","id_token":"b","token_type":""}"#, None),
            (
                r#"{"access_token":"a","id_token":"b","error":"invalid_scope"}"#,
                Some(Cause::TokenOauthError),
            ),
            (r#"{"access_token":"a","id_token":"b","error":{}}"#, Some(Cause::TokenMalformed)),
            (r#"{"error":"invalid_grant"}"#, Some(Cause::InvalidGrant)),
            (r#"{"error":"invalid_client"}"#, Some(Cause::InvalidClient)),
            ("\u{feff}{\"access_token\":\"a\",\"id_token\":\"b\"}", None),
        ] {
            let cause = read_tokens(body.as_bytes()).err().map(|error| error.cause());
            assert_eq!(cause, expected, "{body}");
        }
        let long = format!(r#"{{"access_token":"{}"}}"#, "a".repeat(MAX_TOKEN + 1));
        let problem = read_tokens(long.as_bytes()).expect_err("too long");
        assert!(problem.to_string().contains("more than 65536 bytes"), "{problem}");
    }

    /// RFC 6749 2.3.1: exactly one method, and Basic credentials are form-urlencoded first.
    #[test]
    fn the_client_authenticates_by_the_method_of_the_connection() {
        let url = Url::parse("https://idp.example/token").expect("a URL");
        let code = AuthorizationCode::new("code".to_owned());
        let verifier = PkceVerifier::new("verifier".to_owned());
        let redirect_uri = "https://sp.example/callback/";
        let method = TokenEndpointAuthMethod::ClientSecretBasic;
        let endpoint = TokenEndpoint::new("a:b", "s c", method, &url, redirect_uri);
        let request = endpoint.expect("an endpoint").code_request(&code, &verifier);
        let mut request = request.expect("a request");
        with_unencoded_basic(&mut request, "a:b", "s c");
        let unencoded = &request.headers()[AUTHORIZATION];
        assert_eq!(unencoded, &format!("Basic {}", BASE64_STANDARD.encode("a:b:s c")));
        assert!(unencoded.is_sensitive());
        for (method, is_basic) in [
            (TokenEndpointAuthMethod::ClientSecretBasic, true),
            (TokenEndpointAuthMethod::ClientSecretPost, false),
        ] {
            let endpoint = TokenEndpoint::new("a:b", "s c", method, &url, redirect_uri);
            let endpoint = endpoint.expect("an endpoint");
            for request in [
                endpoint.code_request(&code, &verifier).expect("a request"),
                endpoint.client_credentials_request(Some("x".to_owned())).expect("a request"),
            ] {
                let basic = format!("Basic {}", BASE64_STANDARD.encode("a%3Ab:s+c"));
                let header = request.headers().get(AUTHORIZATION);
                assert_eq!(header.is_some_and(|header| header == basic.as_str()), is_basic);
                assert!(header.is_none_or(http::HeaderValue::is_sensitive));
                let body = std::str::from_utf8(request.body()).expect("text");
                assert_eq!(body.contains("client_secret=s+c"), !is_basic, "{body}");
                assert!(
                    !format!("{:?}", Taken(Box::new(request.map(|body| body.to_vec()))))
                        .contains("s+c")
                );
            }
        }
    }
}
