//! A check of an IdP without a person: are its metadata right, the client's credentials accepted,
//! the redirect URI registered? One file a subject. Called by [`crate::connections`].
//!
//! A check changes nothing at the IdP, makes at most [`MAX_REQUESTS`] requests, follows redirects
//! for one subject only and under the address guard, never calls our own callback, and shows
//! nothing of an answer but shortened text without secrets. Its requests are those of a login: the
//! documents are fetched and read by `oidc/metadata.rs` and `oidc/keys.rs`, the authorization and
//! token requests built by [`super::provider`].

mod browse;
mod certificate;
mod credentials;
mod keys;
mod logout;
mod metadata;
mod redirect_uri;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
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
use crate::oidc::http::HttpClient;
use crate::oidc::idps::{self, IdpProduct};

/// One check of one connection's IdP.
pub struct Probe<'a> {
    /// The connection, as it is or as it is proposed.
    pub connection: &'a Connection,
    /// The account's redirect URI.
    pub redirect_uri: &'a str,
    /// Scheme, host and port of our own pages, none of which is called.
    pub public_origin: &'a str,
    /// The client that calls IdPs.
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
}

/// A check that is running.
struct Run<'a, 'b> {
    probe: &'a Probe<'a>,
    product: IdpProduct,
    requests_left: usize,
    redactor: Redactor,
    report: &'b mut (dyn FnMut(CheckResult) + Send),
}

/// How one subject's check ended.
struct Verdict {
    outcome: CheckOutcome,
    found: String,
    remedy: Option<CheckRemedy>,
}

impl Verdict {
    fn new(outcome: CheckOutcome, found: impl Into<String>) -> Self {
        Self { outcome, found: found.into(), remedy: None }
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

    fn for_support(self, text: impl Into<String>) -> Self {
        Self { remedy: Some(CheckRemedy { owner: Owner::Support, text: text.into() }), ..self }
    }

    fn for_idp_admin(self, text: impl Into<String>) -> Self {
        let owner = Owner::CustomerIdpAdmin;
        Self { remedy: Some(CheckRemedy { owner, text: text.into() }), ..self }
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
        let product = IdpProduct::of(issuer);
        let redactor = Redactor::of_client(&settings.client_id, &self.connection.secrets);
        let requests_left = MAX_REQUESTS - CERTIFICATE_CONNECTIONS;
        let mut run = Run { probe: self, product, requests_left, redactor, report };
        let known = match &settings.source {
            MetadataSource::Discovery(url) => {
                self.note_asked(url.host_str());
                run.metadata(url).await
            }
            MetadataSource::Manual(endpoints) => Some(run.manual(issuer, endpoints)),
        };
        let Some(known) = known else { return Seen::default() };
        let hosts = run.hosts(&known);
        self.note_asked(hosts.iter().map(String::as_str));
        run.keys(&known).await;
        run.credentials(&known).await;
        run.redirect_uri(known.authorization.as_ref()).await;
        run.logout(&known);
        run.certificate(known.token.as_ref()).await;
        Seen { hosts }
    }
}

impl Run<'_, '_> {
    fn report(&mut self, id: CheckId, expected: impl Into<String>, verdict: Verdict) {
        let Verdict { outcome, found, remedy } = verdict;
        let found = self.redactor.redact(&found);
        (self.report)(CheckResult { id, outcome, expected: expected.into(), found, remedy });
    }

    /// A failure with the remedy of its cause. A fault that is transient for a login is assigned to the
    /// IdP's admin here, since it also made the check fail.
    fn failure(&self, cause: Cause, text: &str) -> Verdict {
        let method = self.probe.connection.settings.auth_method_text();
        let remedy = idps::remedy(cause.remedy(), self.product, self.probe.redirect_uri, method);
        let verdict = Verdict::fail(self.redact(text));
        match cause.owner() {
            Owner::Support | Owner::Operator => verdict.for_support(remedy),
            Owner::CustomerIdpAdmin | Owner::EndUser | Owner::Transient => {
                verdict.for_idp_admin(remedy)
            }
        }
    }

    fn random(&self) -> String {
        let mut bytes = [0; 32];
        self.probe.entropy.fill(&mut bytes);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// An IdP's text for a person: shortened, on one line, and without our secrets.
    fn redact(&self, text: &str) -> String {
        let text = self.redactor.redact(text);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        sanitize(&text, MAX_SHOWN)
    }
}

/// Requests of a whole check to the IdP, including the connection that shows its certificate.
pub const MAX_REQUESTS: usize = 12;
/// What is kept for [`certificate`], which is the last one.
const CERTIFICATE_CONNECTIONS: usize = 1;
/// Time of a whole check.
pub const CHECK_DEADLINE: Duration = Duration::from_secs(60);
/// Characters of an IdP's text.
const MAX_SHOWN: usize = 300;
