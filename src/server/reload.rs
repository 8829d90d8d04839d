//! Files that may change while the service runs: certificates, keys, callers. What was read last and was right stays in
//! force until something right replaces it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use zeroize::Zeroizing;

/// What some files hold.
pub struct Watched<T> {
    files: Vec<PathBuf>,
    read: Read<T>,
    current: ArcSwap<T>,
    /// Digest of the contents that were looked at last.
    seen: Mutex<Vec<u8>>,
}

type Read<T> = Box<dyn Fn(&[Contents]) -> Result<T, String> + Send + Sync>;

/// One file's bytes; they can be a key.
pub type Contents = Zeroizing<Vec<u8>>;

impl<T: Send + Sync + 'static> Watched<T> {
    /// Reads the files, whose contents `read` gets in the same order.
    ///
    /// # Errors
    /// A file can't be read, or `read`'s own.
    pub fn open(
        files: Vec<PathBuf>,
        read: impl Fn(&[Contents]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let contents = contents(&files)?;
        let current = ArcSwap::from_pointee(read(&contents)?);
        Ok(Self { seen: Mutex::new(digest_of(&contents)), read: Box::new(read), files, current })
    }

    /// What is in force.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Reads the files again where they have changed. One that is wrong is told once, and changes nothing.
    pub fn reload_if_changed(&self) {
        let names = || {
            self.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
        };
        let contents = match contents(&self.files) {
            Ok(contents) => contents,
            // Between two versions a file can be away for a moment.
            Err(error) => return tracing::debug!(%error, "a watched file can't be read just now"),
        };
        let digest = digest_of(&contents);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == digest {
            return;
        }
        *seen = digest;
        match (self.read)(&contents) {
            Ok(value) => {
                self.current.store(Arc::new(value));
                tracing::info!(files = names(), "changed files were read");
            }
            Err(error) => {
                tracing::error!(files = names(), %error, "changed files can't be used; what was read before stays in force")
            }
        }
    }
}

fn contents(files: &[PathBuf]) -> Result<Vec<Contents>, String> {
    let read = |file: &PathBuf| {
        std::fs::read(file)
            .map(Zeroizing::new)
            .map_err(|error| format!("{} can't be read: {error}", file.display()))
    };
    files.iter().map(read).collect()
}

fn digest_of(contents: &[Contents]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    for one in contents {
        context.update(&u64::try_from(one.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(one);
    }
    context.finish().as_ref().to_vec()
}

/// How often files are looked at.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_replaces_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("n");
        let read = |contents: &[Contents]| {
            let text = String::from_utf8_lossy(&contents[0]).into_owned();
            text.parse::<u8>().map_err(|error| error.to_string())
        };
        assert!(Watched::open(vec![file.clone()], read).is_err());
        std::fs::write(&file, "1").expect("written");
        let watched = Watched::open(vec![file.clone()], read).expect("read");
        for (text, expected) in [("x", 1), ("2", 2), ("", 2), ("3", 3)] {
            std::fs::write(&file, text).expect("written");
            watched.reload_if_changed();
            assert_eq!(*watched.current(), expected);
        }
        std::fs::remove_file(&file).expect("removed");
        watched.reload_if_changed();
        assert_eq!(*watched.current(), 3);
    }
}
