//! `connection attempts`: the latest logins of one account or of all, and what to do about those that
//! were refused.

use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use prost_types::Timestamp;

use super::super::client::Admin;
use super::super::layout::{Table, print_labelled, print_text};
use super::super::reflection::time_text;
use super::super::{Failure, Outcome, Output};
use super::edit::parse_time;
use super::show::summary_text;
use super::{parse_slug, print};
use crate::clock::{Clock, SystemClock};
use crate::model::reason::Reason;
use crate::pb;

/// Which attempts to show.
#[derive(Args)]
pub(super) struct AttemptsArgs {
    /// The account's slug.
    #[arg(required_unless_present_any = ["all", "trace"], value_parser = parse_slug)]
    slug: Option<String>,
    /// Show the attempts of all accounts.
    #[arg(long, conflicts_with = "slug")]
    all: bool,
    /// Show only the attempt with this trace id, which the person's error page and the log name.
    #[arg(long, value_name = "ID", value_parser = parse_trace)]
    trace: Option<String>,
    /// Show only attempts since then: how long ago, such as 90m, 12h or 2d, or a time.
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<Timestamp>,
    /// Show only attempts that were refused for this reason.
    #[arg(
        long,
        ignore_case = true,
        hide_possible_values = true,
        value_parser = PossibleValuesParser::new(Reason::ALL.iter().map(|reason| reason.name()))
            .map(|name| name.to_ascii_uppercase())
    )]
    reason: Option<String>,
    /// Show this many attempts, 1 to 200.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 20,
        value_parser = clap::value_parser!(i32).range(1..=200)
    )]
    last: i32,
}

impl AttemptsArgs {
    pub(super) fn slug(&self) -> Option<&str> {
        self.slug.as_deref()
    }
}

/// Shows the attempts. Fails if none has the trace id.
pub(super) async fn run(
    admin: &mut Admin,
    options: AttemptsArgs,
    output: Output,
) -> Result<Outcome, Failure> {
    let AttemptsArgs { slug, all: _, trace, since, reason, last } = options;
    let is_of_all = slug.is_none();
    let request = pb::ListLoginAttemptsRequest {
        slug: slug.unwrap_or_default(),
        page_size: last,
        trace_id: trace.clone().unwrap_or_default(),
        reason: reason.unwrap_or_default(),
        since,
    };
    let list = admin.list_login_attempts(request).await?.into_inner();
    let is_missing = trace.is_some() && list.attempts.is_empty();
    print(output, &list, |list| match output {
        Output::Wide => wide(list),
        Output::Text | Output::Json | Output::Yaml if is_missing => print_text(0, NOT_KEPT),
        Output::Text | Output::Json | Output::Yaml => narrow(list, is_of_all, trace.is_some()),
    })?;
    Ok(if is_missing { Outcome::Failed } else { Outcome::Success })
}

/// The summary, then each attempt in a few lines.
fn narrow(
    list: &pb::ListLoginAttemptsResponse,
    is_of_all: bool,
    is_of_trace: bool,
) -> Result<(), Failure> {
    if !is_of_trace {
        let mut summary = list.summary.clone().unwrap_or_default();
        if let Some(suspicion) = summary.suspicion.take() {
            let bold = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
            print_labelled(0, &format!("{}:", who(&suspicion.owner)), bold, &suspicion.text)?;
        }
        print_text(0, &summary_text(&summary))?;
    }
    for attempt in &list.attempts {
        let account = if is_of_all { format!("  {}", attempt.slug) } else { String::new() };
        let (outcome, color) = outcome(attempt);
        let style = Style::new().fg_color(Some(color.into()));
        let start = format!("{}{account}", time_text(attempt.time.as_ref()));
        print_labelled(0, &format!("{start}  {outcome}"), style, &repeats(attempt))?;
        if attempt.reason.is_empty() {
            print_text(INDENT, &format!("{}, trace {}", took(attempt), attempt.trace_id))?;
            continue;
        }
        if !attempt.idp_error_description.is_empty() {
            let said = format!("{:?}", attempt.idp_error_description);
            print_labelled(INDENT, "the IdP said:", Style::new(), &said)?;
        }
        print_text(INDENT, &attempt.detail)?;
        let actor = format!("{}:", who(&attempt.owner));
        print_labelled(INDENT, &actor, Style::new().bold(), &attempt.remedy)?;
        print_text(INDENT, &facts(attempt))?;
    }
    Ok(())
}

/// Cause, document, stage, time and trace.
fn facts(attempt: &pb::LoginAttempt) -> String {
    let stage = match attempt.stage() {
        pb::LoginStage::Begin => "begin of the login",
        pb::LoginStage::Complete | pb::LoginStage::Unspecified => "",
    };
    let named = [("cause ", &*attempt.cause), ("document ", &*attempt.document), ("", stage)];
    let took = took(attempt);
    let all = named.into_iter().chain([("", &*took), ("trace ", &*attempt.trace_id)]);
    let all = all.filter(|(_, value)| !value.is_empty());
    all.map(|(name, value)| format!("{name}{value}")).collect::<Vec<_>>().join(", ")
}

