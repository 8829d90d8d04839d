//! `peerpanda-sso tokens`: makes bearer tokens for the programs that call the service. The service
//! itself only learns a token's hash.

use clap::Subcommand;

use super::{Failure, Outcome, print_line};
use crate::entropy::SystemEntropy;
use crate::server::grpc::auth::new_token;

/// The subcommands.
#[derive(Subcommand)]
pub enum Tokens {
    /// Print a new token for a caller, and its hash for the token_sha256 of SSO_CALLERS_FILE.
    Generate,
}

impl Tokens {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// Standard output can't be written.
    pub fn run(&self) -> Result<Outcome, Failure> {
        let Self::Generate = self;
        let (token, hash) = new_token(&SystemEntropy);
        print_line(&format!("token:        {}\ntoken_sha256: {hash}", token.as_str()))?;
        Ok(Outcome::Success)
    }
}
