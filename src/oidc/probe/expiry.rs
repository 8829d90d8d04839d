//! When the client's secrets expire, by the dates that the customer gave.

use super::{Run, Verdict};
use crate::model::cause::Cause;
use crate::model::check::CheckId;
use crate::model::secret::EXPIRES_SOON;
use crate::model::time::UnixMillis;

impl Run<'_, '_> {
    /// Whether the secret in use has expired by its date.
    pub(super) fn is_expired(&self) -> bool {
        let expiry = self.probe.connection.secrets.active_expire;
        expiry.is_some_and(|expiry| expiry <= self.probe.clock.unix_millis())
    }

    /// `rejected`: what the IdP answers to the secret in use, if it rejects it.
    pub(super) fn expiry(&mut self, rejected: Option<&str>, is_accepted: bool) {
        let secrets = &self.probe.connection.secrets;
        let now = self.probe.clock.unix_millis();
        let dates = [("it", secrets.active_expire), ("the standby secret", secrets.standby_expire)];
        let said = |(name, expiry): (&str, Option<UnixMillis>)| {
            let expiry = expiry?;
            let verb = if expiry <= now { "expired" } else { "expires" };
            Some(format!("{name} {verb} on {}", date(expiry)))
        };
        let said: Vec<String> = dates.into_iter().filter_map(said).collect();
        let said = said.join("; ");
        let is_soon =
            dates.iter().any(|(_, date)| date.is_some_and(|d| d <= now.after(EXPIRES_SOON)));
        let verdict = match (self.is_expired(), rejected) {
            _ if said.is_empty() => Verdict::skipped("client_secret_expire_time is not set"),
            (true, Some(rejected)) => {
                self.failure(Cause::SecretExpired, &format!("{said}; the IdP answers {rejected}"))
            }
            (true, None) if is_accepted => {
                Verdict::warn(format!("{said} by its date, and the IdP accepts it")).for_support(
                    "ask the customer when it expires, and correct client_secret_expire_time",
                )
            }
            (true, None) | (false, _) if is_soon => Verdict::warn(said).for_idp_admin(
                "create a new client secret in time and send it to support, who adds it as the standby \
                 secret",
            ),
            (true, None) | (false, _) => Verdict::pass(said),
        };
        self.report(CheckId::ClientSecretExpiry, CheckId::ClientSecretExpiry.expected(), verdict);
    }
}

/// The day.
fn date(time: UnixMillis) -> String {
    time.to_string().split('T').next().unwrap_or_default().to_owned()
}
