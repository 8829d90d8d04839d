//! Pushed authorization requests (RFC 9126), which this service doesn't send: an IdP may demand them of
//! every client, or of this one.

use super::{Known, Run, Verdict};
use crate::model::cause::Cause;
use crate::model::check::CheckId;

const ID: CheckId = CheckId::ClientPushedAuthorization;

impl Run<'_, '_> {
    /// Whether the metadata document demands them, which is then the finding.
    pub(super) fn is_par_demanded(&mut self, known: &Known) -> bool {
        if known.requires_par {
            let found = "the document says that every login must begin with one \
                         (require_pushed_authorization_requests)";
            let verdict = self.failure(Cause::MetadataParRequired, found);
            self.report(ID, ID.expected(), verdict);
        }
        known.requires_par
    }

    /// The authorization endpoint demands them of this client.
    pub(super) fn par_of_client(&mut self, said: &str) -> Verdict {
        let verdict = self.failure(Cause::ParRequired, &format!("the IdP answers {said}"));
        self.report(ID, ID.expected(), verdict);
        Verdict::depends_on(ID)
    }

    /// No answer has demanded them.
    pub(super) fn settle_par(&mut self, has_answered: bool) {
        if self.outcomes.contains_key(&ID) {
            return;
        }
        let verdict = if has_answered {
            Verdict::pass("neither the document nor the authorization endpoint demands one")
        } else {
            Verdict::inconclusive(
                "the authorization endpoint gave no answer that would show a demand",
            )
        };
        self.report(ID, ID.expected(), verdict);
    }
}
