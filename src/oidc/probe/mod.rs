//! Looks at an IdP without a person: is its metadata right, are the client's credentials, is the redirect URI registered?
//! Changes nothing there, makes at most [`MAX_REQUESTS`] requests, follows redirects for one probe alone and under the address
//! guard, never calls our own callback, and shows nothing of what an IdP answered but its error text, cut and without secrets.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE, DATE, LOCATION, SET_COOKIE};
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Bytes;
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::model::check::{CheckId, CheckOutcome, CheckRemedy, CheckResult};
use crate::model::connection::{
    Connection, Endpoints, LogoutStyle, MetadataSource, TENANT_PLACEHOLDER, TokenEndpointAuthMethod,
};
use crate::model::endpoint_url::check_endpoint_url;
use crate::model::reason::Owner as Party;
use crate::model::signing_alg::SigningAlg;
use crate::oidc::error::CallError;
use crate::oidc::http::{Answer, HttpClient, host_of};
use crate::oidc::idps as advice;
use crate::oidc::idps::vendor::Vendor;
use crate::oidc::json;
use crate::oidc::keys::KeySet;
use crate::oidc::metadata::{
    MAX_DOCUMENT, Metadata, Problem, accepted_algs, is_issuer_of, issuer_of,
};

/// One look at one connection's IdP.
pub struct Probe<'a> {
    /// Whose IdP.
    pub connection: &'a Connection,
    /// Registered there, or not.
    pub redirect_uri: &'a str,
    /// Scheme, host and port of our own pages, none of which is called.
    pub public_origin: &'a str,
    /// The one client that calls IdPs.
    pub http: &'a HttpClient,
    /// For skew and certificates.
    pub clock: &'a dyn Clock,
    /// For what must be made up.
    pub entropy: &'a dyn Entropy,
    /// Hosts of the endpoints at the last check that passed.
    pub known_hosts: &'a [String],
}

/// What was seen, beside the results.
#[derive(Debug, Default)]
pub struct Seen {
    /// Hosts of the endpoints.
    pub hosts: Vec<String>,
}

struct Run<'a, 'b> {
    probe: &'a Probe<'a>,
    vendor: Vendor,
    requests_left: usize,
    report: &'b mut (dyn FnMut(CheckResult) + Send),
}

/// What can be known from a document or from what was typed in.
struct Found {
    authorization: Option<Url>,
    token: Option<Url>,
    jwks: Option<Url>,
    userinfo: Option<Url>,
    end_session: Option<Url>,
    algs: Vec<SigningAlg>,
}

impl Probe<'_> {
    /// Looks, and tells each result as it is found.
    pub async fn run(&self, report: &mut (dyn FnMut(CheckResult) + Send)) -> Seen {
        let settings = &self.connection.settings;
        let source = match &settings.source {
            MetadataSource::Discovery(url) => url.as_str(),
            MetadataSource::Manual(endpoints) => endpoints.authorization.as_str(),
        };
        let vendor = Vendor::of(self.connection.issuer().map_or(source, |issuer| issuer.as_str()));
        let mut run = Run { probe: self, vendor, requests_left: MAX_REQUESTS, report };
        let found = match &settings.source {
            MetadataSource::Discovery(url) => run.metadata(url).await,
            MetadataSource::Manual(endpoints) => Some(run.manual(endpoints)),
        };
        let Some(found) = found else { return Seen::default() };
        let endpoints =
            [&found.authorization, &found.token, &found.jwks, &found.userinfo, &found.end_session];
        let hosts: BTreeSet<String> =
            endpoints.into_iter().flatten().map(|url| host_of(url.as_str())).collect();
        run.hosts(&hosts);
        run.keys(&found).await;
        run.credentials(found.token.as_ref()).await;
        run.redirect_uri(found.authorization.as_ref()).await;
        run.logout(found.end_session.as_ref());
        run.certificate(found.token.as_ref()).await;
        Seen { hosts: hosts.into_iter().collect() }
    }
}

impl Run<'_, '_> {
    fn report(
        &mut self,
        id: CheckId,
        outcome: CheckOutcome,
        expected: &str,
        found: impl Into<String>,
    ) {
        self.report_with(id, outcome, expected, found, None);
    }

    fn report_with(
        &mut self,
        id: CheckId,
        outcome: CheckOutcome,
        expected: &str,
        found: impl Into<String>,
        remedy: Option<(Party, String)>,
    ) {
        (self.report)(CheckResult {
            id,
            outcome,
            expected: expected.to_owned(),
            found: found.into(),
            remedy: remedy.map(|(owner, text)| CheckRemedy { owner, text }),
        });
    }

    async fn call(&mut self, request: Request<Bytes>) -> Result<Answer, CallError> {
        let host = host_of(&request.uri().to_string());
        self.requests_left =
            self.requests_left.checked_sub(1).ok_or_else(|| CallError::Unavailable {
                host,
                detail: format!("a check makes {MAX_REQUESTS} requests at most, and they are made"),
            })?;
        self.probe.http.send_raw(request, MAX_DOCUMENT).await
    }

