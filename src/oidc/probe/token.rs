//! What a check asks the token endpoint, and what it reads in the answers. The requests are those of a
//! login's exchange, with a made-up code; apart from unencoded Basic credentials, which explain a
//! rejection.

use std::fmt;

use http::StatusCode;
use serde_json::Value;
use url::Url;

use super::{NoAnswer, Run};
use crate::model::cause::Cause;
use crate::model::check::CheckId;
use crate::model::connection::TokenEndpointAuthMethod;
use crate::model::login::{AuthorizationCode, PkceVerifier};
use crate::oidc::error::{CallError, Defect};
use crate::oidc::http::host_of;
use crate::oidc::idps::{Refuses, known_error};
use crate::oidc::json;
use crate::oidc::provider::token::{MAX_ANSWER, TokenEndpoint, token_error, with_unencoded_basic};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// A token for the client itself (RFC 6749 4.4).
    ClientCredentials,
    /// The exchange of a made-up code (RFC 6749 4.1.3).
    Code,
}

/// How the client's credentials are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    By(TokenEndpointAuthMethod),
    /// Basic, but not form-urlencoded first, against RFC 6749 2.3.1.
    UnencodedBasic,
}

/// One question to the token endpoint.
pub(super) struct Question<'q> {
    pub(super) id: CheckId,
    pub(super) endpoint: &'q Url,
    pub(super) grant: Grant,
    pub(super) sending: Sending,
}

impl Run<'_, '_> {
    /// Asks the token endpoint with `secret`.
    pub(super) async fn ask(
        &mut self,
        question: &Question<'_>,
        secret: &str,
    ) -> Result<TokenAnswer, NoAnswer> {
        let Question { id, endpoint: url, grant, sending } = *question;
        let client_id = &self.probe.connection.settings.client_id;
        let method = match sending {
            Sending::By(method) => method,
            Sending::UnencodedBasic => TokenEndpointAuthMethod::ClientSecretBasic,
        };
        let unusable =
            |_| NoAnswer::Call(CallError::Unusable { host: host_of(url), defect: Defect::Url });
        let endpoint = TokenEndpoint::new(client_id, secret, method, url, self.probe.redirect_uri);
        let endpoint = endpoint.map_err(unusable)?;
        let request = match grant {
            Grant::ClientCredentials => {
                let scope = self.product.client_credentials_scope(client_id);
                endpoint.client_credentials_request(scope)
            }
            Grant::Code => {
                let code = AuthorizationCode::new(self.random());
                endpoint.code_request(&code, &PkceVerifier::new(self.random()))
            }
        };
        let mut request = request.map_err(NoAnswer::Call)?;
        if sending == Sending::UnencodedBasic {
            with_unencoded_basic(&mut request, client_id, secret);
        }
        let answer = self.send(id, url, request, MAX_ANSWER, false).await?;
        let answer = TokenAnswer::read(answer.status, &answer.body);
        if answer.is_rejection() {
            self.rejections_left = self.rejections_left.saturating_sub(1);
        }
        Ok(answer)
    }

    /// [`Self::ask`] with a secret that is surely wrong. An IdP that answers it otherwise than the right
    /// one knows the right one.
    pub(super) async fn ask_control(
        &mut self,
        question: &Question<'_>,
    ) -> Result<TokenAnswer, NoAnswer> {
        let wrong = self.random();
        self.ask(question, &wrong).await
    }
}

/// What a token endpoint answered to a check.
pub(super) struct TokenAnswer {
    pub(super) status: u16,
    pub(super) error: String,
    pub(super) description: String,
    pub(super) has_token: bool,
    /// What a login with this answer is refused with.
    pub(super) cause: Cause,
}

