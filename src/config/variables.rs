//! The environment variables of the whole command line, apart from what they are set to: empty ones
//! count as unset, unknown ones are errors, and secrets are taken from them or from files but never
//! from a flag. Called by `main` before a command runs.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use super::ConfigErrors;

/// Lets every argument ignore its variable if that is empty, as a template or a Compose file leaves
/// it: otherwise an empty file name would be an error.
#[must_use]
pub fn without_empty_variables(command: Command) -> Command {
    #[expect(clippy::disallowed_methods, reason = "config reads the environment")]
    let is_empty = |name: &OsStr| {
        std::env::var_os(name).is_some_and(|value| value.to_string_lossy().trim().is_empty())
    };
    let command = command.mut_args(|argument| match argument.get_env() {
        Some(name) if is_empty(name) => argument.env(None::<&'static str>),
        _ => argument,
    });
    command.mut_subcommands(without_empty_variables)
}

/// Refuses `SSO_` variables that no command reads: a misspelt one would be ignored silently.
///
/// # Errors
/// One for each, with the nearest variable that exists.
pub fn refuse_unknown_variables(command: &Command) -> Result<(), ConfigErrors> {
    let mut known = BTreeSet::new();
    add_variables(command, &mut known);
    let errors = unknown_variables(&known, std::env::vars_os());
    if errors.is_empty() { Ok(()) } else { Err(ConfigErrors(errors)) }
}

/// The first secret that was given as a flag, where every user of the machine can read it, as an
/// error.
#[must_use]
pub fn secret_flag(command: &Command, matches: &ArgMatches) -> Option<String> {
    let is_given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let given = command
        .get_arguments()
        .find(|argument| argument.is_hide_env_values_set() && is_given(argument.get_id().as_str()));
    if let Some(argument) = given {
        let (flag, variable) = (argument.get_long()?, argument.get_env()?.to_string_lossy());
        return Some(format!(
            "--{flag} is not accepted, since other users of this machine can read arguments: set \
             {variable} or {variable}_FILE"
        ));
    }
    let (name, matches) = matches.subcommand()?;
    secret_flag(command.find_subcommand(name)?, matches)
}

fn add_variables(command: &Command, known: &mut BTreeSet<String>) {
    let names = command.get_arguments().filter_map(|argument| argument.get_env());
    known.extend(names.map(|name| name.to_string_lossy().into_owned()));
    command.get_subcommands().for_each(|command| add_variables(command, known));
}

fn unknown_variables(
    known: &BTreeSet<String>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<String> {
    let mut errors: Vec<String> = environment
        .filter_map(|(name, value)| {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
            let is_unknown = name.starts_with(PREFIX)
                && !name.starts_with(TEST_PREFIX)
                && !value.trim().is_empty()
                && !known.contains(&*name)
                && !is_service_link(&name, &value);
            is_unknown.then(|| match nearest(&name, known) {
                Some(nearest) => format!("{name} is not a setting: did you mean {nearest}?"),
                None => format!("{name} is not a setting: `peerpanda-sso settings` lists them"),
            })
        })
        .collect();
    errors.sort();
    errors
}

/// Kubernetes sets these in each container for every Service of its namespace, unless the pod has
/// `enableServiceLinks: false`: for a Service `sso` `SSO_SERVICE_HOST`, `SSO_SERVICE_PORT`,
/// `SSO_SERVICE_PORT_{name}`, `SSO_PORT`, and `SSO_PORT_{number}_TCP` with `_PROTO`, `_PORT` and
/// `_ADDR`.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let of_port = name.rsplit_once("_PORT_").is_some_and(|(_, rest)| {
        let mut parts = rest.split('_');
        let is_number = parts.next().is_some_and(|part| part.parse::<u16>().is_ok());
        let is_protocol = parts.next().is_some_and(|part| matches!(part, "TCP" | "UDP" | "SCTP"));
        let is_detail = parts.next().is_none_or(|part| matches!(part, "PROTO" | "PORT" | "ADDR"));
        is_number && is_protocol && is_detail && parts.next().is_none()
    });
    let of_service = name.ends_with("_SERVICE_HOST")
        || (name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_"))
            && value.parse::<u16>().is_ok();
    of_port || of_service || name.ends_with("_PORT") && is_url
}

