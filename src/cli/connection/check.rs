//! `connection check`: of one connection as it is or as flags would change it, of all, or of the
//! connections of a file. Says first what is wrong.

use std::path::PathBuf;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::Args;
use futures_util::stream::{self, StreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value as Json, json};
use tonic::Status;

use super::super::client::Admin;
use super::super::layout::{print_labelled, print_text};
use super::super::reflection::{Mapped, reflect};
use super::super::{Failure, Outcome, Output, Refusal, print_data, print_line, print_note};
use super::document::{self, Entry};
use super::edit::mask;
use super::fields::CheckFields;
use super::secrets::SecretArgs;
use super::show::outcome_name;
use super::{get, list_all, parse_slug};
use crate::pb;
use crate::pb::check_connection_response::Found;

/// What to check.
#[derive(Args)]
pub(super) struct CheckArgs {
    /// The account's slug.
    #[arg(required_unless_present_any = ["all", "file"], value_parser = parse_slug)]
    slug: Option<String>,
    /// Check the connections of all accounts, four at once.
    #[arg(long, conflicts_with_all = ["slug", "file"])]
    all: bool,
    /// Check the connections of this file as `apply` would set them up, without changing them; - is
    /// standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "slug")]
    file: Option<PathBuf>,
    /// Print each check that passed or was skipped, too.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    fields: CheckFields,
    #[command(flatten)]
    secrets: SecretArgs,
}

impl CheckArgs {
    pub(super) fn slug(&self) -> Option<&str> {
        self.slug.as_deref()
    }
}

/// The results of one connection's check.
struct Checked {
    results: Vec<pb::CheckResult>,
    summary: pb::CheckSummary,
}

impl Checked {
    fn outcome(&self) -> Outcome {
        match self.summary.outcome() {
            pb::CheckOutcome::Fail => Outcome::Failed,
            pb::CheckOutcome::Pass
            | pb::CheckOutcome::Warn
            | pb::CheckOutcome::Inconclusive
            | pb::CheckOutcome::Skipped
            | pb::CheckOutcome::Unspecified => Outcome::Success,
        }
    }

    fn json(&self) -> Json {
        let results: Vec<_> = self.results.iter().map(|it| Mapped(reflect(it))).collect();
        json!({ "results": results, "summary": Mapped(reflect(&self.summary)) })
    }
}

/// Runs the checks that the arguments name. Fails if one of them fails.
pub(super) async fn run(
    admin: &mut Admin,
    arguments: CheckArgs,
    output: Output,
) -> Result<Outcome, Failure> {
    let CheckArgs { slug, all, file, verbose, fields, secrets } = arguments;
    let is_proposal = !fields.is_empty() || !secrets.is_empty();
    if is_proposal && (all || file.is_some()) {
        let text = "--all and --file check connections as they are: leave the other flags out";
        return Err(Failure::Usage(text.to_owned()));
    }
    if let Some(file) = file {
        let entries = document::read(&file)?;
        return check_many(admin, entries.into_iter().map(Target::entry).collect(), output).await;
    }
    let Some(slug) = slug else {
        let connections = list_all(admin).await?.into_iter();
        let targets = connections.map(|it| Target::stored(it.slug)).collect();
        return check_many(admin, targets, output).await;
    };
    let mapping = if fields.map_claims() { get(admin, &slug).await?.claim_mapping } else { None };
    let mut edit = fields.edit(mapping)?;
    edit.set_secrets(&secrets.read(false)?);
    let (proposal, paths) = edit.to_message();
    let request = request(slug, proposal, paths);
    let say = |text: String| {
        if !output.is_data() {
            print_note(&text);
        }
    };
    let checked = check(admin, request, &say).await?;
    if output.is_data() {
        print_data(output, &checked.json())?;
    } else {
        print_checked(&checked, verbose)?;
    }
    Ok(checked.outcome())
}

fn request(
    slug: String,
    proposal: pb::Connection,
    paths: Vec<String>,
) -> pb::CheckConnectionRequest {
    let (proposal, update_mask) =
        if paths.is_empty() { (None, None) } else { (Some(proposal), mask(paths)) };
    pb::CheckConnectionRequest { slug, proposal, update_mask }
}

