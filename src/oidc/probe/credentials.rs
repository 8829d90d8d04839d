//! The client's credentials: a token for the client itself proves them, if the IdP grants one.
//! Otherwise a made-up code is exchanged. Each is asked again with a wrong secret: only if the answers
//! differ does the IdP know the right one. A client that is rejected for the code, too, is explained by
//! what the IdP does accept: the standby secret, the other authentication method, or Basic credentials
//! that are not encoded.

use url::Url;

use super::token::{Grant, Question, Sending, TokenAnswer};
use super::{Known, NoAnswer, Run, Verdict};
use crate::model::cause::Cause;
use crate::model::check::{CheckId, CheckOutcome};
use crate::model::connection::TokenEndpointAuthMethod;
use crate::oidc::error::Document;

const ID: CheckId = CheckId::ClientCredentials;

/// How the IdP's knowledge of the secret showed.
pub(super) struct Proof {
    pub(super) grant: Grant,
    pub(super) right: TokenAnswer,
    pub(super) control: TokenAnswer,
}

/// What the token endpoint made of the client's credentials.
pub(super) enum Credentials {
    /// It knows them.
    Proven(Proof),
    /// It rejects them, as the answer says.
    Rejected(TokenAnswer),
    /// It rejects them, and accepts the standby secret in the same way.
    StandbyAccepted(TokenAnswer),
    /// It rejects them only in the way in which they are sent.
    SentWrongly,
    /// Its answers don't tell.
    Unclear,
    /// It gave no answer, or was not asked.
    Unknown,
}

impl Run<'_, '_> {
    pub(super) async fn credentials(&mut self, known: &Known) {
        let Some(endpoint) = &known.token else {
            self.expiry(None, false);
            return;
        };
        if self.blocked_by(ID) == Some(CheckId::MetadataCrossCheck) {
            self.expiry(None, false);
            return;
        }
        let (credentials, verdict) = self.try_credentials(known, endpoint).await;
        let verdict = verdict.unwrap_or_else(|why| self.no_answer(&why, Document::TokenResponse));
        let is_pass = verdict.is(CheckOutcome::Pass);
        let rejected = match &credentials {
            Credentials::Rejected(answer) | Credentials::StandbyAccepted(answer) => {
                Some(self.redact(&answer.to_string()))
            }
            Credentials::Proven(_)
            | Credentials::SentWrongly
            | Credentials::Unclear
            | Credentials::Unknown => None,
        };
        self.expiry(rejected.as_deref(), is_pass);
        // One fault is one finding: the secret has expired.
        let verdict = match self.has_failed(CheckId::ClientSecretExpiry) {
            true => Verdict::depends_on(CheckId::ClientSecretExpiry),
            false => verdict,
        };
        let outcome = verdict.outcome;
        match (outcome, &credentials) {
            // The authorization endpoint's page can say more of it.
            (CheckOutcome::Fail, Credentials::Rejected(_)) => {
                self.outcomes.insert(ID, outcome);
                self.rejected = Some(verdict);
            }
            _ => self.report(ID, ID.expected(), verdict),
        }
        self.settle_auth_method(outcome);
        self.standby(endpoint, known.auth_method, &credentials).await;
    }

    async fn try_credentials(
        &mut self,
        known: &Known,
        endpoint: &Url,
    ) -> (Credentials, Result<Verdict, NoAnswer>) {
        let method = known.auth_method;
        let question = |grant, sending| Question { id: ID, endpoint, grant, sending };
        let chosen = Sending::By(method);
        if self.probe.has_made_up_secret {
            let secret = self.probe.connection.secrets.active.expose();
            let answer = self.ask(&question(Grant::Code, chosen), secret).await;
            return (Credentials::Unknown, answer.map(|answer| self.made_up(&answer)));
        }
        match self.prove(endpoint, method).await {
            Err(why) => (Credentials::Unknown, Err(why)),
            Ok(Proving::Done(proof, verdict)) => (proof, Ok(verdict)),
            Ok(Proving::Rejected(answer)) => {
                let (credentials, verdict) = self.explain(known, endpoint, answer).await;
                (credentials, Ok(verdict))
            }
        }
    }

    fn made_up(&self, answer: &TokenAnswer) -> Verdict {
        let found = format!(
            "the IdP answers {} to a made-up secret: the stored one was entered for another IdP or \
             client, and is not sent there",
            self.redact(&answer.to_string())
        );
        Verdict::inconclusive(found).for_support("give client_secret with the proposal")
    }

