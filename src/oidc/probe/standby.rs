//! The standby secret: does the IdP accept it already? Otherwise nobody notices that it is wrong
//! before it is needed.

use url::Url;

use super::credentials::{Credentials, Proof};
use super::token::{Grant, Question, Sending, TokenAnswer};
use super::{NoAnswer, Run, Verdict};
use crate::model::cause::Remedy;
use crate::model::check::CheckId;
use crate::model::connection::TokenEndpointAuthMethod;

const ID: CheckId = CheckId::ClientStandbySecret;

impl Run<'_, '_> {
    pub(super) async fn standby(
        &mut self,
        endpoint: &Url,
        method: TokenEndpointAuthMethod,
        credentials: &Credentials,
    ) {
        let Some(standby) = &self.probe.connection.secrets.standby else {
            return self.skip(ID, "no standby secret is stored");
        };
        let verdict = match credentials {
            Credentials::Proven(proof) => {
                let sending = Sending::By(method);
                let question = Question { id: ID, endpoint, grant: proof.grant, sending };
                match self.ask(&question, standby.expose()).await {
                    Ok(answer) => self.judge_standby(&answer, proof),
                    Err(NoAnswer::Call(error)) => {
                        Verdict::inconclusive(self.redact(&error.to_string()))
                    }
                    Err(NoAnswer::Silent(id)) => Verdict::depends_on(id),
                    Err(NoAnswer::Spent) => Verdict::inconclusive(super::SPENT),
                }
            }
            Credentials::StandbyAccepted(_) => Verdict::pass(
                "the IdP accepts it for a made-up code, and rejects the secret in use, in whose place the \
                 next refused login puts it",
            ),
            Credentials::Rejected(_) | Credentials::SentWrongly => {
                Verdict::depends_on(CheckId::ClientCredentials)
            }
            Credentials::Unclear => Verdict::inconclusive(
                "the IdP answers alike to the secret in use and to a wrong one, so nothing tells before it \
                 is needed",
            ),
            Credentials::Unknown if self.probe.has_made_up_secret => {
                Verdict::skipped("no client secret is given with the proposal")
            }
            Credentials::Unknown => Verdict::depends_on(CheckId::ClientCredentials),
        };
        self.report(ID, ID.expected(), verdict);
    }

    fn judge_standby(&self, answer: &TokenAnswer, proof: &Proof) -> Verdict {
        let asked = match proof.grant {
            Grant::ClientCredentials => "for a token (client_credentials)",
            Grant::Code => "for a made-up code",
        };
        let said = format!("{}{}", self.redact(&answer.to_string()), answer.meaning());
        if answer.is_like(&proof.right) {
            return Verdict::pass(format!("{asked} the IdP answers as to the secret in use"));
        }
        if answer.is_rejection() || answer.is_like(&proof.control) {
            let method = self.probe.connection.settings.auth_method_text();
            let remedy = match answer.cause.remedy() {
                Remedy::CompareClient => self.product.compare_client(method),
                _ => "ask the customer for a secret that is valid now".to_owned(),
            };
            // Logins work until the secret in use is rejected.
            return Verdict::warn(format!(
                "{asked} the IdP answers {said}, as to a wrong secret: it would not take the place of the \
                 secret in use"
            ))
            .with_remedy(answer.cause.owner(), remedy)
            .with_cause(answer.cause);
        }
        Verdict::inconclusive(format!(
            "{asked} the IdP answers {said}, neither as to the secret in use nor as to a wrong one"
        ))
    }
}
