//! Client secrets: as entered, as checked, and what an update does to them. Must never be shown or
//! logged; the memory is wiped when a secret is dropped.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use secrecy::{ExposeSecret, SecretString};

use super::Violation;
use super::change::Change;
use super::text::hidden_character;
use super::time::UnixMillis;

/// A client secret as it was entered: neither trimmed nor checked.
#[derive(Clone, Debug, Default)]
pub struct UncheckedSecret(SecretString);

impl UncheckedSecret {
    /// Wraps what was entered.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    /// Whether it is empty or white space only.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.0.expose_secret().trim().is_empty()
    }

    /// Trims and checks the secret. `field`: its name in the contract.
    ///
    /// # Errors
    /// It is empty, too long, or has characters that nobody can see. The error names these, and
    /// nothing else of the secret.
    pub fn check(&self, field: &'static str) -> Result<ClientSecret, Violation> {
        let text = self.0.expose_secret().trim();
        if !(1..=MAX_SECRET_CHARS).contains(&text.chars().count()) {
            let rule = format!("must be 1 to {MAX_SECRET_CHARS} characters");
            return Err(Violation::new(field, rule));
        }
        match hidden_character(text) {
            Some(hidden) => {
                let rule = format!("must not have control or invisible characters: {hidden}");
                Err(Violation::new(field, rule))
            }
            None => Ok(ClientSecret(text.to_owned().into())),
        }
    }
}

/// A client secret that was checked.
#[derive(Clone, Debug)]
pub struct ClientSecret(SecretString);

impl ClientSecret {
    /// Wraps a secret that was checked before it was stored.
    #[must_use]
    pub fn from_store(text: String) -> Self {
        Self(text.into())
    }

    /// The secret itself: for sealing, and for the IdP's token endpoint.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// In place of a stored secret that can't be opened.
    #[must_use]
    pub fn missing() -> Self {
        Self(SecretString::default())
    }

    /// Whether it is in place of a stored secret that can't be opened.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.expose().is_empty()
    }

    /// The first 8 hex digits of its SHA-256, to compare with what the customer sent. Empty for a
    /// missing one.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        if self.is_missing() {
            return String::new();
        }
        hex::encode(&digest(&SHA256, self.expose().as_bytes()).as_ref()[..4])
    }
}

/// A client's secrets: the active one, and optionally a standby that takes its place when the IdP
/// rejects the client.
#[derive(Clone, Debug)]
pub struct ClientSecrets {
    /// The secret in use.
    pub active: ClientSecret,
    /// When the active secret expires, according to the customer.
    pub active_expire: Option<UnixMillis>,
    /// The standby secret.
    pub standby: Option<ClientSecret>,
    /// When the standby secret expires, according to the customer.
    pub standby_expire: Option<UnixMillis>,
}

impl ClientSecrets {
    /// One secret without a known expiry and without a standby.
    #[must_use]
    pub fn one(active: ClientSecret) -> Self {
        Self { active, active_expire: None, standby: None, standby_expire: None }
    }
}

/// What an update does to a connection's secrets.
#[derive(Debug, Default)]
pub struct SecretsEdit {
    /// Replaces the active secret, which can't be removed.
    pub active: Option<UncheckedSecret>,
    /// When the active secret expires.
    pub active_expire: Change<UnixMillis>,
    /// The standby secret.
    pub standby: Change<UncheckedSecret>,
    /// When the standby secret expires.
    pub standby_expire: Change<UnixMillis>,
}

impl SecretsEdit {
    /// Checks the secrets and applies the edit. `old`: the stored secrets, `None` for a new connection,
    /// which needs an active secret.
    ///
    /// # Errors
    /// All violations at once.
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
        // The expiry of the old secret says nothing about a new one.
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

const MAX_SECRET_CHARS: usize = 1024;
/// A secret that expires within this time needs to be replaced.
pub const EXPIRES_SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> ClientSecrets {
        ClientSecrets {
            active: ClientSecret::from_store("old".to_owned()),
            active_expire: Some(UnixMillis(1)),
            standby: Some(ClientSecret::from_store("spare".to_owned())),
            standby_expire: Some(UnixMillis(2)),
        }
    }

    fn active(text: &str) -> SecretsEdit {
        SecretsEdit { active: Some(UncheckedSecret::new(text.to_owned())), ..Default::default() }
    }

    #[test]
    fn a_secret_is_trimmed_and_bounded() {
        for (text, expected) in [(" s3cret\n", Some("s3cret")), ("", None), ("a\0b", None)] {
            let secret = UncheckedSecret::new(text.to_owned()).check("client_secret").ok();
            assert_eq!(secret.as_ref().map(ClientSecret::expose), expected, "{text:?}");
        }
        let long = UncheckedSecret::new("CANARY".repeat(200)).check("client_secret");
        assert!(!long.expect_err("too long").description.contains("CANARY"));
        for (text, hidden) in [
            ("\u{feff}CANARY", "U+FEFF (character 1)"),
            ("CANARY\u{200b}", "U+200B (character 7)"),
            ("CAN\u{202e}ARY", "U+202E (character 4)"),
        ] {
            let pasted = UncheckedSecret::new(text.to_owned()).check("client_secret");
            let rule = pasted.expect_err("invisible").description;
            assert!(rule.ends_with(hidden) && !rule.contains("CAN"), "{rule}");
        }
    }

    #[test]
    fn a_new_connection_needs_a_secret() {
        let violations = SecretsEdit::default().apply_to(None).expect_err("refused");
        assert_eq!(violations[0].field, "client_secret");
        let secrets = active("new").apply_to(None).expect("accepted");
        assert!(secrets.standby.is_none() && secrets.active_expire.is_none());
    }

    #[test]
    fn a_new_active_secret_forgets_the_expiry_of_the_old_one() {
        let same = active("old").apply_to(Some(&stored())).expect("accepted");
        assert_eq!(same.active_expire, Some(UnixMillis(1)));
        let new = active("new").apply_to(Some(&stored())).expect("accepted");
        assert_eq!((new.active.expose(), new.active_expire), ("new", None));
        assert_eq!(new.standby_expire, Some(UnixMillis(2)), "the standby secret stays");
    }

    #[test]
    fn a_standby_secret_is_cleared_with_its_expiry() {
        for standby in [Change::Clear, Change::Set(UncheckedSecret::new(" ".to_owned()))] {
            let edit = SecretsEdit { standby, ..SecretsEdit::default() };
            let secrets = edit.apply_to(Some(&stored())).expect("accepted");
            assert!(secrets.standby.is_none() && secrets.standby_expire.is_none());
        }
        let edit = SecretsEdit {
            standby: Change::Clear,
            standby_expire: Change::Set(UnixMillis(3)),
            ..SecretsEdit::default()
        };
        let violations = edit.apply_to(Some(&stored())).expect_err("refused");
        assert_eq!(violations[0].field, "standby_client_secret_expire_time");
    }
}
