//! What a change changed, for people: of an update or a restoration just made, and the record of all
//! changes of an account.

use std::collections::BTreeSet;

use anstyle::Style;
use prost_reflect::ReflectMessage;
use serde_json::{Map, Value as Json};

use super::super::client::Admin;
use super::super::layout::{print_labelled, print_text};
use super::super::reflection::{Mapped, reflect, text, time_text};
use super::super::{Failure, Output};
use super::{get, print};
use crate::pb;

/// All recorded changes of an account, newest first.
pub(super) async fn list(admin: &mut Admin, slug: String, output: Output) -> Result<(), Failure> {
    let mut all = pb::ListConnectionChangesResponse::default();
    let mut page_token = String::new();
    loop {
        let slug = slug.clone();
        let request = pb::ListConnectionChangesRequest { slug, page_size: 1000, page_token };
        let page = admin.list_connection_changes(request).await?.into_inner();
        all.changes.extend(page.changes);
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    print(output, &all, |all| all.changes.iter().try_for_each(recorded))
}

fn recorded(change: &pb::ConnectionChange) -> Result<(), Failure> {
    let forced = if change.is_forced { " (forced)" } else { "" };
    let hosts = match change.hosts.as_slice() {
        [] => String::new(),
        hosts => format!(" at {}", hosts.join(", ")),
    };
    let revision = match (change.revision, change.can_restore) {
        (0, _) => String::new(),
        (revision, true) => format!("  revision {revision} (can be restored)"),
        (revision, false) => format!("  revision {revision}"),
    };
    let pb::ConnectionChange { action, actor, .. } = change;
    let head = format!("{}{revision}", time_text(change.time.as_ref()));
    let what = format!("{action}{forced} by {actor}{hosts}");
    print_labelled(0, &head, Style::new().bold(), &what)?;
    let difference = |it: &pb::FieldChange| difference(&it.field, &of(&it.before), &of(&it.after));
    change.fields.iter().flat_map(difference).try_for_each(|line| print_text(INDENT, &line))
}

/// The present connection, and what `changed_fields` says about an update or a restoration of it.
pub(super) fn print_changed(
    before: &pb::Connection,
    after: &pb::Connection,
    changed_fields: &[String],
) -> Result<(), Failure> {
    let pb::Connection { slug, revision, .. } = after;
    if changed_fields.is_empty() {
        return print_text(0, &format!("{slug}: nothing has changed (revision {revision})"));
    }
    print_text(0, &format!("{slug}: revision {} -> {revision}", before.revision))?;
    let [old, new] = [before, after].map(values);
    for field in changed_fields {
        let of =
            |values: &Map<String, Json>| values.get(shown_as(field)).cloned().unwrap_or(Json::Null);
        let lines = difference(field, &of(&old), &of(&new));
        lines.iter().try_for_each(|line| print_text(INDENT, line))?;
    }
    Ok(())
}

/// Makes an earlier revision the present one.
pub(super) async fn restore(
    admin: &mut Admin,
    slug: String,
    revision: u64,
    force: bool,
    output: Output,
) -> Result<(), Failure> {
    let before = get(admin, &slug).await?;
    let current_revision = before.revision;
    let request = pb::RestoreConnectionRequest { slug, revision, force, current_revision };
    let restored = admin.restore_connection(request).await?.into_inner();
    print(output, &restored, |it| {
        let after = it.connection.clone().unwrap_or_default();
        print_changed(&before, &after, &it.changed_fields)?;
        print_text(0, &super::note(&it.effect))
    })
}

/// The field that shows a secret.
fn shown_as(field: &str) -> &str {
    match field {
        "client_secret" => "secret_fingerprint",
        "standby_client_secret" => "standby_secret_fingerprint",
        field => field,
    }
}

/// The fields in JSON, scalars as people read them.
fn values(connection: &pb::Connection) -> Map<String, Json> {
    let message = reflect(connection);
    let descriptor = message.descriptor();
    let Ok(Json::Object(mut values)) = serde_json::to_value(Mapped(message)) else {
        return Map::new();
    };
    for field in descriptor.fields() {
        if let Some(value) = values.get_mut(field.name())
            && !value.is_array()
            && !value.is_object()
        {
            *value = Json::from(text(&field.kind(), value));
        }
    }
    values
}

/// A recorded value: lists and maps are recorded as JSON.
fn of(recorded: &str) -> Json {
    match recorded.chars().next() {
        None => Json::Null,
        Some('[' | '{') => serde_json::from_str(recorded).unwrap_or_else(|_| recorded.into()),
        Some(_) => recorded.into(),
    }
}

/// Items that a list gained and lost, members of a map that differ, or old and new.
fn difference(field: &str, before: &Json, after: &Json) -> Vec<String> {
    match (before, after) {
        (Json::Object(before), Json::Object(after)) => members(field, before, after),
        (Json::Object(before), Json::Null) => members(field, before, &Map::new()),
        (Json::Null, Json::Object(after)) => members(field, &Map::new(), after),
        (Json::Array(old), Json::Array(new)) => {
            let changes = [items("-", old, new), items("+", new, old)].concat();
            match changes.as_slice() {
                // In another order.
                [] => vec![format!("{field}: {} -> {}", scalar(before), scalar(after))],
                _ => vec![format!("{field}: {}", changes.join(", "))],
            }
        }
        _ => vec![format!("{field}: {} -> {}", scalar(before), scalar(after))],
    }
}

/// The items of `these` that `those` lacks.
fn items(sign: &str, these: &[Json], those: &[Json]) -> Vec<String> {
    let those: BTreeSet<String> = those.iter().map(scalar).collect();
    let lacking = these.iter().map(scalar).filter(|item| !those.contains(item));
    lacking.map(|item| format!("{sign} {item}")).collect()
}

fn members(field: &str, before: &Map<String, Json>, after: &Map<String, Json>) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let of = |name: &str| {
        [before, after].map(|members| members.get(name).cloned().unwrap_or(Json::Null))
    };
    let lines = names.into_iter().flat_map(|name| match of(name) {
        // Absent and empty are the same.
        [old, new] if scalar(&old) == scalar(&new) => Vec::new(),
        [old, new] => difference(&format!("{field}.{name}"), &old, &new),
    });
    lines.collect()
}

