//! A check of an IdP without a person: are its metadata right, the client's credentials accepted,
//! the redirect URI registered? One file a subject. Called by [`crate::connections`].
//!
//! A check changes nothing at the IdP, makes at most [`MAX_REQUESTS`] requests, has a secret rejected
//! at most [`MAX_REJECTIONS`] times, follows redirects for one subject only and under the address
//! guard, never calls our own callback, and shows nothing of an answer but shortened text without
//! secrets. Its requests are those of a login: the documents are fetched and read by
//! `oidc/metadata.rs` and `oidc/keys.rs`, the authorization and token requests built by
//! [`super::provider`].
//!
//! One fault is one finding: every check is reported exactly once, and one that could not be made
//! since another one failed is SKIPPED and names it ([`CheckId::needs`]).

mod account;
mod browse;
mod certificate;
mod credentials;
mod cross_check;
mod expiry;
mod keys;
mod logout;
mod metadata;
mod par;
mod redirect_uri;
mod standby;
mod subjects;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::Request;
use hyper::body::Bytes;
use url::Url;

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::model::cause::Cause;
use crate::model::check::{CheckId, CheckOutcome, CheckRemedy, CheckResult};
use crate::model::connection::{Connection, MetadataSource, TokenEndpointAuthMethod};
use crate::model::reason::Owner;
use crate::model::redact::Redactor;
use crate::model::signing_alg::SigningAlg;
use crate::model::text::sanitize;
use crate::oidc::error::{CallError, Document, Outage};
use crate::oidc::http::{Answer, HttpClient};
use crate::oidc::idps::{self, IdpProduct};

/// One check of one connection's IdP.
pub struct Probe<'a> {
    /// The connection, as it is or as it is proposed.
    pub connection: &'a Connection,
    /// The account's redirect URI.
    pub redirect_uri: &'a str,
    /// Where a logout comes back to.
    pub post_logout_redirect_uri: &'a str,
    /// Scheme, host and port of our own pages, none of which is called.
    pub public_origin: &'a str,
    /// The client that calls IdPs; for the certificates, one that keeps those that are presented.
    pub http: &'a HttpClient,
    /// Compared with the IdP's clock and with certificates.
    pub clock: &'a dyn Clock,
    /// For made-up codes, states and secrets.
    pub entropy: &'a dyn Entropy,
    /// Hosts of the endpoints at the last check that passed.
    pub known_hosts: &'a [String],
    /// Whether the connection's secret is made up, since the stored one was entered for another IdP or
    /// client than the proposed one.
    pub has_made_up_secret: bool,
    /// Whether people have logged in by another client id than this one, and not by this one yet.
    pub has_new_client: bool,
    /// The hosts that were asked so far.
    pub asked: &'a Mutex<BTreeSet<String>>,
}

/// What a check saw, apart from its results.
#[derive(Debug, Default)]
pub struct Seen {
    /// Hosts of the endpoints.
    pub hosts: Vec<String>,
}

/// What the metadata document or the manual endpoints say, where it is usable.
struct Known {
    issuer: String,
    authorization: Option<Url>,
    token: Option<Url>,
    jwks: Option<Url>,
    userinfo: Option<Url>,
    end_session: Option<Url>,
    algs: Vec<SigningAlg>,
    auth_method: TokenEndpointAuthMethod,
    /// The authentication methods that the document lists.
    auth_methods: Option<Vec<String>>,
    /// The subject types that the document lists (OIDC Core 8).
    subject_types: Option<Vec<String>>,
    /// Whether every login must begin with a pushed authorization request (RFC 9126 5).
    requires_par: bool,
}

/// A check that is running.
struct Run<'a, 'b> {
    probe: &'a Probe<'a>,
    product: IdpProduct,
    requests_left: usize,
    /// How often a secret may still be rejected.
    rejections_left: usize,
    /// By origin: which check found that it doesn't answer.
    silent: BTreeMap<String, CheckId>,
    outcomes: BTreeMap<CheckId, CheckOutcome>,
    /// What was skipped for want of another check.
    dependent: BTreeMap<CheckId, CheckId>,
    /// What the metadata document says of a capability, which the IdP's behaviour may refute.
    held: BTreeMap<CheckId, (String, Verdict)>,
    /// The failure of the credentials, which a page can explain.
    rejected: Option<Verdict>,
    redactor: Redactor,
    report: &'b mut (dyn FnMut(CheckResult) + Send),
}

