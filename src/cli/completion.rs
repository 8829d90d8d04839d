//! Completions for bash, zsh and fish. The scripts only ask the program, with the words typed so far,
//! so that they know each verb and flag of the installed version, and the slugs of the service.

use clap::builder::ValueHint;
use clap::{Arg, Args, Command, FromArgMatches, ValueEnum};

use super::client::ClientArgs;
use super::command::definition;
use super::connection::matching_slugs;
use super::{Failure, Outcome, print_line};

/// Prints a script to be read by the shell.
#[derive(Args)]
#[command(after_help = INSTALL)]
pub struct Completions {
    /// Complete for this shell.
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    /// Prints the script.
    ///
    /// # Errors
    /// Standard output can't be written.
    pub fn run(&self) -> Result<Outcome, Failure> {
        print_line(match self.shell {
            Shell::Bash => BASH,
            Shell::Zsh => ZSH,
            Shell::Fish => FISH,
        })?;
        Ok(Outcome::Success)
    }
}

/// What a shell asks.
#[derive(Args)]
pub struct CompleteWords {
    /// The words after the program's name; the last one is the one to complete.
    #[arg(last = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

impl CompleteWords {
    /// Prints a line for each word that can stand there: the word, a tab, and its description. Fails
    /// where a file's name belongs, which the shell completes. Silent about errors: a person is in the
    /// middle of a line.
    ///
    /// # Errors
    /// Standard output can't be written.
    pub async fn run(&self) -> Result<Outcome, Failure> {
        let mut root = definition();
        root.build();
        let completion = complete(&root, &self.words);
        let words = match completion {
            Completion::Files => return Ok(Outcome::Failed),
            Completion::Words(words) => words,
            Completion::Slugs(start) => {
                let slugs = match client_of(&self.words) {
                    Some(client) => matching_slugs(&client, &start).await,
                    None => Vec::new(),
                };
                slugs.into_iter().map(|slug| (slug, String::new())).collect()
            }
        };
        for (word, description) in words {
            print_line(format!("{word}\t{description}").trim_end())?;
        }
        Ok(Outcome::Success)
    }
}

/// How the typed line would reach the service.
fn client_of(words: &[String]) -> Option<ClientArgs> {
    let line = std::iter::once("peerpanda-sso".to_owned()).chain(words.iter().cloned());
    let matches = definition().ignore_errors(true).try_get_matches_from(line).ok()?;
    ClientArgs::from_arg_matches(matches.subcommand_matches("connection")?).ok()
}

/// What can stand at the end of a line.
#[derive(Debug, PartialEq, Eq)]
enum Completion {
    /// Words and their descriptions.
    Words(Vec<(String, String)>),
    /// Slugs that begin so.
    Slugs(String),
    /// Names of files.
    Files,
}

fn complete(root: &Command, words: &[String]) -> Completion {
    // bash makes a word of its own of each equals sign.
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    let current = words.pop().unwrap_or_default();
    let current = if current == "=" { "" } else { current };
    let (mut command, mut place, mut pending) = (root, 0, None);
    for word in words.into_iter().filter(|word| *word != "=") {
        if pending.take().is_some_and(|flag: &Arg| !is_flag(word) || !is_optional(flag)) {
            continue;
        }
        if is_flag(word) {
            pending = flag_named(command, word).filter(|_| !word.contains('='));
        } else if let Some(verb) = command.find_subcommand(word) {
            (command, place) = (verb, 0);
        } else {
            place += 1;
        }
    }
    if let Some(flag) = pending.filter(|flag| !is_flag(current) || !is_optional(flag)) {
        return values(flag, "", current);
    }
    if let Some((name, value)) = current.split_once('=').filter(|_| is_flag(current)) {
        return match flag_named(command, name) {
            Some(flag) => values(flag, &format!("{name}="), value),
            None => Completion::Words(Vec::new()),
        };
    }
    let described = |help: Option<&clap::builder::StyledStr>| {
        let text = help.map(ToString::to_string).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    };
    if current.starts_with('-') {
        let flags = command.get_arguments().filter(|flag| !flag.is_hide_set());
        let flags = flags.filter_map(|flag| {
            let name = format!("--{}", flag.get_long()?);
            name.starts_with(current).then(|| (name, described(flag.get_help())))
        });
        return Completion::Words(flags.collect());
    }
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    let verbs = verbs.map(|verb| (verb.get_name().to_owned(), described(verb.get_about())));
    let verbs: Vec<_> = verbs.filter(|(name, _)| name.starts_with(current)).collect();
    if !verbs.is_empty() {
        return Completion::Words(verbs);
    }
    let mut positionals = command.get_positionals();
    let last = command
        .get_positionals()
        .last()
        .filter(|it| it.get_num_args().is_some_and(|it| it.max_values() > 1));
    match positionals.nth(place).or(last) {
        Some(positional) => values(positional, "", current),
        None => Completion::Words(Vec::new()),
    }
}

/// The values of an argument that begin with `start`, each after `prefix`.
fn values(argument: &Arg, prefix: &str, start: &str) -> Completion {
    let possible = argument.get_possible_values();
    let possible = possible.into_iter().filter(|value| !value.is_hide_set());
    let named = possible.map(|value| {
        let help = value.get_help().map(ToString::to_string).unwrap_or_default();
        (format!("{prefix}{}", value.get_name()), help)
    });
    let matching: Vec<_> =
        named.filter(|(name, _)| name.starts_with(&format!("{prefix}{start}"))).collect();
    let is_file = matches!(argument.get_value_hint(), ValueHint::AnyPath | ValueHint::FilePath);
    match argument.get_id().as_str() {
        "slug" | "slugs" => Completion::Slugs(start.to_owned()),
        _ if is_file => Completion::Files,
        _ => Completion::Words(matching),
    }
}

fn is_flag(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-')
}

/// Whether the flag can stand without a value.
fn is_optional(flag: &Arg) -> bool {
    flag.get_num_args().is_some_and(|values| values.min_values() == 0)
}

/// The flag that takes a value.
fn flag_named<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let name = word.split_once('=').map_or(word, |(name, _)| name);
    let is_named = |flag: &&Arg| match name.strip_prefix("--") {
        Some(long) => {
            let aliases = flag.get_all_aliases().unwrap_or_default();
            flag.get_long() == Some(long) || aliases.contains(&long)
        }
        None => flag
            .get_short()
            .is_some_and(|short| name.strip_prefix('-') == Some(&*short.to_string())),
    };
    let flag = command.get_arguments().find(is_named)?;
    flag.get_action().takes_values().then_some(flag)
}