    fn random(&self) -> String {
        let mut bytes = [0; 32];
        self.probe.entropy.fill(&mut bytes);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Text of an IdP for a person: cut, on one line, and without our secrets.
    fn redacted(&self, text: &str) -> String {
        let (secrets, client_id) =
            (&self.probe.connection.secrets, &self.probe.connection.settings.client_id);
        let mut text = text.to_owned();
        for secret in [Some(&secrets.active), secrets.standby.as_ref()].into_iter().flatten() {
            // In each form in which it was sent.
            for form in [
                secret.expose().to_owned(),
                encoded(secret.expose()),
                basic(client_id, secret.expose()),
            ] {
                text = text.replace(&form, "[redacted]");
            }
        }
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let printable = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
        let cut: String = printable.clone().take(MAX_SHOWN).collect();
        if printable.count() > MAX_SHOWN { cut + "…" } else { cut }
    }

    fn unreachable(&self, error: &CallError) -> (String, Option<(Party, String)>) {
        let remedy = match error {
            CallError::AddressForbidden { .. } => (
                Party::Support,
                "an IdP at a private address is not called: enter its public one, or have its network allowed".to_owned(),
            ),
            CallError::Unavailable { .. } | CallError::Unusable { .. } => {
                (Party::CustomerIdpAdmin, "it must answer from the public internet, over https, without a redirect".to_owned())
            }
        };
        (self.redacted(&error.to_string()), Some(remedy))
    }

    async fn metadata(&mut self, url: &Url) -> Option<Found> {
        const EXPECTED: &str = "the metadata document answers over https";
        let request = Request::get(url.as_str())
            .header(ACCEPT, "application/json")
            .body(Bytes::new())
            .ok()?;
        let answer = match self.call(request).await {
            Ok(answer) => answer,
            Err(error) => {
                let (found, remedy) = self.unreachable(&error);
                self.report_with(
                    CheckId::MetadataDocument,
                    CheckOutcome::Fail,
                    EXPECTED,
                    found,
                    remedy,
                );
                return None;
            }
        };
        let document = if answer.status == StatusCode::OK {
            json::parse_object(&answer.body)
        } else {
            Err(redirect_or_status(&answer))
        };
        let document = match document {
            Ok(document) => document,
            Err(detail) => {
                let remedy = "enter the URL of the document itself: in a browser it shows JSON with \"issuer\"".to_owned();
                let found = self.redacted(&detail);
                self.report_with(
                    CheckId::MetadataDocument,
                    CheckOutcome::Fail,
                    EXPECTED,
                    found,
                    Some((Party::Support, remedy)),
                );
                return None;
            }
        };
        self.report(
            CheckId::MetadataDocument,
            CheckOutcome::Pass,
            EXPECTED,
            format!("it does, at {}", host_of(url.as_str())),
        );
        self.skew(&answer);
        self.issuer(&document, url);
        let reader = Document(&document);
        self.capabilities(&reader);
        let algs = self.algs(&reader);
        let found = self.endpoints(&reader, algs);
        self.usable(&document, url);
        Some(found)
    }

    fn manual(&mut self, endpoints: &Endpoints) -> Found {
        let settings = &self.probe.connection.settings;
        self.report(
            CheckId::MetadataDocument,
            CheckOutcome::Pass,
            "endpoints are known",
            "they were typed in; no document is read",
        );
        let algs = accepted_algs(&settings.id_token_signing_algs, None);
        Found {
            authorization: Some(endpoints.authorization.clone()),
            token: Some(endpoints.token.clone()),
            jwks: Some(endpoints.jwks.clone()),
            userinfo: endpoints.userinfo.clone(),
            end_session: endpoints.end_session.clone(),
            algs,
        }
    }

    fn skew(&mut self, answer: &Answer) {
        const EXPECTED: &str = "the IdP's clock is within 60 s of ours";
        let date = answer.headers.get(DATE).and_then(|value| value.to_str().ok());
        let date = date.and_then(|text| httpdate::parse_http_date(text).ok());
        let theirs = date
            .and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok())
            .map(|since| since.as_secs());
        match theirs {
            None => self.report(
                CheckId::ClockSkew,
                CheckOutcome::Inconclusive,
                EXPECTED,
                "it doesn't say what time it is",
            ),
            Some(theirs) => {
                let skew = theirs.abs_diff(self.probe.clock.unix_seconds().0);
                let outcome =
                    if skew <= MAX_SKEW { CheckOutcome::Pass } else { CheckOutcome::Warn };
                let remedy = (
                    Party::CustomerIdpAdmin,
                    "have the IdP's host take its time by NTP".to_owned(),
                );
                let remedy = (skew > MAX_SKEW).then_some(remedy);
                self.report_with(
                    CheckId::ClockSkew,
                    outcome,
                    EXPECTED,
                    format!("{skew} s apart"),
                    remedy,
                );
            }
        }
    }

    fn issuer(&mut self, document: &Map<String, Value>, url: &Url) {
        let connection = self.probe.connection;
        let named = document.get("issuer").and_then(Value::as_str).unwrap_or_default();
        let shown = self.redacted(named);
        let (expected, is_same) = match connection.issuer() {
            Some(expected) => (expected.to_string(), expected.as_str() == named),
            None => {
                let expected = issuer_of(url);
                let is_same = is_issuer_of(named, &expected);
                (expected, is_same)
            }
        };
        let expected_text = format!("the document's issuer is {expected:?}");
        if !is_same {
            let is_slash_alone = named.trim_end_matches('/') == expected.trim_end_matches('/');
            let what =
                if is_slash_alone { "; they differ in the slash at the end alone" } else { "" };
            let remedy = if named.contains(TENANT_PLACEHOLDER) {
                "enter the tenant's own discovery URL, https://login.microsoftonline.com/TENANT-ID/v2.0/.well-known/openid-configuration"
                    .to_owned()
            } else {
                format!("if this is the customer's IdP, store the issuer {shown:?}")
            };
            let found = format!("it is {shown:?}{what}");
            return self.report_with(
                CheckId::MetadataIssuer,
                CheckOutcome::Fail,
                &expected_text,
                found,
                Some((Party::Support, remedy)),
            );
        }
        if named.contains(TENANT_PLACEHOLDER) && connection.settings.allowed_tenant_ids.is_empty() {
            let remedy = "enter the tenant's own discovery URL, or allowed_tenant_ids".to_owned();
            let found = "it is a template for many tenants".to_owned();
            return self.report_with(
                CheckId::MetadataIssuer,
                CheckOutcome::Fail,
                &expected_text,
                found,
                Some((Party::Support, remedy)),
            );
        }
        self.report(
            CheckId::MetadataIssuer,
            CheckOutcome::Pass,
            &expected_text,
            format!("it is {shown:?}"),
        );
    }

