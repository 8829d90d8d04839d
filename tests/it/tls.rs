//! IdPs over TLS: which certificates are accepted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use peerpanda_sso::clock::{Clock as _, SystemClock};
use peerpanda_sso::pb;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::binary::Program;
use crate::fake_idp::FakeIdp;
use crate::harness::{begin_request, refused};

/// A private CA.
pub(crate) fn private_ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA")
}

/// A private CA as PEM, and a fake IdP at https://`host` with a certificate of this CA for `name`.
pub(crate) async fn idp_over_tls(host: &str, name: &str, is_expired: bool) -> (String, FakeIdp) {
    let ca = private_ca();
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    if is_expired {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    let certificate = params.signed_by(&key, &ca).expect("signed");
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    (ca.pem(), serve_over_tls(host, chain, &key).await)
}

/// The same at localhost, with a certificate that expires at the beginning of a day, in so many days.
pub(crate) async fn idp_until(days: u64) -> (String, FakeIdp, String) {
    let expiry = SystemClock.unix_millis().after(Duration::from_secs(days * 86_400));
    let day = expiry.to_string().split('T').next().expect("a day").to_owned();
    let number = |part: std::ops::Range<usize>| day[part].parse::<u8>().expect("a number");
    let year = day[..4].parse().expect("a year");
    let (ca, key) = (private_ca(), KeyPair::generate().expect("a key"));
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    params.not_after = rcgen::date_time_ymd(year, number(5..7), number(8..10));
    let chain = vec![params.signed_by(&key, &ca).expect("signed").der().clone()];
    (ca.pem(), serve_over_tls("localhost", chain, &key).await, day)
}

/// What is wrong with the certificates that an IdP presents.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Chain {
    Expired,
    OtherName,
    UnknownCa,
    WithoutIntermediate,
}

/// The CA that is trusted, as PEM, and a fake IdP that presents such a chain.
pub(crate) async fn idp_with_chain(chain: Chain) -> (String, FakeIdp) {
    let issuer = |name: &str, above: Option<&CertifiedIssuer<'static, KeyPair>>| {
        let (params, key) = (named(name, true), KeyPair::generate().expect("a key"));
        let issuer = match above {
            None => CertifiedIssuer::self_signed(params, key),
            Some(above) => CertifiedIssuer::signed_by(params, key, above),
        };
        issuer.expect("a CA")
    };
    let root = issuer("Root", None);
    let other = match chain {
        Chain::Expired => return idp_over_tls("localhost", "localhost", true).await,
        Chain::OtherName => return idp_over_tls("localhost", "idp.example.com", false).await,
        Chain::UnknownCa => issuer("Unknown", None),
        Chain::WithoutIntermediate => issuer("Intermediate", Some(&root)),
    };
    let key = KeyPair::generate().expect("a key");
    let leaf = named("localhost", false).signed_by(&key, &other).expect("signed").der().clone();
    let mut sent = vec![leaf];
    if matches!(chain, Chain::UnknownCa) {
        sent.push(other.der().clone());
    }
    (root.pem(), serve_over_tls("localhost", sent, &key).await)
}

