//! Ping Identity: PingOne, and PingFederate, which customers run on host names of their own.

use super::{Facts, Fault, KnownError, is_in};

pub(super) const FACTS: Facts = Facts {
    name: "Ping Identity",
    is_at: |url| {
        ["pingone.com", "pingone.eu", "pingone.ca", "pingone.asia", "pingone.com.au", "pingone.sg"]
            .iter()
            .any(|domain| is_in(url, domain))
    },
    steps: &[
        "PingOne: open **Applications > Applications > +** and choose *OIDC Web App*. PingFederate: \
         open **Applications > OAuth > Clients > Add Client** and choose *Client Secret*.",
        "**Redirect URIs**: enter `{redirect_uri}`. **Signoff URLs** (PingFederate: *Post-Logout \
         Redirect URIs*): enter `{login_uri}`. **Initiate Login URI**: enter `{login_uri}`.",
        "**Grant type** (PingFederate: *Allowed Grant Types*): choose *Authorization Code* and, if you \
         can, *Client Credentials*. **PKCE Enforcement**: choose *S256 Required*.",
        "**Token Endpoint Authentication Method**: choose *Client Secret Basic* or *Client Secret \
         Post*.",
        "**Resources**: allow the scopes `openid`, `email` and `profile`. **Attribute Mappings** \
         (PingFederate: the OpenID Connect policy): map `email`, `given_name` and `family_name`.",
        "**Access**: choose the groups of people who may log in. Enable the application.",
        "Copy the Client ID and the Client Secret from **Overview**.",
    ],
    discovery_url: "`https://auth.pingone.com/ENVIRONMENT-ID/as/.well-known/openid-configuration`, or \
                    `https://HOST/.well-known/openid-configuration` of PingFederate",
    redirect_uris: "Applications > the application > Configuration > Redirect URIs (PingFederate: \
                    Applications > OAuth > Clients > the client > Redirect URIs)",
    credentials: "Applications > the application > Configuration: Client Secret, Token Endpoint \
                  Authentication Method",
    allow_code_flow: "Applications > the application > Configuration > Grant type: choose \
                      Authorization Code",
    assign_people: "Applications > the application > Access",
    add_claims: "Ping Identity: Applications > the application > Attribute Mappings (PingFederate: the \
                 OpenID Connect policy): map email, given_name and family_name",
    claims_help: "https://docs.pingidentity.com/pingone/applications/\
                  p1_mapping_attributes.html",
    help: "https://docs.pingidentity.com/pingfederate/11.3/administrators_reference_guide/\
           pf_create_client.html",
    errors: &[
        KnownError::new(
            "Unknown or invalid client_id",
            Fault::ClientUnknown,
            "no such client exists, or it is disabled: the client id is wrong",
            "https://docs.pingidentity.com/r/en-us/pingfederate-120/\
             pf_review_oauth_request_various_oauth_settings",
        ),
        KnownError::new(
            "Redirect URI mismatch",
            Fault::RedirectUri,
            "the redirect URI is not registered with the client",
            "https://docs.pingidentity.com/sdks/latest/sdks/serverconfiguration/pingfederate/\
             create-oauth2-client.html",
        ),
    ],
    callback_errors: &[],
    scripted_error: None,
    client_credentials_scope: None,
};
