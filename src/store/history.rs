//! The history of changes as a database tells it. Change numbers alone can't tell one history from
//! another: after a restore, or a failover to a standby that lags, the database gives numbers out a
//! second time. So each change has a random mark, too.

use crate::model::slug::Slug;

/// How far a reader has read a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The number of the last change that was read.
    pub change: u64,
    /// Its mark; `None`: an earlier version of the service made the change.
    pub mark: Option<String>,
}

/// What followed a position.
#[derive(Debug)]
pub enum Changes {
    /// The slugs that changed after it, each with its latest change, oldest first.
    Following(Vec<SlugChange>),
    /// The position isn't part of the database's history, which ends here: nothing that was read up to
    /// the position can be relied on.
    OtherHistory(Position),
}

/// The latest change of a slug's connection.
#[derive(Debug)]
pub struct SlugChange {
    /// The position after the change.
    pub position: Position,
    /// The account.
    pub slug: Slug,
}
