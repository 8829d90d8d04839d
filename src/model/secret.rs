//! Client secrets: as entered, as checked, and how an update changes them. Never shown, wiped when
//! dropped.

use std::time::Duration;

use aws_lc_rs::digest::SHA256;
use secrecy::{ExposeSecret, SecretString};

use super::Violation;
use super::change::Change;
use super::time::UnixMillis;

/// A client secret as it was entered: not trimmed, not checked. Never shown, wiped when dropped.
#[derive(Clone, Debug, Default)]
pub struct UncheckedSecret(SecretString);

impl UncheckedSecret {
    /// Takes a secret in.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    /// Whether nothing but white space was entered.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.0.expose_secret().trim().is_empty()
    }

    /// Trims and checks the secret. `field`: its name in the contract.
    ///
    /// # Errors
    /// It is empty, too long, or holds control characters. The secret isn't shown.
    pub fn check(&self, field: &'static str) -> Result<ClientSecret, Violation> {
        let text = self.0.expose_secret().trim();
        let fits =
            (1..=1024).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        fits.then(|| ClientSecret(text.to_owned().into())).ok_or_else(|| {
            Violation::new(field, "must be 1 to 1024 characters without control characters")
        })
    }
}

/// A client secret: checked, never shown, wiped when dropped.
#[derive(Clone, Debug)]
pub struct ClientSecret(SecretString);

impl ClientSecret {
    /// Takes a secret that was checked before it was stored.
    #[must_use]
    pub fn from_store(text: String) -> Self {
        Self(text.into())
    }

    /// The secret itself: for sealing, and for the IdP's token endpoint.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// First 8 hex digits of its SHA-256, to compare with what the customer sent.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&SHA256, self.expose().as_bytes());
        hex::encode(&digest.as_ref()[..4])
    }
}

/// A client's secrets: one in use, and possibly one that takes its place when the IdP rejects the
/// client.
#[derive(Clone, Debug)]
pub struct ClientSecrets {
    /// In use.
    pub active: ClientSecret,
    /// When it expires, as the customer says.
    pub active_expire: Option<UnixMillis>,
    /// The standby secret.
    pub standby: Option<ClientSecret>,
    /// When the standby secret expires.
    pub standby_expire: Option<UnixMillis>,
}

impl ClientSecrets {
    /// One secret alone, with no known expiry.
    #[must_use]
    pub fn one(active: ClientSecret) -> Self {
        Self { active, active_expire: None, standby: None, standby_expire: None }
    }
}

/// What an update does to a connection's secrets. The secrets are unchecked.
#[derive(Debug, Default)]
pub struct SecretsEdit {
    /// Replaces the secret in use, which can't be removed.
    pub active: Option<UncheckedSecret>,
    /// When it expires.
    pub active_expire: Change<UnixMillis>,
    /// The standby secret.
    pub standby: Change<UncheckedSecret>,
    /// When the standby secret expires.
    pub standby_expire: Change<UnixMillis>,
}

impl SecretsEdit {
    /// Checks the secrets and applies the edit; `old` is `None` for a new connection, which needs a
    /// secret.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn apply_to(self, old: Option<&ClientSecrets>) -> Result<ClientSecrets, Vec<Violation>> {
        let mut violations = Vec::new();
        let mut checked = |secret: &UncheckedSecret, field| match secret.check(field) {
            Ok(secret) => Some(secret),
            Err(violation) => {
                violations.push(violation);
                None
            }
        };
        let entered = match (&self.active, old) {
            (None, Some(_)) => None,
            (given, _) => {
                checked(given.as_ref().unwrap_or(&UncheckedSecret::default()), "client_secret")
            }
        };
        let standby = match &self.standby {
            Change::Keep => Change::Keep,
            Change::Set(secret) if !secret.is_blank() => {
                checked(secret, "standby_client_secret").map_or(Change::Clear, Change::Set)
            }
            Change::Set(_) | Change::Clear => Change::Clear,
        };
        let is_new =
            |secret: &ClientSecret| old.is_none_or(|old| old.active.expose() != secret.expose());
        // What is known of the old secret's expiry says nothing about a new one.
        let forgets_expiry = entered.as_ref().is_some_and(is_new);
        let active_expire = old.and_then(|old| old.active_expire).filter(|_| !forgets_expiry);
        let standby_expire = match standby {
            Change::Keep => old.and_then(|old| old.standby_expire),
            Change::Clear | Change::Set(_) => None,
        };
        let active = entered.or_else(|| old.map(|old| old.active.clone()));
        let standby = standby.apply(old.and_then(|old| old.standby.clone()));
        let standby_expire = self.standby_expire.apply(standby_expire);
        if standby.is_none() && standby_expire.is_some() && violations.is_empty() {
            let field = "standby_client_secret_expire_time";
            violations.push(Violation::new(field, "needs standby_client_secret"));
        }
        match active {
            Some(active) if violations.is_empty() => Ok(ClientSecrets {
                active,
                active_expire: self.active_expire.apply(active_expire),
                standby,
                standby_expire,
            }),
            _ => Err(violations),
        }
    }
}

/// A secret that expires within this time is one to replace.
pub const EXPIRES_SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);
