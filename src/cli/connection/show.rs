//! The verbs' text for people. JSON for scripts is the response message itself and isn't made here.

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};

use super::super::reflection::{Mapped, reflect, text, time_text};
use super::super::{Failure, print_line};
use crate::clock::{Clock, SystemClock};
use crate::model::secret::EXPIRES_SOON;
use crate::model::text::sanitize;
use crate::pb;

/// Every field that is set, by its name in the proto.
pub(super) fn connection(connection: &Option<pb::Connection>) -> Result<(), Failure> {
    let connection = connection.clone().unwrap_or_default();
    let message = Mapped(reflect(&connection));
    let json = serde_json::to_value(&message).map_err(Failure::other)?;
    let mut table = table();
    for (field, _) in message.0.fields() {
        let value = match field.name() {
            "last_check" => connection.last_check.as_ref().map(check_text).unwrap_or_default(),
            "logins" => connection.logins.as_ref().map(summary_text).unwrap_or_default(),
            "required_claims" => {
                let claims = connection.required_claims.iter();
                let lines = claims.map(|it| format!("{}: {}", it.name, it.values.join(", ")));
                lines.collect::<Vec<_>>().join("\n")
            }
            name => text(&field.kind(), &json[name]),
        };
        table.add_row([field.name(), &value]);
    }
    if connection.last_check.is_none() {
        table.add_row(["last_check", "none"]);
    }
    if connection.test_login_time.is_none() {
        table.add_row(["test_login_time", "none with the present settings"]);
    }
    print_table(&table)
}

/// The earliest time at which a secret of the connection expires.
fn earliest_expiry(connection: &pb::Connection) -> Option<prost_types::Timestamp> {
    let times =
        [connection.client_secret_expire_time, connection.standby_client_secret_expire_time];
    times.into_iter().flatten().min_by_key(|time| time.seconds)
}

/// Whether a secret has expired or expires soon.
pub(super) fn is_expiring(connection: &pb::Connection) -> bool {
    let soon = SystemClock.unix_seconds().after(EXPIRES_SOON).0;
    earliest_expiry(connection).is_some_and(|time| time.seconds < soon.cast_signed())
}

pub(super) fn list(connections: &[pb::Connection]) -> Result<(), Failure> {
    let mut table = table();
    table.set_header([
        "SLUG",
        "STATE",
        "IDP",
        "CLIENT ID",
        "CHECK",
        "LAST LOGIN",
        "FAILED 24 H",
        "SECRET EXPIRES",
    ]);
    for connection in connections {
        let idp = if connection.issuer.is_empty() {
            &connection.discovery_url
        } else {
            &connection.issuer
        };
        let idp = idp.trim_start_matches("https://");
        let check = connection.last_check.as_ref().map_or("none", |check| match check.is_current {
            true => outcome_name(check.outcome()),
            false => "outdated",
        });
        let logins = connection.logins.clone().unwrap_or_default();
        let soon = if is_expiring(connection) { " (soon)" } else { "" };
        table.add_row([
            connection.slug.clone(),
            if connection.unreadable.is_empty() {
                state_name(connection.state())
            } else {
                connection.unreadable.clone()
            },
            idp.trim_end_matches("/.well-known/openid-configuration").to_owned(),
            connection.client_id.clone(),
            check.to_owned(),
            time_text(logins.last_success_time.as_ref()),
            logins.failures.values().sum::<u32>().to_string(),
            format!("{}{soon}", time_text(earliest_expiry(connection).as_ref())),
        ]);
    }
    print_table(&table)?;
    print_line(&format!("{} connections", connections.len()))
}

/// A result of a check, and below it what to do.
pub(super) fn check_result(result: &pb::CheckResult) -> Result<(), Failure> {
    let colour = match result.outcome() {
        pb::CheckOutcome::Pass => AnsiColor::Green,
        pb::CheckOutcome::Warn => AnsiColor::Yellow,
        pb::CheckOutcome::Fail => AnsiColor::Red,
        pb::CheckOutcome::Inconclusive
        | pb::CheckOutcome::Skipped
        | pb::CheckOutcome::Unspecified => AnsiColor::Cyan,
    };
    let style = Style::new().bold().fg_color(Some(colour.into()));
    let mut text = format!(
        "{style}{:<12}{style:#} {:<22} expected: {}\n{:36}found:    {}",
        outcome_name(result.outcome()),
        result.id,
        result.expected,
        "",
        result.found
    );
    if !result.remedy.is_empty() {
        let party = match result.actor() {
            pb::Party::CustomerIdpAdmin => "the customer's IdP admin",
            pb::Party::EndUser => "the person",
            pb::Party::Operator => "the operator",
            pb::Party::Transient => "try again",
            pb::Party::Support | pb::Party::Unspecified => "support",
        };
        text.push_str(&format!("\n{:36}{party}: {}", "", result.remedy));
    }
    print_line(&text)
}