impl TokenAnswer {
    fn read(status: StatusCode, body: &[u8]) -> Self {
        let document = json::parse_object(body).unwrap_or_default();
        let text =
            |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            status: status.as_u16(),
            error: text("error"),
            description: text("error_description"),
            has_token: status == StatusCode::OK && !text("access_token").is_empty(),
            cause: token_error(status, body).cause(),
        }
    }

    /// Whether the client id or the secret is refused.
    pub(super) fn is_rejection(&self) -> bool {
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

    /// Whether the IdP got as far as to the code.
    pub(super) fn refuses_code(&self) -> bool {
        self.error == "invalid_grant" && !self.is_rejection()
    }

    /// Whether both answers are of one kind.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.status, &self.error, self.has_token) == (other.status, &other.error, other.has_token)
    }

    /// Whether this answer to a secret and `control`, the one to a wrong secret, show that the IdP knows
    /// the secret.
    pub(super) fn is_told_apart_from(&self, control: &Self) -> bool {
        let has_answered = self.has_token || !self.error.is_empty() && !self.is_rejection();
        has_answered && !self.is_like(control) && control.rejects_by_name()
    }

    /// Whether the client must authenticate in a way that this service doesn't have.
    pub(super) fn demands_other_authentication(&self) -> bool {
        let description = self.description.to_ascii_lowercase();
        let names = |method: &&str| description.contains(*method);
        // One that lists what it knows demands nothing.
        let is_list = ["client_secret_basic", "client_secret_post"].iter().all(names);
        !is_list && OTHER_METHODS.iter().any(names)
    }

    /// What the error means, where it is known.
    pub(super) fn meaning(&self) -> String {
        let known = known_error(&self.description);
        known.map_or_else(String::new, |error| format!(": {}", error.meaning))
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

/// Authentication methods (OIDC Core 9, RFC 8705 2) as IdPs name them when they demand one.
const OTHER_METHODS: [&str; 4] =
    ["private_key_jwt", "client_secret_jwt", "tls_client_auth", "client_assertion"];

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, error: &str, description: &str) -> TokenAnswer {
        let body = serde_json::json!({ "error": error, "error_description": description });
        let status = StatusCode::from_u16(status).expect("a status");
        TokenAnswer::read(status, body.to_string().as_bytes())
    }

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
            let answer = answer(status, error, description);
            assert_eq!(answer.is_rejection(), expected, "{answer}");
        }
    }

    /// The answers of real IdPs to a made-up code with the right and with a wrong secret.
    #[test]
    fn the_right_secret_is_told_from_a_wrong_one_by_their_answers() {
        let keycloak = ("unauthorized_client", "Invalid client or Invalid client credentials");
        for (right, control, expected) in [
            ((400, "invalid_grant", ""), (401, "invalid_client", ""), true),
            ((400, "invalid_grant", "Code not valid"), (401, keycloak.0, keycloak.1), true),
            ((400, "invalid_grant", ""), (400, "invalid_grant", ""), false),
            ((401, "invalid_client", ""), (401, "invalid_client", ""), false),
            ((400, "invalid_grant", ""), (403, "", ""), false),
            ((400, "", ""), (401, "invalid_client", ""), false),
            // Unencoded, and the IdP decodes.
            ((400, "invalid_request", ""), (401, "invalid_client", ""), true),
        ] {
            let [right, control] =
                [right, control].map(|(status, error, text)| answer(status, error, text));
            assert_eq!(right.is_told_apart_from(&control), expected, "{right} and {control}");
        }
        assert!(!answer(400, "invalid_request", "").refuses_code());
        assert!(answer(400, "invalid_grant", "").refuses_code());
    }

    #[test]
    fn another_authentication_method_that_is_demanded_is_recognized() {
        for (description, expected) in [
            (
                "The client supports client authentication method 'private_key_jwt', but method",
                true,
            ),
            ("Parameter client_assertion_type is missing", true),
            ("client_secret_basic is not allowed", false),
            (
                "methods: ['client_secret_basic', 'client_secret_post', 'client_assertion_jwt']",
                false,
            ),
            ("", false),
        ] {
            let answer = answer(401, "invalid_client", description);
            assert_eq!(answer.demands_other_authentication(), expected, "{description}");
        }
    }
}