    /// What the document lists of what a login uses. That something isn't listed is a reason to look, seldom to fail.
    fn capabilities(&mut self, document: &Document<'_>) {
        let settings = &self.probe.connection.settings;
        let unlisted = |what: &str| format!("the document doesn't list {what}");
        match document.list("response_types_supported") {
            None => self.report(
                CheckId::MetadataCodeFlow,
                CheckOutcome::Warn,
                "code flow",
                unlisted("response types"),
            ),
            Some(types) if types.contains(&"code") => {
                self.report(
                    CheckId::MetadataCodeFlow,
                    CheckOutcome::Pass,
                    "code flow",
                    "it is listed",
                );
            }
            Some(types) => {
                let found = self.redacted(&format!("only {}", types.join(", ")));
                let remedy =
                    (Party::CustomerIdpAdmin, advice::allow_code_flow(self.vendor).to_owned());
                self.report_with(
                    CheckId::MetadataCodeFlow,
                    CheckOutcome::Fail,
                    "code flow",
                    found,
                    Some(remedy),
                );
            }
        }
        match document.list("code_challenge_methods_supported") {
            // Entra lists none, and takes it.
            None => self.report(
                CheckId::MetadataPkce,
                CheckOutcome::Pass,
                "PKCE with S256",
                "not listed; it is sent all the same",
            ),
            Some(methods) if methods.contains(&"S256") => {
                self.report(
                    CheckId::MetadataPkce,
                    CheckOutcome::Pass,
                    "PKCE with S256",
                    "it is listed",
                );
            }
            Some(methods) => {
                let found = self.redacted(&format!("only {}", methods.join(", ")));
                let remedy =
                    (Party::CustomerIdpAdmin, "have the IdP accept PKCE with S256".to_owned());
                self.report_with(
                    CheckId::MetadataPkce,
                    CheckOutcome::Warn,
                    "PKCE with S256",
                    found,
                    Some(remedy),
                );
            }
        }
        let expected = format!("scopes {}", settings.scopes.join(" "));
        match document.list("scopes_supported") {
            None => self.report(
                CheckId::MetadataScopes,
                CheckOutcome::Inconclusive,
                &expected,
                unlisted("scopes"),
            ),
            Some(listed) => {
                let missing: Vec<&str> = settings
                    .scopes
                    .iter()
                    .map(String::as_str)
                    .filter(|scope| !listed.contains(scope))
                    .collect();
                if missing.is_empty() {
                    self.report(
                        CheckId::MetadataScopes,
                        CheckOutcome::Pass,
                        &expected,
                        "all are listed",
                    );
                } else {
                    let remedy =
                        (Party::CustomerIdpAdmin, "allow the client these scopes".to_owned());
                    let found = format!("not listed: {}", missing.join(" "));
                    self.report_with(
                        CheckId::MetadataScopes,
                        CheckOutcome::Warn,
                        &expected,
                        found,
                        Some(remedy),
                    );
                }
            }
        }
        let mapping = &settings.claim_mapping;
        let wanted = [&mapping.email, &mapping.given_name, &mapping.family_name];
        let expected = format!("claims {}", wanted.map(|names| names.join(" or ")).join(", "));
        match document.list("claims_supported") {
            None => self.report(
                CheckId::MetadataClaims,
                CheckOutcome::Inconclusive,
                &expected,
                unlisted("claims"),
            ),
            Some(listed) => {
                let is_listed =
                    |names: &&Vec<String>| names.iter().any(|name| listed.contains(&name.as_str()));
                let missing: Vec<String> = wanted
                    .iter()
                    .filter(|names| !is_listed(names))
                    .map(|names| names.join(" or "))
                    .collect();
                if missing.is_empty() {
                    self.report(
                        CheckId::MetadataClaims,
                        CheckOutcome::Pass,
                        &expected,
                        "all are listed",
                    );
                } else {
                    let remedy =
                        (Party::CustomerIdpAdmin, advice::add_claims(self.vendor).0.to_owned());
                    let found = format!("not listed: {}; a test login tells", missing.join(", "));
                    self.report_with(
                        CheckId::MetadataClaims,
                        CheckOutcome::Warn,
                        &expected,
                        found,
                        Some(remedy),
                    );
                }
            }
        }
        let method = settings.auth_method.name();
        let expected = format!("the token endpoint takes {method}");
        // OIDC Discovery 3: what is not listed is client_secret_basic.
        let listed = document
            .list("token_endpoint_auth_methods_supported")
            .unwrap_or_else(|| vec!["client_secret_basic"]);
        if listed.contains(&method) {
            self.report(CheckId::MetadataAuthMethod, CheckOutcome::Pass, &expected, "it is listed");
        } else {
            let is_hopeless = !listed
                .iter()
                .any(|method| matches!(*method, "client_secret_basic" | "client_secret_post"));
            let outcome = if is_hopeless { CheckOutcome::Fail } else { CheckOutcome::Warn };
            let found = self.redacted(&format!("listed: {}", listed.join(", ")));
            let remedy =
                (Party::Support, "enter the method that the client is registered with".to_owned());
            self.report_with(CheckId::MetadataAuthMethod, outcome, &expected, found, Some(remedy));
        }
    }

