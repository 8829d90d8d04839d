//! What the service needs to know of an IdP: its metadata document (OIDC Discovery 3) or the manual
//! endpoints. The one reader of that document, for logins ([`Metadata::of`]) and for checks
//! ([`fetch`]). The openidconnect crate's reader refuses documents for members that no login needs.

use serde_json::{Map, Value};
use url::Url;

use super::error::{Document, Problem, ProviderError};
use super::http::{Answer, HttpClient, host_of};
use super::json;
use crate::model::address::AddressPolicy;
use crate::model::cause::Cause;
use crate::model::connection::{
    Connection, ConnectionSettings, Endpoints, Issuer, MetadataSource, TENANT_PLACEHOLDER,
    TokenEndpointAuthMethod,
};
use crate::model::endpoint_url::{
    EndpointUrlError, WELL_KNOWN, check_endpoint_url, smuggled_parameter,
};
use crate::model::signing_alg::SigningAlg;
use crate::model::text::quotable;

/// An IdP's metadata, complete, for one connection.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    pub(super) issuer: Issuer,
    pub(super) endpoints: Endpoints,
    /// Which algorithms an ID token may be signed with; never empty.
    pub(super) algs: Vec<SigningAlg>,
    /// How the client authenticates at the token endpoint.
    pub(super) auth_method: TokenEndpointAuthMethod,
    /// RFC 9207 3: the callback must carry `iss`.
    pub(super) iss_parameter_supported: bool,
}

/// A metadata document, read once for one connection. Each member is usable, or has its problem: a
/// check reports each, a login needs all of them.
#[derive(Clone, Debug)]
pub(super) struct Discovery {
    /// The `issuer` of the document, as it is written there.
    pub(super) named_issuer: String,
    pub(super) issuer: Result<Issuer, Problem>,
    pub(super) authorization: Result<Url, Problem>,
    pub(super) token: Result<Url, Problem>,
    pub(super) jwks: Result<Url, Problem>,
    pub(super) userinfo: Result<Option<Url>, Problem>,
    pub(super) end_session: Result<Option<Url>, Problem>,
    pub(super) algs: Result<Vec<SigningAlg>, Problem>,
    /// How the client authenticates.
    pub(super) auth_method: TokenEndpointAuthMethod,
    pub(super) auth_methods: Option<Vec<String>>,
    pub(super) response_types: Option<Vec<String>>,
    pub(super) code_challenge_methods: Option<Vec<String>>,
    pub(super) scopes: Option<Vec<String>>,
    pub(super) claims: Option<Vec<String>>,
    /// OIDC Core 8.
    pub(super) subject_types: Option<Vec<String>>,
    /// RFC 9126 5: every client must push its authorization requests, which this service doesn't.
    pub(super) requires_par: bool,
    iss_parameter_supported: bool,
}

/// Fetches and reads the metadata document at `url`. Logins and checks both use this.
pub(super) async fn fetch(
    connection: &Connection,
    url: &Url,
    http: &HttpClient,
) -> Result<(Discovery, Answer), ProviderError> {
    let document = Document::Metadata;
    let answer = http.get(url, "application/json", MAX_DOCUMENT).await;
    let answer = answer.map_err(|error| ProviderError::Call { document, error })?;
    if !answer.status.is_success() {
        let text = format!("HTTP {}", answer.status.as_u16());
        return Err(invalid(url, Problem::new(Cause::MetadataStatus, text)));
    }
    Ok((parse(connection, url, &answer.body, http.addresses())?, answer))
}

fn parse(
    connection: &Connection,
    url: &Url,
    document: &[u8],
    addresses: &AddressPolicy,
) -> Result<Discovery, ProviderError> {
    let members = json::parse_object(document);
    let members = members.map_err(|text| invalid(url, Problem::new(Cause::NotJson, text)))?;
    Ok(Discovery::read(&members, connection, url, addresses))
}

fn invalid(url: &Url, problem: Problem) -> ProviderError {
    ProviderError::Invalid(document_problem(Document::Metadata, url, problem))
}

