//! What the verbs print: tables for people, JSON for scripts.

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use prost_types::Timestamp;
use serde_json::{Value, json};

use super::super::{Failure, Outcome, Output, print_json, print_line};
use super::document::{Account, state_name};
use crate::clock::{Clock, SystemClock};
use crate::model::secret::EXPIRES_SOON;
use crate::pb;

pub(super) fn connection(connection: &pb::Connection, output: Output) -> Result<Outcome, Failure> {
    if output == Output::Json {
        print_json(&whole(connection))?;
        return Ok(Outcome::Success);
    }
    let account = serde_json::to_value(Account::from(connection)).unwrap_or_default();
    let mut rows: Vec<(String, String)> = Vec::new();
    for (name, value) in account.as_object().into_iter().flatten() {
        rows.push((name.clone(), plain(value)));
    }
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            rows.push((name.to_owned(), value));
        }
    };
    row("client_secret", format!("fingerprint {}", connection.secret_fingerprint));
    if !connection.standby_secret_fingerprint.is_empty() {
        row(
            "standby_client_secret",
            format!("fingerprint {}", connection.standby_secret_fingerprint),
        );
    }
    row("secrets changed places", time(connection.secret_switch_time.as_ref()));
    row("redirect_uri", connection.redirect_uri.clone());
    row("initiate_login_uri", connection.initiate_login_uri.clone());
    row("post_logout_redirect_uri", connection.post_logout_redirect_uri.clone());
    row(
        "last check",
        connection.last_check.as_ref().map(check_text).unwrap_or_else(|| "none".to_owned()),
    );
    row(
        "test login",
        connection
            .test_login_time
            .as_ref()
            .map_or_else(|| "none by these settings".to_owned(), ToString::to_string),
    );
    row("logins", connection.logins.as_ref().map(summary_text).unwrap_or_default());
    row("revision", connection.revision.to_string());
    row("updated", time(connection.update_time.as_ref()));
    let mut table = table();
    for (name, value) in rows {
        table.add_row([name, value]);
    }
    print_table(&table)?;
    Ok(Outcome::Success)
}

pub(super) fn list(
    connections: &[pb::Connection],
    is_expiring_only: bool,
    output: Output,
) -> Result<Outcome, Failure> {
    let soon = soon();
    let earliest = |connection: &pb::Connection| {
        let times = [
            connection.client_secret_expire_time.as_ref(),
            connection.standby_client_secret_expire_time.as_ref(),
        ];
        times.into_iter().flatten().min_by_key(|time| time.seconds).cloned()
    };
    let is_expiring =
        |connection: &pb::Connection| earliest(connection).is_some_and(|time| time.seconds < soon);
    let shown =
        connections.iter().filter(|connection| !is_expiring_only || is_expiring(connection));
    if output == Output::Json {
        print_json(&json!(shown.map(whole).collect::<Vec<_>>()))?;
        return Ok(Outcome::Success);
    }
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
    let mut count = 0;
    for connection in shown {
        count += 1;
        let idp = if connection.issuer.is_empty() {
            &connection.discovery_url
        } else {
            &connection.issuer
        };
        let logins = connection.logins.clone().unwrap_or_default();
        let expiry = match (time(earliest(connection).as_ref()), is_expiring(connection)) {
            (text, true) => format!("{text} (soon)"),
            (text, false) => text,
        };
        table.add_row([
            connection.slug.clone(),
            state_name(connection.state()).to_owned(),
            idp.trim_start_matches("https://")
                .trim_end_matches("/.well-known/openid-configuration")
                .to_owned(),
            connection.client_id.clone(),
            connection.last_check.as_ref().map_or("none", |check| check_word(check)).to_owned(),
            time(logins.last_success_time.as_ref()),
            logins.failures.values().sum::<u32>().to_string(),
            expiry,
        ]);
    }
    print_table(&table)?;
    print_line(&format!("{count} connections"))?;
    Ok(Outcome::Success)
}