pub(super) fn check_summary(
    results: &[pb::CheckResult],
    summary: &pb::CheckSummary,
) -> Result<(), Failure> {
    let count = |outcome| results.iter().filter(|result| result.outcome() == outcome).count();
    use pb::CheckOutcome::{Fail, Inconclusive, Pass, Warn};
    print_line(&format!(
        "{}: {} passed, {} warned, {} failed, {} inconclusive",
        outcome_name(summary.outcome()),
        count(Pass),
        count(Warn),
        count(Fail),
        count(Inconclusive)
    ))
}

pub(super) fn attempts(list: &pb::ListLoginAttemptsResponse) -> Result<(), Failure> {
    let mut table = table();
    table.set_header(["TIME", "OUTCOME", "CAUSE", "WHO CAN ACT", "WHAT TO DO", "TOOK", "TRACE"]);
    for attempt in &list.attempts {
        let mut outcome =
            if attempt.reason.is_empty() { "completed".to_owned() } else { attempt.reason.clone() };
        if !attempt.idp_error.is_empty() {
            outcome.push_str(&format!(" ({})", attempt.idp_error));
        }
        if !attempt.claims_missing.is_empty() {
            outcome.push_str(&format!(": missing {}", attempt.claims_missing.join(", ")));
        }
        if attempt.is_test {
            outcome.push_str(" [test]");
        }
        let durations = attempt.phases.iter().filter_map(|phase| phase.duration.as_ref());
        let millis: f64 =
            durations.map(|took| took.seconds as f64 * 1e3 + f64::from(took.nanos) / 1e6).sum();
        table.add_row([
            time_text(attempt.time.as_ref()),
            outcome,
            attempt.cause.clone(),
            attempt.owner.replace('_', " "),
            attempt.remedy.clone(),
            format!("{millis:.0} ms"),
            attempt.trace_id.clone(),
        ]);
    }
    print_table(&table)?;
    print_line(&list.summary.as_ref().map(summary_text).unwrap_or_default())
}

pub(super) fn changes(changes: &[pb::ConnectionChange]) -> Result<(), Failure> {
    let mut table = table();
    table.set_header(["TIME", "WHO", "WHAT", "FIELDS"]);
    for change in changes {
        let fields = change.fields.iter();
        let fields = fields.map(|it| format!("{}: {:?} -> {:?}", it.field, it.before, it.after));
        let forced = if change.is_forced { " (forced)" } else { "" };
        let hosts = match change.hosts.as_slice() {
            [] => String::new(),
            hosts => format!(" at {}", hosts.join(", ")),
        };
        table.add_row([
            time_text(change.time.as_ref()),
            change.actor.clone(),
            format!("{}{forced}{hosts}", change.action),
            fields.collect::<Vec<_>>().join("\n"),
        ]);
    }
    print_table(&table)
}

fn summary_text(summary: &pb::LoginSummary) -> String {
    let last = summary.last_success_time.as_ref();
    let last = last.map_or_else(|| "none yet".to_owned(), |time| time_text(Some(time)));
    let failures = summary.failures.iter();
    let mut failures: Vec<_> =
        failures.map(|(reason, count)| format!("{count} {reason}")).collect();
    failures.sort();
    let failures = if failures.is_empty() { "none".to_owned() } else { failures.join(", ") };
    format!("last success: {last}; failed in 24 h: {failures}")
}

fn check_text(check: &pb::CheckSummary) -> String {
    let failed = match check.failed.as_slice() {
        [] => String::new(),
        failed => format!(" ({})", failed.join(", ")),
    };
    let outdated = if check.is_current { "" } else { ", with other settings" };
    let time = time_text(check.time.as_ref());
    format!("{}{failed}, {time}{outdated}", outcome_name(check.outcome()))
}

fn outcome_name(outcome: pb::CheckOutcome) -> &'static str {
    outcome.as_str_name().trim_start_matches("CHECK_OUTCOME_")
}

fn state_name(state: pb::ConnectionState) -> String {
    state.as_str_name().trim_start_matches("CONNECTION_STATE_").to_ascii_lowercase()
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn print_table(table: &Table) -> Result<(), Failure> {
    let text = table.to_string();
    // What was stored before hidden characters were refused must not change what the terminal shows.
    text.lines().try_for_each(|line| print_line(&sanitize(line.trim_end(), usize::MAX)))
}