    /// Asks with the secret in use, and compares with a wrong one.
    async fn prove(
        &mut self,
        endpoint: &Url,
        method: TokenEndpointAuthMethod,
    ) -> Result<Proving, NoAnswer> {
        // Where Basic may be the problem, the rejections are kept for what explains it.
        let is_encoded = method == TokenEndpointAuthMethod::ClientSecretBasic
            && !self.encoded_characters().is_empty();
        let mut order = [Grant::ClientCredentials, Grant::Code];
        if is_encoded {
            order.reverse();
        }
        let secret = self.probe.connection.secrets.active.expose();
        let mut said = Vec::new();
        for grant in order {
            let question = Question { id: ID, endpoint, grant, sending: Sending::By(method) };
            let answer = match (self.ask(&question, secret).await, grant) {
                (Ok(answer), _) => answer,
                // No login asks for this grant, so an IdP may fail at it.
                (Err(NoAnswer::Call(_)), Grant::ClientCredentials) if !self.is_silent(endpoint) => {
                    continue;
                }
                (Err(why), _) => return Err(why),
            };
            match grant {
                // Some IdPs refuse the grant by the name of a wrong secret.
                Grant::ClientCredentials if !answer.has_token => continue,
                Grant::Code if answer.is_rejection() => return Ok(Proving::Rejected(answer)),
                Grant::ClientCredentials | Grant::Code => {}
            }
            let control = match self.ask_control(&question).await {
                Ok(control) => control,
                Err(NoAnswer::Call(error)) => {
                    let verdict = Verdict::inconclusive(self.redact(&error.to_string()));
                    return Ok(Proving::Done(Credentials::Unclear, verdict));
                }
                Err(why) => return Err(why),
            };
            let is_told_apart = answer.is_told_apart_from(&control)
                || answer.has_token && !control.has_token && !control.error.is_empty();
            if is_told_apart {
                let verdict = self.proven(grant, &answer, &control);
                let proof = Proof { grant, right: answer, control };
                return Ok(Proving::Done(Credentials::Proven(proof), verdict));
            }
            said.push(match grant {
                Grant::ClientCredentials => "issues a token (client_credentials)".to_owned(),
                Grant::Code => format!("answers {}", self.redact(&answer.to_string())),
            });
        }
        let found = format!(
            "the IdP {}, and the same to a wrong secret, so only a test login can prove the secret",
            said.join(" and ")
        );
        Ok(Proving::Done(Credentials::Unclear, Verdict::inconclusive(found)))
    }

    fn proven(&self, grant: Grant, answer: &TokenAnswer, control: &TokenAnswer) -> Verdict {
        let (said, control) = (self.redact(&answer.to_string()), self.redact(&control.to_string()));
        match grant {
            Grant::ClientCredentials => Verdict::pass(format!(
                "the IdP issued a token for the client (client_credentials), which was dropped unread, and \
                 refuses a wrong secret ({control})"
            )),
            Grant::Code if answer.error == "unauthorized_client" => Verdict::warn(format!(
                "the IdP answers {said}, and {control} to a wrong secret: the secret seems right, but the \
                 grant is not allowed"
            ))
            .for_idp_admin(self.product.allow_code_flow()),
            Grant::Code => Verdict::pass(format!(
                "the IdP refuses a made-up code ({said}), and a wrong secret in another way ({control})"
            )),
        }
    }