/// How one subject's check ended.
struct Verdict {
    outcome: CheckOutcome,
    found: String,
    remedy: Option<CheckRemedy>,
    cause: Option<Cause>,
    /// Which other check it is skipped for.
    depends_on: Option<CheckId>,
}

/// Why a request got no answer.
enum NoAnswer {
    /// The call failed.
    Call(CallError),
    /// The host was silent in this check, and is not asked again.
    Silent(CheckId),
    /// The check has no request left.
    Spent,
}

impl Verdict {
    fn new(outcome: CheckOutcome, found: impl Into<String>) -> Self {
        Self { outcome, found: found.into(), remedy: None, cause: None, depends_on: None }
    }

    fn pass(found: impl Into<String>) -> Self {
        Self::new(CheckOutcome::Pass, found)
    }

    fn warn(found: impl Into<String>) -> Self {
        Self::new(CheckOutcome::Warn, found)
    }

    fn fail(found: impl Into<String>) -> Self {
        Self::new(CheckOutcome::Fail, found)
    }

    fn inconclusive(found: impl Into<String>) -> Self {
        Self::new(CheckOutcome::Inconclusive, found)
    }

    /// There is nothing to check.
    fn skipped(found: impl Into<String>) -> Self {
        Self::new(CheckOutcome::Skipped, found)
    }

    /// It can't be checked, since `id` failed.
    fn depends_on(id: CheckId) -> Self {
        let found = format!("not checked, since it depends on {id}");
        Self { depends_on: Some(id), ..Self::skipped(found) }
    }

    fn with_remedy(self, owner: Owner, text: impl Into<String>) -> Self {
        Self { remedy: Some(CheckRemedy { owner, text: text.into() }), ..self }
    }

    fn for_support(self, text: impl Into<String>) -> Self {
        self.with_remedy(Owner::Support, text)
    }

    fn for_idp_admin(self, text: impl Into<String>) -> Self {
        self.with_remedy(Owner::CustomerIdpAdmin, text)
    }

    fn with_cause(self, cause: Cause) -> Self {
        Self { cause: Some(cause), ..self }
    }

    fn is(&self, outcome: CheckOutcome) -> bool {
        self.outcome == outcome
    }
}

impl Probe<'_> {
    /// The hosts that the check asked, also one that did not end: of the metadata and of the endpoints.
    #[must_use]
    pub fn hosts_asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn note_asked<'h>(&self, hosts: impl IntoIterator<Item = &'h str>) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.extend(hosts.into_iter().map(str::to_owned));
    }

    /// Runs the check and reports each result as it is found.
    pub async fn run(&self, report: &mut (dyn FnMut(CheckResult) + Send)) -> Seen {
        let settings = &self.connection.settings;
        let source = match &settings.source {
            MetadataSource::Discovery(url) => url.as_str(),
            MetadataSource::Manual(endpoints) => endpoints.authorization.as_str(),
        };
        let issuer = self.connection.issuer().map_or(source, |issuer| issuer.as_str());
        let redactor = Redactor::of_client(&settings.client_id, &self.connection.secrets);
        let mut run = Run {
            probe: self,
            product: IdpProduct::of_connection(self.connection),
            requests_left: MAX_REQUESTS,
            rejections_left: MAX_REJECTIONS,
            silent: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            dependent: BTreeMap::new(),
            held: BTreeMap::new(),
            rejected: None,
            redactor,
            report,
        };
        let seen = tokio::time::timeout(CHECK_DEADLINE, run.check_all(issuer)).await;
        if seen.is_err() {
            let found = format!("the check took more than {CHECK_DEADLINE:?}");
            let verdict = run.failure(Cause::Timeout, &found);
            run.report(CheckId::CheckDeadline, CheckId::CheckDeadline.expected(), verdict);
        }
        run.finish();
        seen.unwrap_or_default()
    }
}

