//! The state that grpc.health.v1 and `/readyz` report, on all listeners. Set by `app`'s store watch and
//! by the listeners. Liveness never depends on a store or an IdP.

use tokio::sync::watch;

use crate::telemetry;

/// The health of this replica. Clones share it.
#[derive(Clone)]
pub struct Health(watch::Sender<State>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    can_log_in: bool,
    can_administrate: bool,
    /// Whether the login listener refuses new connections, as all are in use.
    is_full: bool,
    is_draining: bool,
    /// Whether streams that watch the health must end, since they would delay the shutdown.
    pub(super) has_ended: bool,
}

impl State {
    /// Whether the process is up and will stay.
    pub(super) fn is_up(self) -> bool {
        !self.is_draining
    }

    /// Whether LoginService can do its work.
    pub(super) fn serves_logins(self) -> bool {
        self.can_log_in && !self.is_full && !self.is_draining
    }

    /// Whether ConnectionService can do its work.
    pub(super) fn serves_support(self) -> bool {
        self.can_administrate && !self.is_draining
    }
}

impl Health {
    /// The process is up; no service is serving yet.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(State::default()))
    }

    /// Says whether LoginService and ConnectionService can do their work.
    pub fn set(&self, can_log_in: bool, can_administrate: bool) {
        self.change(|state| {
            (state.can_log_in, state.can_administrate) = (can_log_in, can_administrate);
        });
    }

    /// Whether LoginService can do its work.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.borrow().serves_logins()
    }

    /// Says whether the login listener refuses new connections.
    pub(super) fn set_full(&self, is_full: bool) {
        self.change(|state| state.is_full = is_full);
    }

    /// Nothing is serving any more.
    pub(super) fn drain(&self) {
        self.change(|state| state.is_draining = true);
    }

    /// Ends the streams of clients that watch the health.
    pub(super) fn end_watches(&self) {
        self.change(|state| state.has_ended = true);
    }

    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.0.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let has_changed = self.0.send_if_modified(|state| {
            let before = *state;
            change(state);
            *state != before
        });
        if has_changed {
            telemetry::ready(self.is_ready());
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}
