//! `peerpanda-sso keys`: makes a master key, and seals the stored values again after a new one was
//! added. `rotate` is the one command that opens the service's database.

use clap::Subcommand;

use super::{Failure, Outcome, print_line};
use crate::app::{self, Environment};
use crate::config::SealedSettings;
use crate::entropy::SystemEntropy;
use crate::store::seal::MasterKey;

/// The subcommands.
#[derive(Subcommand)]
pub enum Keys {
    /// Print a new key for SSO_ENCRYPTION_KEYS.
    Generate,
    /// Seal the stored values again with the first key of SSO_ENCRYPTION_KEYS. The service may run
    /// meanwhile.
    ///
    /// To replace a key: add the new key at the end of the list on every replica, move it to the
    /// front on every replica, run this command, wait for SSO_STATE_TTL so that the logins in
    /// progress have ended, and remove the old keys. Exits with 1 if no key opens a value, and
    /// names the value.
    Rotate(Box<SealedSettings>),
}

impl Keys {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// The settings are invalid, the database can't be opened, or a value can't be decrypted.
    pub async fn run(&self) -> Result<Outcome, Failure> {
        match self {
            Self::Generate => print_line(&MasterKey::generate(&SystemEntropy).encoded())?,
            Self::Rotate(settings) => rotate(settings).await?,
        }
        Ok(Outcome::Success)
    }
}

async fn rotate(settings: &SealedSettings) -> Result<(), Failure> {
    let (database, keyring) = settings.check().map_err(Failure::other)?;
    let resealed =
        app::reseal(&database, keyring, &Environment::default()).await.map_err(Failure::other)?;
    print_line(&format!(
        "sealed {} of {} values again with the first key",
        resealed.changed, resealed.all
    ))?;
    if resealed.unreadable.is_empty() {
        return print_line(
            "Remove the other keys from the settings once the logins in progress have ended \
             (SSO_STATE_TTL). Keep them for as long as you keep backups that were made with them.",
        );
    }
    Err(Failure::other(format!(
        "no key of SSO_ENCRYPTION_KEYS opens {}: keep the other keys",
        resealed.unreadable.join(", ")
    )))
}
