//! The operator's commands: clients of the running service over gRPC, never of its database. Each ends with an exit code
//! that says how it went, and prints what a person reads or, with `--output json`, what a script does. No secret is taken from
//! an argument, and none is printed.

pub mod client;
pub mod connection;
pub mod health;
pub mod settings;

use std::io::{self, Write};

use clap::ValueEnum;
use tonic::Status;
use tonic_types::StatusExt;

/// How a command ended, as the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 0: what was asked for is so.
    Success,
    /// 1: the service answered, and what was asked for is not so.
    Failed,
}

/// Why a command did nothing, or not all.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The service refused it: exit code 1.
    #[error("{0}")]
    Refused(String),
    /// What was given can't be used: exit code 2, as for a wrong flag.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers: exit code 3.
    #[error("{0}")]
    NoAnswer(String),
}

impl Failure {
    /// The process's.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) => 1,
            Self::Usage(_) => 2,
            Self::NoAnswer(_) => 3,
        }
    }
}

impl From<Status> for Failure {
    /// What the service said, with its reason; without one it wasn't the service that spoke.
    fn from(status: Status) -> Self {
        let Some(info) = status.get_details_error_info() else {
            return Self::NoAnswer(format!("no answer: {}", status.message()));
        };
        let trace =
            info.metadata.get("trace_id").map_or_else(String::new, |id| format!(" (trace {id})"));
        let fields = status
            .get_details_bad_request()
            .map(|details| details.field_violations)
            .unwrap_or_default();
        let fields: String = fields
            .iter()
            .map(|violation| format!("\n  {}: {}", violation.field, violation.description))
            .collect();
        let message = if fields.is_empty() { status.message() } else { "" };
        Self::Refused(format!("{}: {message}{trace}{fields}", info.reason))
    }
}

/// In which form a command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For scripts.
    Json,
}

/// Writes a line to standard output, with colours only where a person sees them (a terminal, and no `NO_COLOR`). A reader
/// that went away, as `head` does, is no error.
fn print_line(line: &str) -> Result<(), Failure> {
    match writeln!(anstream::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Usage(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print_line(&format!("{value:#}"))
}
