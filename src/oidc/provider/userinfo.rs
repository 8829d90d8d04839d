//! UserInfo (OIDC Core 5.3): further claims of the person whom the ID token names, plain or signed.

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Bytes;
use serde_json::{Map, Value};
use url::Url;

use super::token::{AccessToken, MAX_ANSWER};
use crate::model::cause::Cause;
use crate::model::reason::Reason;
use crate::oidc::error::{CallError, Defect, Problem, UserInfoError};
use crate::oidc::http::{HttpClient, host_of};
use crate::oidc::json;
use crate::oidc::keys::KeySet;
use crate::oidc::verify::{self, Expected};

/// Calls the endpoint. Returns the body, and whether it is a signed JWT.
pub(super) async fn fetch(
    url: &Url,
    access_token: &AccessToken,
    http: &HttpClient,
) -> Result<(Bytes, bool), UserInfoError> {
    let request = HeaderValue::from_str(&format!("Bearer {}", access_token.expose()))
        .map_err(http::Error::from)
        .and_then(|mut bearer| {
            bearer.set_sensitive(true);
            Request::get(url.as_str())
                .header(AUTHORIZATION, bearer)
                .header(ACCEPT, "application/json, application/jwt")
                .body(Bytes::new())
        });
    let unusable = |_| CallError::Unusable { host: host_of(url), defect: Defect::Url };
    let request = request.map_err(unusable).map_err(UserInfoError::Call)?;
    let answer = http.send(request, MAX_ANSWER).await.map_err(UserInfoError::Call)?;
    if answer.status != StatusCode::OK {
        let text = format!("UserInfo answered HTTP {}", answer.status.as_u16());
        let problem = Problem::new(Cause::UserinfoStatus, text);
        return Err(match answer.status {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE => {
                UserInfoError::EndpointGone(problem)
            }
            _ => UserInfoError::Invalid(problem),
        });
    }
    let is_signed = answer.media_type() == "application/jwt";
    Ok((answer.body, is_signed))
}

/// Reads a response about `subject`.
pub(in crate::oidc) fn read(
    body: &[u8],
    is_signed: bool,
    keys: &KeySet,
    expected: &Expected<'_>,
    subject: &str,
) -> Result<Map<String, Value>, Problem> {
    let claims = if is_signed {
        let text = std::str::from_utf8(body)
            .map_err(|_| Problem::new(Cause::UserinfoMalformed, "UserInfo is not UTF-8"))?;
        verify::signed_userinfo(text.trim(), keys, expected).map_err(|error| {
            let is_signature = error.cause().reason() == Reason::IdTokenSignatureInvalid;
            let cause =
                if is_signature { Cause::UserinfoSignature } else { Cause::UserinfoMalformed };
            Problem::new(cause, format!("signed UserInfo: {error}"))
        })?
    } else {
        json::parse_object(body).map_err(|detail| {
            Problem::new(Cause::UserinfoMalformed, format!("UserInfo: {detail}"))
        })?
    };
    // OIDC Core 5.3.2: sub must be present and match exactly.
    if claims.get("sub").and_then(Value::as_str) != Some(subject) {
        let text = "UserInfo is about another subject than the ID token";
        return Err(Problem::new(Cause::UserinfoSubject, text));
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::connection::Issuer;
    use crate::model::login::Nonce;
    use crate::oidc::fuzzing::{expected, key_pair};
    use crate::oidc::verify::IssuerPolicy;

    #[test]
    fn each_defect_of_a_response_has_its_cause() {
        let issuer = IssuerPolicy::Exact(Issuer::new("https://idp.example".to_owned()));
        let nonce = Nonce::new(String::new());
        let signed = |payload: &str| key_pair().signed(br#"{"alg":"EdDSA"}"#, payload.as_bytes());
        let good = signed(r#"{"sub":"ada","aud":"client"}"#);
        let tampered = format!("{}AAAA", &good[..good.len() - 4]);
        for (body, is_signed, expected_cause) in [
            (r#"{"sub":"ada"}"#, false, None),
            ("<html>", false, Some(Cause::UserinfoMalformed)),
            (r#"{"sub":"eve"}"#, false, Some(Cause::UserinfoSubject)),
            ("{}", false, Some(Cause::UserinfoSubject)),
            (good.as_str(), true, None),
            (tampered.as_str(), true, Some(Cause::UserinfoSignature)),
            (&signed(r#"{"sub":"ada","aud":"other"}"#), true, Some(Cause::UserinfoMalformed)),
            (&signed(r#"{"sub":"eve","aud":"client"}"#), true, Some(Cause::UserinfoSubject)),
        ] {
            let keys = &key_pair().published;
            let read = read(body.as_bytes(), is_signed, keys, &expected(&issuer, &nonce), "ada");
            assert_eq!(read.err().map(|problem| problem.cause), expected_cause, "{body}");
        }
    }
}