/// `problem` with the document and its host named.
pub(super) fn document_problem(document: Document, url: &Url, problem: Problem) -> Problem {
    let Problem { cause, text } = problem;
    let (document, host) = (document.name(), host_of(url));
    Problem::new(cause, format!("the {document} at {host} cannot be used: {text}"))
}

impl Metadata {
    /// Fetches the connection's document, or takes its manual endpoints.
    pub(super) async fn of(
        connection: &Connection,
        http: &HttpClient,
    ) -> Result<(Self, Option<Answer>), ProviderError> {
        match &connection.settings.source {
            MetadataSource::Discovery(url) => {
                let (discovery, answer) = fetch(connection, url, http).await?;
                let metadata = discovery.complete().map_err(|problem| invalid(url, problem))?;
                Ok((metadata, Some(answer)))
            }
            MetadataSource::Manual(endpoints) => {
                let metadata = Self::manual(connection, endpoints);
                Ok((metadata.map_err(ProviderError::Invalid)?, None))
            }
        }
    }

    /// Reads a document that was fetched earlier, or takes the manual endpoints.
    pub(super) fn read(
        connection: &Connection,
        document: Option<&str>,
        addresses: &AddressPolicy,
    ) -> Result<Self, ProviderError> {
        match &connection.settings.source {
            MetadataSource::Discovery(url) => {
                let document = document.unwrap_or_default().as_bytes();
                let discovery = parse(connection, url, document, addresses)?;
                discovery.complete().map_err(|problem| invalid(url, problem))
            }
            MetadataSource::Manual(endpoints) => {
                Self::manual(connection, endpoints).map_err(ProviderError::Invalid)
            }
        }
    }

    fn manual(connection: &Connection, endpoints: &Endpoints) -> Result<Self, Problem> {
        let settings = &connection.settings;
        let issuer = settings.issuer.clone().ok_or_else(|| {
            let text = "manual endpoints need the issuer of the connection to be set";
            Problem::new(Cause::SettingsIncomplete, text)
        })?;
        require_tenants(issuer.as_str(), connection)?;
        Ok(Self {
            issuer,
            endpoints: endpoints.clone(),
            algs: accepted_algs(&settings.id_token_signing_algs, None),
            auth_method: auth_method(settings, None),
            iss_parameter_supported: false,
        })
    }
}

impl Discovery {
    pub(super) fn read(
        members: &Map<String, Value>,
        connection: &Connection,
        url: &Url,
        addresses: &AddressPolicy,
    ) -> Self {
        let reader = Reader { members, addresses };
        let named_issuer = reader.text("issuer").unwrap_or_default();
        let algs = reader.list("id_token_signing_alg_values_supported");
        let auth_methods = reader.list("token_endpoint_auth_methods_supported");
        Self {
            issuer: issuer(named_issuer, connection, url),
            named_issuer: named_issuer.to_owned(),
            authorization: reader.url("authorization_endpoint").and_then(|url| {
                match smuggled_parameter(&url) {
                    None => Ok(url),
                    Some(name) => {
                        let name = quotable(&name);
                        let text = format!("authorization_endpoint sets {name:?} in its query");
                        Err(Problem::new(Cause::EndpointInvalid, text))
                    }
                }
            }),
            token: reader.url("token_endpoint"),
            jwks: reader.url("jwks_uri"),
            userinfo: reader.optional_url("userinfo_endpoint"),
            end_session: reader.optional_url("end_session_endpoint"),
            algs: algs_of(algs.as_deref(), connection),
            auth_method: auth_method(&connection.settings, auth_methods.as_deref()),
            auth_methods,
            response_types: reader.list("response_types_supported"),
            code_challenge_methods: reader.list("code_challenge_methods_supported"),
            scopes: reader.list("scopes_supported"),
            claims: reader.list("claims_supported"),
            subject_types: reader.list("subject_types_supported"),
            requires_par: reader.is_true("require_pushed_authorization_requests"),
            iss_parameter_supported: reader
                .is_true("authorization_response_iss_parameter_supported"),
        }
    }

