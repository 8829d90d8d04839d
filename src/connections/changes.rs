//! What a change of a connection is, in words: for the record, and for who is about to make it.

use serde_json::Value;

use crate::model::connection::{ClientSecrets, Connection, ConnectionSettings};

/// Name, before and after of each field that differs; secrets as fingerprints.
pub(super) fn fields(
    old: Option<(&ConnectionSettings, &ClientSecrets)>,
    new: (&ConnectionSettings, &ClientSecrets),
) -> Vec<(String, String, String)> {
    let before = old.map(|(settings, secrets)| shown(settings, secrets)).unwrap_or_default();
    let after = shown(new.0, new.1);
    let was = |name: &str| {
        before
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, value)| value.clone())
            .unwrap_or_default()
    };
    let pairs = after.into_iter().map(|(name, value)| (was(&name), name, value));
    pairs
        .filter(|(was, _, value)| was != value)
        .map(|(was, name, value)| (name, cut(was), cut(value)))
        .collect()
}

/// Which logins a change of the settings affects; empty: none.
pub(super) fn effect(old: &Connection, new: &ConnectionSettings) -> String {
    if old.settings.login_digest() == new.login_digest() {
        return String::new();
    }
    let is_other_idp = !new.has_idp_of(&old.settings);
    if is_other_idp || old.settings.client_id != new.client_id {
        let people =
            if is_other_idp { ", and people of another issuer are other people" } else { "" };
        return format!(
            "logins begun before it end with CONNECTION_CHANGED if issuer or client differ, and begin again{people}"
        );
    }
    "every login that ends from now on follows the new settings".to_owned()
}

/// Every field as text, under its name in the contract.
fn shown(settings: &ConnectionSettings, secrets: &ClientSecrets) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    if let Ok(Value::Object(object)) = serde_json::to_value(settings) {
        for (name, value) in object {
            match (name.as_str(), value) {
                ("source", Value::Object(source)) => {
                    let by_kind = |kind: &str| source.get(kind).map(text).unwrap_or_default();
                    fields.push(("discovery_url".to_owned(), by_kind("discovery")));
                    fields.push(("endpoints".to_owned(), by_kind("manual")));
                }
                ("auth_method", value) => {
                    fields.push(("token_endpoint_auth_method".to_owned(), text(&value)))
                }
                (_, value) => fields.push((name, text(&value))),
            }
        }
    }
    let time = |expires: Option<u64>| {
        let at =
            expires.map(|millis| std::time::UNIX_EPOCH + std::time::Duration::from_millis(millis));
        at.map(|at| humantime::format_rfc3339_seconds(at).to_string()).unwrap_or_default()
    };
    let standby = secrets.standby.as_ref().map(|secret| secret.fingerprint()).unwrap_or_default();
    fields.extend([
        ("client_secret".to_owned(), secrets.active.fingerprint()),
        ("client_secret_expire_time".to_owned(), time(secrets.active_expire)),
        ("standby_client_secret".to_owned(), standby),
        ("standby_client_secret_expire_time".to_owned(), time(secrets.standby_expire)),
    ]);
    fields
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => String::new(),
        Value::Object(object) if object.is_empty() => String::new(),
        other => other.to_string(),
    }
}

/// Of what is too long to keep, its beginning, and how much more there is.
fn cut(text: String) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}… ({} characters)", &text[..end], text.chars().count()),
        None => text,
    }
}

/// Characters of a field's value.
const MAX_SHOWN: usize = 500;
