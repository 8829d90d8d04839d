//! Reads of connections that aren't cached: one for all callers that want the same account at the same
//! time, and a bound on how many wait. A database that hangs must not fill the service with calls for
//! unknown accounts, which refuses the known ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::StoreError;
use crate::model::connection::Connection;
use crate::model::slug::Slug;

/// What a read found.
pub(super) type Found = Result<Option<Arc<Connection>>, StoreError>;

/// The reads that are running.
pub(super) struct Loads {
    running: Mutex<HashMap<Slug, Load>>,
    room: Arc<Semaphore>,
}

#[derive(Clone)]
struct Load {
    outcome: watch::Receiver<Option<Found>>,
    /// Also tells this load from a later one of the same slug.
    share: Arc<Semaphore>,
}

impl Loads {
    pub(super) fn new() -> Self {
        Self { running: Mutex::default(), room: Arc::new(Semaphore::new(MAX_WAITING)) }
    }

    /// Joins the running read of this slug, or starts one. The read goes on if the caller cancels.
    pub(super) async fn join(
        self: &Arc<Self>,
        slug: &Slug,
        read: impl Future<Output = Found> + Send + 'static,
    ) -> Found {
        let (mut outcome, _permits) = self.enter(slug, read)?;
        let found = outcome.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        found.unwrap_or_else(|| Err(busy("the read ended without a result".to_owned())))
    }

    /// Later callers start a read of their own: the running one may have read what has just changed.
    pub(super) fn detach(&self, slug: &Slug) {
        self.lock().remove(slug);
    }

    /// [`Loads::detach`] for every slug.
    pub(super) fn detach_all(&self) {
        self.lock().clear();
    }

    fn enter(
        self: &Arc<Self>,
        slug: &Slug,
        read: impl Future<Output = Found> + Send + 'static,
    ) -> Result<(watch::Receiver<Option<Found>>, [OwnedSemaphorePermit; 2]), StoreError> {
        let too_many = |_| busy(format!("{MAX_WAITING} calls wait for the database already"));
        let room = Arc::clone(&self.room).try_acquire_owned().map_err(too_many)?;
        let mut running = self.lock();
        // A closed channel is left by a read that panicked.
        let joined = running.get(slug).filter(|load| load.outcome.has_changed().is_ok()).cloned();
        let load = match joined {
            Some(load) => load,
            None if running.len() >= MAX_READS => {
                return Err(busy(format!("{MAX_READS} accounts are being read already")));
            }
            None => self.start(slug, &mut running, read),
        };
        drop(running);
        let too_many =
            |_| busy(format!("{MAX_WAITING_PER_SLUG} calls wait for this account already"));
        let share = load.share.try_acquire_owned().map_err(too_many)?;
        Ok((load.outcome, [room, share]))
    }

    fn start(
        self: &Arc<Self>,
        slug: &Slug,
        running: &mut HashMap<Slug, Load>,
        read: impl Future<Output = Found> + Send + 'static,
    ) -> Load {
        let (sender, outcome) = watch::channel(None);
        let load = Load { outcome, share: Arc::new(Semaphore::new(MAX_WAITING_PER_SLUG)) };
        running.insert(slug.clone(), load.clone());
        let (loads, slug, share) = (Arc::clone(self), slug.clone(), Arc::clone(&load.share));
        tokio::spawn(async move {
            let found = read.await;
            let mut running = loads.lock();
            if running.get(&slug).is_some_and(|load| Arc::ptr_eq(&load.share, &share)) {
                running.remove(&slug);
            }
            drop(running);
            sender.send_replace(Some(found));
        });
        load
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Slug, Load>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn busy(detail: String) -> StoreError {
    StoreError::Unavailable { store: "connections", detail }
}

/// Accounts that are read, or wait for a connection to be read, at the same time.
const MAX_READS: usize = 256;
/// Calls that wait for one account: all people of a large one may come at once after a start.
const MAX_WAITING_PER_SLUG: usize = 256;
/// Calls that wait for all accounts: well below the calls that the service admits.
const MAX_WAITING: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn slug(text: &str) -> Slug {
        Slug::parse(text).expect("a slug")
    }

    /// A read that doesn't end, as of a database that hangs.
    fn hang(loads: &Arc<Loads>, slug: Slug) {
        let loads = Arc::clone(loads);
        tokio::spawn(async move { loads.join(&slug, std::future::pending()).await });
    }

    /// Until this number of callers waits.
    async fn waiting(loads: &Loads, expected: usize) {
        while MAX_WAITING - loads.room.available_permits() != expected {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn callers_that_want_one_account_share_a_read_and_go_on_together() {
        let loads = Arc::new(Loads::new());
        let (go, gate) = tokio::sync::oneshot::channel::<()>();
        let first = tokio::spawn({
            let loads = Arc::clone(&loads);
            async move {
                let read = async move {
                    let _ = gate.await;
                    Ok(None)
                };
                loads.join(&slug("acme"), read).await
            }
        });
        waiting(&loads, 1).await;
        let second = tokio::spawn({
            let loads = Arc::clone(&loads);
            async move { loads.join(&slug("acme"), async { panic!("a second read") }).await }
        });
        waiting(&loads, 2).await;
        go.send(()).expect("the read waits");
        for caller in [first, second] {
            assert!(matches!(caller.await.expect("ended"), Ok(None)));
        }
        waiting(&loads, 0).await;
        assert!(loads.lock().is_empty());
    }

    #[tokio::test]
    async fn reads_that_hang_refuse_further_callers_at_once() {
        let loads = Arc::new(Loads::new());
        for _ in 0..MAX_WAITING_PER_SLUG {
            hang(&loads, slug("acme"));
        }
        waiting(&loads, MAX_WAITING_PER_SLUG).await;
        let refused = loads.join(&slug("acme"), std::future::pending()).await;
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
        for number in 1..MAX_READS {
            hang(&loads, slug(&format!("a{number}")));
        }
        waiting(&loads, MAX_WAITING_PER_SLUG + MAX_READS - 1).await;
        let refused = loads.join(&slug("one-more"), std::future::pending()).await;
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
        loads.detach(&slug("acme"));
        let read = loads.join(&slug("acme"), async { Ok(None) }).await;
        assert!(matches!(read, Ok(None)), "a detached read is not joined");
    }
}
