//! The text of a connection and of lists of them for people. JSON for scripts is the response message
//! itself and isn't made here.

use anstyle::Style;
use clap::ValueEnum;
use prost_reflect::ReflectMessage;
use prost_types::Timestamp;

use super::super::layout::{Table, print_text, width, wrap};
use super::super::reflection::{Mapped, reflect, text, time_text};
use super::super::{Failure, Output, print_line};
use super::groups::GROUPS;
use crate::clock::{Clock, SystemClock};
use crate::model::secret::EXPIRES_SOON;
use crate::pb;

/// Every field that is set, by its name in the proto, below the name of its group.
pub(super) fn connection(connection: &Option<pb::Connection>) -> Result<(), Failure> {
    let connection = connection.clone().unwrap_or_default();
    let of_group = |names: &'static [&'static str]| {
        let fields = names.iter().map(|name| (*name, field_text(&connection, name)));
        fields.filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>()
    };
    let groups = GROUPS.map(|(heading, names)| (heading, of_group(names)));
    let names = groups.iter().flat_map(|(_, fields)| fields.iter().map(|(name, _)| name.len()));
    let indent = names.max().unwrap_or_default() + 2;
    let room = width().saturating_sub(indent + 2).max(MIN_VALUE);
    for (heading, fields) in groups {
        if !fields.is_empty() {
            let bold = Style::new().bold();
            print_line(&format!("{bold}{heading}{bold:#}"))?;
        }
        for (name, value) in fields {
            for (number, line) in wrap(&value, room).iter().enumerate() {
                let name = if number == 0 { name } else { "" };
                print_line(&format!("  {name:<indent$}{line}"))?;
            }
        }
    }
    Ok(())
}

/// A field as people read it; empty if it isn't set.
pub(super) fn field_text(connection: &pb::Connection, name: &str) -> String {
    let none = |text: &str| text.to_owned();
    match name {
        "last_check" => connection.last_check.as_ref().map_or_else(|| none("none"), check_text),
        "test_login_time" if connection.test_login_time.is_none() => {
            none("none with the present settings")
        }
        "logins" => connection.logins.as_ref().map(summary_text).unwrap_or_default(),
        // Only their fingerprints are known.
        "client_secret" | "standby_client_secret" => String::new(),
        "required_claims" => {
            let claims = connection.required_claims.iter();
            let lines = claims.map(|it| format!("{}: {}", it.name, it.values.join(", ")));
            lines.collect::<Vec<_>>().join("\n")
        }
        name => {
            let message = reflect(connection);
            let Some(field) = message.descriptor().get_field_by_name(name) else {
                return String::new();
            };
            let json = serde_json::to_value(Mapped(message)).unwrap_or_default();
            json.get(name).map(|value| text(&field.kind(), value)).unwrap_or_default()
        }
    }
}

/// The earliest time at which a secret of the connection expires.
fn earliest_expiry(connection: &pb::Connection) -> Option<Timestamp> {
    let times =
        [connection.client_secret_expire_time, connection.standby_client_secret_expire_time];
    times.into_iter().flatten().min_by_key(|time| time.seconds)
}

/// Whether a secret has expired or expires soon.
pub(super) fn is_expiring(connection: &pb::Connection) -> bool {
    let soon = SystemClock.unix_seconds().after(EXPIRES_SOON).0;
    earliest_expiry(connection).is_some_and(|time| time.seconds < soon.cast_signed())
}

/// Whether people can't log in now, as far as their logins and the last check tell.
pub(super) fn is_failing(connection: &pb::Connection) -> bool {
    let logins = connection.logins.clone().unwrap_or_default();
    let check = connection.last_check.as_ref().filter(|check| check.is_current);
    failed_logins(&logins) > 0
        || logins.suspicion.is_some()
        || !connection.unreadable.is_empty()
        || check.is_some_and(|check| check.outcome() == pb::CheckOutcome::Fail)
}

/// Of the last 24 hours.
fn failed_logins(summary: &pb::LoginSummary) -> u32 {
    summary.refused_24h.max(summary.failures.values().sum())
}

