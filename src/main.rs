//! The command line: parses the arguments and runs `serve` or one of the commands of
//! [`cli`](peerpanda_sso::cli). No logic of its own except signals and exit codes.

use std::process::ExitCode;

use peerpanda_sso::app::{App, Environment};
use peerpanda_sso::cli::command::{self, Command};
use peerpanda_sso::cli::{Failure, Outcome};
use peerpanda_sso::config::{self, ConfigErrors, Settings};
use peerpanda_sso::{process, telemetry};
use tokio::signal::unix::{Signal, SignalKind, signal};

fn main() -> ExitCode {
    let (command, definition) = match command::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => match error.render() {
            Some(text) => {
                print_error(&text);
                return ExitCode::from(USAGE);
            }
            None => error.exit(),
        },
    };
    let variables = config::refuse_unknown_variables(&definition);
    let output = command.output();
    let result = match command {
        Command::Serve(settings) => serve(&settings, variables),
        Command::Connection(command) => block_on(command.run()),
        Command::Health(health) => block_on(health.run()),
        Command::Settings(list) => list.run(),
        Command::Keys(keys) => {
            variables.map_err(Failure::other).and_then(|()| block_on(keys.run()))
        }
        Command::Tokens(tokens) => tokens.run(),
        Command::Completions(completions) => completions.run(),
        Command::Complete(words) => block_on(words.run()),
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

/// The exit code of a command line that can't be used, as clap's own.
const USAGE: u8 = 2;