    fn algs(&mut self, document: &Document<'_>) -> Vec<SigningAlg> {
        const EXPECTED: &str =
            "ID tokens are signed with an algorithm that is accepted (RS, PS, ES 256-512, EdDSA)";
        let listed = document.list("id_token_signing_alg_values_supported");
        let accepted =
            accepted_algs(&self.probe.connection.settings.id_token_signing_algs, listed.as_deref());
        let names: Vec<&str> = accepted.iter().map(|alg| alg.name()).collect();
        if accepted.is_empty() {
            let found =
                self.redacted(&format!("listed: {}", listed.unwrap_or_default().join(", ")));
            let remedy =
                (Party::CustomerIdpAdmin, "switch the client's ID tokens to RS256".to_owned());
            self.report_with(
                CheckId::MetadataSigningAlgs,
                CheckOutcome::Fail,
                EXPECTED,
                found,
                Some(remedy),
            );
        } else {
            self.report(
                CheckId::MetadataSigningAlgs,
                CheckOutcome::Pass,
                EXPECTED,
                names.join(", "),
            );
        }
        accepted
    }

    fn endpoints(&mut self, document: &Document<'_>, algs: Vec<SigningAlg>) -> Found {
        const EXPECTED: &str =
            "authorization_endpoint, token_endpoint and jwks_uri are https URLs of public hosts";
        let mut wrong = Vec::new();
        let mut endpoint = |name: &str, is_needed: bool| -> Option<Url> {
            let text = document.0.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
            match text.map(|text| check_endpoint_url(text, &self.probe.http.addresses)) {
                None if is_needed => wrong.push(format!("{name} is missing")),
                None => {}
                Some(Ok(url)) => return Some(url),
                Some(Err(error)) => wrong.push(format!("{name} {error}")),
            }
            None
        };
        let found = Found {
            authorization: endpoint("authorization_endpoint", true),
            token: endpoint("token_endpoint", true),
            jwks: endpoint("jwks_uri", true),
            userinfo: endpoint("userinfo_endpoint", false),
            end_session: endpoint("end_session_endpoint", false),
            algs,
        };
        if wrong.is_empty() {
            self.report(CheckId::MetadataEndpoints, CheckOutcome::Pass, EXPECTED, "they are");
        } else {
            let remedy = (
                Party::CustomerIdpAdmin,
                "mend the metadata document, or enter manual endpoints".to_owned(),
            );
            let text = self.redacted(&wrong.join("; "));
            self.report_with(
                CheckId::MetadataEndpoints,
                CheckOutcome::Fail,
                EXPECTED,
                text,
                Some(remedy),
            );
        }
        found
    }

    /// What a login makes of the document: the last word, whatever else was found.
    fn usable(&mut self, document: &Map<String, Value>, url: &Url) {
        const EXPECTED: &str = "a login can use the document";
        let problem = match Metadata::read(
            document,
            self.probe.connection,
            url,
            &self.probe.http.addresses,
        ) {
            Ok(_) => {
                return self.report(
                    CheckId::MetadataUsable,
                    CheckOutcome::Pass,
                    EXPECTED,
                    "it can",
                );
            }
            Err(Problem::Document(detail)) => detail,
            Err(Problem::Address { host, kind }) => {
                format!("{host} has a {kind} address, which is not called")
            }
        };
        let remedy = (
            Party::CustomerIdpAdmin,
            "mend the metadata document, or enter manual endpoints".to_owned(),
        );
        let found = self.redacted(&problem);
        self.report_with(
            CheckId::MetadataUsable,
            CheckOutcome::Fail,
            EXPECTED,
            found,
            Some(remedy),
        );
    }

    fn hosts(&mut self, hosts: &BTreeSet<String>) {
        const EXPECTED: &str = "the endpoints are at the hosts of the last check that passed";
        let known: BTreeSet<String> = self.probe.known_hosts.iter().cloned().collect();
        let shown = hosts.iter().cloned().collect::<Vec<_>>().join(", ");
        if known.is_empty() || known == *hosts {
            return self.report(CheckId::MetadataHosts, CheckOutcome::Pass, EXPECTED, shown);
        }
        let before = known.into_iter().collect::<Vec<_>>().join(", ");
        let remedy = (Party::Support, "ask the customer whether it has moved its IdP".to_owned());
        let found = format!("{shown}; before: {before}");
        self.report_with(CheckId::MetadataHosts, CheckOutcome::Warn, EXPECTED, found, Some(remedy));
    }

