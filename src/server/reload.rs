//! Files that may change while the service runs: certificates, keys and callers. The contents that
//! were valid last stay in use until the files are valid again. Contents never appear in a log
//! line.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use zeroize::Zeroizing;

use super::grpc::auth::WatchedCallers;
use super::tls::WatchedTls;
use crate::tasks::Tasks;
use crate::telemetry::BackgroundTask;

/// A value that is parsed from files.
pub struct Watched<T> {
    /// What the files are, for log lines.
    what: &'static str,
    files: Vec<PathBuf>,
    parse: Parse<T>,
    current: ArcSwap<T>,
    /// Digest of the contents that were read last.
    seen: Mutex<Vec<u8>>,
}

type Parse<T> = Box<dyn Fn(&[Contents]) -> Result<T, Problem> + Send + Sync>;
type Problem = Box<dyn std::error::Error + Send + Sync>;

/// The bytes of one file, which may be a private key.
pub type Contents = Zeroizing<Vec<u8>>;

/// Why files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file can't be read.
    #[error("failed to read {}: {error}", .file.display())]
    Unreadable {
        /// Its path.
        file: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// The contents are invalid.
    #[error("invalid {what} ({}): {problem}", names(.files))]
    Invalid {
        /// What the files are.
        what: &'static str,
        /// Their paths.
        files: Vec<PathBuf>,
        /// What is wrong with them.
        problem: Problem,
    },
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Reads the files; `parse` gets their contents in the same order.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn open<E: std::error::Error + Send + Sync + 'static>(
        what: &'static str,
        files: Vec<PathBuf>,
        parse: impl Fn(&[Contents]) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, FileError> {
        let parse: Parse<T> = Box::new(move |contents| Ok(parse(contents)?));
        let contents = read(&files)?;
        let value = match parse(&contents) {
            Ok(value) => value,
            Err(problem) => return Err(FileError::Invalid { what, files, problem }),
        };
        let (current, seen) = (ArcSwap::from_pointee(value), Mutex::new(digest_of(&contents)));
        Ok(Self { what, files, parse, current, seen })
    }

    /// The value of the files that were valid last.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Reads the files again if they have changed. Invalid contents are logged once and not used.
    pub fn reload_if_changed(&self) {
        let contents = match read(&self.files) {
            Ok(contents) => contents,
            // A file can be missing for a moment while it is replaced.
            Err(error) => return tracing::debug!(%error, "failed to read a watched file"),
        };
        let digest = digest_of(&contents);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == digest {
            return;
        }
        *seen = digest;
        let (what, files) = (self.what, names(&self.files));
        match (self.parse)(&contents) {
            Ok(value) => {
                self.current.store(Arc::new(value));
                tracing::info!(files, "reloaded {what}");
            }
            Err(error) => {
                tracing::error!(files, %error, "failed to reload {what}: the previous one stays in use");
            }
        }
    }
}

/// Reloads certificates and callers when their files change.
pub(crate) fn spawn_reload(
    tls: Option<Arc<WatchedTls>>,
    callers: Option<Arc<WatchedCallers>>,
    interval: Duration,
    tasks: &Tasks,
) {
    tasks.spawn_restarting(BackgroundTask::Reload, move || {
        let (tls, callers) = (tls.clone(), callers.clone());
        async move {
            let mut ticks = tokio::time::interval(interval);
            loop {
                ticks.tick().await;
                let (tls, callers) = (tls.clone(), callers.clone());
                let reload = tokio::task::spawn_blocking(move || {
                    tls.iter().for_each(|tls| tls.reload_if_changed());
                    callers.iter().for_each(|callers| callers.reload_if_changed());
                });
                // It fails if a parser panics: then this task ends, which is noticed.
                if reload.await.is_err() {
                    return;
                }
            }
        }
    });
}

fn read(files: &[PathBuf]) -> Result<Vec<Contents>, FileError> {
    let read = |file: &PathBuf| {
        std::fs::read(file)
            .map(Zeroizing::new)
            .map_err(|error| FileError::Unreadable { file: file.clone(), error })
    };
    files.iter().map(read).collect()
}

fn names(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn digest_of(contents: &[Contents]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    for one in contents {
        context.update(&u64::try_from(one.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(one);
    }
    context.finish().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_contents_replace_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("n");
        let read = |contents: &[Contents]| {
            let text = String::from_utf8_lossy(&contents[0]).into_owned();
            text.parse::<u8>()
        };
        assert!(Watched::open("number", vec![file.clone()], read).is_err());
        std::fs::write(&file, "1").expect("written");
        let watched = Watched::open("number", vec![file.clone()], read).expect("read");
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
