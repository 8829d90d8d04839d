//! What only a person's login shows: tokens that are wrong, and people whom the IdP or the account refuses.

use super::walk::{Fault, IDP_ADMIN, PERSON, SUPPORT, answer, fault, token_error};
use super::*;
use crate::fake_idp::merge;

pub(super) fn tokens() -> Vec<Fault> {
    vec![
        fault("ID tokens by HS256 for the client", |_, idp| {
            idp.header = json!({ "alg": "HS256" });
        })
        .refused("ID_TOKEN_SIGNATURE_INVALID")
        .told("alg_hmac", IDP_ADMIN, "from HS256 to RS256"),
        fault("encrypted ID tokens", |_, idp| idp.id_token = Some("a.b.c.d.e".to_owned()))
            .refused("ID_TOKEN_INVALID")
            .told("encrypted", IDP_ADMIN, "switch ID token encryption off"),
        fault("signed by a key that isn't published", |_, idp| {
            idp.header = json!({ "kid": "unknown" });
        })
        .refused("ID_TOKEN_SIGNATURE_INVALID")
        .told("unknown_key", IDP_ADMIN, "publish the key"),
        fault("tokens of another issuer than the document's", |_, idp| {
            idp.claims = json!({ "iss": "https://other.example" });
        })
        .refused("ID_TOKEN_INVALID")
        .told("issuer", IDP_ADMIN, "compare the connection's issuer"),
        fault("the IdP's clock is ahead", |_, idp| idp.clock_ahead = 120)
            .fails("clock.skew")
            .refused("ID_TOKEN_INVALID")
            .told("issued_in_future", IDP_ADMIN, "clock by NTP"),
        fault("the IdP's clock is far behind", |_, idp| idp.clock_ahead = -900)
            .fails("clock.skew")
            .refused("ID_TOKEN_INVALID")
            .told("issued_too_long_ago", IDP_ADMIN, ""),
        fault("the IdP's clock is behind", |_, idp| idp.clock_ahead = -120)
            .warns("clock.skew")
            .told("expired", IDP_ADMIN, "clock by NTP"),
        fault("Entra: no e-mail address in the tokens", |_, idp| {
            merge(&mut idp.claims, &json!({ "email": null, "preferred_username": null }));
            merge(&mut idp.userinfo, &json!({ "email": null }));
        })
        .at(At::Product("entra_v2"))
        .refused("CLAIM_MISSING")
        .told("claim_missing", IDP_ADMIN, "email"),
        fault("a claim that the IdP doesn't have", |c, idp| {
            let email = vec!["mail".to_owned()];
            c.claim_mapping = Some(pb::ClaimMapping { email, ..Default::default() });
            idp.metadata = json!({ "claims_supported": ["email", "given_name", "family_name"] });
        })
        .warns("metadata.claims")
        .refused("CLAIM_MISSING")
        .told("", SUPPORT, "claim_mapping")
        .told_at_login("claim_missing", IDP_ADMIN, ""),
        fault("an e-mail address with a name around it", |_, idp| {
            idp.claims = json!({ "email": "Alice <alice@example.com>" });
        })
        .refused("CLAIM_MISSING")
        .told("claim_unusable", IDP_ADMIN, "exactly one address"),
        fault("UserInfo is forbidden", |_, idp| {
            idp.userinfo = json!({});
            answer(idp, "/userinfo", 403, "", "");
        })
        .refused("USERINFO_INVALID")
        .told("userinfo_status", IDP_ADMIN, "ID token"),
        fault("no ID token", |_, idp| idp.token_response = json!({ "id_token": null }))
            .refused("TOKEN_RESPONSE_INVALID")
            .told("id_token_missing", IDP_ADMIN, "scope openid"),
    ]
}

pub(super) fn people() -> Vec<Fault> {
    let none = |name| fault(name, |_, _| {});
    vec![
        none("Okta: the person isn't assigned")
            .at(At::Product("okta_org"))
            .comes_back("access_denied", "User is not assigned to the client application.")
            .refused("IDP_REFUSED")
            .told("person_not_assigned", IDP_ADMIN, "assign"),
        none("Entra: the person isn't assigned")
            .at(At::Product("entra_v2"))
            .sees("AADSTS50105")
            .never_returns(),
        none("Entra: an admin must consent")
            .at(At::Product("entra_v2"))
            .comes_back(
                "consent_required",
                "AADSTS65001: The user or administrator has not consented",
            )
            .refused("IDP_REFUSED")
            .told("admin_consent_missing", IDP_ADMIN, "grant admin consent"),
        none("Entra: a conditional access policy")
            .at(At::Product("entra_v2"))
            .comes_back(
                "access_denied",
                "AADSTS53003: Access has been blocked by Conditional Access",
            )
            .refused("IDP_REFUSED")
            .told("policy_refused", IDP_ADMIN, "sign-in log"),
        none("Entra: a person of another tenant")
            .at(At::Product("entra_v2"))
            .comes_back("invalid_request", "AADSTS50020: User account from identity provider x")
            .refused("IDP_REFUSED")
            .told("person_of_other_tenant", IDP_ADMIN, "another tenant"),
        none("Google: a person of another organization")
            .at(At::Product("google"))
            .sees("org_internal")
            .never_returns(),
        none("the person cancels")
            .comes_back("access_denied", "The user said no")
            .refused("IDP_REFUSED")
            .told("access_denied", PERSON, "cancelled"),
        none("an error that nobody knows")
            .comes_back("odd_error", "It is odd")
            .refused("IDP_REFUSED")
            .told("other_error", IDP_ADMIN, "look the error code up"),
        fault("a person outside the account's domains", |c, _| {
            c.allowed_email_domains = vec!["customer.example".to_owned()];
        })
        .refused("EMAIL_DOMAIN_NOT_ALLOWED")
        .told("email_domain", PERSON, "outside allowed_email_domains"),
        fault("an e-mail address that isn't verified", |c, idp| {
            c.require_verified_email = true;
            idp.claims = json!({ "email_verified": false });
        })
        .refused("EMAIL_NOT_VERIFIED")
        .told("email_unverified", PERSON, "require_verified_email"),
        fault("Google: a person outside the Workspace", |c, _| {
            let values = vec!["fabrikam.com".to_owned()];
            c.required_claims = vec![pb::RequiredClaim { name: "hd".to_owned(), values }];
        })
        .at(At::Product("google"))
        .refused("CLAIM_NOT_ALLOWED")
        .told("claim_not_allowed", PERSON, "required_claims"),
        fault("the code is used twice", |_, idp| {
            let words = "AADSTS54005: OAuth2 Authorization code was already redeemed";
            idp.token_answer = token_error(400, "invalid_grant", words);
        })
        .undecided("client.credentials")
        .refused("CODE_REJECTED")
        .told("code_spent", PERSON, "begin a new login"),
    ]
}