/// One line, and what to do below it.
pub(super) fn check_result(result: &pb::CheckResult) -> String {
    let (word, colour) = match result.outcome() {
        pb::CheckOutcome::Pass => ("PASS", AnsiColor::Green),
        pb::CheckOutcome::Warn => ("WARN", AnsiColor::Yellow),
        pb::CheckOutcome::Fail => ("FAIL", AnsiColor::Red),
        pb::CheckOutcome::Inconclusive | pb::CheckOutcome::Unspecified => {
            ("INCONCLUSIVE", AnsiColor::Cyan)
        }
    };
    let style = Style::new().bold().fg_color(Some(colour.into()));
    let mut text = format!(
        "{style}{word:<12}{style:#} {:<22} expected: {}\n{:36}found:    {}",
        result.id, result.expected, "", result.found
    );
    if !result.remedy.is_empty() {
        let who = match result.actor() {
            pb::Party::CustomerIdpAdmin => "the customer's IdP admin",
            pb::Party::Support | pb::Party::Unspecified => "support",
        };
        text.push_str(&format!("\n{:36}{who}: {}", "", result.remedy));
    }
    text
}

pub(super) fn check_summary(
    results: &[pb::CheckResult],
    summary: &pb::CheckSummary,
    output: Output,
) -> Result<(), Failure> {
    if output == Output::Json {
        let one = |result: &pb::CheckResult| {
            json!({
                "id": result.id, "outcome": outcome_name(result.outcome()), "expected": result.expected, "found": result.found,
                "actor": match result.actor() {
                    pb::Party::Unspecified => "",
                    pb::Party::Support => "support",
                    pb::Party::CustomerIdpAdmin => "customer_idp_admin",
                },
                "remedy": result.remedy,
            })
        };
        let results: Vec<_> = results.iter().map(one).collect();
        return print_json(
            &json!({ "outcome": outcome_name(summary.outcome()), "results": results }),
        );
    }
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

pub(super) fn attempts(
    listed: &pb::ListLoginAttemptsResponse,
    output: Output,
) -> Result<Outcome, Failure> {
    let millis = |phase: &pb::PhaseDuration| {
        let took = phase.duration.as_ref();
        took.map_or(0.0, |took| took.seconds as f64 * 1e3 + f64::from(took.nanos) / 1e6)
    };
    if output == Output::Json {
        let one = |attempt: &pb::LoginAttempt| {
            json!({
                "time": time(attempt.time.as_ref()), "reason": attempt.reason, "owner": attempt.owner, "trace_id": attempt.trace_id,
                "idp_error": attempt.idp_error, "claims_present": attempt.claims_present, "claims_missing": attempt.claims_missing,
                "issuer": attempt.issuer, "is_test": attempt.is_test, "remedy": attempt.remedy,
                "phases_ms": attempt.phases.iter().map(|phase| json!([phase.phase, millis(phase)])).collect::<Vec<_>>(),
            })
        };
        let summary = listed.summary.as_ref().map(summary_json).unwrap_or_default();
        print_json(
            &json!({ "summary": summary, "attempts": listed.attempts.iter().map(one).collect::<Vec<_>>() }),
        )?;
        return Ok(Outcome::Success);
    }
    let mut table = table();
    table.set_header(["TIME", "OUTCOME", "WHO CAN ACT", "WHAT TO DO", "TOOK", "TRACE"]);
    for attempt in &listed.attempts {
        let mut outcome =
            if attempt.reason.is_empty() { "completed".to_owned() } else { attempt.reason.clone() };
        if !attempt.idp_error.is_empty() {
            outcome.push_str(&format!(" ({})", attempt.idp_error));
        }
        if !attempt.claims_missing.is_empty() {
            outcome.push_str(&format!(": no {}", attempt.claims_missing.join(", ")));
        }
        if attempt.is_test {
            outcome.push_str(" [test]");
        }
        let took: f64 = attempt.phases.iter().map(millis).sum();
        table.add_row([
            time(attempt.time.as_ref()),
            outcome,
            attempt.owner.replace('_', " "),
            attempt.remedy.clone(),
            format!("{took:.0} ms"),
            attempt.trace_id.clone(),
        ]);
    }
    print_table(&table)?;
    print_line(&listed.summary.as_ref().map(summary_text).unwrap_or_default())?;
    Ok(Outcome::Success)
}

pub(super) fn changes(
    changes: &[pb::ConnectionChange],
    output: Output,
) -> Result<Outcome, Failure> {
    if output == Output::Json {
        let one = |change: &pb::ConnectionChange| {
            let field = |field: &pb::FieldChange| json!({ "field": field.field, "before": field.before, "after": field.after });
            json!({
                "time": time(change.time.as_ref()), "actor": change.actor, "action": change.action, "revision": change.revision,
                "is_forced": change.is_forced, "fields": change.fields.iter().map(field).collect::<Vec<_>>(),
            })
        };
        print_json(&json!(changes.iter().map(one).collect::<Vec<_>>()))?;
        return Ok(Outcome::Success);
    }
    let mut table = table();
    table.set_header(["TIME", "WHO", "WHAT", "FIELDS"]);
    for change in changes {
        let fields: Vec<String> = change
            .fields
            .iter()
            .map(|field| format!("{}: {:?} -> {:?}", field.field, field.before, field.after))
            .collect();
        let forced = if change.is_forced { " (forced)" } else { "" };
        table.add_row([
            time(change.time.as_ref()),
            change.actor.clone(),
            format!("{}{forced}", change.action),
            fields.join("\n"),
        ]);
    }
    print_table(&table)?;
    Ok(Outcome::Success)
}

/// Everything, as a script wants it.
fn whole(connection: &pb::Connection) -> Value {
    let mut value = serde_json::to_value(Account::from(connection)).unwrap_or_default();
    let outputs = json!({
        "revision": connection.revision,
        "create_time": time(connection.create_time.as_ref()),
        "update_time": time(connection.update_time.as_ref()),
        "redirect_uri": connection.redirect_uri,
        "initiate_login_uri": connection.initiate_login_uri,
        "post_logout_redirect_uri": connection.post_logout_redirect_uri,
        "secret_fingerprint": connection.secret_fingerprint,
        "standby_secret_fingerprint": connection.standby_secret_fingerprint,
        "secret_switch_time": time(connection.secret_switch_time.as_ref()),
        "test_login_time": time(connection.test_login_time.as_ref()),
        "last_check": connection.last_check.as_ref().map(|check| json!({
            "time": time(check.time.as_ref()), "outcome": outcome_name(check.outcome()), "revision": check.revision,
            "is_current": check.is_current, "failed": check.failed, "passed": check.passed,
        })),
        "logins": connection.logins.as_ref().map(summary_json),
    });
    if let (Some(value), Value::Object(outputs)) = (value.as_object_mut(), outputs) {
        value.extend(outputs);
    }
    value
}

fn summary_json(summary: &pb::LoginSummary) -> Value {
    json!({
        "last_success_time": time(summary.last_success_time.as_ref()), "failures_24h": summary.failures,
        "unrecognized_callbacks": summary.unrecognized_callbacks,
    })
}

fn summary_text(summary: &pb::LoginSummary) -> String {
    let last = summary
        .last_success_time
        .as_ref()
        .map_or_else(|| "none yet".to_owned(), ToString::to_string);
    let mut failures: Vec<_> =
        summary.failures.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    failures.sort();
    let failures = if failures.is_empty() { "none".to_owned() } else { failures.join(", ") };
    format!("last success: {last}; failed in 24 h: {failures}")
}

fn check_word(check: &pb::CheckSummary) -> &'static str {
    if check.is_current { outcome_name(check.outcome()) } else { "outdated" }
}

