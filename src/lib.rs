//! peerpanda-sso: logs the customers of PeerPanda in through their own OpenID Provider. A gRPC service for the relying
//! party's side of OpenID Connect: hundreds of accounts, each with a client at an identity provider (IdP) of its own.
//!
//! The floors; each imports only those below it:
//!
//! ```text
//! main -> cli (a client of the service), app -> rpc -> login, connections, identity, attempts -> store (traits), oidc -> model
//! advice, ambient, seal, config, limiter, redis_url, telemetry, watched are leaves
//! ```
//!
//! A login's walk:
//!
//! 1. [`server`] parses `BeginLogin` into a [`model::login::LoginRequest`].
//! 2. [`login`] takes the account's connection from [`store::cache`] and its IdP from [`oidc::providers`], both cached.
//! 3. It issues a state, a nonce and a PKCE verifier, and puts them, sealed, into the [`store`].
//! 4. [`oidc::provider`] builds the URL to which the web tier sends the browser.
//! 5. The person logs in there; the browser comes back to the web tier with a code and the state.
//! 6. [`server`] parses `CompleteLogin` into a [`model::login::Callback`].
//! 7. [`login`] checks the state itself, then takes what it stands for out of the store: it is spent.
//! 8. [`oidc::provider`] exchanges the code; [`oidc::verify`] checks the ID token; UserInfo is asked where a claim is missing.
//! 9. [`oidc::claims`] makes an [`model::identity::Identity`] of it, and [`server`] answers.
//! 10. Whatever is refused on the way becomes a status with a reason in one table.

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
pub mod rate_limit;
pub mod server;
pub mod store;
pub mod telemetry;
