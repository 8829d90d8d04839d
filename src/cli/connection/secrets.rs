//! Reads secrets from a file, standard input, or a prompt without an echo; never from an argument.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::SecretString;

use super::super::Failure;
use crate::model::text::without_byte_order_mark;

/// Flags that say where the secrets are.
#[derive(Args)]
#[command(next_help_heading = "Secrets")]
pub(super) struct SecretArgs {
    /// Read the client secret from this file; - is standard input. Needed again if --client-id or the
    /// origin of the IdP's URL changes.
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// Ask for the client secret, as `create` does without --client-secret-file.
    #[arg(long, conflicts_with = "client_secret_file")]
    ask_client_secret: bool,
    /// Read a standby client secret from this file. It takes over when the IdP rejects the client
    /// secret. An empty file removes it.
    #[arg(long, value_name = "FILE")]
    standby_client_secret_file: Option<PathBuf>,
}

/// Secrets, each with the name of its field.
pub(super) type Secrets = Vec<(&'static str, SecretString)>;

impl SecretArgs {
    /// Whether no flag names a secret.
    pub(super) fn is_empty(&self) -> bool {
        let files = [&self.client_secret_file, &self.standby_client_secret_file];
        files.into_iter().all(Option::is_none) && !self.ask_client_secret
    }

    /// `is_required`: prompt for the client secret if no flag names one.
    pub(super) fn read(self, is_required: bool) -> Result<Secrets, Failure> {
        let read = |file: &Path| read_file(file).map_err(Failure::Usage);
        let mut secrets = Secrets::new();
        match &self.client_secret_file {
            Some(file) => secrets.push(("client_secret", read(file)?)),
            None if is_required || self.ask_client_secret => {
                secrets.push(("client_secret", prompt()?));
            }
            None => {}
        }
        if let Some(file) = &self.standby_client_secret_file {
            secrets.push(("standby_client_secret", read(file)?));
        }
        Ok(secrets)
    }
}

/// Reads a secret from a file; `-` is standard input. Editors end a file with a newline, which is not
/// part of the secret.
///
/// # Errors
/// Why the file can't be read.
pub(super) fn read_file(file: &Path) -> Result<SecretString, String> {
    let text =
        read_text(file).map_err(|error| format!("can't read {}: {error}", file.display()))?;
    Ok(text.trim().to_owned().into())
}

/// Reads a file; `-` is standard input. A byte order mark is not part of the text.
pub(super) fn read_text(file: &Path) -> std::io::Result<String> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())?
    } else {
        std::fs::read_to_string(file)?
    };
    Ok(without_byte_order_mark(&text).to_owned())
}

fn prompt() -> Result<SecretString, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "missing client secret: name its file with --client-secret-file (- is standard input)"
                .to_owned(),
        ));
    }
    let secret = rpassword::prompt_password("client secret: ").map_err(|error| {
        Failure::Usage(format!("can't read the client secret from the terminal: {error}"))
    })?;
    Ok(secret.trim().to_owned().into())
}

/// Asks the person to type the account's slug.
pub(super) fn confirm_deletion(slug: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        let text = "can't ask for confirmation without a terminal: pass --yes to delete";
        return Err(Failure::Usage(text.to_owned()));
    }
    let _ = write!(std::io::stderr(), "type {slug} to delete its connection: ");
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed).map_err(|error| {
        Failure::Usage(format!("can't read the confirmation from the terminal: {error}"))
    })?;
    if typed.trim() == slug {
        Ok(())
    } else {
        Err(Failure::Usage(format!("deleted nothing: the confirmation was not {slug}")))
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_byte_order_mark_is_not_part_of_a_secret() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("secret");
        std::fs::write(&file, "\u{feff}s3cret\r\n").expect("written");
        assert_eq!(read_file(&file).expect("read").expose_secret(), "s3cret");
    }
}
