//! The command line: parse, then `serve`; nothing else.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use peerpanda_sso::app::{App, World};
use peerpanda_sso::config::Settings;
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
}

fn main() -> ExitCode {
    let Command::Serve(settings) = CommandLine::parse().command;
    match serve(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
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