impl Run<'_, '_> {
    async fn check_all(&mut self, issuer: &str) -> Seen {
        self.account();
        let known = match &self.probe.connection.settings.source {
            MetadataSource::Discovery(url) => {
                self.probe.note_asked(url.host_str());
                self.metadata(url).await
            }
            MetadataSource::Manual(endpoints) => Some(self.manual(issuer, endpoints).await),
        };
        let Some(known) = known else {
            self.expiry(None, false);
            return Seen::default();
        };
        let hosts = self.hosts(&known);
        self.probe.note_asked(hosts.iter().map(String::as_str));
        self.keys(&known).await;
        self.credentials(&known).await;
        self.subjects(&known);
        self.redirect_uri(&known).await;
        self.logout(&known).await;
        self.certificates(&known).await;
        Seen { hosts }
    }

    fn report(&mut self, id: CheckId, expected: impl Into<String>, verdict: Verdict) {
        let Verdict { outcome, found, remedy, cause, depends_on } = verdict;
        let found = self.redactor.redact(&found);
        self.outcomes.insert(id, outcome);
        if let Some(failed) = depends_on {
            self.dependent.insert(id, failed);
        }
        (self.report)(CheckResult { id, outcome, expected: expected.into(), found, remedy, cause });
    }

    /// Keeps a verdict until the end of the check.
    fn hold(&mut self, id: CheckId, expected: impl Into<String>, verdict: Verdict) {
        self.held.insert(id, (expected.into(), verdict));
    }

    /// Replaces a verdict that is held. One that failed already stays, and is the finding.
    fn refute(&mut self, id: CheckId, verdict: Verdict) {
        match self.held.get_mut(&id) {
            Some((_, held)) if held.is(CheckOutcome::Fail) => {}
            Some((_, held)) => *held = verdict,
            None => self.hold(id, id.expected(), verdict),
        }
    }

    fn skip(&mut self, id: CheckId, why: &str) {
        self.report(id, id.expected(), Verdict::skipped(why));
    }

    /// Whether `id` has failed so far.
    fn has_failed(&self, id: CheckId) -> bool {
        self.outcomes.get(&id) == Some(&CheckOutcome::Fail)
    }

    /// The failed check for which `id` can't be made.
    fn blocked_by(&self, id: CheckId) -> Option<CheckId> {
        let needs = id.needs().iter();
        let failed = needs.clone().find(|need| self.has_failed(**need));
        failed.or_else(|| needs.clone().find_map(|need| self.dependent.get(need))).copied()
    }

    /// Reports what was held, and what was left out. In the order of the ids, so that what is left out
    /// finds out about what it needs.
    fn finish(&mut self) {
        if let Some(verdict) = self.rejected.take() {
            self.report(CheckId::ClientCredentials, CheckId::ClientCredentials.expected(), verdict);
        }
        for (id, (expected, verdict)) in std::mem::take(&mut self.held) {
            if !self.outcomes.contains_key(&id) {
                self.report(id, expected, verdict);
            }
        }
        let is_late = self.has_failed(CheckId::CheckDeadline);
        let reported =
            |run: &Self, id| id == CheckId::CheckDeadline || run.outcomes.contains_key(&id);
        let mut left: Vec<CheckId> =
            CheckId::ALL.iter().copied().filter(|id| !reported(self, *id)).collect();
        while let Some(at) = (!left.is_empty()).then(|| {
            let waits = |id: &CheckId| id.needs().iter().any(|need| left.contains(need));
            left.iter().position(|id| !waits(id)).unwrap_or(0)
        }) {
            let id = left.remove(at);
            let late = || is_late.then_some(CheckId::CheckDeadline);
            let verdict = match self.blocked_by(id).or_else(late) {
                Some(failed) => Verdict::depends_on(failed),
                None => Verdict::skipped("it does not apply to this connection"),
            };
            self.report(id, id.expected(), verdict);
        }
    }