    /// What a login needs, or the first problem.
    pub(super) fn complete(self) -> Result<Metadata, Problem> {
        Ok(Metadata {
            issuer: self.issuer?,
            endpoints: Endpoints {
                authorization: self.authorization?,
                token: self.token?,
                jwks: self.jwks?,
                userinfo: self.userinfo?,
                end_session: self.end_session?,
            },
            algs: self.algs?,
            auth_method: self.auth_method,
            iss_parameter_supported: self.iss_parameter_supported,
        })
    }
}

struct Reader<'a> {
    members: &'a Map<String, Value>,
    addresses: &'a AddressPolicy,
}

impl<'a> Reader<'a> {
    /// Several IdPs send an empty text for what they don't have.
    fn text(&self, name: &str) -> Option<&'a str> {
        self.members.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    fn is_true(&self, name: &str) -> bool {
        self.members.get(name) == Some(&Value::Bool(true))
    }

    fn list(&self, name: &str) -> Option<Vec<String>> {
        let items = self.members.get(name)?.as_array()?;
        Some(items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect())
    }

    fn url(&self, name: &str) -> Result<Url, Problem> {
        let missing = || Problem::new(Cause::EndpointMissing, format!("{name} is missing"));
        let text = self.text(name).ok_or_else(missing)?;
        check_endpoint_url(text, self.addresses).map_err(|error| {
            let cause = match error {
                EndpointUrlError::ForbiddenAddress { .. } => Cause::PrivateAddress,
                EndpointUrlError::Malformed(_) => Cause::EndpointInvalid,
            };
            Problem::new(cause, format!("{name} {error}"))
        })
    }

    fn optional_url(&self, name: &str) -> Result<Option<Url>, Problem> {
        match self.members.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(_) => self.url(name).map(Some),
        }
    }
}

/// The issuer must be the connection's, or, at first use, the one of the document's URL
/// (OIDC Discovery 4.3).
fn issuer(named: &str, connection: &Connection, url: &Url) -> Result<Issuer, Problem> {
    if named.is_empty() {
        return Err(Problem::new(Cause::IssuerMissing, "issuer is missing"));
    }
    require_tenants(named, connection)?;
    let mismatch = |expected: &str, hint: &str| {
        let named = quotable(named);
        let text = format!("issuer is {named:?}, expected {expected:?}{hint}");
        Problem::new(Cause::IssuerMismatch, text)
    };
    if let Some(expected) = connection.issuer() {
        let is_same = expected.as_str() == named;
        return if is_same { Ok(expected.clone()) } else { Err(mismatch(expected.as_str(), "")) };
    }
    let expected = issuer_of(url);
    // Auth0's issuers end in a slash that its document URLs don't double.
    if named == expected || named.strip_suffix('/') == Some(&expected) {
        return Ok(Issuer::new(named.to_owned()));
    }
    Err(mismatch(&expected, " by the document's URL; if it is right, set it as the issuer"))
}

/// Entra's issuer for many tenants is accepted only with a list of tenants.
fn require_tenants(issuer: &str, connection: &Connection) -> Result<(), Problem> {
    if !issuer.contains(TENANT_PLACEHOLDER) || !connection.settings.allowed_tenant_ids.is_empty() {
        return Ok(());
    }
    let text = "issuer is a template for many tenants: enter the tenant's own discovery URL, or the \
                issuer with allowed_tenant_ids";
    Err(Problem::new(Cause::TenantTemplate, text))
}

/// The issuer that belongs to a metadata document's URL.
pub(super) fn issuer_of(url: &Url) -> String {
    let mut base = url.clone();
    base.set_query(None);
    base.as_str().strip_suffix(WELL_KNOWN).unwrap_or(base.as_str()).to_owned()
}

