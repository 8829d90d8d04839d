//! The TLS certificates of the endpoints' hosts, with their chains: does one of them expire soon? That
//! they are valid at all is proven by every other call, of those hosts that a login calls.

use url::Url;

use super::{Known, NoAnswer, Run, Verdict, place_of};
use crate::model::check::{CheckId, CheckOutcome};
use crate::model::connection::MetadataSource;
use crate::model::time::{UnixMillis, UnixSeconds};
use crate::oidc::error::Document;
use crate::oidc::http::{PresentedCertificate, host_of};

const ID: CheckId = CheckId::TlsCertificate;

impl Run<'_, '_> {
    pub(super) async fn certificates(&mut self, known: &Known) {
        let hosts = self.https_hosts(known);
        if hosts.is_empty() {
            return self.skip(ID, "no endpoint is called over https");
        }
        let mut worst: Option<Verdict> = None;
        let mut found = Vec::new();
        for host in hosts {
            let verdict = match self.chain_of(&host.url).await {
                Ok(chain) => self.judge(&chain, &host.url),
                Err(NoAnswer::Call(error)) if !host.is_called => {
                    Verdict::inconclusive(self.redact(&error.to_string()))
                }
                Err(why) => self.no_answer(&why, Document::Metadata),
            };
            found.push(verdict.found.clone());
            if worst.as_ref().is_none_or(|worst| rank(&verdict) > rank(worst)) {
                worst = Some(verdict);
            }
        }
        if let Some(worst) = worst {
            let verdict = match worst.is(CheckOutcome::Skipped) {
                true => worst,
                false => Verdict { found: found.join("; "), ..worst },
            };
            self.report(ID, ID.expected(), verdict);
        }
    }

    /// How many connections [`Self::certificates`] wants to make.
    pub(super) fn certificates_wanted(&self, known: &Known) -> usize {
        let presented = self.probe.http.presented();
        let is_unmet = |host: &&Host| {
            let name = host.url.host_str().unwrap_or_default();
            !self.is_silent(&host.url) && !presented.contains_key(name)
        };
        self.https_hosts(known).iter().filter(is_unmet).count()
    }

    /// Those that a login calls are first, then those that only the browser meets.
    fn https_hosts(&self, known: &Known) -> Vec<Host> {
        let document = match &self.probe.connection.settings.source {
            MetadataSource::Discovery(url) => Some(url),
            MetadataSource::Manual(_) => None,
        };
        let called = [known.token.as_ref(), document, known.jwks.as_ref(), known.userinfo.as_ref()];
        let shown = [known.authorization.as_ref(), known.end_session.as_ref()];
        let called = called.into_iter().flatten().map(|url| (url, true));
        let mut hosts: Vec<Host> = Vec::new();
        for (url, is_called) in called.chain(shown.into_iter().flatten().map(|url| (url, false))) {
            let is_new = hosts.iter().all(|host| place_of(&host.url) != place_of(url));
            if url.scheme() == "https" && is_new && hosts.len() < MAX_HOSTS {
                hosts.push(Host { url: url.clone(), is_called });
            }
        }
        hosts
    }

    /// What the host has presented in this check; if no request met it, to a connection of its own.
    async fn chain_of(&mut self, url: &Url) -> Result<Vec<PresentedCertificate>, NoAnswer> {
        let http = self.probe.http;
        let presented = || http.presented().remove(url.host_str().unwrap_or_default());
        if let Some(id) = self.silent.get(&place_of(url)) {
            return Err(NoAnswer::Silent(*id));
        }
        if let Some(chain) = presented() {
            return Ok(chain);
        }
        self.take(url)?;
        http.connect(url).await.map_err(|error| {
            self.note_failure(ID, url, &error);
            NoAnswer::Call(error)
        })?;
        Ok(presented().unwrap_or_default())
    }

    fn judge(&self, chain: &[PresentedCertificate], url: &Url) -> Verdict {
        let now = self.probe.clock.unix_seconds();
        let expiry = |certificate: &PresentedCertificate| {
            UnixSeconds(u64::try_from(certificate.not_after).unwrap_or_default())
        };
        let shown = chain.iter().map(|certificate| {
            let day = UnixMillis::from(expiry(certificate)).to_string();
            let day = day.split('T').next().unwrap_or_default().to_owned();
            format!("{} until {day}", certificate.subject)
        });
        let issuer = chain.last().map(|last| format!("{} (CA)", last.issuer));
        let shown = shown.chain(issuer).collect::<Vec<_>>().join(", issued by ");
        let host = host_of(url);
        let days = chain.iter().map(|certificate| expiry(certificate).since(now).as_secs() / DAY);
        let Some(soonest) = days.min() else {
            return Verdict::inconclusive(format!("{host} shows no certificate that can be read"));
        };
        let found = format!("{host}: {shown}");
        if soonest >= MIN_DAYS {
            Verdict::pass(found)
        } else {
            Verdict::warn(format!("{found}; the first expires in {soonest} days"))
                .for_idp_admin(format!("renew the certificate of {host}"))
        }
    }
}

/// A host with a certificate.
struct Host {
    url: Url,
    /// By a login, and not only by the browser.
    is_called: bool,
}

/// Of the verdicts on several hosts, the worst is the finding.
fn rank(verdict: &Verdict) -> u8 {
    match verdict.outcome {
        CheckOutcome::Skipped => 0,
        CheckOutcome::Pass => 1,
        CheckOutcome::Inconclusive => 2,
        CheckOutcome::Warn => 3,
        CheckOutcome::Fail => 4,
    }
}

/// Seconds.
const DAY: u64 = 24 * 60 * 60;
const MIN_DAYS: u64 = 14;
/// Hosts whose certificates are looked at, those that no request met with a connection of their own.
const MAX_HOSTS: usize = 4;