    /// A failure with the owner and the remedy of its cause.
    fn failure(&self, cause: Cause, text: &str) -> Verdict {
        let method = self.probe.connection.settings.auth_method_text();
        let remedy = idps::remedy(cause.remedy(), self.product, self.probe.redirect_uri, method);
        let text = sanitize(&self.redactor.redact(text), MAX_FOUND);
        Verdict::fail(text).with_remedy(cause.owner(), remedy).with_cause(cause)
    }

    /// The verdict on a request that got no answer.
    fn no_answer(&self, why: &NoAnswer, document: Document) -> Verdict {
        match why {
            NoAnswer::Call(error) => self.failure(error.cause(document), &error.to_string()),
            NoAnswer::Silent(id) => Verdict::depends_on(*id),
            NoAnswer::Spent => Verdict::inconclusive(SPENT),
        }
    }

    /// Takes one request of those that the check may make.
    fn take(&mut self, url: &Url) -> Result<(), NoAnswer> {
        if let Some(id) = self.silent.get(&place_of(url)) {
            return Err(NoAnswer::Silent(*id));
        }
        self.requests_left = self.requests_left.checked_sub(1).ok_or(NoAnswer::Spent)?;
        Ok(())
    }

    /// A host that doesn't answer is not asked again: each time could last as long as the first.
    fn note_failure(&mut self, id: CheckId, url: &Url, error: &CallError) {
        let CallError::Unavailable { outage, .. } = error else { return };
        let has_answered = matches!(
            outage,
            Outage::ConnectionLost | Outage::TooManyRequests(_) | Outage::ServerError(_)
        );
        if !has_answered {
            self.silent.entry(place_of(url)).or_insert(id);
        }
    }

    fn is_silent(&self, url: &Url) -> bool {
        self.silent.contains_key(&place_of(url))
    }

    /// Sends a request of the check `id` to `url`; see [`HttpClient::send`], or with `raw` its
    /// `send_raw`.
    async fn send(
        &mut self,
        id: CheckId,
        url: &Url,
        request: Request<Bytes>,
        limit: usize,
        raw: bool,
    ) -> Result<Answer, NoAnswer> {
        self.take(url)?;
        let http = self.probe.http;
        let answer =
            if raw { http.send_raw(request, limit).await } else { http.send(request, limit).await };
        answer.map_err(|error| {
            self.note_failure(id, url, &error);
            NoAnswer::Call(error)
        })
    }

    /// Whether a person has logged in with exactly these settings and this secret.
    fn is_tested(&self) -> bool {
        let connection = self.probe.connection;
        let login = connection.test_login.as_ref();
        login.is_some_and(|login| login.proof == connection.proof_digest())
    }

    /// What only a login could answer, if one has.
    fn answered_by_test_login(&self, verdict: Verdict) -> Verdict {
        let is_open = verdict.is(CheckOutcome::Warn) || verdict.is(CheckOutcome::Inconclusive);
        if !is_open || !self.is_tested() {
            return verdict;
        }
        let found = verdict.found;
        Verdict::pass(format!("{found}; a test login with these settings was completed"))
    }

    fn random(&self) -> String {
        let mut bytes = [0; 32];
        self.probe.entropy.fill(&mut bytes);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `uri` with an end that nobody has registered.
    fn unregistered(&self, uri: &str) -> String {
        format!("{uri}unregistered-{}/", &self.random()[..8])
    }

    /// An IdP's text for a person: shortened, on one line, and without our secrets.
    fn redact(&self, text: &str) -> String {
        let text = self.redactor.redact(text);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        sanitize(&text, MAX_SHOWN)
    }
}

/// Scheme, host and port.
fn place_of(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Requests of a whole check to the IdP, including connections that only show a certificate.
pub const MAX_REQUESTS: usize = 20;
/// How often a check has the IdP reject a secret, since that can count towards a lockout.
pub const MAX_REJECTIONS: usize = 3;
/// Time of a whole check.
pub const CHECK_DEADLINE: Duration = Duration::from_secs(60);
/// Characters of an IdP's text.
const MAX_SHOWN: usize = 300;
/// Characters of a failure's text, which can hold several of those.
const MAX_FOUND: usize = 1500;
/// Of those, what is kept for [`logout`].
const LOGOUT_REQUESTS: usize = 3;
const SPENT: &str = "not asked: a check makes at most 20 requests";