/// The algorithms of ID tokens: those of the connection; else the accepted ones of those that the
/// IdP lists; RS256 if neither says anything.
pub(super) fn accepted_algs(entered: &[SigningAlg], listed: Option<&[String]>) -> Vec<SigningAlg> {
    match (entered, listed) {
        ([_, ..], _) => entered.to_vec(),
        ([], Some(listed)) => {
            let mut algs = Vec::new();
            for alg in listed.iter().filter_map(|name| SigningAlg::parse(name)) {
                if !algs.contains(&alg) {
                    algs.push(alg);
                }
            }
            algs
        }
        ([], None) => vec![SigningAlg::RS256],
    }
}

/// The stated method, whatever the IdP lists: several accept more than that. Without one, the method
/// that the IdP lists, Basic first; Basic also if it lists neither (OIDC Discovery 3).
pub(super) fn auth_method(
    settings: &ConnectionSettings,
    listed: Option<&[String]>,
) -> TokenEndpointAuthMethod {
    use TokenEndpointAuthMethod::{ClientSecretBasic, ClientSecretPost};
    let lists = |method: TokenEndpointAuthMethod| {
        listed.unwrap_or_default().iter().any(|listed| listed == method.name())
    };
    settings.stated_auth_method().unwrap_or_else(|| {
        let needs_post = lists(ClientSecretPost) && !lists(ClientSecretBasic);
        if needs_post { ClientSecretPost } else { ClientSecretBasic }
    })
}

fn algs_of(listed: Option<&[String]>, connection: &Connection) -> Result<Vec<SigningAlg>, Problem> {
    let accepted = accepted_algs(&connection.settings.id_token_signing_algs, listed);
    if accepted.is_empty() {
        let listed = quotable(&listed.unwrap_or_default().join(", "));
        let text =
            format!("ID tokens are signed with {listed:?}, none of which is accepted; RS256 is");
        return Err(Problem::new(Cause::SigningAlgUnsupported, text));
    }
    Ok(accepted)
}

