//! Secrets on their way in: from a file, standard input, or a prompt without an echo; never from an argument.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use prost_types::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use super::super::Failure;
use crate::pb;

/// Flags that name where secrets come from.
#[derive(Args)]
pub(super) struct Secrets {
    /// File that holds the client secret; - is standard input.
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// Ask for the client secret (a create does where no file is named).
    #[arg(long, conflicts_with = "client_secret_file")]
    ask_client_secret: bool,
    /// When it expires: 2027-01-31 or 2027-01-31T12:00:00Z; empty: unknown.
    #[arg(long, value_name = "TIME", value_parser = time)]
    client_secret_expires: Option<Expiry>,
    /// File that holds a second secret, which takes over when the IdP rejects the first; an empty file removes it.
    #[arg(long, value_name = "FILE")]
    standby_client_secret_file: Option<PathBuf>,
    /// When that one expires.
    #[arg(long, value_name = "TIME", value_parser = time)]
    standby_client_secret_expires: Option<Expiry>,
}

#[derive(Clone, Debug)]
struct Expiry(Option<Timestamp>);

/// Secrets that were read; `None`: not given.
pub(super) struct Given {
    active: Option<SecretString>,
    active_expires: Option<Expiry>,
    standby: Option<SecretString>,
    standby_expires: Option<Expiry>,
}

impl Secrets {
    /// Reads them. `is_needed`: a client secret must come, from the prompt if need be.
    pub(super) fn read(self, is_needed: bool) -> Result<Given, Failure> {
        let active = match &self.client_secret_file {
            Some(file) => Some(read(file)?),
            None if is_needed || self.ask_client_secret => Some(ask()?),
            None => None,
        };
        let standby = self.standby_client_secret_file.as_deref().map(read).transpose()?;
        Ok(Given {
            active,
            active_expires: self.client_secret_expires,
            standby,
            standby_expires: self.standby_client_secret_expires,
        })
    }
}

impl Given {
    /// Puts them into a message, and names the fields that they are.
    pub(super) fn fill(self, connection: &mut pb::Connection) -> Vec<String> {
        let mut paths = Vec::new();
        if let Some(secret) = self.active {
            connection.client_secret = secret.expose_secret().to_owned();
            paths.push("client_secret".to_owned());
        }
        if let Some(Expiry(time)) = self.active_expires {
            connection.client_secret_expire_time = time;
            paths.push("client_secret_expire_time".to_owned());
        }
        if let Some(secret) = self.standby {
            connection.standby_client_secret = secret.expose_secret().to_owned();
            paths.push("standby_client_secret".to_owned());
        }
        if let Some(Expiry(time)) = self.standby_expires {
            connection.standby_client_secret_expire_time = time;
            paths.push("standby_client_secret_expire_time".to_owned());
        }
        paths
    }
}

/// A secret from a file, or from standard input.
pub(super) fn read(file: &Path) -> Result<SecretString, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?;
    // An editor's newline is no part of it.
    Ok(text.trim().to_owned().into())
}

fn ask() -> Result<SecretString, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "no client secret: name its file by --client-secret-file (- is standard input)"
                .to_owned(),
        ));
    }
    let secret = rpassword::prompt_password("client secret: ")
        .map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(secret.trim().to_owned().into())
}

/// Has the person type the account's name.
pub(super) fn confirm(slug: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage("deleting needs --yes where nobody can be asked".to_owned()));
    }
    let _ = write!(std::io::stderr(), "type {slug} to delete its connection: ");
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed).map_err(|error| Failure::Usage(error.to_string()))?;
    if typed.trim() == slug {
        Ok(())
    } else {
        Err(Failure::Usage("nothing was deleted".to_owned()))
    }
}

fn time(text: &str) -> Result<Expiry, String> {
    parse_time(text).map(Expiry)
}

/// RFC 3339, or a day alone (its beginning, in UTC); empty: none.
pub(super) fn parse_time(text: &str) -> Result<Option<Timestamp>, String> {
    let text = text.trim();
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    if text.is_empty() {
        return Ok(None);
    }
    whole
        .parse()
        .map(Some)
        .map_err(|_| "must be a time such as 2027-01-31 or 2027-01-31T12:00:00Z".to_owned())
}