fn outcome(attempt: &pb::LoginAttempt) -> (String, AnsiColor) {
    let (mut text, color) = match attempt.reason.as_str() {
        "" => ("completed".to_owned(), AnsiColor::Green),
        reason => (reason.to_owned(), AnsiColor::Red),
    };
    if !attempt.idp_error.is_empty() {
        text.push_str(&format!(" ({})", attempt.idp_error));
    }
    if !attempt.claims_missing.is_empty() {
        text.push_str(&format!(": missing {}", attempt.claims_missing.join(", ")));
    }
    if attempt.is_test {
        text.push_str(" [test]");
    }
    (text, color)
}

/// `×17 until 10:42` for logins that were refused alike.
fn repeats(attempt: &pb::LoginAttempt) -> String {
    if attempt.count <= 1 {
        return String::new();
    }
    let [first, last] = [&attempt.time, &attempt.last_time].map(|time| time_text(time.as_ref()));
    let (day, until) = last.split_once('T').unwrap_or(("", last.as_str()));
    let minute: String = until.chars().take(5).collect();
    let until = if first.starts_with(day) { minute } else { format!("{day} {minute}") };
    format!("×{} until {until}", attempt.count)
}

fn took(attempt: &pb::LoginAttempt) -> String {
    let durations = attempt.phases.iter().filter_map(|phase| phase.duration.as_ref());
    let millis: f64 =
        durations.map(|took| took.seconds as f64 * 1e3 + f64::from(took.nanos) / 1e6).sum();
    format!("{millis:.0} ms")
}

/// Who must act, for people.
fn who(owner: &str) -> String {
    match owner {
        "customer_idp_admin" => "the customer's IdP admin".to_owned(),
        "end_user" => "the person".to_owned(),
        "operator" => "the operator".to_owned(),
        "transient" => "try again".to_owned(),
        other => other.replace('_', " "),
    }
}

/// One line for each attempt, however wide.
fn wide(list: &pb::ListLoginAttemptsResponse) -> Result<(), Failure> {
    let header = [
        "TIME",
        "SLUG",
        "OUTCOME",
        "COUNT",
        "LAST",
        "STAGE",
        "CAUSE",
        "DOCUMENT",
        "WHO CAN ACT",
        "WHAT TO DO",
        "THE IDP SAID",
        "DETAIL",
        "TOOK",
        "TRACE",
    ];
    let mut table = Table::new(&header);
    for attempt in &list.attempts {
        let stage = attempt.stage().as_str_name().trim_start_matches("LOGIN_STAGE_");
        table.row([
            time_text(attempt.time.as_ref()),
            attempt.slug.clone(),
            outcome(attempt).0,
            attempt.count.max(1).to_string(),
            time_text(attempt.last_time.as_ref()),
            stage.replace("UNSPECIFIED", "").to_ascii_lowercase(),
            attempt.cause.clone(),
            attempt.document.clone(),
            attempt.owner.replace('_', " "),
            attempt.remedy.clone(),
            attempt.idp_error_description.clone(),
            attempt.detail.clone(),
            took(attempt),
            attempt.trace_id.clone(),
        ]);
    }
    table.print(0)?;
    print_text(0, &summary_text(&list.summary.clone().unwrap_or_default()))
}

fn parse_trace(text: &str) -> Result<String, String> {
    let id = text.trim().to_ascii_lowercase();
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { Ok(id) } else { Err("must be 32 hex digits".to_owned()) }
}

fn parse_since(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = humantime::parse_duration(text.trim()) {
        return Ok(before_now(ago));
    }
    let rule = || "must be how long ago, such as 90m, 12h or 2d, or a time".to_owned();
    parse_time(text).ok().flatten().ok_or_else(rule)
}

fn before_now(ago: Duration) -> Timestamp {
    let seconds = SystemClock.unix_seconds().0.saturating_sub(ago.as_secs()).cast_signed();
    Timestamp { seconds, nanos: 0 }
}

const INDENT: usize = 4;
const NOT_KEPT: &str = "no kept attempt has this trace id: the service keeps at most the latest 200 of \
    each account, of the last 30 days, and none of accounts that don't exist";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_counted_until_the_last() {
        let time = |text: &str| Some(text.parse().expect("a time"));
        for (count, last, expected) in [
            (0, None, ""),
            (1, time("2026-11-25T10:00:00Z"), ""),
            (17, time("2026-11-25T10:42:10Z"), "×17 until 10:42"),
            (2, time("2026-11-26T00:01:00Z"), "×2 until 2026-11-26 00:01"),
        ] {
            let attempt = pb::LoginAttempt {
                time: time("2026-11-25T09:50:00Z"),
                last_time: last,
                count,
                ..Default::default()
            };
            assert_eq!(repeats(&attempt), expected);
        }
    }

    #[test]
    fn a_time_is_a_moment_or_how_long_ago() {
        assert_eq!(parse_since("2027-01-31"), Ok("2027-01-31T00:00:00Z".parse().expect("a time")));
        let now = before_now(Duration::ZERO).seconds;
        let hour = parse_since("1h").expect("a time").seconds;
        assert!((now - 3601..=now - 3599).contains(&hour), "{hour} {now}");
        assert!(parse_since("yesterday").is_err_and(|rule| rule.contains("such as 90m")));
    }
}
