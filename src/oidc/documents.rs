//! Where a replica gets an IdP's documents: from what the replicas share, or else from the IdP. Of
//! several that need the same documents at the same time, one asks the IdP and the others wait for
//! what it brings. Shared documents are read by the code, and pass the checks, of fetched ones. Used by
//! [`super::providers`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::breaker::CircuitBreaker;
use super::error::ProviderError;
use super::http::HttpClient;
use super::provider::{Provider, Published};
use crate::clock::Clock;
use crate::model::connection::Connection;
use crate::model::documents::{CLAIM, CLOCK_SKEW, Claim, DocumentsRead, IdpDocuments, Kept};
use crate::model::time::UnixMillis;
use crate::telemetry;

/// What the replicas share. Wired to a store by `app`. Answers within a second or so; a store that
/// doesn't is away.
#[async_trait]
pub trait SharedDocuments: Send + Sync {
    /// What is kept of this connection's IdP; `None`: the store is away.
    async fn kept(&self, connection: &Connection) -> Option<Kept>;

    /// Claims the right to ask the IdP.
    async fn claim(&self, connection: &Connection) -> Claimed;

    /// Keeps documents for all replicas, and ends the claim.
    async fn keep(&self, connection: &Connection, documents: &IdpDocuments);

    /// Ends the claim.
    async fn release(&self, connection: &Connection, claim: Claim);
}

/// Who asks the IdP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// This replica, for all.
    Ours(Claim),
    /// Another replica.
    Theirs,
    /// The store is away: this replica, for itself.
    Unknown,
}

/// Which documents are needed, and from where. Each kind is for all documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fetch {
    /// Newer ones.
    Renewal,
    /// Newer keys: if the metadata can't be fetched, they are from the URL that is known.
    Keys,
    /// Those that the IdP publishes now.
    Current,
}

/// An IdP by its documents.
#[derive(Clone)]
pub(super) struct Fetched {
    pub(super) provider: Arc<Provider>,
    pub(super) read: DocumentsRead,
    pub(super) origin: Origin,
    /// Bytes of the documents.
    pub(super) size: usize,
}

/// Where documents are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// All from the IdP, just now.
    Idp,
    /// The keys from the IdP, just now; the metadata was known.
    IdpKeys,
    /// From another replica, or from before a restart.
    Shared,
}

pub(super) type Outcome = Result<Fetched, ProviderError>;

/// What this replica knows already.
pub(super) struct Known {
    pub(super) provider: Arc<Provider>,
    pub(super) read: DocumentsRead,
}

/// One fetch for one connection.
pub(super) struct Fetcher {
    pub(super) connection: Arc<Connection>,
    pub(super) redirect_uri: String,
    pub(super) breaker: Arc<CircuitBreaker>,
    pub(super) http: HttpClient,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) shared: Arc<dyn SharedDocuments>,
}

/// What is left to do once the callers have the outcome.
pub(super) struct Afterwards {
    keep: Option<IdpDocuments>,
    claim: Option<Claim>,
}

/// What the replicas know.
enum Looked {
    /// Documents that this replica doesn't have yet.
    Newer(Fetched, Option<Claim>),
    /// Nothing of use: the IdP must be asked. What is kept, and this replica's claim if it got one.
    Ask(Option<IdpDocuments>, Option<Claim>),
}

impl Fetcher {
    pub(super) async fn fetch(&self, fetch: Fetch, known: Option<&Known>) -> (Outcome, Afterwards) {
        let looked = match fetch {
            Fetch::Renewal | Fetch::Keys => self.look(known).await,
            Fetch::Current => Looked::Ask(None, None),
        };
        let (kept, claim) = match looked {
            Looked::Newer(fetched, claim) => {
                return (Ok(fetched), Afterwards { keep: None, claim });
            }
            Looked::Ask(kept, claim) => (kept, claim),
        };
        let (outcome, keep) = self.ask(fetch, known, kept).await;
        (outcome, Afterwards { keep, claim })
    }

