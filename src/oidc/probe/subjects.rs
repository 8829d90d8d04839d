//! Subjects: an IdP with pairwise subjects (OIDC Core 8.1) names each person otherwise to each client,
//! so a new client id changes everybody's subject.

use super::{Known, Run, Verdict};
use crate::model::check::CheckId;

impl Run<'_, '_> {
    pub(super) fn subjects(&mut self, known: &Known) {
        let lists = |kind: &str| {
            known.subject_types.as_ref().is_some_and(|types| types.iter().any(|own| own == kind))
        };
        let is_pairwise = lists("pairwise") && !lists("public");
        let verdict = match (&known.subject_types, is_pairwise, self.probe.has_new_client) {
            (None, ..) => Verdict::skipped("no metadata document says how subjects are formed"),
            (Some(types), false, _) => {
                let types = self.redact(&types.join(", "));
                Verdict::pass(format!("the document lists the subject types {types}"))
            }
            (Some(_), true, false) => Verdict::pass(
                "subjects are pairwise: they belong to the client id, which has not changed since the \
                 last login",
            ),
            (Some(_), true, true) => Verdict::warn(
                "subjects are pairwise: they belong to the client id, which is another one than that of \
                 the last login, so every person comes with a new subject",
            )
            .for_support(
                "keep the client id, or prepare PeerPanda for new subjects of all people of the account \
                 before they log in",
            ),
        };
        self.report(CheckId::ClientSubjects, CheckId::ClientSubjects.expected(), verdict);
    }
}
