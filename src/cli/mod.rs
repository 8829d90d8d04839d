//! The commands. Those for support are clients of the running service over gRPC and never open its
//! database. Each ends with an exit code, and prints text for people or, with `--output json`, JSON
//! for scripts. No secret is taken from an argument, and none is printed except a new key or token.

pub mod client;
pub mod command;
mod completion;
pub mod connection;
pub mod health;
pub mod keys;
mod layout;
mod listener;
mod reflection;
pub mod settings;
pub mod tokens;

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use clap::ValueEnum;
use serde::{Serialize, Serializer};
use tonic::Status;
use tonic_types::StatusExt;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0.
    Success,
    /// Exit code 1, already explained on standard output: a check failed, an entry was refused.
    Failed,
}

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Exit code 1: the service refused a call.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// Exit code 1: the command itself failed.
    #[error("{0}")]
    Other(String),
    /// Exit code 2: the input can't be used.
    #[error("{0}")]
    Usage(String),
    /// Exit code 3: the service doesn't answer.
    #[error("{0}")]
    NoAnswer(String),
}

impl Failure {
    /// A failure of the command itself.
    pub fn other(error: impl fmt::Display) -> Self {
        Self::Other(error.to_string())
    }

    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Other(_) => 1,
            Self::Usage(_) => 2,
            Self::NoAnswer(_) => 3,
        }
    }

    /// The error for standard error: text, or one JSON object `{"error": …}`.
    #[must_use]
    pub fn render(&self, output: Output) -> String {
        match self {
            _ if !output.is_data() => format!("peerpanda-sso: {self}"),
            Self::Refused(refusal) => serde_json::json!({ "error": refusal }).to_string(),
            Self::Other(_) | Self::Usage(_) | Self::NoAnswer(_) => {
                serde_json::json!({ "error": { "message": self.to_string() } }).to_string()
            }
        }
    }
}

impl From<Status> for Failure {
    /// A status without ErrorInfo is not the service's: a proxy or tonic made it.
    fn from(status: Status) -> Self {
        let refusal = Refusal::from(status);
        if refusal.reason.is_empty() {
            Self::NoAnswer(refusal.message)
        } else {
            Self::Refused(Box::new(refusal))
        }
    }
}

/// What the service said when it refused a call; what it didn't say is empty.
#[derive(Debug, Default, Serialize)]
pub struct Refusal {
    reason: String,
    cause: String,
    owner: String,
    message: String,
    trace_id: String,
    violations: Vec<FieldViolation>,
    /// How long to wait before the same call can succeed.
    #[serde(rename = "retry_after_seconds", serialize_with = "whole_seconds")]
    retry_after: Option<Duration>,
}

/// What is wrong with one field, or with the whole where `field` is empty. Never quotes a secret.
#[derive(Clone, Debug, Serialize)]
struct FieldViolation {
    field: String,
    description: String,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let Some(mut info) = status.get_details_error_info() else {
            return Self { message: listener::words(&status), ..Self::default() };
        };
        let mut metadata = |name: &str| info.metadata.remove(name).unwrap_or_default();
        let [cause, owner, trace_id] = ["cause", "owner", "trace_id"].map(&mut metadata);
        let retry = status.get_details_retry_info();
        let violations = status.get_details_bad_request().map(|details| details.field_violations);
        let violations = violations.into_iter().flatten();
        Self {
            reason: info.reason,
            cause,
            owner,
            retry_after: retry.and_then(|info| info.retry_delay),
            message: status.message().to_owned(),
            trace_id,
            violations: violations
                .map(|it| FieldViolation { field: it.field, description: it.description })
                .collect(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The violations say the same field by field.
        let message = if self.violations.is_empty() { self.message.as_str() } else { "" };
        let separator = if self.reason.is_empty() || message.is_empty() { "" } else { ": " };
        write!(f, "{}{separator}{message}", self.reason)?;
        let ids = [("cause", &self.cause), ("trace", &self.trace_id)];
        let ids = ids.into_iter().filter(|(_, id)| !id.is_empty());
        let ids: Vec<_> = ids.map(|(name, id)| format!("{name} {id}")).collect();
        if !ids.is_empty() {
            write!(f, " ({})", ids.join(", "))?;
        }
        let is_alone = self.reason.is_empty() && self.violations.len() == 1;
        for FieldViolation { field, description } in &self.violations {
            let start = if is_alone { "" } else { "\n  " };
            let separator = if field.is_empty() { "" } else { ": " };
            write!(f, "{start}{field}{separator}{description}")?;
        }
        Ok(())
    }
}

fn whole_seconds<S: Serializer>(wait: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    wait.map(|wait| wait.as_secs_f64().ceil() as u64).serialize(to)
}

/// The format of a command's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Tables and sentences for people, as wide as the terminal.
    #[default]
    Text,
    /// The same with every column, however wide.
    Wide,
    /// JSON for scripts.
    Json,
    /// YAML for scripts.
    Yaml,
}

impl Output {
    /// Whether it is for scripts. Errors of such a command are JSON, which is YAML, too.
    #[must_use]
    pub fn is_data(self) -> bool {
        match self {
            Self::Text | Self::Wide => false,
            Self::Json | Self::Yaml => true,
        }
    }
}

/// Writes a line to standard output, in colour only on a terminal without `NO_COLOR`. A reader that
/// has closed the pipe, as `head` does, is not an error.
///
/// # Errors
/// Standard output can't be written for another reason.
pub fn print_line(line: &str) -> Result<(), Failure> {
    match writeln!(anstream::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Other(format!("can't write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// For scripts.
fn print_data(output: Output, value: &impl Serialize) -> Result<(), Failure> {
    let text = match output {
        Output::Yaml => serde_saphyr::to_string(value).map_err(Failure::other)?,
        Output::Text | Output::Wide | Output::Json => {
            serde_json::to_string_pretty(value).map_err(Failure::other)?
        }
    };
    print_line(text.trim_end())
}

/// To a person, on standard error.
fn print_note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