const INSTALL: &str = "\
Install them:
  bash  peerpanda-sso completions bash >/etc/bash_completion.d/peerpanda-sso
  zsh   peerpanda-sso completions zsh >\"${fpath[1]}/_peerpanda-sso\"
  fish  peerpanda-sso completions fish >~/.config/fish/completions/peerpanda-sso.fish";

const BASH: &str = r#"_peerpanda_sso() {
    local lines status
    lines=$(command peerpanda-sso complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    status=$?
    if [ "$status" -ne 0 ]; then
        compopt -o default 2>/dev/null
        COMPREPLY=()
        return
    fi
    local word=${COMP_WORDS[COMP_CWORD]}
    mapfile -t COMPREPLY < <(compgen -W "$(cut -f1 <<<"$lines")" -- "${word#=}")
}
complete -F _peerpanda_sso peerpanda-sso"#;

const ZSH: &str = r#"#compdef peerpanda-sso
_peerpanda-sso() {
    local -a lines names shown
    local output line
    output=$(command peerpanda-sso complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( $? )); then
        _files
        return
    fi
    lines=("${(@f)output}")
    for line in $lines; do
        names+=("${line%%$'\t'*}")
        shown+=("${line/$'\t'/  }")
    done
    (( $#names )) && compadd -l -d shown -a names
}
if [ "${funcstack[1]}" = _peerpanda-sso ]; then
    _peerpanda-sso
else
    compdef _peerpanda-sso peerpanda-sso
fi"#;

const FISH: &str = r#"function __peerpanda_sso
    set -l words (commandline -opc) (commandline -ct)
    set -l lines (command peerpanda-sso complete -- $words[2..-1] 2>/dev/null)
    if test $status -ne 0
        __fish_complete_path (commandline -ct)
    else
        printf '%s\n' $lines
    end
end
complete -c peerpanda-sso -f -a '(__peerpanda_sso)'"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_completed_by_what_stands_before_it() {
        let mut root = definition();
        root.build();
        let slugs = |start: &str| Completion::Slugs(start.to_owned());
        for (line, expected) in [
            ("connection get ", slugs("")),
            ("connection get ac", slugs("ac")),
            ("connection --output json get ac", slugs("ac")),
            ("connection --output = json get ac", slugs("ac")),
            ("connection export a b", slugs("b")),
            ("connection update acme --require-verified-email --scopes openid ", words(&[])),
            ("connection apply -f ", Completion::Files),
            ("connection apply --file=", Completion::Files),
            ("connection create acme --client-secret-file x", Completion::Files),
            ("conn", words(&["connection"])),
            ("connection att", words(&["attempts"])),
            ("connection attempts acme --tr", words(&["--trace"])),
            ("connection list --endpoi", words(&["--endpoint"])),
            ("connection list --sort ex", words(&["expires"])),
            ("connection list --sort=ex", words(&["--sort=expires"])),
            ("connection list -o y", words(&["yaml"])),
            (
                "connection update acme --auth-method client_secret_b",
                words(&["client_secret_basic"]),
            ),
            ("connection guide acme --idp k", words(&["keycloak"])),
            ("completions z", words(&["zsh"])),
            ("complet", words(&["completions"])),
            ("connection get acme x", words(&[])),
        ] {
            let typed: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let actual = match complete(&root, &typed) {
                Completion::Words(found) => Completion::Words(
                    found.into_iter().map(|(word, _)| (word, String::new())).collect(),
                ),
                other => other,
            };
            assert_eq!(actual, expected, "{line}");
        }
    }

    fn words(words: &[&str]) -> Completion {
        Completion::Words(words.iter().map(|word| ((*word).to_owned(), String::new())).collect())
    }

    #[test]
    fn the_endpoint_is_that_of_the_line() {
        let line = ["connection", "--endpoint", "http://127.0.0.1:7", "get", "ac"];
        assert!(client_of(&line.map(str::to_owned)).is_some());
        assert!(client_of(&["health".to_owned()]).is_none());
    }
}
