//! The key file next to a SQLite database, used if no encryption keys are set: created at the first
//! start, readable by its owner only. Its content never appears in an error.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::entropy::SystemEntropy;
use crate::store::seal::MasterKey;

/// The content of the key file, which is created if it is missing.
pub(super) fn read_or_create(file: &Path) -> Result<String, KeyFileError> {
    if !file.exists() {
        create(file).map_err(KeyFileError::NotCreated)?;
    }
    let mode = fs::metadata(file).map_err(KeyFileError::Unreadable)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { mode });
    }
    fs::read_to_string(file).map_err(KeyFileError::Unreadable)
}

/// Written to another file and linked into place: if two processes start at once, both use the key
/// of the first.
fn create(file: &Path) -> io::Result<()> {
    let key = MasterKey::generate(&SystemEntropy).encoded();
    let temporary = file.with_added_extension(format!("{}.new", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let created = options.open(&temporary).and_then(|mut new| {
        writeln!(new, "{}", key.as_str())?;
        new.sync_all()?;
        fs::hard_link(&temporary, file)
    });
    let _ = fs::remove_file(&temporary);
    match created {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}

/// Why the key file can't be used; reads on after its path.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyFileError {
    #[error("can't be created: {0}")]
    NotCreated(io::Error),
    #[error("can't be read: {0}")]
    Unreadable(io::Error),
    #[error("is readable by others (mode {mode:o}): run chmod 600")]
    Exposed { mode: u32 },
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_created_once_and_must_not_be_readable_by_others() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("sso.db.key");
        let first = read_or_create(&file).expect("created");
        assert!(MasterKey::parse(first.trim()).is_some());
        assert_eq!(read_or_create(&file).expect("read"), first);
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1, "no other file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("changed");
        let error = read_or_create(&file).expect_err("exposed").to_string();
        assert_eq!(error, "is readable by others (mode 640): run chmod 600");
    }
}
