//! The command line: parse, then `serve`, or make a key or a token; nothing else.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use peerpanda_sso::ambient::SystemEntropy;
use peerpanda_sso::app::{App, World};
use peerpanda_sso::config::Settings;
use peerpanda_sso::rpc::caller::new_token;
use peerpanda_sso::seal::MasterKey;
use peerpanda_sso::telemetry;
use tokio::signal::unix::{SignalKind, signal};

/// Logs the customers of PeerPanda in through their own OpenID Provider, over gRPC.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the service until SIGTERM or SIGINT. Every setting is a flag and an environment variable.
    Serve(Box<Settings>),
    /// Keys that protect client secrets and pending logins.
    #[command(subcommand)]
    Keys(Keys),
    /// Bearer tokens of the programs that call.
    #[command(subcommand)]
    Tokens(Tokens),
}

#[derive(Subcommand)]
enum Keys {
    /// Prints a new key for SSO_ENCRYPTION_KEYS.
    Generate,
}

#[derive(Subcommand)]
enum Tokens {
    /// Prints a new token for a caller, and what SSO_CALLERS_FILE wants of it: token_sha256.
    Generate,
}

fn main() -> ExitCode {
    let done = match CommandLine::parse().command {
        Command::Serve(settings) => serve(&settings),
        Command::Keys(Keys::Generate) => print(MasterKey::generate(&SystemEntropy).encoded().as_str()),
        Command::Tokens(Tokens::Generate) => {
            let (token, hash) = new_token(&SystemEntropy);
            print(&format!("token:        {}\ntoken_sha256: {hash}", token.as_str()))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{text}").map_err(|error| error.to_string())
}

#[expect(clippy::print_stderr, reason = "the logs may not be there yet")]
fn complain(error: &str) {
    eprintln!("peerpanda-sso: {error}");
}

#[tokio::main]
async fn serve(settings: &Settings) -> Result<(), String> {
    let config = settings.check().map_err(|errors| errors.to_string())?;
    let (format, filter) = settings.logging().map_err(|errors| errors.to_string())?;
    telemetry::init(format, filter)?;
    let stop = |kind| signal(kind).map_err(|error| error.to_string());
    let (mut terminate, mut interrupt) = (stop(SignalKind::terminate())?, stop(SignalKind::interrupt())?);
    let app = App::start(config, World::default()).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    app.shut_down().await;
    Ok(())
}
