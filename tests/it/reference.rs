//! The tables of docs/reference are those of the program. A test that fails prints the table to put
//! into the document.

use std::collections::BTreeSet;

use peerpanda_sso::cli::command;
use peerpanda_sso::config::Setting;
use peerpanda_sso::model::cause::Cause;
use peerpanda_sso::model::reason::Reason;
use peerpanda_sso::oidc::idps::{self, IdpProduct};

const COMMANDS: &str = include_str!("../../docs/reference/cli.md");
const REASONS: &str = include_str!("../../docs/reference/reasons.md");
const SETTINGS: &str = include_str!("../../docs/reference/settings.md");
const PROTO: &str = include_str!("../../proto/peerpanda/sso/v1/login.proto");

#[test]
fn the_table_of_reasons_is_the_enum() {
    // A unit test compares the contract's own table, which has the codes, with the code.
    let of_contract = |reason: &Reason| {
        let row = PROTO.lines().find(|line| line.starts_with(&format!("// | {reason} | ")));
        let cells: Vec<&str> = row.expect("a row in login.proto").split(" | ").collect();
        (cells[2].to_owned(), cells[3].trim_end_matches(" |").to_owned())
    };
    let owners = |reason: &Reason| {
        let causes = Cause::ALL.iter().filter(|cause| cause.reason() == *reason);
        let owners: BTreeSet<&str> = causes.map(|cause| cause.owner().name()).collect();
        owners.into_iter().map(|owner| format!("`{owner}`")).collect::<Vec<_>>().join(", ")
    };
    let rows = Reason::ALL.iter().map(|reason| {
        let (code, retry) = of_contract(reason);
        let code = code.replace(", or ", "`, or `");
        format!("| `{reason}` | `{code}` | {} | {retry} |\n", owners(reason))
    });
    let head = "| reason | gRPC code | owner | retry |\n|---|---|---|---|\n";
    compare(REASONS, "reasons", &(head.to_owned() + &rows.collect::<String>()));
}

#[test]
fn the_table_of_causes_is_the_enum() {
    let rows = Cause::ALL.iter().map(|cause| {
        let remedy = idps::remedy(
            cause.remedy(),
            IdpProduct::Generic,
            "the account's redirect URI",
            "the connection's token_endpoint_auth_method",
        );
        let (reason, owner) = (cause.reason(), cause.owner().name());
        format!("| `{cause}` | `{reason}` | `{owner}` | {} |\n", remedy.replace('|', "\\|"))
    });
    let head = "| cause | reason | owner | what to do |\n|---|---|---|---|\n";
    compare(REASONS, "causes", &(head.to_owned() + &rows.collect::<String>()));
}

#[test]
fn the_table_of_settings_is_the_programs() {
    let rows = Setting::all().into_iter().map(|Setting { variable, flag, default, help }| {
        let default = default.map(|default| format!("`{default}`")).unwrap_or_default();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        let flag = flag.map(|flag| format!("`{flag}`")).unwrap_or_default();
        format!("| `{variable}` | {flag} | {default} | {help} |\n")
    });
    let head = "| variable | flag | default | meaning |\n|---|---|---|---|\n";
    compare(SETTINGS, "settings", &(head.to_owned() + &rows.collect::<String>()));
}

#[test]
fn the_reference_of_commands_is_the_programs() {
    compare(COMMANDS, "commands", &format!("\n{}", command::reference()));
}

fn compare(document: &str, name: &str, expected: &str) {
    let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let table = document.split_once(&start).and_then(|(_, rest)| rest.split_once(&end));
    let (table, _) = table.unwrap_or_else(|| panic!("the document has no table {name}"));
    assert!(table == expected, "docs/reference: replace the table {name} by\n{expected}");
}