fn check_text(check: &pb::CheckSummary) -> String {
    let outdated = if check.is_current { "" } else { ", of other settings" };
    let failed = if check.failed.is_empty() {
        String::new()
    } else {
        format!(" ({})", check.failed.join(", "))
    };
    format!("{}{failed}, {}{outdated}", outcome_name(check.outcome()), time(check.time.as_ref()))
}

fn outcome_name(outcome: pb::CheckOutcome) -> &'static str {
    match outcome {
        pb::CheckOutcome::Unspecified => "",
        pb::CheckOutcome::Pass => "PASS",
        pb::CheckOutcome::Warn => "WARN",
        pb::CheckOutcome::Fail => "FAIL",
        pb::CheckOutcome::Inconclusive => "INCONCLUSIVE",
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(object) => object
            .iter()
            .map(|(name, value)| format!("{name}: {}", plain(value)))
            .collect::<Vec<_>>()
            .join("\n"),
        other => other.to_string(),
    }
}

/// To the second: nobody reads more.
fn time(time: Option<&Timestamp>) -> String {
    time.map(|time| Timestamp { nanos: 0, ..*time }.to_string()).unwrap_or_default()
}

/// In seconds since the Unix epoch.
fn soon() -> i64 {
    let soon = SystemClock.unix_seconds().after(EXPIRES_SOON).0;
    i64::try_from(soon).unwrap_or(i64::MAX)
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn print_table(table: &Table) -> Result<(), Failure> {
    let text = table.to_string();
    text.lines().try_for_each(|line| print_line(line.trim_end()))
}