/// Bytes of a metadata document or key set.
pub(super) const MAX_DOCUMENT: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fuzzing::connection;
    use super::*;

    const ISSUER: &str = "https://idp.example";

    /// Reads a good document with `changes` made to it; null removes.
    fn read(changes: &Value, adjust: impl FnOnce(&mut Connection)) -> Result<Metadata, Problem> {
        let mut document = json!({
            "issuer": ISSUER,
            "authorization_endpoint": format!("{ISSUER}/authorize"),
            "token_endpoint": format!("{ISSUER}/token"),
            "jwks_uri": format!("{ISSUER}/keys"),
        });
        let members = document.as_object_mut().expect("an object");
        for (name, value) in changes.as_object().expect("an object") {
            members.insert(name.clone(), value.clone());
        }
        members.retain(|_, value| !value.is_null());
        let url = Url::parse(&format!("{ISSUER}{WELL_KNOWN}")).expect("a URL");
        let mut connection = connection(MetadataSource::Discovery(url.clone()));
        adjust(&mut connection);
        Discovery::read(members, &connection, &url, &AddressPolicy::default()).complete()
    }

    #[test]
    fn each_problem_of_a_document_has_its_cause() {
        let template = "https://login.microsoftonline.com/{tenantid}/v2.0";
        for (changes, expected) in [
            (json!({}), None),
            (json!({ "issuer": null }), Some(Cause::IssuerMissing)),
            (json!({ "issuer": format!("{ISSUER}/") }), None),
            (json!({ "issuer": format!("{ISSUER}//") }), Some(Cause::IssuerMismatch)),
            (json!({ "issuer": template }), Some(Cause::TenantTemplate)),
            (json!({ "token_endpoint": null }), Some(Cause::EndpointMissing)),
            (json!({ "jwks_uri": "" }), Some(Cause::EndpointMissing)),
            (json!({ "jwks_uri": 7 }), Some(Cause::EndpointMissing)),
            (json!({ "token_endpoint": "ftp://nowhere" }), Some(Cause::EndpointInvalid)),
            (json!({ "token_endpoint": "https://10.0.0.1/" }), Some(Cause::PrivateAddress)),
            (
                json!({ "authorization_endpoint": format!("{ISSUER}/a?state=1") }),
                Some(Cause::EndpointInvalid),
            ),
            (json!({ "userinfo_endpoint": "" }), None),
            (json!({ "userinfo_endpoint": "http://idp.example/" }), Some(Cause::EndpointInvalid)),
            (json!({ "token_endpoint_auth_methods_supported": ["private_key_jwt"] }), None),
            (json!({ "token_endpoint_auth_methods_supported": [] }), None),
            (
                json!({ "id_token_signing_alg_values_supported": ["HS256", "none"] }),
                Some(Cause::SigningAlgUnsupported),
            ),
        ] {
            let cause = read(&changes, |_| {}).err().map(|problem| problem.cause);
            assert_eq!(cause, expected, "{changes}");
        }
    }

    #[test]
    fn a_stated_authentication_method_wins_and_else_the_listed_one() {
        use TokenEndpointAuthMethod::{ClientSecretBasic, ClientSecretPost};
        let (basic, post) = ("client_secret_basic", "client_secret_post");
        for (stated, listed, expected) in [
            (None, json!(null), ClientSecretBasic),
            (None, json!([]), ClientSecretBasic),
            (None, json!([post]), ClientSecretPost),
            (None, json!(["private_key_jwt", post]), ClientSecretPost),
            (None, json!([post, basic]), ClientSecretBasic),
            (None, json!(["private_key_jwt"]), ClientSecretBasic),
            (Some(ClientSecretBasic), json!([post]), ClientSecretBasic),
            (Some(ClientSecretPost), json!([basic]), ClientSecretPost),
            (Some(ClientSecretPost), json!([]), ClientSecretPost),
        ] {
            let changes = json!({ "token_endpoint_auth_methods_supported": listed });
            let metadata = read(&changes, |connection| {
                connection.settings.auth_method_by_metadata = stated.is_none();
                connection.settings.auth_method = stated.unwrap_or(ClientSecretBasic);
            });
            let method = metadata.expect("complete").auth_method;
            assert_eq!(method, expected, "{stated:?}, {listed}");
        }
    }

    #[test]
    fn manual_endpoints_need_an_issuer_that_is_not_a_template() {
        let url = || Url::parse(ISSUER).expect("a URL");
        let endpoints = Endpoints {
            authorization: url(),
            token: url(),
            jwks: url(),
            userinfo: None,
            end_session: None,
        };
        let mut connection = connection(MetadataSource::Manual(Box::new(endpoints.clone())));
        for (issuer, expected) in [
            (None, Some(Cause::SettingsIncomplete)),
            (Some("https://idp.example/{tenantid}"), Some(Cause::TenantTemplate)),
            (Some(ISSUER), None),
        ] {
            connection.settings.issuer = issuer.map(|issuer| Issuer::new(issuer.to_owned()));
            let manual = Metadata::manual(&connection, &endpoints);
            assert_eq!(manual.err().map(|problem| problem.cause), expected, "{issuer:?}");
        }
    }

    #[test]
    fn the_settings_of_the_connection_go_before_the_document() {
        let pinned = Issuer::new("https://other.example".to_owned());
        let problem =
            read(&json!({}), |connection| connection.pinned_issuer = Some(pinned.clone()))
                .expect_err("another issuer");
        assert_eq!(problem.cause, Cause::IssuerMismatch);
        assert!(problem.text.contains(ISSUER) && problem.text.contains(pinned.as_str()));
        let changes = json!({ "id_token_signing_alg_values_supported": ["RS256", "ES256"] });
        let algs = vec![SigningAlg::PS256];
        let metadata =
            read(&changes, |connection| connection.settings.id_token_signing_algs = algs.clone());
        assert_eq!(metadata.expect("complete").algs, algs);
        let metadata = read(&changes, |_| {}).expect("complete");
        assert_eq!(metadata.algs, [SigningAlg::RS256, SigningAlg::ES256]);
        assert_eq!(read(&json!({}), |_| {}).expect("complete").algs, [SigningAlg::RS256]);
    }
}
