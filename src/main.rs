//! The command line: parse, then `serve`, or run an operator's command; nothing else.

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use peerpanda_sso::app::{self, App, Environment};
use peerpanda_sso::cli::connection::ConnectionCommand;
use peerpanda_sso::cli::health::Health;
use peerpanda_sso::cli::settings::ListSettings;
use peerpanda_sso::cli::{Failure, Outcome};
use peerpanda_sso::config::{SealedSettings, Settings};
use peerpanda_sso::entropy::SystemEntropy;
use peerpanda_sso::server::grpc::auth::new_token;
use peerpanda_sso::store::seal::MasterKey;
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
    /// Sets customers up, checks them, and tells why a login failed.
    Connection(Box<ConnectionCommand>),
    /// Asks a running service how it is: exits with 0 if it says SERVING, with 1 if not, with 3 if nobody answers.
    Health(Health),
    /// Lists every setting of `serve`, with its variable, flag and default.
    Settings(ListSettings),
    /// Keys that protect client secrets and pending logins.
    #[command(subcommand)]
    Keys(Keys),
    /// Bearer tokens of the programs that call.
    #[command(subcommand)]
    Tokens(Tokens),
    /// Prints completions for a shell, such as `peerpanda-sso completions bash >/etc/bash_completion.d/peerpanda-sso`.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Subcommand)]
enum Keys {
    /// Prints a new key for SSO_ENCRYPTION_KEYS.
    Generate,
    /// Seals what the database holds anew under the first of SSO_ENCRYPTION_KEYS, while the service serves; afterwards the
    /// other keys can be removed.
    ///
    /// The way: add the new key last on every replica, then move it to the front on every replica, then run this, wait for
    /// SSO_STATE_TTL so that the logins under way have ended, and remove the old keys. Exits with 1 where a value can't be
    /// opened by any of the keys, which it names.
    Rotate(Box<SealedSettings>),
}

#[derive(Subcommand)]
enum Tokens {
    /// Prints a new token for a caller, and what SSO_CALLERS_FILE wants of it: token_sha256.
    Generate,
}

fn main() -> ExitCode {
    let local =
        |done: Result<(), String>| done.map(|()| Outcome::Success).map_err(Failure::Refused);
    let done = match CommandLine::parse().command {
        Command::Serve(settings) => local(serve(&settings)),
        Command::Connection(command) => block_on(command.run()),
        Command::Health(health) => block_on(health.run()),
        Command::Settings(list) => list.run(),
        Command::Keys(keys) => local(run_keys(&keys)),
        Command::Tokens(Tokens::Generate) => {
            let (token, hash) = new_token(&SystemEntropy);
            local(print(&format!("token:        {}\ntoken_sha256: {hash}", token.as_str())))
        }
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut CommandLine::command(),
                "peerpanda-sso",
                &mut std::io::stdout(),
            );
            Ok(Outcome::Success)
        }
    };
    match done {
        Ok(Outcome::Success) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Err(failure) => {
            print_error(&failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run_keys(keys: &Keys) -> Result<(), String> {
    match keys {
        Keys::Generate => print(MasterKey::generate(&SystemEntropy).encoded().as_str()),
        Keys::Rotate(settings) => rotate(settings),
    }
}

/// Runs a command that asks the service.
#[tokio::main(flavor = "current_thread")]
async fn block_on(
    command: impl Future<Output = Result<Outcome, Failure>>,
) -> Result<Outcome, Failure> {
    command.await
}

fn print(text: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{text}").map_err(|error| error.to_string())
}

#[expect(clippy::print_stderr, reason = "the logs may not be there yet")]
fn print_error(error: &str) {
    eprintln!("peerpanda-sso: {error}");
}

#[tokio::main]
async fn rotate(settings: &SealedSettings) -> Result<(), String> {
    let (database, keyring) = settings.check().map_err(|errors| errors.to_string())?;
    let resealed = app::reseal(&database, keyring, &Environment::default()).await?;
    print(&format!(
        "{} of {} values were sealed anew under the newest key",
        resealed.changed, resealed.all
    ))?;
    if resealed.unreadable.is_empty() {
        return print(
            "the older keys can be removed from the settings once the logins under way have ended (SSO_STATE_TTL); backups made under them need them",
        );
    }
    Err(format!(
        "none of SSO_ENCRYPTION_KEYS opens {}: the older keys must stay",
        resealed.unreadable.join(", ")
    ))
}

#[tokio::main]
async fn serve(settings: &Settings) -> Result<(), String> {
    let config = settings.check().map_err(|errors| errors.to_string())?;
    let (format, filter) = settings.logging().map_err(|errors| errors.to_string())?;
    telemetry::init(format, filter)?;
    let stop = |kind| signal(kind).map_err(|error| error.to_string());
    let (mut terminate, mut interrupt) =
        (stop(SignalKind::terminate())?, stop(SignalKind::interrupt())?);
    let app = App::start(config, Environment::default()).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    app.shut_down().await;
    Ok(())
}
