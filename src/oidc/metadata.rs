//! What the service needs to know of an IdP: its metadata document (OIDC Discovery 3), or the endpoints typed in by hand.
//! Own reading instead of the crate's, which refuses documents for members that a login doesn't need.

use std::time::Duration;

use serde_json::{Map, Value};
use url::Url;

use super::error::{CallError, ProviderError};
use super::http::{HttpClient, host_of};
use super::json;
use crate::model::address::AddressPolicy;
use crate::model::connection::{Connection, Endpoints, Issuer, MetadataSource};
use crate::model::endpoint_url::{
    EndpointUrlError, WELL_KNOWN, check_endpoint_url, smuggled_parameter,
};
use crate::model::signing_alg::SigningAlg;
use crate::model::text::quotable;

/// An IdP's metadata, for one connection.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    pub(super) issuer: Issuer,
    pub(super) endpoints: Endpoints,
    /// Which algorithms an ID token may be signed with.
    pub(super) algs: Vec<SigningAlg>,
    /// RFC 9207 3: the callback must carry `iss`.
    pub(super) iss_parameter_supported: bool,
    /// How long the document may be used, where it says so.
    pub(super) max_age: Option<Duration>,
}

impl Metadata {
    /// Fetches the connection's document, or takes its manual endpoints.
    pub(super) async fn of(
        connection: &Connection,
        http: &HttpClient,
    ) -> Result<Self, ProviderError> {
        match &connection.settings.source {
            MetadataSource::Discovery(url) => Self::discover(connection, url, http).await,
            MetadataSource::Manual(endpoints) => Self::manual(connection, endpoints),
        }
    }

    fn manual(connection: &Connection, endpoints: &Endpoints) -> Result<Self, ProviderError> {
        let issuer = connection.settings.issuer.clone();
        let issuer = issuer.ok_or_else(|| {
            ProviderError::SettingsUnfit("manual endpoints need an issuer".to_owned())
        })?;
        let algs = accepted_algs(&connection.settings.id_token_signing_algs, None);
        Ok(Self {
            issuer,
            endpoints: endpoints.clone(),
            algs,
            iss_parameter_supported: false,
            max_age: None,
        })
    }

    async fn discover(
        connection: &Connection,
        url: &Url,
        http: &HttpClient,
    ) -> Result<Self, ProviderError> {
        let host = host_of(url.as_str());
        let invalid = |detail: String| ProviderError::MetadataInvalid {
            document: "metadata document",
            host: host.clone(),
            detail,
        };
        let answer = http.get(url, "application/json", MAX_DOCUMENT).await?;
        if !answer.status.is_success() {
            return Err(invalid(format!("HTTP {}", answer.status.as_u16())));
        }
        let document = json::parse_object(&answer.body).map_err(&invalid)?;
        let read = Self::read(&document, connection, url, &http.addresses);
        read.map(|metadata| Self { max_age: answer.max_age(), ..metadata }).map_err(|problem| {
            match problem {
                Problem::Document(detail) => invalid(detail),
                Problem::Address { host, kind } => {
                    CallError::AddressForbidden { host, kind }.into()
                }
            }
        })
    }

    pub(super) fn read(
        document: &Map<String, Value>,
        connection: &Connection,
        url: &Url,
        addresses: &AddressPolicy,
    ) -> Result<Self, Problem> {
        let reader = Reader { document, addresses };
        let issuer = issuer(reader.text("issuer")?, connection, url)?;
        let authorization = reader.url("authorization_endpoint")?;
        if let Some(name) = smuggled_parameter(&authorization) {
            return Err(Problem::Document(format!(
                "its authorization_endpoint's query sets {:?}",
                quotable(&name)
            )));
        }
        if let Some(methods) = reader.texts("token_endpoint_auth_methods_supported")
            && !methods
                .iter()
                .any(|method| matches!(*method, "client_secret_basic" | "client_secret_post"))
        {
            let methods = quotable(&methods.join(", "));
            return Err(Problem::Document(format!(
                "its token endpoint takes neither client_secret_basic nor client_secret_post, but {methods}"
            )));
        }
        Ok(Self {
            issuer,
            algs: algs(&reader, connection)?,
            max_age: None,
            iss_parameter_supported: document.get("authorization_response_iss_parameter_supported")
                == Some(&Value::Bool(true)),
            endpoints: Endpoints {
                authorization,
                token: reader.url("token_endpoint")?,
                jwks: reader.url("jwks_uri")?,
                userinfo: reader.optional_url("userinfo_endpoint")?,
                end_session: reader.optional_url("end_session_endpoint")?,
            },
        })
    }
}