    /// Shares what was fetched. No login waits for it.
    pub(super) async fn finish(&self, Afterwards { keep, claim }: Afterwards) {
        let connection = &self.connection;
        match keep {
            Some(documents) if documents.size() <= MAX_KEPT => {
                return self.shared.keep(connection, &documents).await;
            }
            Some(documents) => {
                let (slug, size) = (&connection.slug, documents.size());
                tracing::debug!(account.slug = %slug, size, "documents of IdP are too large to be kept");
            }
            None => {}
        }
        if let Some(claim) = claim {
            self.shared.release(connection, claim).await;
        }
    }

    async fn look(&self, known: Option<&Known>) -> Looked {
        let Some(kept) = self.shared.kept(&self.connection).await else {
            return Looked::Ask(None, None);
        };
        if let Some(fetched) = self.newer(kept.documents.as_ref(), known) {
            return Looked::Newer(fetched, None);
        }
        match self.shared.claim(&self.connection).await {
            Claimed::Unknown => Looked::Ask(kept.documents, None),
            Claimed::Theirs => {
                let awaited = tokio::time::timeout(CLAIM, self.awaited(known)).await;
                let none = Looked::Ask(kept.documents, None);
                awaited.ok().flatten().map_or(none, |fetched| Looked::Newer(fetched, None))
            }
            Claimed::Ours(claim) => {
                // Another replica may have had the claim since the first look.
                let again = self.shared.kept(&self.connection).await;
                let documents = again.and_then(|kept| kept.documents);
                match self.newer(documents.as_ref(), known) {
                    Some(fetched) => Looked::Newer(fetched, Some(claim)),
                    None => Looked::Ask(documents, Some(claim)),
                }
            }
        }
    }

    /// What the replica brings that asks the IdP now; `None`: nothing.
    async fn awaited(&self, known: Option<&Known>) -> Option<Fetched> {
        let mut pause = LOOK_AGAIN;
        loop {
            tokio::time::sleep(pause).await;
            pause *= 2;
            let kept = self.shared.kept(&self.connection).await?;
            let fetched = self.newer(kept.documents.as_ref(), known);
            if fetched.is_some() || !kept.is_claimed {
                return fetched;
            }
        }
    }

    /// Kept documents that are usable, and newer than what is known.
    fn newer(&self, documents: Option<&IdpDocuments>, known: Option<&Known>) -> Option<Fetched> {
        let documents = documents?;
        let now = self.clock.unix_millis();
        let is_newer = known.is_none_or(|known| documents.read.is_newer_than(&known.read));
        if !is_newer || !is_believable(documents, now) {
            return None;
        }
        let (connection, redirect_uri) = (&self.connection, &self.redirect_uri);
        let breaker = Arc::clone(&self.breaker);
        match Provider::of(connection, redirect_uri, &self.http, breaker, documents) {
            Ok(provider) => {
                telemetry::provider_fetched("shared", true);
                Some(Fetched {
                    provider: Arc::new(provider),
                    read: documents.read,
                    origin: Origin::Shared,
                    size: documents.size(),
                })
            }
            Err(error) => {
                let slug = &connection.slug;
                tracing::debug!(account.slug = %slug, %error, "kept documents of IdP can't be used");
                None
            }
        }
    }

    /// Asks the IdP. Gives also what to keep for the other replicas.
    async fn ask(
        &self,
        fetch: Fetch,
        known: Option<&Known>,
        kept: Option<IdpDocuments>,
    ) -> (Outcome, Option<IdpDocuments>) {
        let breaker = Arc::clone(&self.breaker);
        let whole =
            Provider::fetch(&self.connection, &self.redirect_uri, &self.http, breaker).await;
        telemetry::provider_fetched("whole", whole.is_ok());
        match (whole, fetch, known) {
            (Err(_), Fetch::Keys, Some(known)) => self.ask_for_keys(known, kept).await,
            (Err(error), ..) => (Err(error), None),
            (Ok((provider, published)), ..) => {
                let now = self.clock.unix_millis();
                let read = DocumentsRead { all: now, keys: now };
                let keep = kept_of(&published, read, provider.fresh_for);
                let (provider, size) = (Arc::new(provider), published.size());
                (Ok(Fetched { provider, read, origin: Origin::Idp, size }), keep)
            }
        }
    }

