//! All that touches an IdP: its network, its documents, its tokens, and what is known of its
//! product. Called by [`crate::login`] and [`crate::connections`]. Must never import a store or a
//! login.

mod address;
pub mod breaker;
pub mod claims;
pub mod clients;
mod dns;
pub mod documents;
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
pub mod proxy;
pub mod refetch;
mod tls;
pub mod verify;