    async fn keys(&mut self, found: &Found) {
        let expected = format!(
            "a published key for {}",
            found.algs.iter().map(|alg| alg.name()).collect::<Vec<_>>().join(", ")
        );
        let Some(url) = &found.jwks else {
            return self.report(
                CheckId::JwksKeys,
                CheckOutcome::Fail,
                &expected,
                "there is no usable jwks_uri",
            );
        };
        let Ok(request) =
            Request::get(url.as_str()).header(ACCEPT, "application/json").body(Bytes::new())
        else {
            return;
        };
        let keys = match self.call(request).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                KeySet::parse(&answer.body).map_err(|detail| (detail, None))
            }
            Ok(answer) => Err((redirect_or_status(&answer), None)),
            Err(error) => Err(self.unreachable(&error)),
        };
        let remedy = || {
            Some((
                Party::CustomerIdpAdmin,
                "have the IdP publish the key that signs the client's ID tokens".to_owned(),
            ))
        };
        match keys {
            Err((detail, own)) => {
                let text = self.redacted(&detail);
                self.report_with(
                    CheckId::JwksKeys,
                    CheckOutcome::Fail,
                    &expected,
                    text,
                    own.or_else(remedy),
                );
            }
            Ok(keys) => {
                let usable: Vec<&str> = found
                    .algs
                    .iter()
                    .filter(|alg| keys.candidates(**alg, None).next().is_some())
                    .map(|alg| alg.name())
                    .collect();
                if usable.is_empty() {
                    self.report_with(
                        CheckId::JwksKeys,
                        CheckOutcome::Fail,
                        &expected,
                        "none of its keys is for these",
                        remedy(),
                    );
                } else {
                    self.report(
                        CheckId::JwksKeys,
                        CheckOutcome::Pass,
                        &expected,
                        format!("there are keys for {}", usable.join(", ")),
                    );
                }
            }
        }
    }

    async fn credentials(&mut self, token: Option<&Url>) {
        const ID: CheckId = CheckId::ClientCredentials;
        const EXPECTED: &str = "the IdP accepts client id and secret";
        let Some(token) = token else {
            return self.report(
                ID,
                CheckOutcome::Fail,
                EXPECTED,
                "there is no usable token endpoint",
            );
        };
        let method = self.probe.connection.settings.auth_method;
        let secret = self.probe.connection.secrets.active.expose().to_owned();
        let mut grant = vec![("grant_type", "client_credentials".to_owned())];
        if self.vendor == Vendor::Entra {
            grant.push(("scope", format!("{}/.default", self.probe.connection.settings.client_id)));
        }
        let code = vec![
            ("grant_type", "authorization_code".to_owned()),
            ("code", self.random()),
            ("redirect_uri", self.probe.redirect_uri.to_owned()),
            ("code_verifier", self.random()),
        ];
        for (is_last, form) in [(false, &grant), (true, &code)] {
            let answer = match self.token_answer(token, form, &secret).await {
                Ok(answer) => answer,
                Err(error) => {
                    let (found, remedy) = self.unreachable(&error);
                    return self.report_with(ID, CheckOutcome::Fail, EXPECTED, found, remedy);
                }
            };
            let said = self.redacted(&answer.to_string());
            if answer.has_token && !is_last {
                return self.report(
                    ID,
                    CheckOutcome::Pass,
                    EXPECTED,
                    "it issued a token (client_credentials), which was dropped unread",
                );
            }
            if answer.is_rejection() {
                let explained = advice::explain_aadsts(&answer.description)
                    .map_or_else(String::new, |meaning| format!("; {meaning}"));
                let remedy =
                    (Party::Support, advice::client_credentials(self.vendor, method.name()));
                return self.report_with(
                    ID,
                    CheckOutcome::Fail,
                    EXPECTED,
                    format!("{said}{explained}"),
                    Some(remedy),
                );
            }
            if !is_last {
                continue;
            }
            // The same with a secret that is surely wrong: once, and only now, since it can count towards a lockout.
            let wrong = self.random();
            let control = match self.token_answer(token, form, &wrong).await {
                Ok(control) => control,
                Err(error) => {
                    let (found, _) = self.unreachable(&error);
                    return self.report(ID, CheckOutcome::Inconclusive, EXPECTED, found);
                }
            };
            let is_told_apart = (control.status, &control.error) != (answer.status, &answer.error)
                && control.rejects_by_name()
                && !answer.error.is_empty();
            if !is_told_apart {
                let found =
                    format!("{said}; and the same with a wrong secret, so a test login must tell");
                return self.report(ID, CheckOutcome::Inconclusive, EXPECTED, found);
            }
            if answer.error == "unauthorized_client" {
                let remedy =
                    (Party::CustomerIdpAdmin, advice::allow_code_flow(self.vendor).to_owned());
                let found = format!("{said}: the secret seems right, the grant is not allowed");
                return self.report_with(ID, CheckOutcome::Warn, EXPECTED, found, Some(remedy));
            }
            let found = format!(
                "it refuses a made-up code ({said}), and a wrong secret differently ({})",
                self.redacted(&control.to_string())
            );
            return self.report(ID, CheckOutcome::Pass, EXPECTED, found);
        }
    }

    fn token_request(
        &self,
        token: &Url,
        form: &[(&str, String)],
        secret: &str,
    ) -> Result<Request<Bytes>, CallError> {
        let client_id = &self.probe.connection.settings.client_id;
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form.iter().map(|(name, value)| (*name, value.as_str())));
        let mut request = Request::post(token.as_str())
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        match self.probe.connection.settings.auth_method {
            TokenEndpointAuthMethod::ClientSecretPost => {
                body.append_pair("client_id", client_id).append_pair("client_secret", secret);
            }
            TokenEndpointAuthMethod::ClientSecretBasic => {
                if let Ok(mut value) =
                    HeaderValue::from_str(&format!("Basic {}", basic(client_id, secret)))
                {
                    value.set_sensitive(true);
                    request = request.header(AUTHORIZATION, value);
                }
            }
        }
        let request = request.body(Bytes::from(body.finish()));
        request.map_err(|error| CallError::Unusable {
            host: host_of(token.as_str()),
            detail: error.to_string(),
        })
    }

    async fn token_answer(
        &mut self,
        token: &Url,
        form: &[(&str, String)],
        secret: &str,
    ) -> Result<TokenAnswer, CallError> {
        let request = self.token_request(token, form, secret)?;
        let answer = self.call(request).await?;
        if answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS {
            let detail = format!("HTTP {}", answer.status.as_u16());
            return Err(CallError::Unavailable { host: host_of(token.as_str()), detail });
        }
        let document = json::parse_object(&answer.body).unwrap_or_default();
        let text =
            |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(TokenAnswer {
            status: answer.status.as_u16(),
            error: text("error"),
            description: text("error_description"),
            has_token: answer.status == StatusCode::OK && !text("access_token").is_empty(),
        })
    }

    async fn redirect_uri(&mut self, authorization: Option<&Url>) {
        const ID: CheckId = CheckId::ClientRedirectUri;
        let redirect_uri = self.probe.redirect_uri.to_owned();
        let expected = format!("{redirect_uri} is registered with the client");
        let Some(authorization) = authorization else {
            return self.report(
                ID,
                CheckOutcome::Fail,
                &expected,
                "there is no usable authorization endpoint",
            );
        };
        let remedy =
            (Party::CustomerIdpAdmin, advice::register_redirect_uri(self.vendor, &redirect_uri));
        match self.browse(authorization, &redirect_uri).await {
            Err(error) => {
                let (found, _) = self.unreachable(&error);
                self.report(ID, CheckOutcome::Inconclusive, &expected, found);
            }
            Ok(End::CameBack(error)) => {
                let unregistered = format!("{redirect_uri}unregistered-{}/", &self.random()[..8]);
                let control = self.browse(authorization, &unregistered).await;
                let is_told_apart = matches!(&control, Ok(End::Page { status, text }) if is_error_page(*status, text));
                let said = if error.is_empty() { "nothing" } else { error.as_str() };
                let found = self.redacted(&format!("the IdP answers there: {said}"));
                if !is_told_apart || error.is_empty() {
                    let found = format!(
                        "{found}; an unregistered one isn't refused for sure, so a test login must tell"
                    );
                    return self.report(ID, CheckOutcome::Inconclusive, &expected, found);
                }
                match error.as_str() {
                    "login_required"
                    | "interaction_required"
                    | "consent_required"
                    | "account_selection_required" => {
                        self.report(ID, CheckOutcome::Pass, &expected, found);
                    }
                    // It is registered, and every login would end so.
                    "unauthorized_client"
                    | "unsupported_response_type"
                    | "invalid_scope"
                    | "invalid_request" => {
                        let what = match error.as_str() {
                            "invalid_scope" => "allow the client the scopes that are asked for",
                            "invalid_request" => {
                                "see in the IdP's log what it refuses of the request"
                            }
                            _ => advice::allow_code_flow(self.vendor),
                        };
                        let remedy = (Party::CustomerIdpAdmin, what.to_owned());
                        self.report_with(ID, CheckOutcome::Fail, &expected, found, Some(remedy));
                    }
                    _ => self.report(ID, CheckOutcome::Warn, &expected, found),
                }
            }
            Ok(End::Page { status, text }) => {
                let explained = advice::explain_aadsts(&text)
                    .map_or_else(String::new, |meaning| format!("; {meaning}"));
                let is_error = is_error_page(status, &text);
                let text = self.redacted(&text);
                if is_error {
                    let found =
                        format!("an error page (HTTP {}): {text}{explained}", status.as_u16());
                    self.report_with(ID, CheckOutcome::Fail, &expected, found, Some(remedy));
                } else {
                    let found = format!(
                        "a page (HTTP {}) that a person must go on from; a test login tells",
                        status.as_u16()
                    );
                    self.report(ID, CheckOutcome::Inconclusive, &expected, found);
                }
            }
            Ok(End::TooFar) => {
                let found = format!("more than {MAX_HOPS} redirects; a test login tells");
                self.report(ID, CheckOutcome::Inconclusive, &expected, found);
            }
        }
    }

    /// What a browser without any session meets (`prompt=none`), up to our callback, which isn't called.
    async fn browse(&mut self, authorization: &Url, redirect_uri: &str) -> Result<End, CallError> {
        let settings = &self.probe.connection.settings;
        let mut url = authorization.clone();
        {
            // Made up, and not as states are made here: no callback with it is one of a login.
            let (state, nonce, challenge) = (self.random(), self.random(), self.random());
            let mut query = url.query_pairs_mut();
            query
                .append_pair("response_type", "code")
                .append_pair("client_id", &settings.client_id)
                .append_pair("redirect_uri", redirect_uri)
                .append_pair("scope", &settings.scopes.join(" "))
                .append_pair("state", &state)
                .append_pair("nonce", &nonce)
                .append_pair("code_challenge", &challenge)
                .append_pair("code_challenge_method", "S256")
                .append_pair("prompt", "none");
            for (name, value) in
                settings.authorization_params.iter().filter(|(name, _)| *name != "prompt")
            {
                query.append_pair(name, value);
            }
        }
        let mut cookies: HashMap<String, Vec<(String, String)>> = HashMap::new();
        for _ in 0..=MAX_HOPS {
            let host = url.host_str().unwrap_or_default().to_owned();
            let own = cookies.entry(host.clone()).or_default();
            let cookie = own
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
                .join("; ");
            let mut request = Request::get(url.as_str()).header(ACCEPT, "text/html");
            if let Some(cookie) =
                HeaderValue::from_str(&cookie).ok().filter(|cookie| !cookie.is_empty())
            {
                request = request.header(COOKIE, cookie);
            }
            let request = request.body(Bytes::new());
            let request = request.map_err(|error| CallError::Unusable {
                host: host.clone(),
                detail: error.to_string(),
            })?;
            let answer = self.call(request).await?;
            let own = cookies.entry(host).or_default();
            for cookie in answer
                .headers
                .get_all(SET_COOKIE)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .take(MAX_COOKIES)
            {
                let pair = cookie.split(';').next().unwrap_or_default();
                if let Some((name, value)) = pair.split_once('=') {
                    own.retain(|(known, _)| known != name.trim());
                    own.push((name.trim().to_owned(), value.trim().to_owned()));
                    own.truncate(MAX_COOKIES);
                }
            }
            if !answer.status.is_redirection() {
                return Ok(End::Page { status: answer.status, text: visible_text(&answer.body) });
            }
            let location = answer
                .headers
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            let target = url.join(location).map_err(|_| CallError::Unusable {
                host: host_of(url.as_str()),
                detail: "a redirect to nowhere".to_owned(),
            })?;
            if is_at(&target, redirect_uri) {
                return Ok(End::CameBack(error_in(&target)));
            }
            if target.origin().ascii_serialization() == self.probe.public_origin {
                // Ours all the same: nothing of it is called.
                return Ok(End::Page {
                    status: answer.status,
                    text: "a redirect to another of our pages".to_owned(),
                });
            }
            check_endpoint_url(target.as_str(), &self.probe.http.addresses).map_err(|error| {
                CallError::Unusable {
                    host: host_of(target.as_str()),
                    detail: format!("a redirect whose target {error}"),
                }
            })?;
            url = target;
        }
        Ok(End::TooFar)
    }

    fn logout(&mut self, end_session: Option<&Url>) {
        const EXPECTED: &str = "people can be logged out at the IdP too";
        let style = self.probe.connection.settings.logout_style;
        match (style, end_session) {
            (LogoutStyle::None, _) => self.report(
                CheckId::LogoutEndpoint,
                CheckOutcome::Pass,
                EXPECTED,
                "logout at the IdP is switched off",
            ),
            (LogoutStyle::Auth0V2 | LogoutStyle::Cognito, _) => {
                self.report(
                    CheckId::LogoutEndpoint,
                    CheckOutcome::Pass,
                    EXPECTED,
                    "by the product's own logout",
                );
            }
            (_, Some(url)) => self.report(
                CheckId::LogoutEndpoint,
                CheckOutcome::Pass,
                EXPECTED,
                format!("at {}", host_of(url.as_str())),
            ),
            (LogoutStyle::Auto, None) if matches!(self.vendor, Vendor::Auth0) => {
                self.report(
                    CheckId::LogoutEndpoint,
                    CheckOutcome::Pass,
                    EXPECTED,
                    "by Auth0's own logout",
                );
            }
            (LogoutStyle::Auto | LogoutStyle::RpInitiated, None) => {
                let found =
                    "there is no end_session_endpoint: a logout ends the session here alone";
                self.report(CheckId::LogoutEndpoint, CheckOutcome::Warn, EXPECTED, found);
            }
        }
    }

    async fn certificate(&mut self, token: Option<&Url>) {
        const EXPECTED: &str = "the token endpoint's certificate is valid for two weeks and more";
        let Some(token) = token.filter(|token| token.scheme() == "https") else {
            return self.report(
                CheckId::TlsCertificate,
                CheckOutcome::Inconclusive,
                EXPECTED,
                "it isn't called over https",
            );
        };
        match self.probe.http.certificate_expiry(token).await {
            Err(error) => {
                let (found, _) = self.unreachable(&error);
                self.report(CheckId::TlsCertificate, CheckOutcome::Inconclusive, EXPECTED, found);
            }
            Ok(expires) => {
                let now = i64::try_from(self.probe.clock.unix_seconds().0).unwrap_or(i64::MAX);
                let days = (expires - now).div_euclid(DAY);
                let found = format!("it expires in {days} days");
                if days >= CERTIFICATE_DAYS {
                    return self.report(
                        CheckId::TlsCertificate,
                        CheckOutcome::Pass,
                        EXPECTED,
                        found,
                    );
                }
                let remedy = (Party::CustomerIdpAdmin, "renew the certificate".to_owned());
                self.report_with(
                    CheckId::TlsCertificate,
                    CheckOutcome::Warn,
                    EXPECTED,
                    found,
                    Some(remedy),
                );
            }
        }
    }
}

