//! The HTTP clients of all accounts: one that they share, and one for each account whose IdP the
//! operator trusts in more than the others'. That account's networks and CAs then serve no other one, and
//! neither do its pooled connections. Which client calls is decided here alone, by the account.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ipnet::IpNet;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::dns::NameResolver;
use super::http::{CallPolicy, HttpClient};
use crate::model::slug::Slug;

/// What holds for the IdP of one account, in addition to the [`CallPolicy`].
#[derive(Clone, Debug, Default)]
pub struct AccountTrust {
    /// Networks where it may be.
    pub networks: Vec<IpNet>,
    /// CAs that vouch for it.
    pub cas: Vec<CertificateDer<'static>>,
}

/// The clients; cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpClients {
    shared: HttpClient,
    by_account: Arc<HashMap<Slug, HttpClient>>,
}

impl HttpClients {
    /// Builds the clients with the operating system's CAs, those of `policy` and those of each account.
    ///
    /// # Errors
    /// An extra CA certificate is invalid, no CA is available, or names can't be resolved.
    pub fn new(
        policy: &CallPolicy,
        accounts: &BTreeMap<Slug, AccountTrust>,
    ) -> Result<Self, String> {
        // Shared: its cache holds what is public, and its bounds are those of the process.
        let names = NameResolver::new(policy.name_server)?;
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        let (found, _) = roots.add_parsable_certificates(native.certs);
        add(&mut roots, &policy.extra_cas)?;
        if roots.is_empty() && !policy.addresses.allow_insecure {
            return Err(
                "the operating system has no CA certificates: install ca-certificates".to_owned()
            );
        }
        tracing::debug!(found, extra = policy.extra_cas.len(), "read CA certificates");
        let of_account = |(slug, trust): (&Slug, &AccountTrust)| {
            let (mut policy, mut roots) = (policy.clone(), roots.clone());
            policy.addresses.allowed_networks.extend_from_slice(&trust.networks);
            add(&mut roots, &trust.cas)?;
            Ok((slug.clone(), HttpClient::new(&policy, roots, names.clone())?))
        };
        let by_account = accounts.iter().map(of_account).collect::<Result<_, String>>()?;
        let shared = HttpClient::new(policy, roots.clone(), names.clone())?;
        Ok(Self { shared, by_account: Arc::new(by_account) })
    }

    /// The client that calls this account's IdP. `None`: an account that isn't known yet.
    #[must_use]
    pub fn of(&self, account: Option<&Slug>) -> &HttpClient {
        account.and_then(|slug| self.by_account.get(slug)).unwrap_or(&self.shared)
    }
}

fn add(roots: &mut RootCertStore, cas: &[CertificateDer<'static>]) -> Result<(), String> {
    cas.iter().try_for_each(|ca| {
        roots.add(ca.clone()).map_err(|error| format!("invalid CA certificate: {error}"))
    })
}
