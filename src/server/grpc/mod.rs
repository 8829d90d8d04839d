//! The gRPC side of the service. Requests are parsed into the model here, results are converted
//! back, and every error becomes a status in one place (`refusal`). Nothing below this layer knows
//! gRPC.

pub(super) mod admission;
pub mod auth;
mod body;
mod capacity;
mod connections;
mod convert;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod health;
mod identity;
mod login;
pub(super) mod refusal;
pub mod routes;
mod status;