/// Where a browser without a session ends.
enum End {
    /// At our callback, with this error; empty: without.
    CameBack(String),
    /// At a page.
    Page {
        status: StatusCode,
        text: String,
    },
    TooFar,
}

/// What a token endpoint answered.
struct TokenAnswer {
    status: u16,
    error: String,
    description: String,
    has_token: bool,
}

impl TokenAnswer {
    /// Whether this says that client id or secret are wrong.
    fn is_rejection(&self) -> bool {
        self.error == "invalid_client"
            || self.status == 401 && self.error.is_empty()
            || [
                "Invalid client or Invalid client credentials",
                "AADSTS7000215",
                "AADSTS7000222",
                "AADSTS700016",
                "AADSTS7000218",
                "AADSTS90002",
            ]
            .iter()
            .any(|text| self.description.contains(text))
    }

    /// Whether it is OAuth's own word for a client that isn't accepted: a gate before the IdP that shuts says something else.
    fn rejects_by_name(&self) -> bool {
        !self.error.is_empty() && (self.is_rejection() || self.error == "unauthorized_client")
    }
}

impl std::fmt::Display for TokenAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if !self.error.is_empty() {
            write!(f, ", {}", self.error)?;
        }
        if !self.description.is_empty() {
            write!(f, ": {}", self.description)?;
        }
        Ok(())
    }
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// RFC 6749 2.3.1: each form-urlencoded first.
fn basic(client_id: &str, secret: &str) -> String {
    BASE64_STANDARD.encode(format!("{}:{}", encoded(client_id), encoded(secret)))
}

