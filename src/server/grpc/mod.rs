//! The door: the only rooms that know gRPC. Requests are parsed into the model here, and every refusal becomes a status
//! in one table.

pub(super) mod admission;
pub mod auth;
pub(super) mod connections;
mod convert;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub(super) mod identity;
pub(super) mod login;
pub(super) mod refusal;
pub(super) mod status;
