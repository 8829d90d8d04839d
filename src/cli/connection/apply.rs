//! `connection apply`: many connections from a file, idempotently.

use std::collections::HashMap;

use futures_util::stream::{self, StreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use prost_types::FieldMask;
use serde_json::json;

use super::super::client::Admin;
use super::super::{Failure, Outcome, Output, print_json, print_line};
use super::all;
use super::document::{Account, state_name};
use crate::model::secret::ClientSecret;
use crate::pb;

/// How to apply.
#[derive(Clone, Copy)]
pub(super) struct How {
    pub(super) dry_run: bool,
    pub(super) force: bool,
    pub(super) output: Output,
}

/// What became of one account.
struct Applied {
    slug: String,
    /// created, updated, unchanged or failed.
    what: &'static str,
    /// Names of the fields.
    fields: Vec<String>,
    error: String,
}

pub(super) async fn run(
    mut desk: Admin,
    accounts: Vec<Account>,
    how: How,
) -> Result<Outcome, Failure> {
    let known: HashMap<String, pb::Connection> = all(&mut desk)
        .await?
        .into_iter()
        .map(|connection| (connection.slug.clone(), connection))
        .collect();
    // Hidden where nobody watches.
    let bar = ProgressBar::new(accounts.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let known = &known;
    let mut done = stream::iter(accounts)
        .map(|account| {
            let desk = desk.clone();
            async move { one(desk, &account, known.get(&account.slug), how).await }
        })
        .buffered(AT_ONCE);
    let mut applied = Vec::new();
    while let Some(one) = done.next().await {
        bar.inc(1);
        bar.set_message(one.slug.clone());
        applied.push(one);
    }
    bar.finish_and_clear();
    report(&applied, how)
}

async fn one(desk: Admin, account: &Account, known: Option<&pb::Connection>, how: How) -> Applied {
    let slug = account.slug.clone();
    match apply(desk, account, known, how).await {
        Ok((what, fields)) => Applied { slug, what, fields, error: String::new() },
        Err(error) => Applied { slug, what: "failed", fields: Vec::new(), error },
    }
}

async fn apply(
    mut desk: Admin,
    account: &Account,
    known: Option<&pb::Connection>,
    how: How,
) -> Result<(&'static str, Vec<String>), String> {
    if let Some(problem) = &account.problem {
        return Err(problem.clone());
    }
    let (mut wanted, named) = account.to_message()?;
    let wanted_state = account.state.as_deref().unwrap_or_default();
    if !["", "testing", "active", "disabled"].contains(&wanted_state) {
        return Err(format!("state must be testing, active or disabled, not {wanted_state:?}"));
    }
    let told = |status: tonic::Status| Failure::from(status).to_string();
    let (what, mut fields, current) = match known {
        None => {
            if wanted_state == "disabled" {
                wanted.state = pb::ConnectionState::Disabled.into();
            }
            if how.dry_run {
                return Ok(("created", named));
            }
            let request =
                pb::CreateConnectionRequest { connection: Some(wanted), validate_only: false };
            let created =
                desk.create_connection(request).await.map_err(told)?.into_inner().connection;
            ("created", named, created.unwrap_or_default())
        }
        Some(known) => {
            // A connection that is read with its defaults filled in is compared with the file's own words for it.
            let in_words =
                |connection| serde_json::to_value(Account::from(connection)).unwrap_or_default();
            let words = (in_words(&wanted), in_words(known));
            let differs = |name: &String| {
                differs(name, &wanted, known, account)
                    .unwrap_or_else(|| words.0.get(name) != words.1.get(name))
            };
            let mut paths: Vec<String> = named.into_iter().filter(differs).collect();
            // ACTIVE has a verb of its own.
            if !["", "active", state_name(known.state())].contains(&wanted_state) {
                wanted.state = match wanted_state {
                    "disabled" => pb::ConnectionState::Disabled.into(),
                    _ => pb::ConnectionState::Testing.into(),
                };
                paths.push("state".to_owned());
            }
            if paths.is_empty() {
                ("unchanged", paths, known.clone())
            } else if how.dry_run {
                return Ok(("updated", paths));
            } else {
                wanted.revision = known.revision;
                let update_mask = Some(FieldMask { paths: paths.clone() });
                let request = pb::UpdateConnectionRequest {
                    connection: Some(wanted),
                    update_mask,
                    force: how.force,
                    validate_only: false,
                };
                let updated =
                    desk.update_connection(request).await.map_err(told)?.into_inner().connection;
                ("updated", paths, updated.unwrap_or_default())
            }
        }
    };
    if wanted_state != "active" || current.state() == pb::ConnectionState::Active {
        return Ok((what, fields));
    }
    fields.push("state".to_owned());
    if !how.dry_run {
        let request = pb::ActivateConnectionRequest {
            slug: account.slug.clone(),
            revision: current.revision,
            force: how.force,
        };
        let done =
            if what == "unchanged" { String::new() } else { format!("{what}, but not active: ") };
        desk.activate_connection(request).await.map_err(|status| done + &told(status))?;
    }
    Ok((if what == "unchanged" { "updated" } else { what }, fields))
}

/// Whether a named field isn't yet as it is wanted; `None`: its words tell.
fn differs(
    name: &str,
    wanted: &pb::Connection,
    known: &pb::Connection,
    account: &Account,
) -> Option<bool> {
    Some(match name {
        // One that is there already stays where it is: the service has the two change places by itself.
        "client_secret" => {
            let wanted = fingerprint(&wanted.client_secret);
            wanted != known.secret_fingerprint && wanted != known.standby_secret_fingerprint
        }
        "standby_client_secret" if wanted.standby_client_secret.is_empty() => {
            !known.standby_secret_fingerprint.is_empty()
        }
        "standby_client_secret" => {
            let wanted = fingerprint(&wanted.standby_client_secret);
            wanted != known.standby_secret_fingerprint && wanted != known.secret_fingerprint
        }
        // A time goes with its secret, wherever that is by now.
        "client_secret_expire_time" if have_changed_places(wanted, known) => false,
        "standby_client_secret_expire_time" if have_changed_places(wanted, known) => false,
        "client_secret_expire_time" => {
            wanted.client_secret_expire_time != known.client_secret_expire_time
        }
        "standby_client_secret_expire_time" => {
            wanted.standby_client_secret_expire_time != known.standby_client_secret_expire_time
        }
        // The issuer that was read at the first login isn't one that was entered.
        "issuer" => wanted.issuer != known.issuer,
        "require_verified_email" => {
            account.require_verified_email != Some(known.require_verified_email)
        }
        "allowed_email_domains" => {
            !same(&wanted.allowed_email_domains, &known.allowed_email_domains)
        }
        "allowed_tenant_ids" => !same(&wanted.allowed_tenant_ids, &known.allowed_tenant_ids),
        // What isn't named is its default, which the service fills in.
        "scopes" if wanted.scopes.is_empty() => known.scopes != DEFAULT_SCOPES,
        "claim_mapping" => {
            let (wanted, known) = (
                wanted.claim_mapping.clone().unwrap_or_default(),
                known.claim_mapping.clone().unwrap_or_default(),
            );
            let or = |names: Vec<String>, default: &str| {
                if names.is_empty() { vec![default.to_owned()] } else { names }
            };
            let whole = |mapping: pb::ClaimMapping| {
                let names = [
                    (mapping.email, "email"),
                    (mapping.given_name, "given_name"),
                    (mapping.family_name, "family_name"),
                ];
                (names.map(|(names, default)| or(names, default)), mapping.groups)
            };
            whole(wanted) != whole(known)
        }
        _ => return None,
    })
}

/// Whether what the file has as the first secret is the second one by now.
fn have_changed_places(wanted: &pb::Connection, known: &pb::Connection) -> bool {
    !wanted.client_secret.is_empty()
        && fingerprint(&wanted.client_secret) == known.standby_secret_fingerprint
}

/// The service keeps domains and tenants in lower case.
fn same(wanted: &[String], known: &[String]) -> bool {
    let lower = |domains: &[String]| {
        domains.iter().map(|domain| domain.trim().to_ascii_lowercase()).collect::<Vec<_>>()
    };
    lower(wanted) == lower(known)
}

/// As the service tells it.
fn fingerprint(secret: &str) -> String {
    ClientSecret::from_store(secret.trim().to_owned()).fingerprint()
}

fn report(applied: &[Applied], how: How) -> Result<Outcome, Failure> {
    let count = |what: &str| applied.iter().filter(|one| one.what == what).count();
    let (created, updated, unchanged, failed) =
        (count("created"), count("updated"), count("unchanged"), count("failed"));
    match how.output {
        Output::Json => {
            let one = |one: &Applied| json!({ "slug": one.slug, "result": one.what, "fields": one.fields, "error": one.error });
            let changes: Vec<_> =
                applied.iter().filter(|one| one.what != "unchanged").map(one).collect();
            print_json(&json!({
                "dry_run": how.dry_run, "created": created, "updated": updated, "unchanged": unchanged, "failed": failed,
                "connections": changes,
            }))?;
        }
        Output::Text => {
            for one in applied.iter().filter(|one| one.what != "unchanged") {
                let detail =
                    if one.error.is_empty() { one.fields.join(", ") } else { one.error.clone() };
                // Thousands of them say nothing to a person; a dry run is there to show them.
                if one.what == "failed" || how.dry_run || applied.len() <= SHOWN_ONE_BY_ONE {
                    print_line(&format!("{:<9} {}: {detail}", one.what, one.slug))?;
                }
            }
            let would = if how.dry_run { "would be: " } else { "" };
            print_line(&format!(
                "{would}{created} created, {updated} updated, {unchanged} unchanged, {failed} failed"
            ))?;
        }
    }
    Ok(if failed == 0 { Outcome::Success } else { Outcome::Failed })
}

const DEFAULT_SCOPES: [&str; 3] = ["openid", "email", "profile"];
/// Calls in flight.
const AT_ONCE: usize = 16;
const SHOWN_ONE_BY_ONE: usize = 50;