struct Document<'a>(&'a Map<String, Value>);

impl Document<'_> {
    fn list(&self, name: &str) -> Option<Vec<&str>> {
        Some(self.0.get(name)?.as_array()?.iter().filter_map(Value::as_str).collect())
    }
}

fn redirect_or_status(answer: &Answer) -> String {
    let status = answer.status.as_u16();
    match answer.headers.get(LOCATION).and_then(|value| value.to_str().ok()) {
        Some(location) if answer.status.is_redirection() => {
            format!("HTTP {status} to {}; redirects are not followed", host_of(location))
        }
        _ => format!("HTTP {status}"),
    }
}

/// The `error` of a callback: in its query, or by mistake in its fragment.
fn error_in(target: &Url) -> String {
    let in_fragment = form_urlencoded::parse(target.fragment().unwrap_or_default().as_bytes());
    let mut pairs = target.query_pairs().chain(in_fragment);
    pairs.find(|(name, _)| name == "error").map(|(_, error)| error.into_owned()).unwrap_or_default()
}

/// Whether a page refuses the request: by its status, or by a name for that which products write on pages that are otherwise fine.
/// Too many requests, and a server's own trouble, refuse nothing.
fn is_error_page(status: StatusCode, text: &str) -> bool {
    let is_named = ["redirect_uri_mismatch", "AADSTS50011", "AADSTS700016", "AADSTS90002"]
        .iter()
        .any(|name| text.contains(name));
    is_named || status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS
}

