//! The metadata document: can it be fetched, is its issuer the expected one, does it name what a
//! login uses? Fetched and read by the code that a login uses; here each member is judged by
//! itself.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use http::header::{AGE, DATE};
use url::Url;

use super::{Known, Run, Verdict};
use crate::model::cause::Cause;
use crate::model::check::{CheckId, CheckOutcome};
use crate::model::connection::ClaimMapping;
use crate::oidc::error::{Document, Problem};
use crate::oidc::http::{Answer, host_of};
use crate::oidc::metadata::{Discovery, fetch, issuer_of};
use crate::oidc::verify::{MAX_TOKEN_AGE, SKEW};

impl Run<'_, '_> {
    /// `None` if the document can't be read.
    pub(super) async fn metadata(&mut self, url: &Url) -> Option<Known> {
        const ID: CheckId = CheckId::MetadataDocument;
        if let Err(why) = self.take(url) {
            let verdict = self.no_answer(&why, Document::Metadata);
            self.report(ID, ID.expected(), verdict);
            return None;
        }
        let (discovery, answer) = match fetch(self.probe.connection, url, self.probe.http).await {
            Ok(fetched) => fetched,
            Err(error) => {
                let verdict = self.failure(error.cause(), &error.to_string());
                self.report(ID, ID.expected(), verdict);
                return None;
            }
        };
        let verdict = Verdict::pass(format!("it was fetched from {}", host_of(url)));
        self.report(ID, ID.expected(), verdict);
        self.skip(CheckId::MetadataCrossCheck, "no endpoints are set by hand");
        self.skew(&answer);
        self.issuer(&discovery, url);
        self.code_flow(&discovery);
        self.pkce(&discovery);
        self.scopes(&discovery);
        self.claims(&discovery);
        self.auth_method(&discovery);
        self.algs(&discovery);
        self.endpoints(&discovery);
        let known = Known {
            issuer: discovery.named_issuer.clone(),
            authorization: discovery.authorization.clone().ok(),
            token: discovery.token.clone().ok(),
            jwks: discovery.jwks.clone().ok(),
            userinfo: discovery.userinfo.clone().ok().flatten(),
            end_session: discovery.end_session.clone().ok().flatten(),
            algs: discovery.algs.clone().unwrap_or_default(),
            auth_method: discovery.auth_method,
            auth_methods: discovery.auth_methods.clone(),
            subject_types: discovery.subject_types.clone(),
            requires_par: discovery.requires_par,
        };
        // What is missing is the finding of another check.
        if self.blocked_by(CheckId::MetadataUsable).is_none() {
            let verdict = match discovery.complete() {
                Ok(_) => Verdict::pass("it has everything that a login needs"),
                Err(Problem { cause, text }) => self.failure(cause, &text),
            };
            self.report(CheckId::MetadataUsable, CheckId::MetadataUsable.expected(), verdict);
        }
        Some(known)
    }

    /// By the time at which the document was made, which a cache in between says it has kept for a while
    /// (RFC 9111 5.1).
    pub(super) fn skew(&mut self, answer: &Answer) {
        let date = answer.header(DATE).and_then(|text| httpdate::parse_http_date(text).ok());
        let date = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
        let age = answer.header(AGE).and_then(|text| text.trim().parse().ok());
        let age = Duration::from_secs(age.unwrap_or_default());
        let verdict = match date {
            None => Verdict::inconclusive("the IdP does not send its time (Date)"),
            Some(date) => self.judge_skew(date.saturating_add(age)),
        };
        self.report(CheckId::ClockSkew, CheckId::ClockSkew.expected(), verdict);
    }

    /// As a login does with the time at which a token was issued.
    fn judge_skew(&self, theirs: Duration) -> Verdict {
        let ours = Duration::from_secs(self.probe.clock.unix_seconds().0);
        let (ahead, behind) = (theirs.saturating_sub(ours), ours.saturating_sub(theirs));
        let oldest = MAX_TOKEN_AGE + SKEW;
        if ahead > SKEW {
            let found = format!(
                "the IdP's clock is {} s ahead of the service's, so that every ID token is issued in the \
                 future",
                ahead.as_secs()
            );
            self.failure(Cause::IssuedInFuture, &found)
        } else if behind > oldest {
            let found = format!(
                "the IdP's clock is {} s behind the service's, so that every ID token is older than the {} s \
                 that a login allows",
                behind.as_secs(),
                oldest.as_secs()
            );
            self.failure(Cause::IssuedTooLongAgo, &found)
        } else if behind > SKEW {
            let found = format!(
                "the IdP's clock is {} s behind the service's: its ID tokens expire that much earlier",
                behind.as_secs()
            );
            let verdict = self.failure(Cause::Expired, &found);
            Verdict { outcome: CheckOutcome::Warn, ..verdict }
        } else {
            Verdict::pass(format!("the clocks differ by {} s", ahead.max(behind).as_secs()))
        }
    }

