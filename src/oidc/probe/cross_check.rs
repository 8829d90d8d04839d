//! Endpoints that support entered by hand: are they those of one IdP, and of the issuer? The issuer's
//! metadata document tells, if there is one; endpoints of two authorization servers of Okta also by
//! their paths.

use url::Url;

use super::{Known, Run, Verdict};
use crate::model::cause::Cause;
use crate::model::check::CheckId;
use crate::model::connection::Endpoints;
use crate::model::endpoint_url::{WELL_KNOWN, check_endpoint_url};
use crate::oidc::http::host_of;
use crate::oidc::idps::okta;
use crate::oidc::metadata::{Discovery, accepted_algs, auth_method, fetch};

impl Run<'_, '_> {
    /// The endpoints that support entered, which were checked when they were saved.
    pub(super) async fn manual(&mut self, issuer: &str, endpoints: &Endpoints) -> Known {
        let found = "they are set by hand, so no metadata document is needed";
        self.report(CheckId::MetadataDocument, "the endpoints are known", Verdict::pass(found));
        for id in [
            CheckId::MetadataIssuer,
            CheckId::MetadataCodeFlow,
            CheckId::MetadataPkce,
            CheckId::MetadataScopes,
            CheckId::MetadataClaims,
            CheckId::MetadataAuthMethod,
            CheckId::MetadataSigningAlgs,
            CheckId::MetadataEndpoints,
            CheckId::MetadataUsable,
        ] {
            self.skip(id, "the endpoints are set by hand, so no metadata document is read");
        }
        let discovery = self.cross_check(issuer, endpoints).await;
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
            auth_methods: discovery.as_ref().and_then(|read| read.auth_methods.clone()),
            subject_types: discovery.as_ref().and_then(|read| read.subject_types.clone()),
            requires_par: discovery.is_some_and(|read| read.requires_par),
        }
    }

    async fn cross_check(&mut self, issuer: &str, endpoints: &Endpoints) -> Option<Discovery> {
        const ID: CheckId = CheckId::MetadataCrossCheck;
        let read = self.document_of(issuer).await;
        let verdict = match (servers(issuer, endpoints), &read) {
            (Some(servers), _) => {
                let found = format!("they belong to different authorization servers: {servers}");
                self.failure(Cause::SettingsIncomplete, &found).for_support(
                    "enter the endpoints of one authorization server, and its issuer; or its discovery URL \
                     in place of the endpoints",
                )
            }
            (None, None) => {
                Verdict::skipped("the issuer has no metadata document to compare them with")
            }
            (None, Some(document)) => self.compare(endpoints, document),
        };
        let verdict = self.answered_by_test_login(verdict);
        self.report(ID, ID.expected(), verdict);
        read
    }

    /// That there is none is why endpoints are entered by hand.
    async fn document_of(&mut self, issuer: &str) -> Option<Discovery> {
        let url = format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'));
        let url = check_endpoint_url(&url, self.probe.http.addresses()).ok()?;
        self.take(&url).ok()?;
        self.probe.note_asked(url.host_str());
        match fetch(self.probe.connection, &url, self.probe.http).await {
            Ok((discovery, answer)) => {
                self.skew(&answer);
                Some(discovery)
            }
            Err(_) => {
                self.skip(
                    CheckId::ClockSkew,
                    "the issuer has no metadata document to take its time from",
                );
                None
            }
        }
    }

    fn compare(&self, endpoints: &Endpoints, document: &Discovery) -> Verdict {
        let required = [
            (
                "authorization_endpoint",
                &endpoints.authorization,
                document.authorization.as_ref().ok(),
            ),
            ("token_endpoint", &endpoints.token, document.token.as_ref().ok()),
            ("jwks_uri", &endpoints.jwks, document.jwks.as_ref().ok()),
        ];
        let differs = |(_, entered, named): &(_, &Url, Option<&Url>)| {
            named.is_some_and(|named| named.as_str() != entered.as_str())
        };
        let differences = required.into_iter().filter(differs).map(|(name, entered, named)| {
            let named = named.map(Url::as_str).unwrap_or_default();
            format!("{name} is {entered}, and the issuer's document says {named}")
        });
        let differences: Vec<String> = differences.collect();
        if differences.is_empty() {
            return Verdict::pass("they are those of the issuer's metadata document");
        }
        // A host of its own can be meant, and lead to the same server.
        Verdict::warn(self.redact(&differences.join("; "))).for_support(
            "enter the endpoints of the issuer's document, unless the difference is meant",
        )
    }
}

/// The authorization servers of Okta, if there are more than one.
fn servers(issuer: &str, endpoints: &Endpoints) -> Option<String> {
    let issuer = Url::parse(issuer).ok()?;
    let endpoints = [&endpoints.authorization, &endpoints.token, &endpoints.jwks];
    let mut servers: Vec<String> = Vec::new();
    let named = endpoints.into_iter().map(okta::server_of_endpoint);
    // Only where all are Okta's: another IdP's paths mean nothing here.
    for server in named.chain([Some(okta::server_of_issuer(&issuer))]) {
        let server = server?;
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    (servers.len() > 1).then(|| format!("{} at {}", servers.join(", "), host_of(&issuer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorization_servers_of_okta_are_told_apart_by_their_paths() {
        let url = |path: &str| Url::parse(&format!("https://a.okta.com/{path}")).expect("a URL");
        for (issuer, authorize, token, keys, expected) in [
            ("", "oauth2/v1/authorize", "oauth2/v1/token", "oauth2/v1/keys", None),
            (
                "oauth2/default",
                "oauth2/default/v1/authorize",
                "oauth2/default/v1/token",
                "oauth2/default/v1/keys",
                None,
            ),
            (
                "oauth2/default",
                "oauth2/default/v1/authorize",
                "oauth2/aus1/v1/token",
                "oauth2/default/v1/keys",
                Some("default, aus1 at a.okta.com"),
            ),
            (
                "",
                "oauth2/default/v1/authorize",
                "oauth2/default/v1/token",
                "oauth2/default/v1/keys",
                Some("default, the org server at a.okta.com"),
            ),
            ("", "authorize", "token", "keys", None),
            ("oauth2/default", "oauth2/other/v1/authorize", "token", "keys", None),
        ] {
            let endpoints = Endpoints {
                authorization: url(authorize),
                token: url(token),
                jwks: url(keys),
                userinfo: None,
                end_session: None,
            };
            let issuer = url(issuer);
            assert_eq!(servers(issuer.as_str(), &endpoints).as_deref(), expected, "{token}");
        }
    }
}
