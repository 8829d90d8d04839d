//! `connection apply`: creates and updates the connections of a file, idempotently. What an entry
//! would change and what is wrong with it are the service's own words (`changed_fields`,
//! `validate_only`); only secrets that have changed places and ACTIVE, which has a verb of its own,
//! are judged here.

use std::collections::HashMap;

use futures_util::stream::{self, StreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use super::super::client::Admin;
use super::super::layout::print_text;
use super::super::{Failure, Outcome, Output, Refusal, print_data};
use super::document::Entry;
use super::edit::{SECRET_FIELDS, mask};
use super::list_all;
use crate::model::cause::Cause;
use crate::model::reason::Reason;
use crate::model::secret::ClientSecret;
use crate::pb;

#[derive(Clone, Copy)]
pub(super) struct Options {
    pub(super) dry_run: bool,
    pub(super) force: bool,
    pub(super) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Created,
    Updated,
    Unchanged,
    Failed,
}

/// What became of one entry.
#[derive(Serialize)]
struct Applied {
    #[serde(skip)]
    label: String,
    slug: String,
    result: Verdict,
    /// Names of the fields that changed.
    fields: Vec<String>,
    error: Option<Refusal>,
}

/// Goes on past an entry that fails, and reports at the end.
pub(super) async fn run(
    mut admin: Admin,
    entries: Vec<Entry>,
    options: Options,
) -> Result<Outcome, Failure> {
    let known = list_all(&mut admin).await?.into_iter();
    let known: HashMap<String, pb::Connection> =
        known.map(|connection| (connection.slug.clone(), connection)).collect();
    // Draws only on a terminal.
    let bar = ProgressBar::new(entries.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let known = &known;
    let mut results = stream::iter(entries)
        .map(|entry| {
            let admin = admin.clone();
            async move {
                let result = apply(admin, &entry, known.get(&entry.slug), options).await;
                let (result, fields, error) = match result {
                    Ok((verdict, fields)) => (verdict, fields, None),
                    Err(refusal) => (Verdict::Failed, Vec::new(), Some(refusal)),
                };
                Applied { label: entry.label, slug: entry.slug, result, fields, error }
            }
        })
        .buffered(CONCURRENT_CALLS);
    let mut applied = Vec::new();
    while let Some(one) = results.next().await {
        bar.inc(1);
        bar.set_message(one.slug.clone());
        applied.push(one);
    }
    bar.finish_and_clear();
    report(&applied, options)
}

/// Sends the rest of an entry with mistakes, too, to be validated only: so that one run reports all
/// of them.
async fn apply(
    admin: Admin,
    entry: &Entry,
    known: Option<&pb::Connection>,
    options: Options,
) -> Result<(Verdict, Vec<String>), Refusal> {
    let is_valid = entry.mistakes.is_empty();
    let options = Options { dry_run: options.dry_run || !is_valid, ..options };
    let result = send(admin, entry, known, options).await;
    if is_valid {
        return result;
    }
    let refusal = result.err().unwrap_or_default();
    let is_new = |field: &str| entry.mistakes.iter().all(|mistake| mistake.field != field);
    let more = refusal.violations.iter().filter(|violation| is_new(&violation.field)).cloned();
    Err(Refusal { violations: entry.mistakes.iter().cloned().chain(more).collect(), ..refusal })
}

async fn send(
    mut admin: Admin,
    entry: &Entry,
    known: Option<&pb::Connection>,
    options: Options,
) -> Result<(Verdict, Vec<String>), Refusal> {
    let (mut connection, mut fields) = entry.edit.to_message();
    let activate = connection.state() == pb::ConnectionState::Active;
    if activate {
        connection.state = pb::ConnectionState::Unspecified.into();
        fields.retain(|field| field != "state");
    }
    let validate_only = options.dry_run;
    let (mut verdict, mut changed, current) = match known {
        None => {
            let connection = Some(connection);
            let request = pb::CreateConnectionRequest { connection, validate_only };
            let created = admin.create_connection(request).await?.into_inner();
            (Verdict::Created, created.changed_fields, created.connection.unwrap_or_default())
        }
        Some(known) => {
            leave_in_place(&mut fields, &connection, known);
            if fields.is_empty() {
                (Verdict::Unchanged, Vec::new(), known.clone())
            } else {
                connection.revision = known.revision;
                let request = pb::UpdateConnectionRequest {
                    connection: Some(connection),
                    update_mask: mask(fields),
                    force: options.force,
                    validate_only,
                };
                let updated = admin.update_connection(request).await?.into_inner();
                let verdict = match updated.changed_fields.as_slice() {
                    [] => Verdict::Unchanged,
                    _ => Verdict::Updated,
                };
                (verdict, updated.changed_fields, updated.connection.unwrap_or_default())
            }
        }
    };
    if activate && current.state() != pb::ConnectionState::Active {
        if options.dry_run && verdict != Verdict::Unchanged {
            // What would be activated isn't stored, but the answer says what has proven it.
            if !options.force && !is_proven(&current) {
                return Err(unproven());
            }
        } else {
            let request = pb::ActivateConnectionRequest {
                slug: entry.slug.clone(),
                revision: current.revision,
                force: options.force,
                validate_only: options.dry_run,
            };
            admin.activate_connection(request).await.map_err(|status| {
                let refusal = Refusal::from(status);
                match verdict {
                    Verdict::Unchanged => refusal,
                    _ => Refusal { message: format!("{SAVED}: {}", refusal.message), ..refusal },
                }
            })?;
        }
        changed.push("state".to_owned());
        if verdict == Verdict::Unchanged {
            verdict = Verdict::Updated;
        }
    }
    Ok((verdict, changed))
}

/// Whether what a dry run would store has been proven before.
fn is_proven(connection: &pb::Connection) -> bool {
    let check = connection.last_check.as_ref();
    check.is_some_and(|check| check.is_current && check.failed.is_empty())
        && connection.test_login_time.is_some()
}

fn unproven() -> Refusal {
    Refusal {
        reason: Reason::CheckRequired.name().to_owned(),
        cause: Cause::ProofMissing.code().to_owned(),
        owner: Cause::ProofMissing.owner().name().to_owned(),
        message: format!(
            "{SAVED}: missing: a check of these settings in which nothing fails, and a test login with \
             them"
        ),
        ..Refusal::default()
    }
}

/// Drops the fields whose value the service holds already, though in another place than an update
/// would write it.
fn leave_in_place(fields: &mut Vec<String>, wanted: &pb::Connection, known: &pb::Connection) {
    // The issuer may be the one that the service read from the metadata document at first use.
    let source = &wanted.discovery_url;
    if wanted.issuer == known.issuer && (source.is_empty() || *source == known.discovery_url) {
        fields.retain(|field| field != "issuer");
    }
    if have_changed_places(fields, wanted, known) {
        fields.retain(|field| !SECRET_FIELDS.contains(&field.as_str()));
    }
}

/// Whether the service has made the standby secret the active one since the file was written: then
/// the secrets and their times must stay where they are.
fn have_changed_places(fields: &[String], wanted: &pb::Connection, known: &pb::Connection) -> bool {
    let secrets = [
        ("client_secret", &wanted.client_secret, &known.standby_secret_fingerprint),
        ("standby_client_secret", &wanted.standby_client_secret, &known.secret_fingerprint),
    ];
    let is_named = |name: &str| fields.iter().any(|field| field == name);
    let mut named = secrets.into_iter().filter(|(name, ..)| is_named(name)).peekable();
    named.peek().is_some()
        && named.all(|(_, secret, fingerprint)| {
            ClientSecret::from_store(secret.trim().to_owned()).fingerprint() == *fingerprint
        })
}

fn report(applied: &[Applied], options: Options) -> Result<Outcome, Failure> {
    let count = |verdict| applied.iter().filter(|one| one.result == verdict).count();
    let [created, updated, unchanged, failed] =
        [Verdict::Created, Verdict::Updated, Verdict::Unchanged, Verdict::Failed].map(count);
    let changes = applied.iter().filter(|one| one.result != Verdict::Unchanged);
    match options.output {
        Output::Json | Output::Yaml => {
            let summary = json!({
                "dry_run": options.dry_run, "created": created, "updated": updated,
                "unchanged": unchanged, "failed": failed, "connections": changes.collect::<Vec<_>>(),
            });
            print_data(options.output, &summary)?;
        }
        Output::Text | Output::Wide => {
            for one in changes {
                let fields = one.fields.join(", ");
                match (one.result, &one.error) {
                    (_, Some(error)) => {
                        print_text(0, &format!("failed    {}: {error}", one.label))?
                    }
                    // A long list is only useful in a dry run.
                    _ if !options.dry_run && applied.len() > MAX_LINES => {}
                    (Verdict::Created, _) => {
                        print_text(0, &format!("created   {}: {fields}", one.slug))?;
                    }
                    _ => print_text(0, &format!("updated   {}: {fields}", one.slug))?,
                }
            }
            let dry_run = if options.dry_run { "dry run: " } else { "" };
            let text = format!(
                "{dry_run}{created} created, {updated} updated, {unchanged} unchanged, {failed} failed"
            );
            print_text(0, &text)?;
        }
    }
    Ok(if failed == 0 { Outcome::Success } else { Outcome::Failed })
}

/// Of an entry whose settings are proven by nothing yet.
const SAVED: &str = "saved, but not activated";
const CONCURRENT_CALLS: usize = 16;
/// Entries up to which a run prints a line for each change.
const MAX_LINES: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_have_changed_places_stay() {
        let fingerprint = |secret: &str| match secret {
            "" => String::new(),
            secret => ClientSecret::from_store(secret.to_owned()).fingerprint(),
        };
        // The active and the standby secret: of the file, and of the service.
        for (file, service, expected) in [
            ([Some("a"), Some("b")], ["a", "b"], false),
            ([Some("a"), Some("b")], ["b", "a"], true),
            ([Some(" a\n"), Some("b")], ["b", "a"], true),
            ([Some("a"), None], ["b", "a"], true),
            ([None, Some("b")], ["b", "a"], true),
            // Each of these would lose a secret if one of the two stayed where it is.
            ([Some("a"), Some("c")], ["b", "a"], false),
            ([Some("c"), Some("a")], ["a", ""], false),
            ([Some("a"), Some("")], ["b", "a"], false),
            ([Some("a"), None], ["c", "d"], false),
            ([None, None], ["a", ""], false),
        ] {
            let mut fields = Vec::new();
            for (secret, name) in file.iter().zip(["client_secret", "standby_client_secret"]) {
                fields.extend(secret.map(|_| name.to_owned()));
            }
            let wanted = pb::Connection {
                client_secret: file[0].unwrap_or_default().to_owned(),
                standby_client_secret: file[1].unwrap_or_default().to_owned(),
                ..Default::default()
            };
            let known = pb::Connection {
                secret_fingerprint: fingerprint(service[0]),
                standby_secret_fingerprint: fingerprint(service[1]),
                ..Default::default()
            };
            let actual = have_changed_places(&fields, &wanted, &known);
            assert_eq!(actual, expected, "{file:?} {service:?}");
        }
    }

    #[test]
    fn an_issuer_that_was_read_at_first_use_stays() {
        let known = pb::Connection {
            issuer: "https://a".to_owned(),
            discovery_url: "https://a/d".to_owned(),
            ..Default::default()
        };
        for (issuer, discovery_url, is_left) in [
            ("https://a", "https://a/d", true),
            ("https://a", "", true),
            ("https://a", "https://b/d", false),
            ("https://b", "https://a/d", false),
        ] {
            let wanted = pb::Connection {
                issuer: issuer.to_owned(),
                discovery_url: discovery_url.to_owned(),
                ..Default::default()
            };
            let mut fields = vec!["issuer".to_owned()];
            leave_in_place(&mut fields, &wanted, &known);
            assert_eq!(fields.is_empty(), is_left, "{issuer} {discovery_url}");
        }
    }
}
