//! Changes of a connection: what an update does to a field, and what is recorded of each change.

use serde::{Deserialize, Serialize};

use super::time::UnixMillis;

/// What an update does to an optional value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// Not named: it stays.
    #[default]
    Keep,
    /// Named and empty: it is removed.
    Clear,
    /// Replaced.
    Set(T),
}

impl<T> Change<T> {
    /// The value after the change.
    #[must_use]
    pub fn apply(self, current: Option<T>) -> Option<T> {
        match self {
            Self::Keep => current,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }
}

/// A change of a connection, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// When.
    pub time: UnixMillis,
    /// The calling program, and the person who used it if it said so.
    pub actor: String,
    /// create, update, activate, delete, pin_issuer or switch_secret.
    pub action: String,
    /// The revision from then on; 0: deleted.
    pub revision: u64,
    /// What changed.
    pub fields: Vec<FieldChange>,
    /// Whether a check was skipped.
    pub is_forced: bool,
}

/// One field before and after a change; secrets as fingerprints. Stored as a triple, as earlier
/// versions did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(String, String, String)", into = "(String, String, String)")]
pub struct FieldChange {
    /// The field's name in the contract.
    pub field: String,
    /// Empty: not set.
    pub before: String,
    /// Empty: not set.
    pub after: String,
}

impl From<(String, String, String)> for FieldChange {
    fn from((field, before, after): (String, String, String)) -> Self {
        Self { field, before, after }
    }
}

impl From<FieldChange> for (String, String, String) {
    fn from(change: FieldChange) -> Self {
        (change.field, change.before, change.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_clears_or_sets() {
        assert_eq!(Change::Keep.apply(Some(1)), Some(1));
        assert_eq!(Change::Clear.apply(Some(1)), None);
        assert_eq!(Change::Set(2).apply(Some(1)), Some(2));
    }
}
