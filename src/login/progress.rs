//! How far a login went, and the guard that records its end, also if the caller cancels. Used by both verbs.

use std::sync::Arc;

use super::{Login, LoginError};
use crate::model::attempt::{LoginEnd, LoginStage};
use crate::model::cause::Cause;
use crate::model::connection::Connection;
use crate::model::identity::IdentityClaim;
use crate::model::redact::Redactor;
use crate::model::slug::Slug;
use crate::oidc::error::Document;
use crate::telemetry::Phases;

/// How far a login went, whatever its end.
#[derive(Debug)]
pub(super) struct LoginProgress {
    /// Which verb it is in.
    pub(super) stage: LoginStage,
    /// Whether it is a login of the account, and no stranger's guess: the account has a connection, or has
    /// issued the state.
    pub(super) is_of_account: bool,
    /// Whether the state is spent.
    pub(super) is_spent: bool,
    /// The account's.
    pub(super) connection: Option<Arc<Connection>>,
    /// The IdP's.
    pub(super) issuer: Option<String>,
    /// The required claims that were missing; `None`: the claims were not reached.
    pub(super) claims_missing: Option<Vec<IdentityClaim>>,
    /// How long each phase took.
    pub(super) phases: Phases,
    /// Knows what the IdP was sent and has issued, which its texts may repeat.
    pub(super) redactor: Redactor,
}

/// How a login ended that is to be recorded.
#[derive(Default)]
pub(super) struct Ending<'a> {
    /// `None`: it was completed.
    pub(super) cause: Option<Cause>,
    /// The IdP's error code.
    pub(super) idp_error: Option<&'a str>,
    /// The IdP's own words.
    pub(super) idp_description: Option<String>,
    /// Which document of the IdP was at fault.
    pub(super) document: Option<&'static str>,
    /// What was expected and what was received.
    pub(super) detail: Option<String>,
}

/// Records a login when it is dropped: a caller that cancels drops the call's future in the middle, at
/// complete with the state spent.
pub(super) struct RecordOnDrop<'a> {
    login: &'a Login,
    slug: Slug,
    pub(super) progress: LoginProgress,
    is_recorded: bool,
}

impl LoginProgress {
    fn new(stage: LoginStage) -> Self {
        Self {
            stage,
            is_of_account: false,
            is_spent: false,
            connection: None,
            issuer: None,
            claims_missing: None,
            phases: Phases::default(),
            redactor: Redactor::default(),
        }
    }

    fn redact(&mut self, error: &mut LoginError) {
        if let Some(connection) = &self.connection {
            self.redactor.add_client(&connection.settings.client_id, &connection.secrets);
        }
        error.redact(&self.redactor);
    }
}

impl Ending<'_> {
    fn of(error: &LoginError) -> Ending<'_> {
        // The words that come with a code that nobody knows are for the log, as the code is.
        let is_unlisted = matches!(error, LoginError::IdpRefused(it) if it.error == UNLISTED_ERROR);
        let words = error.idp_description().filter(|_| !is_unlisted);
        Ending {
            cause: Some(error.cause()),
            idp_error: error.idp_error(),
            idp_description: words.map(str::to_owned),
            document: error.document().map(Document::code),
            detail: error.detail(),
        }
    }

    /// What it counts as.
    pub(super) fn end(&self, stage: LoginStage) -> LoginEnd {
        match (self.cause, stage) {
            (None, _) => LoginEnd::Completed,
            (Some(_), LoginStage::Begin) => LoginEnd::RefusedAtBegin,
            (Some(Cause::StateSpent), LoginStage::Complete) => LoginEnd::RefusedAgain,
            (Some(_), LoginStage::Complete) => LoginEnd::Refused,
        }
    }
}

impl<'a> RecordOnDrop<'a> {
    pub(super) fn new(login: &'a Login, slug: Slug, stage: LoginStage) -> Self {
        Self { login, slug, progress: LoginProgress::new(stage), is_recorded: false }
    }

    /// The person is sent to the IdP.
    pub(super) fn begun(&mut self) {
        self.is_recorded = true;
        self.login.attempts.count_begun(&self.slug);
    }

    /// The person is logged in.
    pub(super) fn completed(&mut self) {
        self.record(&Ending::default());
    }

    /// The callback's end is recorded already.
    pub(super) fn answered_again(&mut self) {
        self.is_recorded = true;
    }

    /// Removes secrets from the error, and records it.
    pub(super) fn refused(&mut self, mut error: LoginError) -> LoginError {
        self.progress.redact(&mut error);
        self.record(&Ending::of(&error));
        error
    }

    fn record(&mut self, ending: &Ending<'_>) {
        self.is_recorded = true;
        match (self.progress.is_of_account, self.progress.stage) {
            (true, _) => self.login.attempts.record(&self.slug, &self.progress, ending),
            (false, LoginStage::Complete) => self.login.attempts.count_unrecognized(&self.slug),
            (false, LoginStage::Begin) => {}
        }
    }
}

impl Drop for RecordOnDrop<'_> {
    fn drop(&mut self) {
        if !self.is_recorded && self.progress.is_of_account {
            let cause = if std::thread::panicking() { Cause::Defect } else { Cause::Canceled };
            self.record(&Ending { cause: Some(cause), ..Ending::default() });
        }
    }
}

/// See [`IdpRefusal::of_callback`](crate::model::login::IdpRefusal::of_callback).
const UNLISTED_ERROR: &str = "other";