/// A fake IdP at https://`host` that presents `chain`.
async fn serve_over_tls(host: &str, chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> FakeIdp {
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .expect("versions")
    .with_no_client_auth()
    .with_single_cert(chain, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
    .expect("a certificate with its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let front = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let behind = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let issuer = format!("https://{host}:{}", front.local_addr().expect("an address").port());
    let target = behind.local_addr().expect("an address");
    let idp = FakeIdp::serve(behind, issuer, Arc::new(SystemClock), "client", "secret");
    let unused_connections = Arc::clone(&idp.unused_connections);
    tokio::spawn(async move {
        while let Ok((socket, _)) = front.accept().await {
            let (acceptor, unused) = (acceptor.clone(), Arc::clone(&unused_connections));
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(socket).await else { return };
                let mut first = [0; 1];
                if !matches!(tls.read(&mut first).await, Ok(1)) {
                    unused.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                let mut plain = TcpStream::connect(target).await.expect("connected");
                plain.write_all(&first).await.expect("written");
                let _ = copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    idp
}

/// OIDC Core 16.17: TLS.
#[tokio::test(flavor = "multi_thread")]
async fn an_idp_of_an_unknown_ca_or_another_name_is_refused_and_of_a_listed_ca_accepted() {
    for (name, is_listed, is_expired, cause) in [
        ("localhost", true, false, None),
        ("localhost", false, false, Some("tls_untrusted")),
        ("idp.example.com", true, false, Some("tls_name_mismatch")),
        ("localhost", true, true, Some("tls_certificate_expired")),
    ] {
        let data = tempfile::tempdir().expect("a directory");
        let (ca, idp) = idp_over_tls("localhost", name, is_expired).await;
        let ca_file = data.path().join("ca.pem");
        std::fs::write(&ca_file, ca).expect("written");
        let setting = [("SSO_PROVIDER_CA_FILE", ca_file.to_str().expect("UTF-8"))];
        let mut program = Program::serve(data.path(), if is_listed { &setting } else { &[] }).await;
        program.set_up(&idp).await;
        let Some(cause) = cause else {
            program.log_in(&idp).await.expect("a login");
            continue;
        };
        let refused = refused(program.log_in(&idp).await);
        assert_eq!(
            (refused.reason.as_str(), refused.metadata["cause"].as_str()),
            ("PROVIDER_UNAVAILABLE", cause)
        );
        assert!(refused.message.contains("certificate"), "{}", refused.message);
    }
}

/// An account's private CA is trusted for its IdP, and a connection to it serves no other account.
#[tokio::test(flavor = "multi_thread")]
async fn a_ca_of_one_account_vouches_for_no_other() {
    let data = tempfile::tempdir().expect("a directory");
    let (ca, idp) = idp_over_tls("localhost", "localhost", false).await;
    let ca_file = data.path().join("ca.pem");
    std::fs::write(&ca_file, ca).expect("written");
    let setting = format!("acme={}", ca_file.display());
    let mut program =
        Program::serve(data.path(), &[("SSO_ACCOUNT_PROVIDER_CAS", setting.as_str())]).await;
    program.set_up(&idp).await;
    program.log_in(&idp).await.expect("a login, whose connection is kept");
    let request = pb::CreateConnectionRequest {
        connection: Some(idp.connection("globex")),
        validate_only: false,
    };
    program.admin.create_connection(request).await.expect("created");
    let request = pb::BeginLoginRequest { slug: "globex".to_owned(), ..begin_request() };
    let refused = refused(program.login.begin_login(request).await);
    assert_eq!(refused.metadata["cause"], "tls_untrusted", "{refused:?}");
}

/// The cause and the message of a login at an IdP with this chain, if it is refused.
async fn refusal_at(idp: &FakeIdp, ca: &str) -> Option<(String, String)> {
    let data = tempfile::tempdir().expect("a directory");
    let ca_file = data.path().join("ca.pem");
    std::fs::write(&ca_file, ca).expect("written");
    let setting = [("SSO_PROVIDER_CA_FILE", ca_file.to_str().expect("UTF-8"))];
    let mut program = Program::serve(data.path(), &setting).await;
    program.set_up(idp).await;
    let status = program.log_in(idp).await.err()?;
    let refusal = refused(Err::<(), _>(status));
    Some((refusal.metadata["cause"].clone(), refusal.message))
}

fn named(name: &str, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, "Acme Trust");
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_its_intermediate_is_told_from_an_unknown_ca() {
    let new_key = || KeyPair::generate().expect("a key");
    let root = CertifiedIssuer::self_signed(named("Root", true), new_key()).expect("a CA");
    let intermediate = CertifiedIssuer::signed_by(named("Intermediate", true), new_key(), &root);
    let intermediate = intermediate.expect("a CA");
    let unknown = CertifiedIssuer::self_signed(named("Unknown", true), new_key()).expect("a CA");
    let key = new_key();
    let leaf = |issuer: &CertifiedIssuer<'static, KeyPair>| {
        let leaf = named("localhost", false).signed_by(&key, issuer).expect("signed");
        leaf.der().clone()
    };
    let (of_intermediate, of_unknown) = (leaf(&intermediate), leaf(&unknown));
    for (chain, cause) in [
        (vec![of_intermediate.clone(), intermediate.der().clone()], None),
        (vec![of_intermediate], Some("tls_chain_incomplete")),
        (vec![of_unknown, unknown.der().clone()], Some("tls_untrusted")),
    ] {
        let idp = serve_over_tls("localhost", chain, &key).await;
        let refused = refusal_at(&idp, &root.pem()).await;
        assert_eq!(refused.as_ref().map(|(cause, _)| cause.as_str()), cause, "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_named_with_its_date() {
    let ca = private_ca();
    let key = KeyPair::generate().expect("a key");
    for (from, until, cause, words) in [
        (2019, 2020, "tls_certificate_expired", "its TLS certificate expired on 2020-01-02"),
        (2999, 3000, "tls_not_yet_valid", "its TLS certificate is not valid before 2999-01-02"),
    ] {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params.not_before = rcgen::date_time_ymd(from, 1, 2);
        params.not_after = rcgen::date_time_ymd(until, 1, 2);
        let chain = vec![params.signed_by(&key, &ca).expect("signed").der().clone()];
        let idp = serve_over_tls("localhost", chain, &key).await;
        let (actual, message) = refusal_at(&idp, &ca.pem()).await.expect("refused");
        assert_eq!(actual, cause);
        assert!(message.contains(words), "{message}");
    }
}