    fn issuer(&mut self, discovery: &Discovery, url: &Url) {
        let expected = self.probe.connection.issuer();
        let expected = expected.map_or_else(|| issuer_of(url), ToString::to_string);
        let named = self.redact(&discovery.named_issuer);
        let verdict = match &discovery.issuer {
            Ok(_) => Verdict::pass(format!("it is {named:?}")),
            Err(Problem { cause, text }) => {
                let bare = |issuer: &str| issuer.trim_end_matches('/').to_owned();
                let hint = if bare(&discovery.named_issuer) == bare(&expected) {
                    "; they differ only in the slash at the end"
                } else {
                    ""
                };
                let verdict = self.failure(*cause, &format!("{text}{hint}"));
                if *cause == Cause::IssuerMismatch {
                    let remedy = format!("if it is the customer's IdP, store the issuer {named:?}");
                    verdict.for_support(remedy)
                } else {
                    verdict
                }
            }
        };
        let expected = format!("the document's issuer is {expected:?}");
        self.report(CheckId::MetadataIssuer, expected, verdict);
    }

    fn code_flow(&mut self, discovery: &Discovery) {
        let verdict = match &discovery.response_types {
            None => Verdict::inconclusive("the document does not list response types"),
            Some(types) if types.iter().any(|name| name == "code") => {
                Verdict::pass("the document lists it")
            }
            Some(types) => self.failure(Cause::UnsupportedResponseType, &self.lists_only(types)),
        };
        let verdict = self.answered_by_test_login(verdict);
        self.hold(CheckId::MetadataCodeFlow, CheckId::MetadataCodeFlow.expected(), verdict);
    }

    fn pkce(&mut self, discovery: &Discovery) {
        let verdict = match &discovery.code_challenge_methods {
            // Entra doesn't list it, and supports it.
            None => Verdict::pass("the document does not list it; logins use it nevertheless"),
            Some(methods) if methods.iter().any(|name| name == "S256") => {
                Verdict::pass("the document lists it")
            }
            Some(methods) => Verdict::warn(self.lists_only(methods))
                .for_idp_admin("allow PKCE with S256 for the client"),
        };
        let verdict = self.answered_by_test_login(verdict);
        self.hold(CheckId::MetadataPkce, CheckId::MetadataPkce.expected(), verdict);
    }

    /// Many IdPs grant scopes that they don't list.
    fn scopes(&mut self, discovery: &Discovery) {
        let scopes = &self.probe.connection.settings.scopes;
        let verdict = match &discovery.scopes {
            None => Verdict::inconclusive("the document does not list scopes"),
            Some(listed) => {
                let missing = scopes.iter().filter(|scope| !listed.contains(scope));
                let missing: Vec<&str> = missing.map(String::as_str).collect();
                if missing.is_empty() {
                    Verdict::pass("the document lists all of them")
                } else {
                    let missing = missing.join(" ");
                    Verdict::inconclusive(format!(
                        "the document does not list {missing}; a test login shows whether they are granted"
                    ))
                    .for_idp_admin("allow the client these scopes, if the test login is refused")
                }
            }
        };
        let expected = format!("the IdP offers the scopes {}", scopes.join(" "));
        let verdict = self.answered_by_test_login(verdict);
        self.hold(CheckId::MetadataScopes, expected, verdict);
    }

    /// Many IdPs send claims that they don't list. One that support mapped itself deserves a look.
    fn claims(&mut self, discovery: &Discovery) {
        let (mapping, usual) =
            (&self.probe.connection.settings.claim_mapping, ClaimMapping::default());
        let wanted = [
            (&mapping.email, &usual.email),
            (&mapping.given_name, &usual.given_name),
            (&mapping.family_name, &usual.family_name),
        ];
        let verdict = match &discovery.claims {
            None => Verdict::inconclusive("the document does not list claims"),
            Some(listed) => {
                let is_missing =
                    |names: &&Vec<String>| !names.iter().any(|name| listed.contains(name));
                let missing: Vec<_> =
                    wanted.iter().filter(|(names, _)| is_missing(names)).collect();
                let is_mapped = missing.iter().any(|(names, usual)| names != usual);
                let names = missing.iter().map(|(names, _)| names.join(" or "));
                let names = names.collect::<Vec<_>>().join(", ");
                let found = format!(
                    "the document does not list {names}; a test login shows whether they are sent"
                );
                match (missing.is_empty(), is_mapped) {
                    (true, _) => Verdict::pass("the document lists all of them"),
                    (false, true) => Verdict::warn(found).for_support(
                        "compare claim_mapping with the claims that the customer's IdP sends",
                    ),
                    (false, false) => {
                        Verdict::inconclusive(found).for_idp_admin(self.product.add_claims())
                    }
                }
            }
        };
        let wanted = wanted.map(|(names, _)| names.join(" or ")).join(", ");
        let expected = format!("the IdP offers the claims {wanted}");
        let verdict = self.answered_by_test_login(verdict);
        self.report(CheckId::MetadataClaims, expected, verdict);
    }