fn nearest<'a>(name: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    // Only secrets can be given in a file.
    if let Some(variable) = name.strip_suffix("_FILE").and_then(|name| known.get(name)) {
        return Some(variable);
    }
    let likeness = |candidate: &str| {
        let of = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
        strsim::normalized_damerau_levenshtein(&of(name), &of(candidate))
    };
    let candidates = known.iter().filter(|candidate| candidate.starts_with(PREFIX));
    let ranked = candidates.map(|candidate| (likeness(candidate), candidate.as_str()));
    let (likeness, nearest) = ranked.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeness >= MIN_LIKENESS).then_some(nearest)
}

const PREFIX: &str = "SSO_";
/// Set by tests/run for the tests.
const TEST_PREFIX: &str = "SSO_TEST_";
/// Of 1.0, for names that are equal. Below, a suggestion would only distract.
const MIN_LIKENESS: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(variables: &[(&str, &str)]) -> Vec<String> {
        let known = ["SSO_REDIS_URL", "SSO_REDIS_URL_FILE", "SSO_PUBLIC_URL", "SSO_ENDPOINT"];
        let known = known.map(str::to_owned).into();
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        unknown_variables(&known, variables)
    }

    #[test]
    fn an_unknown_variable_is_an_error_that_names_the_nearest_setting() {
        for (name, expected) in [
            ("SSO_REDDIS_URL", "SSO_REDDIS_URL is not a setting: did you mean SSO_REDIS_URL?"),
            ("SSO_REDIS_URL_FIEL", "did you mean SSO_REDIS_URL_FILE?"),
            ("SSO_PUBLIC_URL_FILE", "did you mean SSO_PUBLIC_URL?"),
            ("SSO_REDIS_PORT", "did you mean SSO_REDIS_URL?"),
            ("SSO_X", "SSO_X is not a setting: `peerpanda-sso settings` lists them"),
        ] {
            let errors = errors(&[(name, "secret")]);
            assert!(errors.len() == 1 && errors[0].ends_with(expected), "{errors:?}");
            assert!(!errors[0].contains("secret"), "{errors:?}");
        }
    }

    #[test]
    fn known_empty_and_foreign_variables_are_accepted() {
        let none: Vec<String> = Vec::new();
        let variables = [
            ("SSO_REDIS_URL", "x"),
            ("SSO_REDDIS_URL", " "),
            ("SSO_TEST_REDIS_URL", "x"),
            ("PATH", "x"),
            ("XSSO_PUBLIC", "x"),
        ];
        assert_eq!(errors(&variables), none);
        // A Service `sso` and a Service `sso-peerpanda-sso-admin`.
        let links = [
            ("SSO_SERVICE_HOST", "10.0.0.1"),
            ("SSO_SERVICE_PORT", "50051"),
            ("SSO_SERVICE_PORT_GRPC_LOGIN", "50051"),
            ("SSO_PORT", "tcp://10.0.0.1:50051"),
            ("SSO_PORT_50051_TCP", "tcp://10.0.0.1:50051"),
            ("SSO_PORT_50051_TCP_PROTO", "tcp"),
            ("SSO_PORT_50051_TCP_PORT", "50051"),
            ("SSO_PORT_50051_TCP_ADDR", "10.0.0.1"),
            ("SSO_PEERPANDA_SSO_ADMIN_SERVICE_HOST", "10.0.0.2"),
            ("SSO_PEERPANDA_SSO_ADMIN_PORT", "tcp://10.0.0.2:50052"),
            ("SSO_PEERPANDA_SSO_ADMIN_PORT_50052_TCP_ADDR", "10.0.0.2"),
        ];
        assert_eq!(errors(&links), none);
    }
}
