//! The operator's commands: clients of the running service over gRPC, never of its database. Each ends with an exit code
//! that says how it went, and prints what a person reads or, with `--output json`, what a script does.

pub mod health;
pub mod reach;
pub mod settings;

use std::io::{self, Write};

use clap::ValueEnum;

/// How a command ended, as the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 0: what was asked for is so.
    Good,
    /// 1: the service answered, and what was asked for is not so.
    Bad,
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

/// Writes a line to standard output. A reader that went away, as `head` does, is no error.
fn print_line(line: &str) -> Result<(), String> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}
