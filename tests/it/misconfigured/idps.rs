//! IdPs whose documents are wrong, or that can't be reached.

use super::walk::{Fault, IDP_ADMIN, METADATA, SUPPORT, TRANSIENT, answer, fault};
use super::*;
use crate::fake_idp::merge;

pub(super) fn documents() -> Vec<Fault> {
    vec![
        fault("Auth0: the issuer without its slash", |c, _| {
            c.issuer = c.issuer.trim_end_matches('/').to_owned();
        })
        .at(At::Product("auth0"))
        .fails("metadata.issuer")
        .no_begin("PROVIDER_METADATA_INVALID")
        .told("issuer_mismatch", SUPPORT, "store the"),
        fault("another issuer", |c, _| c.issuer = "https://other.example".to_owned())
            .fails("metadata.issuer")
            .no_begin("PROVIDER_METADATA_INVALID")
            .told("issuer_mismatch", SUPPORT, "store the"),
        fault("Entra: the discovery URL of all tenants", |_, idp| {
            let issuer = "https://login.microsoftonline.com/{tenantid}/v2.0";
            idp.document.as_mut().expect("Entra's")["issuer"] = json!(issuer);
        })
        .at(At::Product("entra_v2"))
        .fails("metadata.issuer")
        .no_begin("PROVIDER_METADATA_INVALID")
        .told("tenant_template", SUPPORT, "the tenant's own discovery URL"),
        fault("nothing at the discovery URL", |_, idp| answer(idp, METADATA, 404, "", ""))
            .fails("metadata.document")
            .no_begin("PROVIDER_METADATA_INVALID")
            .told("metadata_status", SUPPORT, "the URL of the metadata document itself"),
        fault("a page at the discovery URL", |_, idp| {
            answer(idp, METADATA, 200, "<!DOCTYPE html><html>Admin console</html>", "");
        })
        .fails("metadata.document")
        .no_begin("PROVIDER_METADATA_INVALID")
        .told("not_json", SUPPORT, "the URL of the metadata document itself"),
        fault("the discovery URL leads to a login page", |_, idp| {
            answer(idp, METADATA, 302, "", "https://idp.example/login");
        })
        .fails("metadata.document")
        .no_begin("PROVIDER_METADATA_INVALID")
        .told("metadata_redirect", SUPPORT, "the URL that the redirect leads to"),
        fault("another JSON document at the discovery URL", |_, idp| {
            answer(idp, METADATA, 200, r#"{"keys":[]}"#, "");
        })
        .fails("metadata.issuer")
        .no_begin("PROVIDER_METADATA_INVALID")
        .told("issuer_missing", SUPPORT, "the URL of the metadata document itself"),
        fault("no token endpoint", |_, idp| idp.metadata = json!({ "token_endpoint": null }))
            .fails("metadata.endpoints")
            .no_begin("PROVIDER_METADATA_INVALID")
            .told("endpoint_missing", IDP_ADMIN, "correct the metadata document"),
        fault("an endpoint that isn't an https URL", |_, idp| {
            idp.metadata = json!({ "authorization_endpoint": "ftp://nowhere" });
        })
        .fails("metadata.endpoints")
        .no_begin("PROVIDER_METADATA_INVALID")
        .told("endpoint_invalid", IDP_ADMIN, "correct the metadata document"),
        fault("endpoints of two of Okta's authorization servers", |c, idp| {
            let at = |path: &str| c.discovery_url.replace(METADATA, path);
            c.endpoints = Some(pb::ProviderEndpoints {
                authorization_endpoint: at("/oauth2/default/v1/authorize"),
                token_endpoint: at("/oauth2/aus1/v1/token"),
                jwks_uri: at("/oauth2/default/v1/keys"),
                ..Default::default()
            });
            merge(&mut idp.claims, &json!({ "iss": at("/oauth2/aus1") }));
            c.issuer = at("/oauth2/default");
            c.discovery_url = String::new();
            for (server, path) in [("default", "authorize"), ("aus1", "token"), ("default", "keys")]
            {
                idp.routes.insert(format!("/oauth2/{server}/v1/{path}"), format!("/{path}"));
            }
        })
        .at(At::Product("okta_custom"))
        .fails("metadata.cross_check")
        .refused("ID_TOKEN_INVALID")
        .told("settings_incomplete", SUPPORT, "endpoints of one authorization server")
        .told_at_login("issuer", IDP_ADMIN, "compare the connection's issuer"),
        fault("ID tokens by HS256 alone", |_, idp| {
            idp.metadata = json!({ "id_token_signing_alg_values_supported": ["HS256"] });
        })
        .fails("metadata.signing_algs")
        .no_begin("PROVIDER_METADATA_INVALID")
        .told("signing_alg_unsupported", IDP_ADMIN, "RS256"),
        fault("no key is published", |_, idp| idp.keys = Some(json!({ "keys": [] })))
            .fails("jwks.keys")
            .no_begin("PROVIDER_METADATA_INVALID")
            .told("no_usable_key", IDP_ADMIN, "publish the key"),
        fault("a page in place of the keys", |_, idp| answer(idp, "/keys", 200, "<html>", ""))
            .fails("jwks.keys")
            .no_begin("PROVIDER_METADATA_INVALID")
            .told("keys_not_json", IDP_ADMIN, "in place of the key set"),
        fault("the keys have moved", |_, idp| answer(idp, "/keys", 404, "", ""))
            .fails("jwks.keys")
            .no_begin("PROVIDER_METADATA_INVALID")
            .told("keys_status", IDP_ADMIN, "must answer with the key set"),
    ]
}

pub(super) fn networks() -> Vec<Fault> {
    let unreachable = |name, wrong| fault(name, wrong).fails("metadata.document");
    let over_tls = |name, chain| {
        let fault = unreachable(name, |_, _| {}).at(At::Tls(chain));
        fault.no_begin("PROVIDER_UNAVAILABLE")
    };
    vec![
        over_tls("an expired certificate", Chain::Expired).told(
            "tls_certificate_expired",
            IDP_ADMIN,
            "renew the IdP's TLS certificate",
        ),
        over_tls("a certificate of an unknown CA", Chain::UnknownCa).told(
            "tls_untrusted",
            IDP_ADMIN,
            "SSO_ACCOUNT_PROVIDER_CAS",
        ),
        over_tls("a certificate without its intermediate", Chain::WithoutIntermediate).told(
            "tls_chain_incomplete",
            IDP_ADMIN,
            "send the whole chain",
        ),
        over_tls("a certificate for another host", Chain::OtherName).told(
            "tls_name_mismatch",
            IDP_ADMIN,
            "another host name",
        ),
        unreachable("a name that does not exist", |c, _| c.discovery_url = url_at("missing.test"))
            .at(At::NameServer)
            .no_begin("PROVIDER_UNAVAILABLE")
            .told("dns", IDP_ADMIN, "does not resolve"),
        unreachable("name servers that don't answer", |c, _| {
            c.discovery_url = url_at("silent.test")
        })
        .at(At::NameServer)
        .no_begin("PROVIDER_UNAVAILABLE")
        .told("dns_no_answer", TRANSIENT, "name servers"),
        unreachable("nothing listens there", |c, _| c.discovery_url = url_at("127.0.0.1"))
            .no_begin("PROVIDER_UNAVAILABLE")
            .told("connect", IDP_ADMIN, "refuses connections"),
        unreachable("the IdP doesn't answer", |_, idp| {
            idp.metadata_delay = Duration::from_secs(30)
        })
        .no_begin("PROVIDER_UNAVAILABLE")
        .told("timeout", TRANSIENT, "did not answer in time"),
        unreachable("the IdP limits the rate", |_, idp| answer(idp, METADATA, 429, "", ""))
            .no_begin("PROVIDER_UNAVAILABLE")
            .told("http_429", TRANSIENT, "limits the rate"),
        unreachable("the IdP is down", |_, idp| answer(idp, METADATA, 503, "", ""))
            .no_begin("PROVIDER_UNAVAILABLE")
            .told("http_5xx", TRANSIENT, "internal error"),
        fault("the token endpoint is down", |_, idp| answer(idp, "/token", 503, "", ""))
            .fails("client.credentials")
            .refused("PROVIDER_UNAVAILABLE")
            .told("http_5xx", TRANSIENT, "internal error"),
        fault("a firewall before the token endpoint", |_, idp| {
            answer(idp, "/token", 403, "<html>Request blocked</html>", "");
        })
        .undecided("client.credentials")
        .refused("TOKEN_RESPONSE_INVALID")
        .told("token_http_status", IDP_ADMIN, "something in front of it"),
        fault("the token endpoint redirects", |_, idp| {
            answer(idp, "/token", 302, "", "https://idp.example/");
        })
        .fails("client.credentials")
        .refused("TOKEN_RESPONSE_INVALID")
        .told("token_redirect", IDP_ADMIN, "without a redirect"),
        fault("the login page is down", |_, idp| {
            idp.registered_redirect = None;
            idp.unregistered_page = Some((503, "Service Unavailable"));
        })
        .undecided("client.redirect_uri")
        .never_returns(),
    ]
}

/// Where nothing listens, if there is such a host at all.
fn url_at(host: &str) -> String {
    format!("http://{host}:1{METADATA}")
}