/// What a list of connections is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum SortBy {
    /// The slug.
    #[default]
    Slug,
    /// Failed logins, most first.
    Failed,
    /// When the secret expires, soonest first.
    Expires,
    /// The last login, longest ago first.
    Login,
}

pub(super) fn sort(connections: &mut [pb::Connection], by: SortBy) {
    let seconds = |time: Option<Timestamp>, none| time.map_or(none, |time| time.seconds);
    let logins = |connection: &pb::Connection| connection.logins.clone().unwrap_or_default();
    // The service sorts by slug.
    match by {
        SortBy::Slug => {}
        SortBy::Failed => connections.sort_by_key(|it| {
            let logins = logins(it);
            std::cmp::Reverse((failed_logins(&logins), logins.suspicion.is_some()))
        }),
        SortBy::Expires => {
            connections.sort_by_key(|it| seconds(earliest_expiry(it), i64::MAX));
        }
        SortBy::Login => {
            connections.sort_by_key(|it| seconds(logins(it).last_success_time, i64::MIN));
        }
    }
}

pub(super) fn list(connections: &[pb::Connection], output: Output) -> Result<(), Failure> {
    let is_wide = output == Output::Wide;
    let header = ["SLUG", "STATE", "IDP", "CHECK", "LAST LOGIN", "FAILED", "EXPIRES"];
    let more: &[&str] = if is_wide { &["CLIENT ID", "NAME"] } else { &[] };
    let mut table = Table::new(&[&header[..], more].concat());
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
        let lost = if logins.suspicion.is_some() { ", none came back" } else { "" };
        let soon = if is_expiring(connection) { " (soon)" } else { "" };
        // To the minute and to the day: more tells nobody anything in a list.
        let short = |time: Option<Timestamp>, length: usize| {
            let text = time_text(time.as_ref());
            if is_wide { text } else { text.chars().take(length).collect() }
        };
        let cells = [
            connection.slug.clone(),
            if connection.unreadable.is_empty() {
                state_name(connection.state())
            } else {
                connection.unreadable.clone()
            },
            idp.trim_end_matches("/.well-known/openid-configuration").to_owned(),
            check.to_owned(),
            short(logins.last_success_time, 16).replace('T', if is_wide { "T" } else { " " }),
            format!("{}{lost}", failed_logins(&logins)),
            format!("{}{soon}", short(earliest_expiry(connection), 10)),
        ];
        if is_wide {
            let [slug, state, idp, check, login, failed, expires] = cells;
            let (client, name) = (connection.client_id.clone(), connection.display_name.clone());
            table.row([slug, state, idp, check, login, failed, expires, client, name]);
        } else {
            table.row(cells);
        }
    }
    table.print(if is_wide { 0 } else { width() })?;
    print_text(0, &format!("{} connections", connections.len()))
}

/// What the account's logins, or those of all accounts, tell together.
pub(super) fn summary_text(summary: &pb::LoginSummary) -> String {
    let last = summary.last_success_time.as_ref();
    let last = last.map_or_else(|| "none yet".to_owned(), |time| time_text(Some(time)));
    let failures = summary.failures.iter();
    let mut failures: Vec<_> =
        failures.map(|(reason, count)| format!("{count} {reason}")).collect();
    failures.sort();
    let failures = if failures.is_empty() { "none".to_owned() } else { failures.join(", ") };
    let mut text = format!("last success: {last}; failed in 24 h: {failures}");
    let pb::LoginSummary { begun_24h, returned_24h, completed_24h, .. } = summary;
    if *begun_24h > 0 {
        text.push_str(&format!(
            "; of {begun_24h} begun, {returned_24h} came back and {completed_24h} were completed"
        ));
    }
    if let Some(suspicion) = &summary.suspicion {
        text.push_str(&format!("\nnote: {}", suspicion.text));
    }
    text
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

pub(super) fn outcome_name(outcome: pb::CheckOutcome) -> &'static str {
    outcome.as_str_name().trim_start_matches("CHECK_OUTCOME_")
}

fn state_name(state: pb::ConnectionState) -> String {
    state.as_str_name().trim_start_matches("CONNECTION_STATE_").to_ascii_lowercase()
}

/// Columns; a narrower value is harder to read than one that the terminal breaks.
const MIN_VALUE: usize = 24;
