//! Changes of a connection: what an update does to a field, and what is recorded of each change.

use serde::{Deserialize, Serialize};

use super::time::UnixMillis;

/// What an update does to an optional value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// Leaves the value as it is.
    #[default]
    Keep,
    /// Removes the value.
    Clear,
    /// Replaces the value.
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

/// A change of a connection, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// When the connection changed.
    pub time: UnixMillis,
    /// The calling program, and the person on whose behalf it called, if named.
    pub actor: String,
    /// One of create, update, activate, restore, delete, pin_issuer, switch_secret; check or check_proposal for a
    /// check, which changed nothing; unreadable: a record that this version can't read.
    pub action: String,
    /// The revision after the change; 0: deleted.
    pub revision: u64,
    /// The fields that changed, or that a check proposed to change.
    pub fields: Vec<FieldChange>,
    /// Whether a check was skipped.
    pub is_forced: bool,
    /// The hosts that a check asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

impl ChangeRecord {
    /// Whether it is of a check, which changed nothing.
    #[must_use]
    pub fn is_check(&self) -> bool {
        matches!(self.action.as_str(), CHECK | CHECK_OF_PROPOSAL)
    }

    /// How many bytes its texts have.
    #[must_use]
    pub fn size(&self) -> usize {
        let fields = self.fields.iter();
        let fields = fields.map(|it| it.field.len() + it.before.len() + it.after.len());
        self.actor.len() + fields.chain(self.hosts.iter().map(String::len)).sum::<usize>()
    }
}

/// The action of a check.
pub const CHECK: &str = "check";
/// The action of a check of a proposed change.
pub const CHECK_OF_PROPOSAL: &str = "check_proposal";

/// One field before and after a change; secrets as fingerprints. Stored as a triple, as earlier
/// versions did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(String, String, String)", into = "(String, String, String)")]
pub struct FieldChange {
    /// The field's name in the contract.
    pub field: String,
    /// The value before; empty: not set.
    pub before: String,
    /// The value after; empty: not set.
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

    #[test]
    fn a_record_of_an_earlier_version_is_read_and_written_unchanged() {
        let stored = r#"{"time":1,"actor":"support","action":"update","revision":2,"fields":[["client_id","a","b"]],"is_forced":false}"#;
        let record: ChangeRecord = serde_json::from_str(stored).expect("a record");
        let field = FieldChange {
            field: "client_id".to_owned(),
            before: "a".to_owned(),
            after: "b".to_owned(),
        };
        assert_eq!(record.fields, [field]);
        assert_eq!(serde_json::to_string(&record).expect("JSON"), stored);
    }
}
