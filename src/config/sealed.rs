//! The settings that the commands share which open the database: its URL, and the keys that seal what
//! it stores. No error shows them.

use super::parsing::Check;
use super::settings::DEFAULT_DATABASE_URL;
use super::{ConfigErrors, Database, SealedSettings, key_file};
use crate::store::seal::{Keyring, MasterKey};

impl SealedSettings {
    /// For a command that works on an existing database.
    ///
    /// # Errors
    /// All problems of these settings.
    pub fn check(&self) -> Result<(Database, Keyring), ConfigErrors> {
        let mut check = Check::default();
        let database = self.database(&mut check);
        if let Database::Sqlite(file) = &database
            && !file.exists()
        {
            check.wrong(
                "SSO_DATABASE_URL",
                format!("names {}, which does not exist", file.display()),
            );
        }
        match self.keyring(&mut check, &database, false) {
            Some(keyring) => check.done((database, keyring)),
            None => check.done_without(),
        }
    }

    pub(super) fn database(&self, check: &mut Check) -> Database {
        let given = Some(self.database_url.as_str()).filter(|url| *url != DEFAULT_DATABASE_URL);
        let url = check.secret("SSO_DATABASE_URL", given, self.database_url_file.as_deref());
        let url = url.unwrap_or_else(|| DEFAULT_DATABASE_URL.to_owned());
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Database::Postgres(url.into());
        }
        let file = url.strip_prefix("sqlite://").unwrap_or_default();
        if file.is_empty() || file.contains(['?', '#']) {
            check.wrong(
                "SSO_DATABASE_URL",
                "must be sqlite://FILE or postgres://USER:PASSWORD@HOST/DATABASE".to_owned(),
            );
        }
        Database::Sqlite(file.into())
    }

    pub(super) fn keyring(
        &self,
        check: &mut Check,
        database: &Database,
        has_redis: bool,
    ) -> Option<Keyring> {
        const NAME: &str = "SSO_ENCRYPTION_KEYS";
        let given = check.secret(
            NAME,
            self.encryption_keys.as_deref(),
            self.encryption_keys_file.as_deref(),
        );
        let text = match (given, database) {
            (Some(text), _) => text,
            (None, Database::Sqlite(file)) if !has_redis => {
                if !check.errors.is_empty() {
                    return None;
                }
                let key_file = file.with_added_extension("key");
                match key_file::read_or_create(&key_file) {
                    Ok(text) => text,
                    Err(error) => {
                        let file = key_file.display();
                        check.wrong(NAME, format!("is unset, and the key file {file} {error}"));
                        return None;
                    }
                }
            }
            (None, _) => {
                check.wrong(
                    NAME,
                    "must be set if PostgreSQL or Redis is used: openssl rand -base64 32"
                        .to_owned(),
                );
                return None;
            }
        };
        let parts = text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty());
        let keys: Option<Vec<MasterKey>> = parts.map(MasterKey::parse).collect();
        for number in guessable(keys.as_deref().unwrap_or_default()) {
            check.wrong(
                NAME,
                format!("has a key that can be guessed (number {number}): openssl rand -base64 32"),
            );
        }
        let keyring = keys.and_then(Keyring::new);
        if keyring.is_none() {
            check.wrong(
                NAME,
                "must be base64 of exactly 32 bytes each, comma separated: openssl rand -base64 32"
                    .to_owned(),
            );
        }
        keyring
    }
}

/// The places of the keys that can't be random, counted from 1.
fn guessable(keys: &[MasterKey]) -> Vec<usize> {
    let keys = (1..).zip(keys).filter(|(_, key)| key.is_guessable());
    keys.map(|(number, _)| number).collect()
}
