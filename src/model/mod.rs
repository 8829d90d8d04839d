//! The types that every other module uses. Pure: no I/O, no async, no wire formats. Must never import
//! another module of the crate.

pub mod address;
pub mod attempt;
pub mod cause;
pub mod change;
pub mod check;
pub mod connection;
pub mod documents;
pub mod draft;
pub mod endpoint_url;
pub mod identity;
pub mod limits;
pub mod login;
pub mod rate;
pub mod reason;
pub mod redact;
pub mod return_to;
pub mod secret;
pub mod signing_alg;
pub mod slug;
pub mod text;
pub mod time;
pub mod unreadable;

use std::borrow::Cow;

/// Implements `parse`, `Display` and serde by stable name, for an enum with `ALL` and a method that
/// returns the name.
macro_rules! stable_names {
    ($type:ident, $name:ident) => {
        impl $type {
            /// Parses a stable name; `None` for a name that this version doesn't know.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|item| item.$name() == name)
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.$name())
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.$name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = <String as serde::Deserialize>::deserialize(deserializer)?;
                let unknown = || serde::de::Error::custom(concat!("unknown ", stringify!($type)));
                Self::parse(&name).ok_or_else(unknown)
            }
        }
    };
}
pub(crate) use stable_names;

/// What is wrong with one field of a caller's input. It is returned to the caller, so it must never
/// contain a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path as the contract names it: `endpoints.token_endpoint`.
    pub field: Cow<'static, str>,
    /// What was expected, and the actual value if it can be shown.
    pub description: String,
    /// Whether the field names an address that the service must not call.
    pub forbidden_address: bool,
}

impl Violation {
    /// A field that is missing or malformed.
    pub fn new(field: impl Into<Cow<'static, str>>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into(), forbidden_address: false }
    }
}
