//! The account itself: a disabled one looks healthy at its IdP, and refuses every login.

use super::{Run, Verdict};
use crate::model::cause::Cause;
use crate::model::check::CheckId;
use crate::model::connection::ConnectionState;

impl Run<'_, '_> {
    pub(super) fn account(&mut self) {
        let verdict = match self.probe.connection.settings.state {
            ConnectionState::Active => Verdict::pass("the connection is ACTIVE"),
            ConnectionState::Testing => Verdict::pass(
                "the connection is TESTING: logins work, and are marked as test logins",
            ),
            // Not a failure: a check precedes the activation that ends it.
            ConnectionState::Disabled => {
                Verdict::warn("the connection is DISABLED: every login is refused")
                    .for_support("activate the connection, or set its state to TESTING")
                    .with_cause(Cause::ConnectionDisabled)
            }
        };
        self.report(CheckId::AccountState, CheckId::AccountState.expected(), verdict);
    }
}
