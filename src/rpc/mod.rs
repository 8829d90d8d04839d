//! The door: the only rooms that know gRPC. Requests are parsed into the model here, and every refusal becomes a status
//! in one table.

mod admission;
pub mod caller;
mod connections;
mod convert;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod identity;
mod login;
pub mod operations;
pub mod server;
mod status;
pub mod tls;