    /// Why the client is rejected: by what the IdP accepts in place of it.
    async fn explain(
        &mut self,
        known: &Known,
        endpoint: &Url,
        answer: TokenAnswer,
    ) -> (Credentials, Verdict) {
        let method = known.auth_method;
        let said = format!("{}{}", self.redact(&answer.to_string()), answer.meaning());
        let rejection =
            format!("to a made-up code sent by {} the IdP answers {said}", method.name());
        let question = |sending| Question { id: ID, endpoint, grant: Grant::Code, sending };
        let secrets = &self.probe.connection.secrets;
        let secret = secrets.active.expose();

        if let Some(standby) = secrets.standby.as_ref().filter(|_| self.rejections_left > 0) {
            let by_standby = self.ask(&question(Sending::By(method)), standby.expose()).await;
            if by_standby.is_ok_and(|by_standby| by_standby.is_told_apart_from(&answer)) {
                let found = format!(
                    "{rejection}, and accepts the standby secret, which the next refused login puts into \
                     use"
                );
                let verdict = self.failure(answer.cause, &found);
                return (Credentials::StandbyAccepted(answer), verdict);
            }
        }
        let other = other_method(method);
        if self.rejections_left > 0
            && self
                .accepts(&question(Sending::By(other)), secret, TokenAnswer::is_told_apart_from)
                .await
        {
            let found = format!(
                "{rejection}, and accepts the same client and secret by {}{}",
                other.name(),
                self.characters_text(method)
            );
            let verdict = self
                .failure(Cause::AuthMethodWrong, &found)
                .for_support(format!("set token_endpoint_auth_method to {}", other.name()));
            return (Credentials::SentWrongly, verdict);
        }
        let may_be_encoding = method == TokenEndpointAuthMethod::ClientSecretBasic
            && !self.encoded_characters().is_empty();
        if may_be_encoding
            && self.rejections_left > 0
            && self
                .accepts(&question(Sending::UnencodedBasic), secret, |answer, control| {
                    answer.refuses_code() && !answer.is_like(control)
                })
                .await
        {
            let found = format!(
                "{rejection}, and accepts the same without the encoding of RFC 6749 2.3.1, which it does \
                 not decode{}",
                self.characters_text(method)
            );
            let verdict = self.failure(answer.cause, &found).for_support(
                "have the customer's IdP admin create a client secret of letters and digits only, or allow \
                 the client client_secret_post, and store that",
            );
            return (Credentials::SentWrongly, verdict);
        }
        let lists_ours = |methods: &Vec<String>| {
            methods.iter().any(|listed| [method.name(), other.name()].contains(&listed.as_str()))
        };
        let lists_others = known.auth_methods.as_ref().is_some_and(|methods| !lists_ours(methods));
        let cause = match lists_others || answer.demands_other_authentication() {
            true => Cause::ClientAuthUnsupported,
            false => answer.cause,
        };
        let verdict = self.failure(cause, &format!("{rejection}{}", self.characters_text(method)));
        (Credentials::Rejected(answer), verdict)
    }

    /// Whether the IdP accepts `secret`, by comparison with a wrong one.
    async fn accepts(
        &mut self,
        question: &Question<'_>,
        secret: &str,
        is_accepted: fn(&TokenAnswer, &TokenAnswer) -> bool,
    ) -> bool {
        let Ok(answer) = self.ask(question, secret).await else { return false };
        if answer.is_rejection() || self.rejections_left == 0 {
            return false;
        }
        let Ok(control) = self.ask_control(question).await else { return false };
        is_accepted(&answer, &control)
    }

    /// Which characters of the client id and the secret Basic credentials must encode. Some IdPs don't
    /// decode them.
    fn encoded_characters(&self) -> Vec<char> {
        let connection = self.probe.connection;
        let client_id = connection.settings.client_id.chars();
        let mut found: Vec<char> =
            client_id.chain(connection.secrets.active.expose().chars()).collect();
        found.retain(|c| !c.is_ascii_alphanumeric() && !matches!(c, '*' | '-' | '.' | '_'));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// A secret's own characters are named, but neither their number nor their place.
    fn characters_text(&self, method: TokenEndpointAuthMethod) -> String {
        let characters = self.encoded_characters();
        if method == TokenEndpointAuthMethod::ClientSecretPost || characters.is_empty() {
            return String::new();
        }
        let shown = |c: &char| if *c == ' ' { "space".to_owned() } else { c.to_string() };
        let shown: Vec<String> = characters.iter().take(MAX_CHARACTERS).map(shown).collect();
        format!(
            "; the client id and the secret contain characters that client_secret_basic encodes ({}), \
             which not every IdP decodes",
            shown.join(" ")
        )
    }
}

/// How [`Run::prove`] ended.
enum Proving {
    Done(Credentials, Verdict),
    /// The client is rejected for the code, too.
    Rejected(TokenAnswer),
}

fn other_method(method: TokenEndpointAuthMethod) -> TokenEndpointAuthMethod {
    match method {
        TokenEndpointAuthMethod::ClientSecretBasic => TokenEndpointAuthMethod::ClientSecretPost,
        TokenEndpointAuthMethod::ClientSecretPost => TokenEndpointAuthMethod::ClientSecretBasic,
    }
}

/// Of those that are named.
const MAX_CHARACTERS: usize = 12;