    async fn ask_for_keys(
        &self,
        known: &Known,
        kept: Option<IdpDocuments>,
    ) -> (Outcome, Option<IdpDocuments>) {
        let fetched = known.provider.with_fresh_keys(&self.http).await;
        telemetry::provider_fetched("keys", fetched.is_ok());
        let (provider, body) = match fetched {
            Ok(fetched) => fetched,
            Err(error) => return (Err(error), None),
        };
        let read = DocumentsRead { keys: self.clock.unix_millis(), ..known.read };
        // The keys are kept only together with the metadata that named their URL.
        let kept = kept.filter(|kept| kept.read.all == known.read.all);
        let keep = kept.zip(text_of(&body)).map(|(kept, keys)| IdpDocuments { keys, read, ..kept });
        let (provider, size) = (Arc::new(provider), body.len());
        (Ok(Fetched { provider, read, origin: Origin::IdpKeys, size }), keep)
    }
}

/// Whether they are not too old, nor by a clock that is wrong.
fn is_believable(documents: &IdpDocuments, now: UnixMillis) -> bool {
    let age = now.since(documents.read.all);
    documents.read.keys <= now.after(CLOCK_SKEW)
        && age < documents.fresh_for.saturating_add(KEEP_STALE)
}

fn kept_of(
    published: &Published,
    read: DocumentsRead,
    fresh_for: Duration,
) -> Option<IdpDocuments> {
    let metadata = match &published.metadata {
        Some(body) => Some(text_of(body)?),
        None => None,
    };
    Some(IdpDocuments { metadata, keys: text_of(&published.keys)?, read, fresh_for })
}

fn text_of(body: &[u8]) -> Option<String> {
    std::str::from_utf8(body).ok().map(str::to_owned)
}

/// How long expired metadata and keys are used while the IdP fails.
pub const KEEP_STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of metadata and keys that are kept: several times those of any IdP product.
const MAX_KEPT: usize = 128 * 1024;
/// How long a replica waits before it looks whether another one has brought documents; then twice as long,
/// since it may wait for those of a thousand accounts.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_newer_if_their_keys_are_and_their_metadata_is_not_older() {
        let read = |all, keys| DocumentsRead { all: UnixMillis(all), keys: UnixMillis(keys) };
        for (one, other, expected) in [
            (read(5, 5), read(5, 5), false),
            (read(6, 6), read(5, 5), true),
            (read(5, 6), read(5, 5), true),
            (read(6, 6), read(5, 7), false),
            (read(4, 9), read(5, 5), false),
        ] {
            assert_eq!(one.is_newer_than(&other), expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn kept_documents_are_used_for_a_day_after_they_were_fresh_and_never_from_the_future() {
        const HOUR: u64 = 60 * 60 * 1000;
        let read = DocumentsRead { all: UnixMillis(100 * HOUR), keys: UnixMillis(100 * HOUR) };
        let fresh_for = Duration::from_secs(60 * 60);
        let documents = IdpDocuments { metadata: None, keys: String::new(), read, fresh_for };
        for (now, expected) in [
            (99 * HOUR, false),
            (100 * HOUR - 60_001, false),
            (100 * HOUR - 60_000, true),
            (125 * HOUR - 1, true),
            (125 * HOUR, false),
        ] {
            assert_eq!(is_believable(&documents, UnixMillis(now)), expected, "{now}");
        }
    }
}
