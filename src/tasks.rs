//! Background tasks of one service: each is tracked, ends at shutdown, and is noticed if it panics
//! or ends by itself. Used by `app`, `server` and `oidc::providers`; the connection to Redis is spawned
//! where it is needed and has deadlines of its own.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::telemetry::{BackgroundTask, background_task_failed};

/// A group of tasks that end together. Clones are the same group.
#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
    failure: Arc<watch::Sender<Option<TaskFailure>>>,
    restart_pause: Duration,
}

/// A task without which the service can't go on has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("background task {} ended unexpectedly", .0.name())]
pub struct TaskFailure(pub BackgroundTask);

impl Tasks {
    /// `restart_pause`: how long a failed task waits before it is restarted.
    #[must_use]
    pub fn new(restart_pause: Duration) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            failure: Arc::new(watch::Sender::new(None)),
            restart_pause,
        }
    }

    /// A group that is shut down by itself; its failures are this group's.
    #[must_use]
    pub fn group(&self) -> Self {
        Self { failure: Arc::clone(&self.failure), ..Self::new(self.restart_pause) }
    }

    /// Cancelled when the shutdown begins.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs a task until the shutdown begins. One that panics or ends is restarted after a pause.
    pub fn spawn_restarting<F>(
        &self,
        task: BackgroundTask,
        mut start: impl FnMut() -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, pause) = (self.stop.clone(), self.restart_pause);
        self.tracker.spawn(self.stop.clone().run_until_cancelled_owned(async move {
            loop {
                let ended = AssertUnwindSafe(async { start().await }).catch_unwind().await;
                if stop.is_cancelled() {
                    return;
                }
                report(task, ended.err());
                tokio::time::sleep(pause).await;
            }
        }));
    }

    /// Runs a task without which the service can't go on, such as a listener. It must end once
    /// [`Tasks::stopping`] is cancelled; if it ends before, [`Tasks::failed`] returns.
    pub fn spawn_essential(
        &self,
        task: BackgroundTask,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let (stop, failure) = (self.stop.clone(), Arc::clone(&self.failure));
        self.tracker.spawn(self.abort.clone().run_until_cancelled_owned(async move {
            let ended = AssertUnwindSafe(work).catch_unwind().await;
            if !stop.is_cancelled() {
                report(task, ended.err());
                failure.send_replace(Some(TaskFailure(task)));
            }
        }));
    }

    /// Runs a task that ends by itself, or when the shutdown begins.
    pub fn spawn(&self, task: BackgroundTask, work: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(self.stop.clone().run_until_cancelled_owned(async move {
            if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                report(task, Some(panic));
            }
        }));
    }

    /// Runs a task that ends by itself, also during a shutdown; it is aborted when the grace is over.
    pub fn spawn_draining(
        &self,
        task: BackgroundTask,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        self.tracker.spawn(self.abort.clone().run_until_cancelled_owned(async move {
            if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                report(task, Some(panic));
            }
        }));
    }

    /// Waits until an essential task fails.
    pub async fn failed(&self) -> TaskFailure {
        let mut failures = self.failure.subscribe();
        match failures.wait_for(Option::is_some).await.map(|failure| *failure) {
            Ok(Some(failure)) => failure,
            // The sender lives as long as this group.
            _ => std::future::pending().await,
        }
    }

    /// Ends all tasks; essential and draining ones have `grace` to end by themselves. Returns whether they did.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        let is_graceful = tokio::time::timeout(grace, self.tracker.wait()).await.is_ok();
        self.abort.cancel();
        self.tracker.wait().await;
        is_graceful
    }
}

fn report(task: BackgroundTask, panic: Option<Box<dyn Any + Send>>) {
    background_task_failed(task);
    // The panic hook has printed the message and the place.
    let outcome = if panic.is_some() { "panicked" } else { "ended" };
    tracing::error!(task = task.name(), outcome, "background task failed");
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn counted(runs: &Arc<AtomicUsize>) -> usize {
        runs.fetch_add(1, Ordering::SeqCst)
    }

    #[test]
    fn a_task_that_panics_or_ends_is_counted_and_restarted() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        metrics::with_local_recorder(&recorder, || {
            runtime.expect("a runtime").block_on(async {
                let tasks = Tasks::new(Duration::from_millis(1));
                let (runs, (third, reached)) =
                    (Arc::new(AtomicUsize::new(0)), tokio::sync::mpsc::unbounded_channel());
                let mut reached = reached;
                tasks.spawn_restarting(BackgroundTask::Maintenance, move || {
                    let (run, third) = (counted(&runs), third.clone());
                    async move {
                        match run {
                            0 => panic!("as the test demands"),
                            1 => {}
                            _ => {
                                third.send(()).expect("awaited");
                                std::future::pending::<()>().await;
                            }
                        }
                    }
                });
                reached.recv().await.expect("the third run");
                assert!(tasks.shutdown(SECOND).await);
            });
        });
        let metrics = recorder.handle().render();
        let series = "sso_background_task_failures_total{task=\"maintenance\"} 2";
        assert!(metrics.contains(series), "{metrics}");
    }

    #[tokio::test]
    async fn an_essential_task_that_ends_early_is_a_failure_and_at_shutdown_is_not() {
        let tasks = Tasks::new(SECOND);
        let group = tasks.group();
        let stopping = group.stopping();
        group.spawn_essential(BackgroundTask::AdminListener, async move {
            stopping.cancelled().await;
        });
        assert!(group.shutdown(SECOND).await);
        assert!(tasks.failed().now_or_never().is_none());
        for work in [async { panic!("as the test demands") }.boxed(), async {}.boxed()] {
            let tasks = Tasks::new(SECOND);
            tasks.group().spawn_essential(BackgroundTask::LoginListener, work);
            let failure = tokio::time::timeout(SECOND, tasks.failed()).await.expect("in time");
            assert_eq!(failure, TaskFailure(BackgroundTask::LoginListener));
        }
    }

    #[tokio::test]
    async fn shutdown_ends_every_task() {
        let tasks = Tasks::new(SECOND);
        let dropped = Arc::new(());
        let hang = |held: Arc<()>| async move {
            std::future::pending::<()>().await;
            drop(held);
        };
        let held = Arc::clone(&dropped);
        tasks.spawn_restarting(BackgroundTask::StoreWatch, move || hang(Arc::clone(&held)));
        tasks.spawn(BackgroundTask::DatabaseOpening, hang(Arc::clone(&dropped)));
        tasks.spawn_essential(BackgroundTask::LoginListener, hang(Arc::clone(&dropped)));
        tokio::task::yield_now().await;
        assert!(!tasks.shutdown(Duration::from_millis(10)).await, "the listener had to be aborted");
        assert_eq!(Arc::strong_count(&dropped), 1, "nothing holds what the tasks held");
    }
}
