//! The TLS certificate of the token endpoint: does it expire soon? That it is valid at all is
//! proven by every other call.

use url::Url;

use super::{Run, Verdict};
use crate::model::check::CheckId;
use crate::oidc::error::CallError;

impl Run<'_, '_> {
    pub(super) async fn certificate(&mut self, token: Option<&Url>) {
        let verdict = match token.filter(|token| token.scheme() == "https") {
            None => Verdict::inconclusive("the token endpoint is not called over https"),
            Some(token) => {
                let expiry = self.probe.http.certificate_expiry(token).await;
                self.judge(expiry)
            }
        };
        let expected = "the token endpoint's certificate is valid for at least 14 days";
        self.report(CheckId::TlsCertificate, expected, verdict);
    }

    fn judge(&self, expiry: Result<i64, CallError>) -> Verdict {
        let expiry = match expiry {
            Ok(expiry) => expiry,
            Err(error) => return Verdict::inconclusive(self.redact(&error.to_string())),
        };
        let now = i64::try_from(self.probe.clock.unix_seconds().0).unwrap_or(i64::MAX);
        let days = (expiry - now).div_euclid(DAY);
        let found = format!("it expires in {days} days");
        if days >= MIN_DAYS {
            Verdict::pass(found)
        } else {
            Verdict::warn(found).for_idp_admin("renew the certificate")
        }
    }
}

/// Seconds.
const DAY: i64 = 24 * 60 * 60;
const MIN_DAYS: i64 = 14;
