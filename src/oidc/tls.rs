//! TLS to IdPs. Whether a certificate is accepted is decided by rustls' own verifier alone. This file adds
//! what a person needs to know: why a certificate was refused, and, for a check, which certificates an
//! IdP presented. Called by [`super::http`].

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use super::error::Outage;
use crate::model::text::quotable;
use crate::model::time::UnixSeconds;

/// Verifies as rustls does, and keeps what was presented if it is asked to.
#[derive(Clone, Debug)]
pub(super) struct CertificateVerifier {
    verifier: Arc<WebPkiServerVerifier>,
    trusted: Arc<TrustedNames>,
    presented: Option<Arc<Presented>>,
}

/// The certificates that hosts presented, trusted or not.
#[derive(Debug, Default)]
pub(super) struct Presented(Mutex<BTreeMap<String, Vec<PresentedCertificate>>>);

/// A certificate as a host presented it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentedCertificate {
    /// Its subject (RFC 4514), shortened.
    pub subject: String,
    /// The subject of the certificate that issued it, shortened.
    pub issuer: String,
    /// When it becomes valid, in seconds since the Unix epoch.
    pub not_before: i64,
    /// When it expires, in seconds since the Unix epoch.
    pub not_after: i64,
}

/// What the trusted CAs are called.
#[derive(Debug)]
struct TrustedNames {
    /// Their subjects, in DER.
    subjects: HashSet<Vec<u8>>,
    organizations: HashSet<String>,
}

/// The chain ends before a CA, for want of an intermediate certificate.
#[derive(Debug, thiserror::Error)]
#[error("the chain lacks an intermediate certificate")]
struct ChainIncomplete;

/// The configuration of a client that trusts `roots`, and its verifier; `None`: it trusts nobody.
pub(super) fn client_config(
    roots: RootCertStore,
) -> Result<(ClientConfig, Option<CertificateVerifier>), String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let roots = Arc::new(roots);
    let mut config = builder.with_root_certificates(Arc::clone(&roots)).with_no_client_auth();
    if roots.is_empty() {
        return Ok((config, None));
    }
    let trusted = Arc::new(TrustedNames::of(&roots));
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let verifier = CertificateVerifier { verifier, trusted, presented: None };
    config.dangerous().set_certificate_verifier(Arc::new(verifier.clone()));
    Ok((config, Some(verifier)))
}

impl CertificateVerifier {
    /// The same, keeping what is presented.
    pub(super) fn recording(&self, presented: &Arc<Presented>) -> Self {
        Self { presented: Some(Arc::clone(presented)), ..self.clone() }
    }
}