/// Waits where the service checks the account too often, and says so.
async fn check(
    admin: &mut Admin,
    request: pb::CheckConnectionRequest,
    say: &impl Fn(String),
) -> Result<Checked, Failure> {
    let mut waited = Duration::ZERO;
    loop {
        let status = match check_once(admin, request.clone()).await {
            Ok(Some(checked)) => return Ok(checked),
            Ok(None) => {
                return Err(Failure::NoAnswer("the check ended without a summary".to_owned()));
            }
            Err(status) => status,
        };
        let refusal = Refusal::from(status.clone());
        match refusal.retry_after {
            Some(wait) if refusal.reason == "RATE_LIMITED" && waited + wait <= MAX_WAIT => {
                let seconds = wait.as_secs_f64().ceil();
                say(format!("waiting {seconds} s: {}: {}", request.slug, refusal.message));
                tokio::time::sleep(wait).await;
                waited += wait;
            }
            _ => return Err(Failure::from(status)),
        }
    }
}

async fn check_once(
    admin: &mut Admin,
    request: pb::CheckConnectionRequest,
) -> Result<Option<Checked>, Status> {
    let mut found = admin.check_connection(request).await?.into_inner();
    let mut results = Vec::new();
    while let Some(message) = found.message().await? {
        match message.found {
            Some(Found::Result(result)) => results.push(result),
            Some(Found::Summary(summary)) => return Ok(Some(Checked { results, summary })),
            None => {}
        }
    }
    Ok(None)
}

/// One of many connections to check.
struct Target {
    /// Its slug, and in a file its place.
    label: String,
    slug: String,
    request: Result<pb::CheckConnectionRequest, Refusal>,
}

impl Target {
    fn stored(slug: String) -> Self {
        let request = request(slug.clone(), pb::Connection::default(), Vec::new());
        Self { label: slug.clone(), slug, request: Ok(request) }
    }

    /// As the file has it. Only the state is left out: a check is the same in each.
    fn entry(entry: Entry) -> Self {
        let Entry { label, slug, edit, mistakes } = entry;
        let (proposal, mut paths) = edit.to_message();
        paths.retain(|path| path != "state");
        let request = if mistakes.is_empty() {
            Ok(request(slug.clone(), proposal, paths))
        } else {
            Err(Refusal { violations: mistakes, ..Refusal::default() })
        };
        Self { label, slug, request }
    }
}

/// What became of one of them.
struct Done {
    label: String,
    slug: String,
    checked: Result<Checked, Failure>,
}

impl Done {
    fn has_failed(&self) -> bool {
        self.checked.as_ref().map_or(Outcome::Failed, Checked::outcome) == Outcome::Failed
    }

    fn json(&self) -> Json {
        let Self { slug, checked, .. } = self;
        match checked {
            Ok(checked) => {
                let mut json = checked.json();
                json["slug"] = slug.as_str().into();
                json
            }
            Err(Failure::Refused(refusal)) => json!({ "slug": slug, "error": refusal }),
            Err(failure) => json!({ "slug": slug, "error": { "message": failure.to_string() } }),
        }
    }
}