pub(super) enum Problem {
    Document(String),
    Address { host: String, kind: &'static str },
}

struct Reader<'a> {
    document: &'a Map<String, Value>,
    addresses: &'a AddressPolicy,
}

impl<'a> Reader<'a> {
    fn text(&self, name: &str) -> Result<&'a str, Problem> {
        let text = self.document.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.ok_or_else(|| Problem::Document(format!("it has no {name}")))
    }

    fn texts(&self, name: &str) -> Option<Vec<&'a str>> {
        let items = self.document.get(name)?.as_array()?;
        Some(items.iter().filter_map(Value::as_str).collect())
    }

    fn url(&self, name: &str) -> Result<Url, Problem> {
        let text = self.text(name)?;
        check_endpoint_url(text, self.addresses).map_err(|error| match error {
            EndpointUrlError::ForbiddenAddress { .. } => {
                Problem::Address { host: host_of(text), kind: "private or local" }
            }
            EndpointUrlError::Malformed(rule) => Problem::Document(format!("its {name} {rule}")),
        })
    }

    fn optional_url(&self, name: &str) -> Result<Option<Url>, Problem> {
        match self.document.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(_) => self.url(name).map(Some),
        }
    }
}

/// The issuer must be the one that the connection names, or, the first time, the one that the URL stands for
/// (OIDC Discovery 4.3).
fn issuer(named: &str, connection: &Connection, url: &Url) -> Result<Issuer, Problem> {
    if let Some(expected) = connection.issuer() {
        return if expected.as_str() == named {
            Ok(expected.clone())
        } else {
            let named = quotable(named);
            Err(Problem::Document(format!(
                "its issuer is {named:?}, the connection's is {:?}",
                expected.as_str()
            )))
        };
    }
    let expected = issuer_of(url);
    if is_issuer_of(named, &expected) {
        Ok(Issuer::new(named.to_owned()))
    } else {
        Err(Problem::Document(format!(
            "its issuer is {:?}, its URL stands for {expected:?}; if that issuer is right, enter it as the connection's issuer",
            quotable(named)
        )))
    }
}

/// The issuer that a metadata document's URL stands for.
pub(super) fn issuer_of(url: &Url) -> String {
    let mut base = url.clone();
    base.set_query(None);
    base.as_str().strip_suffix(WELL_KNOWN).unwrap_or(base.as_str()).to_owned()
}

/// Whether a document may name this issuer, where its URL stands for `expected`: with or without one slash at the end (Auth0).
pub(super) fn is_issuer_of(named: &str, expected: &str) -> bool {
    named == expected || named.strip_suffix('/') == Some(expected)
}

/// The algorithms of ID tokens: those that were entered, else those of the listed ones that are accepted; RS256 where nothing says
/// anything.
pub(super) fn accepted_algs(entered: &[SigningAlg], listed: Option<&[&str]>) -> Vec<SigningAlg> {
    match (entered, listed) {
        ([_, ..], _) => entered.to_vec(),
        ([], Some(listed)) => listed.iter().filter_map(|name| SigningAlg::parse(name)).collect(),
        ([], None) => vec![SigningAlg::RS256],
    }
}

fn algs(reader: &Reader<'_>, connection: &Connection) -> Result<Vec<SigningAlg>, Problem> {
    let listed = reader.texts("id_token_signing_alg_values_supported");
    let accepted = accepted_algs(&connection.settings.id_token_signing_algs, listed.as_deref());
    if accepted.is_empty() {
        let listed = quotable(&listed.unwrap_or_default().join(", "));
        return Err(Problem::Document(format!(
            "it signs ID tokens with {listed}, none of which is accepted; RS256 is"
        )));
    }
    Ok(accepted)
}

/// Metadata and key set documents.
pub(super) const MAX_DOCUMENT: usize = 1024 * 1024;
