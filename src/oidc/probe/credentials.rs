//! The client's credentials: a token for the client itself proves them, if the IdP grants one.
//! Otherwise a made-up code is exchanged, with the right secret and once with a wrong one: if the
//! answers differ, the IdP knows the right secret. The requests are those of a login's exchange.

use std::fmt;

use http::{Request, StatusCode};
use hyper::body::Bytes;
use serde_json::Value;
use url::Url;

use super::{Known, Run, Verdict};
use crate::model::cause::Cause;
use crate::model::check::CheckId;
use crate::model::connection::TokenEndpointAuthMethod;
use crate::model::login::{AuthorizationCode, PkceVerifier};
use crate::oidc::error::{CallError, Document, Problem};
use crate::oidc::idps::{Refuses, known_error};
use crate::oidc::json;
use crate::oidc::provider::token::{MAX_ANSWER, TokenEndpoint};

impl Run<'_, '_> {
    pub(super) async fn credentials(&mut self, known: &Known) {
        let verdict = match &known.token {
            None => Verdict::fail("the IdP has no usable token_endpoint"),
            Some(endpoint) => {
                let proven = self.prove_secret(endpoint, known.auth_method).await;
                proven.unwrap_or_else(|verdict| verdict)
            }
        };
        let expected = "the IdP accepts the client id and the client secret";
        self.report(CheckId::ClientCredentials, expected, verdict);
    }

    /// `Err`: the verdict where a request failed.
    async fn prove_secret(
        &mut self,
        endpoint: &Url,
        method: TokenEndpointAuthMethod,
    ) -> Result<Verdict, Verdict> {
        let connection = self.probe.connection;
        let with_secret = |secret: &str| {
            let redirect_uri = self.probe.redirect_uri;
            let client_id = &connection.settings.client_id;
            TokenEndpoint::new(client_id, secret, method, endpoint, redirect_uri)
        };
        let invalid = |Problem { cause, text }| self.failure(cause, &text);
        let code = AuthorizationCode::new(self.random());
        let verifier = PkceVerifier::new(self.random());
        let right = with_secret(connection.secrets.active.expose()).map_err(invalid)?;
        let wrong = with_secret(&self.random()).map_err(invalid)?;
        let failed = |run: &Self, error: &CallError| {
            run.failure(error.cause(Document::TokenResponse), &error.to_string())
        };

        if self.probe.has_made_up_secret {
            let answer = self.token_answer(right.code_request(&code, &verifier)).await;
            let answer = answer.map_err(|error| failed(self, &error))?;
            let found = format!(
                "the IdP answers {} to a made-up secret: the stored one was entered for another IdP or \
                 client, and is not sent there",
                self.redact(&answer.to_string())
            );
            let remedy = "give client_secret with the proposal";
            return Ok(Verdict::inconclusive(found).for_support(remedy));
        }
        let scope = self.product.client_credentials_scope(&connection.settings.client_id);
        let answer = self.token_answer(right.client_credentials_request(scope)).await;
        let answer = answer.map_err(|error| failed(self, &error))?;
        if answer.has_token {
            let found = "the IdP issued a token for the client (client_credentials), which was \
                         dropped unread";
            return Ok(Verdict::pass(found));
        }
        if answer.is_rejection() {
            return Ok(self.rejected(&answer));
        }

        let answer = self.token_answer(right.code_request(&code, &verifier)).await;
        let answer = answer.map_err(|error| failed(self, &error))?;
        if answer.is_rejection() {
            return Ok(self.rejected(&answer));
        }
        // Once, and only now: a wrong secret can count towards a lockout.
        let control = self.token_answer(wrong.code_request(&code, &verifier)).await;
        let control =
            control.map_err(|error| Verdict::inconclusive(self.redact(&error.to_string())))?;
        let said = self.redact(&answer.to_string());
        let is_told_apart = (control.status, &control.error) != (answer.status, &answer.error)
            && control.rejects_by_name()
            && !answer.error.is_empty();
        if !is_told_apart {
            let found = format!(
                "the IdP answers {said}, and the same to a wrong secret, so only a test login can \
                 prove the secret"
            );
            return Ok(Verdict::inconclusive(found));
        }
        if answer.error == "unauthorized_client" {
            let found = format!(
                "the IdP answers {said}: the secret seems right, but the grant is not allowed"
            );
            return Ok(Verdict::warn(found).for_idp_admin(self.product.allow_code_flow()));
        }
        let control = self.redact(&control.to_string());
        let found = format!(
            "the IdP refuses a made-up code ({said}), and a wrong secret in another way ({control})"
        );
        Ok(Verdict::pass(found))
    }

    fn rejected(&self, answer: &TokenAnswer) -> Verdict {
        let meaning = known_error(&answer.description).map(|error| error.meaning);
        let meaning = meaning.map_or_else(String::new, |meaning| format!(": {meaning}"));
        let verdict = self.failure(Cause::InvalidClient, &format!("the IdP answers {answer}"));
        Verdict { found: format!("{}{meaning}", verdict.found), ..verdict }
    }

    async fn token_answer(
        &mut self,
        request: Result<Request<Bytes>, CallError>,
    ) -> Result<TokenAnswer, CallError> {
        self.requests_left -= 1;
        let answer = self.probe.http.send(request?, MAX_ANSWER).await?;
        let document = json::parse_object(&answer.body).unwrap_or_default();
        let text =
            |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(TokenAnswer {
            status: answer.status.as_u16(),
            error: text("error"),
            description: text("error_description"),
            has_token: answer.status == StatusCode::OK && !text("access_token").is_empty(),
        })
    }
}

/// What a token endpoint answered to a check.
struct TokenAnswer {
    status: u16,
    error: String,
    description: String,
    has_token: bool,
}

impl TokenAnswer {
    /// Whether the client id or the secret is refused.
    fn is_rejection(&self) -> bool {
        let refuses = || known_error(&self.description).map(|error| error.refuses);
        self.error == "invalid_client"
            || self.status == 401 && self.error.is_empty()
            || refuses() == Some(Refuses::Client)
    }

    /// Whether it names OAuth's error of a refused client. A firewall in front of the IdP, which
    /// blocks the wrong secret, answers otherwise.
    fn rejects_by_name(&self) -> bool {
        !self.error.is_empty() && (self.is_rejection() || self.error == "unauthorized_client")
    }
}

impl fmt::Display for TokenAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if !self.error.is_empty() {
            write!(f, ", {}", self.error)?;
        }
        if !self.description.is_empty() {
            write!(f, ": {}", self.description)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_of_the_client_are_recognized_in_the_words_of_each_product() {
        for (status, error, description, expected) in [
            (401, "invalid_client", "", true),
            (401, "", "", true),
            (401, "unauthorized_client", "Invalid client or Invalid client credentials", true),
            (400, "unauthorized_client", "AADSTS700016: Application 'x' was not found", true),
            (400, "unauthorized_client", "the client may not use this grant", false),
            (400, "invalid_grant", "AADSTS54005: the code was redeemed", false),
            (400, "invalid_grant", "", false),
            (400, "unsupported_grant_type", "", false),
        ] {
            let answer = TokenAnswer {
                status,
                error: error.to_owned(),
                description: description.to_owned(),
                has_token: false,
            };
            assert_eq!(answer.is_rejection(), expected, "{answer}");
        }
    }
}