impl ServerCertVerifier for CertificateVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(presented) = &self.presented {
            presented.keep(&server_name.to_str(), end_entity, intermediates);
        }
        let verified = self.verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        let is_unknown = |error: &_| {
            *error == rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)
        };
        if verified.as_ref().is_err_and(is_unknown)
            && self.trusted.lack_intermediate(end_entity, intermediates)
        {
            let error = OtherError(Arc::new(ChainIncomplete));
            return Err(rustls::Error::InvalidCertificate(CertificateError::Other(error)));
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl Presented {
    fn keep(&self, host: &str, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) {
        let chain = std::iter::once(leaf).chain(others).take(MAX_CHAIN);
        let chain = chain.filter_map(|certificate| parsed(certificate)).map(|certificate| {
            let validity = certificate.validity();
            PresentedCertificate {
                subject: quotable(&certificate.subject().to_string()),
                issuer: quotable(&certificate.issuer().to_string()),
                not_before: validity.not_before.timestamp(),
                not_after: validity.not_after.timestamp(),
            }
        });
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() < MAX_HOSTS || hosts.contains_key(host) {
            hosts.insert(host.to_owned(), chain.collect());
        }
    }

    /// By host, the host's own certificate first.
    pub(super) fn by_host(&self) -> BTreeMap<String, Vec<PresentedCertificate>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl TrustedNames {
    fn of(roots: &RootCertStore) -> Self {
        let subjects: HashSet<Vec<u8>> =
            roots.subjects().iter().map(|subject| subject.as_ref().to_vec()).collect();
        let names = subjects.iter().filter_map(|subject| X509Name::from_der(subject).ok());
        let organizations = names.flat_map(|(_, name)| organizations(&name)).collect();
        Self { subjects, organizations }
    }

    /// Whether a chain that leads to no trusted CA would most likely lead to one with the intermediate
    /// certificate that its host left out. Nobody can know it without that certificate. What tells a chain
    /// of a public CA from one of an unknown private CA: its certificate is in the logs of Certificate
    /// Transparency, says where its issuer's certificate is found, or names a trusted CA's organization.
    fn lack_intermediate(&self, leaf: &[u8], others: &[CertificateDer<'_>]) -> bool {
        let Some(leaf) = parsed(leaf) else { return false };
        let others = others.iter().take(MAX_CHAIN).filter_map(|certificate| parsed(certificate));
        let others: Vec<_> = others.collect();
        let mut last = &leaf;
        for _ in 0..=others.len() {
            let issuer = last.issuer().as_raw();
            if last.subject().as_raw() == issuer || self.subjects.contains(issuer) {
                return false;
            }
            match others.iter().find(|other| other.subject().as_raw() == issuer) {
                Some(next) => last = next,
                None => break,
            }
        }
        let mut extensions = leaf.extensions().iter().map(|extension| extension.parsed_extension());
        let is_public = extensions.any(|extension| match extension {
            ParsedExtension::SCT(_) => true,
            ParsedExtension::AuthorityInfoAccess(access) => {
                others.is_empty() && access.iter().any(|description| {
                    let is_found = matches!(&description.access_location, GeneralName::URI(uri) if uri.starts_with("http"));
                    is_found && description.access_method == OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS
                })
            }
            _ => false,
        });
        is_public
            || organizations(last.issuer()).iter().any(|name| self.organizations.contains(name))
    }
}

fn parsed(certificate: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(certificate).ok().map(|(_, certificate)| certificate)
}

fn organizations(name: &X509Name<'_>) -> Vec<String> {
    name.iter_organization().filter_map(|name| name.as_str().ok().map(str::to_owned)).collect()
}

/// What a failure of TLS means.
pub(super) fn outage(error: &rustls::Error) -> Outage {
    use CertificateError as Certificate;
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            Certificate::Expired => Outage::CertificateExpired(None),
            Certificate::ExpiredContext { not_after, .. } => {
                Outage::CertificateExpired(Some(UnixSeconds(not_after.as_secs())))
            }
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                Outage::CertificateNameMismatch
            }
            Certificate::NotValidYet => Outage::CertificateNotYetValid(None),
            Certificate::NotValidYetContext { not_before, .. } => {
                Outage::CertificateNotYetValid(Some(UnixSeconds(not_before.as_secs())))
            }
            Certificate::BadEncoding => Outage::Tls("its certificate is malformed"),
            Certificate::Revoked => Outage::CertificateUntrusted("it was revoked"),
            Certificate::UnknownIssuer => Outage::CertificateUntrusted("no trusted CA issued it"),
            Certificate::Other(OtherError(other)) if other.is::<ChainIncomplete>() => {
                Outage::ChainIncomplete
            }
            // A self-signed certificate, which is its own CA, ends here, among others.
            _ => Outage::CertificateUntrusted("it is not acceptable as a server's certificate"),
        },
        rustls::Error::NoCertificatesPresented => Outage::Tls("it presents no certificate"),
        rustls::Error::InvalidMessage(_) => Outage::Tls("it does not speak TLS on this port"),
        rustls::Error::AlertReceived(_) => Outage::Tls("it refused the handshake with an alert"),
        rustls::Error::PeerIncompatible(_) => {
            Outage::Tls("it offers no protocol version or cipher suite that is accepted")
        }
        _ => Outage::Tls("the handshake failed"),
    }
}

/// Certificates of a chain that are looked at.
const MAX_CHAIN: usize = 10;
/// Hosts whose certificates are kept: more than a check asks.
const MAX_HOSTS: usize = 32;

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::InvalidMessage;

    use super::*;

    #[test]
    fn tls_errors_become_causes_and_sentences() {
        let other = |error: Arc<dyn std::error::Error + Send + Sync>| {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(error)))
        };
        let certificate = rustls::Error::InvalidCertificate;
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        for (error, expected) in [
            (certificate(CertificateError::Expired), "its TLS certificate has expired"),
            (
                certificate(CertificateError::ExpiredContext {
                    time: at(1_800_000_000),
                    not_after: at(1_795_132_800),
                }),
                "its TLS certificate expired on 2026-11-20",
            ),
            (
                certificate(CertificateError::NotValidYetContext {
                    time: at(0),
                    not_before: at(1_800_000_000),
                }),
                "its TLS certificate is not valid before 2027-01-15",
            ),
            (
                certificate(CertificateError::NotValidForName),
                "its TLS certificate is for another host name",
            ),
            (
                certificate(CertificateError::UnknownIssuer),
                "its TLS certificate is not trusted: no trusted CA issued it",
            ),
            (
                other(Arc::new(ChainIncomplete)),
                "its TLS certificate is not trusted: it does not send the intermediate certificate that \
                 issued it",
            ),
            (
                other(Arc::new(io::Error::other("SomeRustType"))),
                "its TLS certificate is not trusted: it is not acceptable as a server's certificate",
            ),
            (
                rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "TLS failed: it does not speak TLS on this port",
            ),
        ] {
            assert_eq!(outage(&error).to_string(), expected);
        }
    }
}
