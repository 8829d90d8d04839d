//! peerpanda-sso logs the customers of PeerPanda in through their own identity providers (IdPs): a gRPC
//! service for the relying party's side of OpenID Connect, with a client at its own IdP for each account.
//!
//! The modules; each imports only modules below it:
//!
//! ```text
//! main -> cli (a client of the service) ; main -> app -> server -> login -> connections
//! server -> identity_token ; login, connections, identity_token -> store (traits), oidc -> model
//! clock, entropy, rate_limit, tasks, telemetry import only model; process is for main alone; config is read by app, cli and main alone
//! ```
//!
//! Where to find:
//!
//! | what | where |
//! |---|---|
//! | the checks of an ID token | [`oidc::verify`] |
//! | all that is known of one IdP product | `oidc::idps` |
//! | what a reason or a cause means, and who acts | [`model::reason`], [`model::cause`] |
//! | which gRPC code a reason has | `server::grpc::status` |
//! | the SQL of a connection | [`store::sql`] |
//! | what a check asks an IdP | [`oidc::probe`] |
//! | a verb of the API | `login/`, `connections/`: a file each |
//!
//! `docs/architecture.md` shows the modules and follows four calls through them; `docs/decisions.md` gives the
//! reasons.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connections;
pub mod entropy;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod identity_token;
pub mod login;
pub mod model;
pub mod oidc;
pub mod pb;
pub mod process;
pub mod rate_limit;
pub mod server;
pub mod store;
pub mod tasks;
pub mod telemetry;