fn scalar(value: &Json) -> String {
    match value {
        Json::Null => NOT_SET.to_owned(),
        Json::String(text) if text.is_empty() => NOT_SET.to_owned(),
        Json::String(text) => text.clone(),
        Json::Array(items) if items.is_empty() => NOT_SET.to_owned(),
        Json::Array(items) => items.iter().map(scalar).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

const NOT_SET: &str = "not set";
const INDENT: usize = 4;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_names_what_differs() {
        for (before, after, expected) in [
            (json!("Acme"), json!("Acme Inc."), &["f: Acme -> Acme Inc."][..]),
            (json!(null), json!("x"), &["f: not set -> x"]),
            (json!("x"), json!(""), &["f: x -> not set"]),
            (json!(["a", "b"]), json!(["b", "c", "d"]), &["f: - a, + c, + d"]),
            (json!(["a", "b"]), json!(["b", "a"]), &["f: a, b -> b, a"]),
            (json!(null), json!(["a"]), &["f: not set -> a"]),
            (
                json!({ "email": ["email"], "groups": "g" }),
                json!({ "email": ["mail"], "groups": "g", "given_name": ["n"] }),
                &["f.email: - email, + mail", "f.given_name: not set -> n"],
            ),
            (json!(null), json!({ "groups": null, "email": [] }), &[]),
            (json!(true), json!(false), &["f: true -> false"]),
        ] {
            assert_eq!(difference("f", &before, &after), expected);
        }
        assert_eq!(of(r#"["a"]"#), json!(["a"]));
        assert_eq!(of("[cut… (800)"), json!("[cut… (800)"));
    }

    #[test]
    fn a_secret_is_shown_by_its_fingerprint() {
        let connection = |fingerprint: &str| pb::Connection {
            secret_fingerprint: fingerprint.to_owned(),
            ..Default::default()
        };
        let [old, new] = ["aaaaaaaa", "bbbbbbbb"].map(|it| values(&connection(it)));
        let name = shown_as("client_secret");
        let lines = difference("client_secret", &old[name], &new[name]);
        assert_eq!(lines, ["client_secret: aaaaaaaa -> bbbbbbbb"]);
    }
}
