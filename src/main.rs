//! The command line: parses the arguments and runs `serve` or one of the commands of
//! [`cli`](peerpanda_sso::cli). No logic of its own except signals and exit codes.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use peerpanda_sso::app::{App, Environment};
use peerpanda_sso::cli::connection::ConnectionCommand;
use peerpanda_sso::cli::health::Health;
use peerpanda_sso::cli::keys::Keys;
use peerpanda_sso::cli::settings::ListSettings;
use peerpanda_sso::cli::tokens::Tokens;
use peerpanda_sso::cli::{Failure, Outcome, Output, print_line};
use peerpanda_sso::config::{self, ConfigErrors, Settings};
use peerpanda_sso::{process, telemetry};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Log the customers of PeerPanda in through their own OpenID Provider, over gRPC.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service until SIGTERM or SIGINT. Every setting is a flag and an environment
    /// variable.
    ///
    /// The first signal lets the calls in flight finish, at most SSO_DRAIN_TIMEOUT; a second one
    /// ends the process at once.
    Serve(Box<Settings>),
    /// Set up, check and repair the customers' connections.
    Connection(Box<ConnectionCommand>),
    /// Ask a running service for its health. Exits with 0 if it answers SERVING, with 1 if it
    /// answers anything else, and with 3 if it doesn't answer.
    Health(Health),
    /// List every setting of `serve` with its variable, flag and default.
    Settings(ListSettings),
    /// Manage the keys that encrypt client secrets and pending logins.
    #[command(subcommand)]
    Keys(Keys),
    /// Manage the bearer tokens of the programs that call the service.
    #[command(subcommand)]
    Tokens(Tokens),
    /// Print shell completions, e.g. `peerpanda-sso completions bash
    /// >/etc/bash_completion.d/peerpanda-sso`.
    Completions {
        /// Complete for this shell.
        shell: Shell,
    },
}

fn main() -> ExitCode {
    let mut command_line = config::without_empty_variables(CommandLine::command());
    let matches = command_line.get_matches_mut();
    if let Some(error) = config::secret_flag(&command_line, &matches) {
        command_line.error(ErrorKind::ArgumentConflict, error).exit();
    }
    let command = match CommandLine::from_arg_matches(&matches) {
        Ok(parsed) => parsed.command,
        Err(error) => error.format(&mut command_line).exit(),
    };
    let variables = config::refuse_unknown_variables(&command_line);
    let output = match &command {
        Command::Connection(command) => command.output(),
        _ => Output::Text,
    };
    let result = match command {
        Command::Serve(settings) => serve(&settings, variables),
        Command::Connection(command) => block_on(command.run()),
        Command::Health(health) => block_on(health.run()),
        Command::Settings(list) => list.run(),
        Command::Keys(keys) => {
            variables.map_err(Failure::other).and_then(|()| block_on(keys.run()))
        }
        Command::Tokens(tokens) => tokens.run(),
        Command::Completions { shell } => print_completions(shell),
    };
    match result {
        Ok(Outcome::Success) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Err(failure) => {
            print_error(&failure.render(output));
            ExitCode::from(failure.exit_code())
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn block_on(
    command: impl Future<Output = Result<Outcome, Failure>>,
) -> Result<Outcome, Failure> {
    command.await
}

/// Into a buffer first: clap_complete panics where its writer fails, as for a closed pipe.
fn print_completions(shell: Shell) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "peerpanda-sso", &mut script);
    print_line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Outcome::Success)
}

#[expect(clippy::print_stderr, reason = "logging may not be set up yet")]
fn print_error(error: &str) {
    eprintln!("{error}");
}

#[tokio::main]
async fn serve(
    settings: &Settings,
    variables: Result<(), ConfigErrors>,
) -> Result<Outcome, Failure> {
    let config = match (settings.check(), variables) {
        (Ok(config), Ok(())) => config,
        (Err(errors), Err(unknown)) => return Err(Failure::other(errors.and(unknown))),
        (Err(errors), Ok(())) | (Ok(_), Err(errors)) => return Err(Failure::other(errors)),
    };
    let (format, filter) = settings.logging().map_err(Failure::other)?;
    let traces = telemetry::init(format, filter, config.trace_collector.as_deref())
        .map_err(Failure::other)?;
    process::log_panics();
    process::raise_open_files(config.open_files());
    for weakness in config.weaknesses() {
        tracing::warn!("insecure setting: {weakness}");
    }
    let listen = |kind| signal(kind).map_err(Failure::other);
    let mut signals =
        StopSignals(listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let app = App::start(config, Environment::default()).await.map_err(Failure::other)?;
    let failure = tokio::select! {
        _ = signals.next() => None,
        failure = app.wait_for_failure() => Some(Failure::other(failure)),
    };
    let stop = async {
        app.shut_down().await;
        if let Some(traces) = traces {
            traces.stop().await;
        }
    };
    tokio::select! {
        () = stop => failure.map_or(Ok(Outcome::Success), Err),
        signal = signals.next() => {
            tracing::warn!(signal, "exiting at once: received a second signal");
            // Not by returning: that would wait for the runtime's blocking tasks.
            std::process::exit(128 + signal)
        }
    }
}

/// SIGTERM and SIGINT.
struct StopSignals(Signal, Signal);

impl StopSignals {
    /// The number of the next signal that arrives.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.0.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.1.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }
}
