//! The whole command line as clap knows it. In the library, so that the reference in docs is tested
//! against it; `main` runs what was parsed.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::completion::{CompleteWords, Completions};
use super::connection::ConnectionCommand;
use super::health::Health;
use super::keys::Keys;
use super::settings::ListSettings;
use super::tokens::Tokens;
use super::{Failure, Output};
use crate::config::{self, Settings};

/// Log the customers of PeerPanda in through their own OpenID Provider, over gRPC.
#[derive(Parser)]
#[command(name = "peerpanda-sso", version, arg_required_else_help = true)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
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
    /// Print completions for a shell.
    Completions(Completions),
    /// Print what can follow the words of a command line. Called by the shells.
    #[command(hide = true)]
    Complete(CompleteWords),
}

impl Command {
    /// The format of its output and errors.
    #[must_use]
    pub fn output(&self) -> Output {
        match self {
            Self::Connection(command) => command.output(),
            Self::Settings(list) => list.output(),
            Self::Serve(_)
            | Self::Health(_)
            | Self::Keys(_)
            | Self::Tokens(_)
            | Self::Completions(_)
            | Self::Complete(_) => Output::Text,
        }
    }
}

/// The whole command line.
#[must_use]
pub fn definition() -> clap::Command {
    CommandLine::command().mut_subcommand("connection", on_one_page)
}

/// Parses the process's arguments. Prints help, and exits where that was asked for.
///
/// # Errors
/// The arguments can't be used, with the format that they ask for.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<(Command, clap::Command), Error> {
    let arguments: Vec<OsString> = arguments.collect();
    let output = output_of(&arguments);
    let mut definition = config::without_empty_variables(definition());
    let refused = |error| Error { error, output };
    let matches = definition.try_get_matches_from_mut(arguments).map_err(refused)?;
    if let Some(text) = config::secret_flag(&definition, &matches) {
        return Err(refused(definition.error(ErrorKind::ArgumentConflict, text)));
    }
    let parsed = CommandLine::from_arg_matches(&matches);
    let parsed = parsed.map_err(|error| refused(error.format(&mut definition)))?;
    Ok((parsed.command, definition))
}

/// Why the arguments can't be used, or help that was asked for.
#[derive(Debug)]
pub struct Error {
    error: clap::Error,
    output: Output,
}

impl Error {
    /// For standard error: one JSON object where the arguments ask for data. `None`: as clap has it.
    #[must_use]
    pub fn render(&self) -> Option<String> {
        if !self.error.use_stderr() || !self.output.is_data() {
            return None;
        }
        let text = self.error.to_string();
        let text = text.trim_start_matches("error: ").split("\n\nFor more information").next();
        let text = text.unwrap_or_default().split("\n\nUsage:").next().unwrap_or_default();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Some(Failure::Usage(text).render(self.output))
    }

    /// Prints clap's own text, and exits.
    pub fn exit(self) -> ! {
        self.error.exit()
    }
}

/// The format of a command line that may not be parsed as a whole.
fn output_of(arguments: &[OsString]) -> Output {
    let words = arguments.iter().map(|word| word.to_string_lossy());
    let words: Vec<_> = words.take_while(|word| word != "--").collect();
    let is_data = words.iter().enumerate().any(|(index, word)| {
        let value = match word.as_ref() {
            "-o" | "--output" => words.get(index + 1).map(|next| next.as_ref()),
            word => word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o")),
        };
        matches!(value.map(|value| value.trim_start_matches('=')), Some("json" | "yaml"))
    });
    if is_data { Output::Json } else { Output::Text }
}

/// The help of many options without a blank line between them, and below it what the verb does in
/// more words.
fn on_one_page(command: clap::Command) -> clap::Command {
    let more = command.get_long_about().map(ToString::to_string).and_then(|text| {
        let (_, more) = text.split_once("\n\n")?;
        Some(more.to_owned())
    });
    let example = command.get_after_help().map(ToString::to_string);
    let after: Vec<String> = more.into_iter().chain(example).collect();
    let help = Arg::new("help").short('h').long("help").action(ArgAction::HelpShort);
    let command = command
        .disable_help_flag(true)
        .arg(help.help("Print help").help_heading("Output"))
        .mut_subcommands(on_one_page);
    if after.is_empty() { command } else { command.after_help(after.join("\n\n")) }
}

/// The help of the commands of support as Markdown, for docs/reference/cli.md.
#[must_use]
pub fn reference() -> String {
    let mut root = definition().term_width(REFERENCE_WIDTH);
    root.build();
    let mut text = String::new();
    for command in root.get_subcommands().filter(|command| is_documented(command)) {
        write_reference(command, false, &mut text);
    }
    text
}

/// Without `serve`, whose settings have a reference of their own.
fn is_documented(command: &clap::Command) -> bool {
    !command.is_hide_set() && !matches!(command.get_name(), "help" | "serve")
}

fn write_reference(command: &clap::Command, is_verb: bool, text: &mut String) {
    let verbs: Vec<_> = command.get_subcommands().filter(|verb| is_documented(verb)).collect();
    // The options that all verbs share are shown once, and no value of this machine's environment.
    let shown = command.clone().mut_args(|argument| {
        let is_shared = is_verb && argument.is_global_set();
        argument.hide_env_values(true).hide(is_shared)
    });
    let name = command.get_display_name().unwrap_or_default().replacen("peerpanda-sso-", "", 1);
    let name = name.replace('-', " ");
    let help = shown.clone().render_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    text.push_str(&format!("## {name}\n\n```text\n{}\n```\n\n", lines.join("\n").trim_end()));
    for verb in verbs {
        write_reference(verb, true, text);
    }
}

/// Columns.
const REFERENCE_WIDTH: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> Error {
        let words = line.split(' ').map(OsString::from);
        match parse(words) {
            Ok(_) => panic!("accepted {line}"),
            Err(error) => error,
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn refusals_are_json_for_scripts() {
        for line in [
            "p connection get -o json",
            "p connection get --output=json",
            "p --output yaml connection get",
            "p connection list --output json --nonsense",
        ] {
            let text = refused(line).render().expect("JSON");
            let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let message = json["error"]["message"].as_str().expect("a message");
            assert!(!message.contains("error:") && !message.contains("Usage"), "{line}: {message}");
        }
        for line in
            ["p connection get", "p connection get -- -o json", "p connection get --help -o json"]
        {
            assert_eq!(refused(line).render(), None, "{line}");
        }
    }
}