/// Whether this is our callback, whatever its query says.
fn is_at(target: &Url, redirect_uri: &str) -> bool {
    let mut bare = target.clone();
    bare.set_query(None);
    bare.set_fragment(None);
    bare.as_str() == redirect_uri
}

/// What a page says, without its markup.
fn visible_text(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(MAX_PAGE)]);
    let mut out = String::new();
    // Entra's pages have their error in a script alone.
    if let Some(start) = text.find("AADSTS") {
        let sentence: String = text[start..]
            .chars()
            .take_while(|c| !matches!(c, '"' | '<' | '\\' | '\n'))
            .take(MAX_SHOWN)
            .collect();
        out.push_str(&sentence);
        out.push(' ');
    }
    let mut rest: &str = &text;
    while let Some(start) = rest.find('<') {
        out.push_str(&rest[..start]);
        out.push(' ');
        let tag = &rest[start..];
        // What stands between these is no text.
        let silent = ["script", "style", "head"].into_iter().find(|name| {
            let ends =
                tag.as_bytes().get(name.len() + 1).is_none_or(|next| !next.is_ascii_alphanumeric());
            ends && tag.get(1..=name.len()).is_some_and(|own| own.eq_ignore_ascii_case(name))
        });
        let end = match silent {
            Some(name) => tag.to_ascii_lowercase().find(&format!("</{name}")),
            None => tag.find('>').map(|end| end + 1),
        };
        let Some(end) = end else { return out };
        rest = &tag[end.max(1)..];
    }
    out.push_str(rest);
    out
}

/// A whole check, to the IdP.
pub const MAX_REQUESTS: usize = 12;
/// A whole check.
pub const CHECK_DEADLINE: Duration = Duration::from_secs(60);
const MAX_HOPS: usize = 5;
const MAX_COOKIES: usize = 30;
const MAX_PAGE: usize = 64 * 1024;
/// Characters of an IdP's text.
const MAX_SHOWN: usize = 300;
const MAX_SKEW: u64 = 60;
const DAY: i64 = 24 * 60 * 60;
const CERTIFICATE_DAYS: i64 = 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_without_its_markup() {
        let page = b"<html><head><title>x</title><style>a{}</style></head><body><h1>Error</h1><script>var s</script><p>no &amp; way</p><";
        let text = visible_text(page).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(text, "Error no &amp; way");
        let entra = br#"<html><head></head><header>Sorry</header><script>$Config={"strServiceExceptionMessage":"AADSTS50011: The redirect URI is wrong."}</script>"#;
        let text = visible_text(entra);
        assert!(
            text.starts_with("AADSTS50011: The redirect URI is wrong. ") && text.contains("Sorry"),
            "{text}"
        );
        assert!(is_error_page(StatusCode::OK, &text) && !is_error_page(StatusCode::OK, "Log in"));
        assert!(
            !is_error_page(StatusCode::TOO_MANY_REQUESTS, "")
                && is_error_page(StatusCode::BAD_REQUEST, "")
        );
        for page in ["", "<", "<script>", "</script", "<a<b>c", "\u{fffd}<\u{fffd}>", "<style"] {
            visible_text(page.as_bytes());
        }
    }

    #[test]
    fn our_callback_is_known_whatever_its_query() {
        let ours = "https://a.example/app/accounts/oidc/acme/login/callback/";
        for (target, expected) in [
            ("https://a.example/app/accounts/oidc/acme/login/callback/?error=login_required", true),
            ("https://a.example/app/accounts/oidc/acme/login/callback/#error=x", true),
            ("https://a.example/app/accounts/oidc/acme/login/callback", false),
            ("https://b.example/app/accounts/oidc/acme/login/callback/", false),
        ] {
            assert_eq!(is_at(&Url::parse(target).expect("a URL"), ours), expected, "{target}");
        }
        let in_fragment =
            Url::parse(&format!("{ours}#error=unauthorized_client&state=x")).expect("a URL");
        assert_eq!(error_in(&in_fragment), "unauthorized_client");
    }

    #[test]
    fn rejections_of_the_client_are_known_in_each_ones_words() {
        let answer = |status, error: &str, description: &str| TokenAnswer {
            status,
            error: error.to_owned(),
            description: description.to_owned(),
            has_token: false,
        };
        for (answer, expected) in [
            (answer(401, "invalid_client", ""), true),
            (answer(401, "", ""), true),
            (
                answer(401, "unauthorized_client", "Invalid client or Invalid client credentials"),
                true,
            ),
            (
                answer(
                    400,
                    "unauthorized_client",
                    "AADSTS700016: Application with identifier 'x' was not found",
                ),
                true,
            ),
            (answer(400, "unauthorized_client", "the client may not use this grant"), false),
            (answer(400, "invalid_grant", ""), false),
            (answer(400, "unsupported_grant_type", ""), false),
        ] {
            assert_eq!(answer.is_rejection(), expected, "{answer}");
        }
    }
}
