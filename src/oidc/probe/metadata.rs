//! The metadata document: can it be fetched, is its issuer the expected one, does it name what a
//! login uses? Fetched and read by the code that a login uses; here each member is judged by
//! itself.

use std::collections::BTreeSet;
use std::time::UNIX_EPOCH;

use http::header::DATE;
use url::Url;

use super::{Known, Run, Verdict};
use crate::model::cause::Cause;
use crate::model::check::CheckId;
use crate::model::connection::Endpoints;
use crate::oidc::error::Problem;
use crate::oidc::http::{Answer, host_of};
use crate::oidc::metadata::{Discovery, accepted_algs, auth_method, fetch, issuer_of};

impl Run<'_, '_> {
    /// `None` if the document can't be read.
    pub(super) async fn metadata(&mut self, url: &Url) -> Option<Known> {
        const EXPECTED: &str = "the metadata document can be fetched over https";
        self.requests_left -= 1;
        let (discovery, answer) = match fetch(self.probe.connection, url, self.probe.http).await {
            Ok(fetched) => fetched,
            Err(error) => {
                let verdict = self.failure(error.cause(), &error.to_string());
                self.report(CheckId::MetadataDocument, EXPECTED, verdict);
                return None;
            }
        };
        let verdict = Verdict::pass(format!("it was fetched from {}", host_of(url)));
        self.report(CheckId::MetadataDocument, EXPECTED, verdict);
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
        };
        let verdict = match discovery.complete() {
            Ok(_) => Verdict::pass("it has everything that a login needs"),
            Err(Problem { cause, text }) => self.failure(cause, &text),
        };
        self.report(CheckId::MetadataUsable, "a login can use the metadata document", verdict);
        Some(known)
    }

    /// The endpoints that support entered, which were checked when they were saved.
    pub(super) fn manual(&mut self, issuer: &str, endpoints: &Endpoints) -> Known {
        let found = "they are set by hand, so no metadata document is read";
        self.report(CheckId::MetadataDocument, "the endpoints are known", Verdict::pass(found));
        let settings = &self.probe.connection.settings;
        Known {
            issuer: issuer.to_owned(),
            authorization: Some(endpoints.authorization.clone()),
            token: Some(endpoints.token.clone()),
            jwks: Some(endpoints.jwks.clone()),
            userinfo: endpoints.userinfo.clone(),
            end_session: endpoints.end_session.clone(),
            algs: accepted_algs(&settings.id_token_signing_algs, None),
            auth_method: auth_method(settings, None),
        }
    }

    fn skew(&mut self, answer: &Answer) {
        let date = answer.header(DATE).and_then(|text| httpdate::parse_http_date(text).ok());
        let theirs = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
        let verdict = match theirs {
            None => Verdict::inconclusive("the IdP does not send its time (Date)"),
            Some(theirs) => {
                let skew = theirs.as_secs().abs_diff(self.probe.clock.unix_seconds().0);
                let found = format!("the clocks differ by {skew} s");
                if skew <= MAX_SKEW {
                    Verdict::pass(found)
                } else {
                    Verdict::warn(found).for_idp_admin("set the IdP's clock by NTP")
                }
            }
        };
        self.report(CheckId::ClockSkew, "the IdP's clock differs by at most 60 s", verdict);
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
            None => Verdict::warn("the document does not list response types"),
            Some(types) if types.iter().any(|name| name == "code") => {
                Verdict::pass("the document lists it")
            }
            Some(types) => {
                Verdict::fail(self.lists_only(types)).for_idp_admin(self.product.allow_code_flow())
            }
        };
        let expected = "the IdP offers the authorization code flow";
        self.report(CheckId::MetadataCodeFlow, expected, verdict);
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
        self.report(CheckId::MetadataPkce, "the IdP supports PKCE with S256", verdict);
    }

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
                    Verdict::warn(format!("the document does not list {}", missing.join(" ")))
                        .for_idp_admin("allow the client these scopes")
                }
            }
        };
        let expected = format!("the IdP offers the scopes {}", scopes.join(" "));
        self.report(CheckId::MetadataScopes, expected, verdict);
    }

    fn claims(&mut self, discovery: &Discovery) {
        let mapping = &self.probe.connection.settings.claim_mapping;
        let wanted = [&mapping.email, &mapping.given_name, &mapping.family_name];
        let verdict = match &discovery.claims {
            None => Verdict::inconclusive("the document does not list claims"),
            Some(listed) => {
                let is_missing =
                    |names: &&&Vec<String>| !names.iter().any(|name| listed.contains(name));
                let missing = wanted.iter().filter(is_missing);
                let missing: Vec<String> = missing.map(|names| names.join(" or ")).collect();
                if missing.is_empty() {
                    Verdict::pass("the document lists all of them")
                } else {
                    let missing = missing.join(", ");
                    let found = format!(
                        "the document does not list {missing}; a test login shows whether they are \
                         sent"
                    );
                    Verdict::warn(found).for_idp_admin(self.product.add_claims())
                }
            }
        };
        let wanted = wanted.map(|names| names.join(" or ")).join(", ");
        let expected = format!("the IdP offers the claims {wanted}");
        self.report(CheckId::MetadataClaims, expected, verdict);
    }

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
        let expected =
            "ID tokens are signed with an accepted algorithm (RS, PS or ES 256-512, or EdDSA)";
        self.report(CheckId::MetadataSigningAlgs, expected, verdict);
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
        let verdict = match problems.first() {
            None => Verdict::pass("all of them are"),
            Some(first) => {
                let texts: Vec<&str> = problems.iter().map(|problem| &*problem.text).collect();
                self.failure(first.cause, &texts.join("; "))
            }
        };
        let expected =
            "authorization_endpoint, token_endpoint and jwks_uri are https URLs of public hosts";
        self.report(CheckId::MetadataEndpoints, expected, verdict);
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
        let expected = "the endpoints are on the same hosts as at the last check that passed";
        self.report(CheckId::MetadataHosts, expected, verdict);
        hosts.into_iter().collect()
    }

    fn lists_only(&self, listed: &[String]) -> String {
        self.redact(&format!("the document lists only {}", listed.join(", ")))
    }
}

/// Seconds; logins allow as much.
const MAX_SKEW: u64 = 60;