    /// Held, since the token endpoint itself shows later what it accepts.
    fn auth_method(&mut self, discovery: &Discovery) {
        let method = discovery.auth_method.name();
        let verdict = match &discovery.auth_methods {
            Some(listed) if listed.iter().any(|listed| listed == method) => {
                Verdict::pass("the document lists it")
            }
            // OIDC Discovery 3.
            None if method == "client_secret_basic" => {
                Verdict::pass("the document lists no methods, which means client_secret_basic")
            }
            listed => {
                let found = match listed {
                    None => "the document lists no methods, which means client_secret_basic".into(),
                    Some(listed) if listed.is_empty() => "the document lists no methods".into(),
                    Some(listed) => self.lists_only(listed),
                };
                // Several IdPs accept more than they list.
                let verdict = Verdict::warn(found);
                match self.probe.connection.settings.stated_auth_method() {
                    Some(_) => verdict.for_support(
                        "set the authentication method that the client is registered with",
                    ),
                    None => verdict.for_idp_admin(
                        "allow client_secret_basic or client_secret_post at the token endpoint",
                    ),
                }
            }
        };
        let expected = format!("the token endpoint accepts {method}");
        let verdict = self.answered_by_test_login(verdict);
        self.hold(CheckId::MetadataAuthMethod, expected, verdict);
    }

    /// What the document doesn't list, the check of the credentials has tried.
    pub(super) fn settle_auth_method(&mut self, credentials: CheckOutcome) {
        let Some((expected, held)) = self.held.remove(&CheckId::MetadataAuthMethod) else { return };
        let found = &held.found;
        let verdict = match (held.is(CheckOutcome::Warn), credentials) {
            (true, CheckOutcome::Pass) => {
                Verdict::pass(format!("{found}, and the token endpoint accepts it nevertheless"))
            }
            // One fault is one finding.
            (true, CheckOutcome::Fail) => Verdict::depends_on(CheckId::ClientCredentials),
            _ => held,
        };
        self.report(CheckId::MetadataAuthMethod, expected, verdict);
    }

    fn algs(&mut self, discovery: &Discovery) {
        let verdict = match &discovery.algs {
            Ok(algs) => {
                let names: Vec<&str> = algs.iter().map(|alg| alg.name()).collect();
                Verdict::pass(format!("tokens are accepted with {}", names.join(", ")))
            }
            Err(Problem { cause, text }) => self.failure(*cause, text),
        };
        self.report(CheckId::MetadataSigningAlgs, CheckId::MetadataSigningAlgs.expected(), verdict);
    }

    fn endpoints(&mut self, discovery: &Discovery) {
        let problems: Vec<&Problem> = [
            discovery.authorization.as_ref().err(),
            discovery.token.as_ref().err(),
            discovery.jwks.as_ref().err(),
            discovery.userinfo.as_ref().err(),
            discovery.end_session.as_ref().err(),
        ]
        .into_iter()
        .flatten()
        .collect();
        let is_other_document =
            discovery.issuer.as_ref().is_err_and(|problem| problem.cause == Cause::IssuerMissing);
        let verdict = match problems.first() {
            None => Verdict::pass("all of them are"),
            // One fault is one finding: it is another kind of document.
            Some(_) if is_other_document => Verdict::depends_on(CheckId::MetadataIssuer),
            Some(first) => {
                let texts: Vec<&str> = problems.iter().map(|problem| &*problem.text).collect();
                self.failure(first.cause, &texts.join("; "))
            }
        };
        self.report(CheckId::MetadataEndpoints, CheckId::MetadataEndpoints.expected(), verdict);
    }

    /// Compares the hosts of the endpoints with those of the last check that passed.
    pub(super) fn hosts(&mut self, known: &Known) -> Vec<String> {
        let Known { authorization, token, jwks, userinfo, end_session, .. } = known;
        let endpoints = [authorization, token, jwks, userinfo, end_session];
        let hosts: BTreeSet<String> = endpoints.into_iter().flatten().map(host_of).collect();
        let before: BTreeSet<String> = self.probe.known_hosts.iter().cloned().collect();
        let listed = |hosts: &BTreeSet<String>| {
            hosts.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        };
        let verdict = if before.is_empty() || before == hosts {
            Verdict::pass(format!("the hosts are {}", listed(&hosts)))
        } else {
            let (now, before) = (listed(&hosts), listed(&before));
            Verdict::warn(format!("the hosts are {now}; before they were {before}"))
                .for_support("ask the customer whether the IdP has moved")
        };
        // The host of a missing endpoint is missing, too.
        if self.blocked_by(CheckId::MetadataHosts).is_none() {
            self.report(CheckId::MetadataHosts, CheckId::MetadataHosts.expected(), verdict);
        }
        hosts.into_iter().collect()
    }

    fn lists_only(&self, listed: &[String]) -> String {
        self.redact(&format!("the document lists only {}", listed.join(", ")))
    }
}