/// Goes on past a check that fails, or that the service refuses.
async fn check_many(
    admin: &mut Admin,
    targets: Vec<Target>,
    output: Output,
) -> Result<Outcome, Failure> {
    // Draws only on a terminal.
    let bar = ProgressBar::new(targets.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let say = |text: String| match (output.is_data(), bar.is_hidden()) {
        (true, _) => {}
        (false, true) => print_note(&text),
        (false, false) => bar.println(text),
    };
    let mut results = stream::iter(targets)
        .map(|Target { label, slug, request }| {
            let (mut admin, say) = (admin.clone(), &say);
            async move {
                let checked = match request {
                    Ok(request) => check(&mut admin, request, say).await,
                    Err(refusal) => Err(Failure::Refused(Box::new(refusal))),
                };
                Done { label, slug, checked }
            }
        })
        .buffered(CONCURRENT_CHECKS);
    let mut all = Vec::new();
    while let Some(done) = results.next().await {
        bar.inc(1);
        bar.set_message(done.slug.clone());
        match done.checked {
            Err(failure @ (Failure::NoAnswer(_) | Failure::Usage(_))) => return Err(failure),
            Ok(_) | Err(Failure::Refused(_) | Failure::Other(_)) => all.push(done),
        }
    }
    bar.finish_and_clear();
    report(&all, output)
}

fn report(all: &[Done], output: Output) -> Result<Outcome, Failure> {
    let failed = all.iter().filter(|done| done.has_failed()).count();
    if output.is_data() {
        let checks: Vec<_> = all.iter().map(Done::json).collect();
        print_data(output, &json!({ "checks": checks }))?;
    } else {
        for Done { label, checked, .. } in all {
            let bold = Style::new().bold();
            print_line(&format!("{bold}{label}{bold:#}"))?;
            match checked {
                Ok(checked) => print_checked(checked, false)?,
                Err(failure) => print_text(0, &format!("not checked: {failure}"))?,
            }
        }
        print_text(0, &format!("{} connections checked, {failed} failed", all.len()))?;
    }
    Ok(if failed == 0 { Outcome::Success } else { Outcome::Failed })
}

/// What is wrong first, and what passed only as a number unless `verbose`.
fn print_checked(checked: &Checked, verbose: bool) -> Result<(), Failure> {
    use pb::CheckOutcome::{Fail, Inconclusive, Pass, Skipped, Unspecified, Warn};
    let Checked { results, summary } = checked;
    let quiet: &[_] = if verbose { &[Pass, Skipped, Unspecified] } else { &[Unspecified] };
    for outcome in [Fail, Warn, Inconclusive].iter().chain(quiet) {
        let of_outcome = results.iter().filter(|result| result.outcome() == *outcome);
        of_outcome.into_iter().try_for_each(print_result)?;
    }
    let count = |outcome| results.iter().filter(|result| result.outcome() == outcome).count();
    let counts = [
        (count(Fail), "failed"),
        (count(Warn), "warned"),
        (count(Inconclusive), "inconclusive"),
        (count(Pass), "passed"),
        (count(Skipped), "skipped"),
    ];
    let counts = counts.map(|(count, what)| format!("{count} {what}")).join(", ");
    print_text(0, &format!("{}: {counts}", outcome_name(summary.outcome())))
}

/// A result, and below it what to do.
fn print_result(result: &pb::CheckResult) -> Result<(), Failure> {
    let color = match result.outcome() {
        pb::CheckOutcome::Pass => AnsiColor::Green,
        pb::CheckOutcome::Warn => AnsiColor::Yellow,
        pb::CheckOutcome::Fail => AnsiColor::Red,
        pb::CheckOutcome::Inconclusive
        | pb::CheckOutcome::Skipped
        | pb::CheckOutcome::Unspecified => AnsiColor::Cyan,
    };
    let style = Style::new().bold().fg_color(Some(color.into()));
    let label = format!("{:<12}", outcome_name(result.outcome()));
    let cause = match result.cause.as_str() {
        "" => String::new(),
        cause => format!(" ({cause})"),
    };
    print_labelled(0, &label, style, &format!("{}{cause}", result.id))?;
    print_labelled(INDENT, "expected:", Style::new(), &result.expected)?;
    print_labelled(INDENT, "found:", Style::new(), &result.found)?;
    if result.remedy.is_empty() {
        return Ok(());
    }
    let party = match result.actor() {
        pb::Party::CustomerIdpAdmin => "the customer's IdP admin:",
        pb::Party::EndUser => "the person:",
        pb::Party::Operator => "the operator:",
        pb::Party::Transient => "try again:",
        pb::Party::Support | pb::Party::Unspecified => "support:",
    };
    print_labelled(INDENT, party, Style::new().bold(), &result.remedy)
}

const INDENT: usize = 4;
const CONCURRENT_CHECKS: usize = 4;
/// Of one account's check. Six checks a minute are allowed, so a longer wait has another reason.
const MAX_WAIT: Duration = Duration::from_secs(120);
