//! All that touches an IdP: its network, its documents, its tokens. The openidconnect crate's types stop here. Must
//! never import a store or a login.

pub mod breaker;
pub mod claims;
pub mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod http;
pub mod idps;
mod json;
mod keys;
mod metadata;
pub mod probe;
pub mod provider;
pub mod providers;
pub mod verify;
