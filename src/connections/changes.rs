//! The differences between two versions of a connection: which fields differ, for the record of
//! changes, and which logins the difference affects.

use std::fmt;

use serde_json::Value;

use crate::model::change::FieldChange;
use crate::model::connection::{ConnectionSettings, TokenEndpointAuthMethod};
use crate::model::secret::{ClientSecret, ClientSecrets};
use crate::model::text::truncate_with_length;
use crate::model::time::UnixMillis;

/// Which logins a change of the settings affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// No login.
    None,
    /// Logins that end from now on.
    NewRules,
    /// Logins that end from now on, if the IdP doesn't know the secret.
    NewSecret,
    /// Logins that are under way can't be finished.
    OtherClient,
    /// Logins that are under way can't be finished, and the IdP's users count as new users, since the
    /// issuer is part of a person's key.
    OtherIdp,
}

impl Effect {
    /// The effect of a change from `old` to `new`, and of another active secret.
    #[must_use]
    pub fn of(old: &ConnectionSettings, new: &ConnectionSettings, has_new_secret: bool) -> Self {
        if old.login_digest() == new.login_digest() {
            if has_new_secret { Self::NewSecret } else { Self::None }
        } else if !new.has_idp_of(old) {
            Self::OtherIdp
        } else if old.client_id != new.client_id {
            Self::OtherClient
        } else {
            Self::NewRules
        }
    }
}

/// A sentence for support; empty for [`Effect::None`].
impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "",
            Self::NewRules => "every login that ends from now on follows the new settings",
            Self::NewSecret => "every login that ends from now on uses the new client secret",
            Self::OtherClient => {
                "logins that began before the change end with CONNECTION_CHANGED and must begin again"
            }
            Self::OtherIdp => {
                "logins that began before the change end with CONNECTION_CHANGED if issuer or client \
                 differ, and users of the new issuer count as new users"
            }
        })
    }
}

/// The fields that differ, by their names in the contract; secrets as fingerprints.
pub(super) fn fields(
    old: Option<(&ConnectionSettings, &ClientSecrets)>,
    new: (&ConnectionSettings, &ClientSecrets),
) -> Vec<FieldChange> {
    let before = old.map(|(settings, secrets)| texts(settings, secrets)).unwrap_or_default();
    let value_before = |field: &str| {
        let found = before.iter().find(|(name, _)| name == field);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let after = texts(new.0, new.1).into_iter();
    let changes = after.map(|(field, after)| (value_before(&field), field, after));
    let changes = changes.filter(|(before, _, after)| before != after);
    let kept = |text| truncate_with_length(text, MAX_KEPT);
    changes
        .map(|(before, field, after)| FieldChange {
            field,
            before: kept(before),
            after: kept(after),
        })
        .collect()
}

/// Every field as text.
fn texts(settings: &ConnectionSettings, secrets: &ClientSecrets) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    if let Ok(Value::Object(object)) = serde_json::to_value(settings) {
        for (name, value) in object {
            match (name.as_str(), value) {
                ("source", Value::Object(source)) => {
                    let of_kind = |kind: &str| source.get(kind).map(text).unwrap_or_default();
                    fields.push(("discovery_url".to_owned(), of_kind("discovery")));
                    fields.push(("endpoints".to_owned(), of_kind("manual")));
                }
                ("auth_method", _) => {
                    let stated = settings.stated_auth_method();
                    let stated = stated.map(TokenEndpointAuthMethod::name).unwrap_or_default();
                    fields.push(("token_endpoint_auth_method".to_owned(), stated.to_owned()));
                }
                ("auth_method_by_metadata", _) => {}
                (_, value) => fields.push((name, text(&value))),
            }
        }
    }
    let time = |time: Option<UnixMillis>| time.map(|time| time.to_string()).unwrap_or_default();
    let standby = secrets.standby.as_ref().map(ClientSecret::fingerprint).unwrap_or_default();
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

/// Characters of a field's value that are kept.
const MAX_KEPT: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::address::AddressPolicy;
    use crate::model::connection::ConnectionState;
    use crate::model::draft::Draft;
    use crate::model::secret::UncheckedSecret;

    type Adjust = fn(&mut Draft);

    fn settings(adjust: impl FnOnce(&mut Draft)) -> ConnectionSettings {
        let mut draft = Draft {
            discovery_url: "https://idp.example/.well-known/openid-configuration".to_owned(),
            client_id: "client".to_owned(),
            ..Draft::default()
        };
        adjust(&mut draft);
        draft.apply(None, &AddressPolicy::default()).expect("valid settings")
    }

    fn secrets(secret: &str) -> ClientSecrets {
        let secret = UncheckedSecret::new(secret.to_owned()).check("client_secret");
        ClientSecrets::one(secret.expect("a valid secret"))
    }

    #[test]
    fn each_field_that_differs_is_named_as_in_the_contract() {
        let old = settings(|_| {});
        let cases: [(&str, Adjust, &str, &str); 5] = [
            ("display_name", |draft| draft.display_name = "Acme".to_owned(), "", "Acme"),
            ("client_id", |draft| draft.client_id = "other".to_owned(), "client", "other"),
            ("state", |draft| draft.state = Some(ConnectionState::Disabled), "testing", "disabled"),
            (
                "allowed_email_domains",
                |draft| draft.allowed_email_domains = vec!["example.com".to_owned()],
                "",
                r#"["example.com"]"#,
            ),
            (
                "token_endpoint_auth_method",
                |draft| {
                    draft.auth_method = Some(TokenEndpointAuthMethod::ClientSecretPost);
                },
                "",
                "client_secret_post",
            ),
        ];
        for (field, adjust, before, after) in cases {
            let new = settings(adjust);
            let same = secrets("a");
            let changes = fields(Some((&old, &same)), (&new, &same));
            let expected = FieldChange {
                field: field.to_owned(),
                before: before.to_owned(),
                after: after.to_owned(),
            };
            assert_eq!(changes, [expected]);
        }
        assert_eq!(fields(Some((&old, &secrets("a"))), (&old, &secrets("a"))), []);
    }

    #[test]
    fn a_secret_appears_as_its_fingerprint_and_a_long_value_is_cut() {
        let settings = settings(|draft| draft.scopes = vec!["openid".to_owned(), "x".repeat(256)]);
        let (old, new) = (secrets("CANARY-old"), secrets("CANARY-new"));
        let changes = fields(Some((&settings, &old)), (&settings, &new));
        let [change] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!(change.field, "client_secret");
        assert_eq!(change.before, old.active.fingerprint());
        assert_eq!(change.after, new.active.fingerprint());
        assert!(truncate_with_length("ä".repeat(501), MAX_KEPT).ends_with("ä… (501 characters)"));
        assert_eq!(truncate_with_length("ä".repeat(500), MAX_KEPT), "ä".repeat(500));
    }

    #[test]
    fn the_effect_depends_on_what_logins_depend_on() {
        let old = settings(|_| {});
        let cases: [(Adjust, Effect); 5] = [
            (|_| {}, Effect::None),
            (|draft| draft.display_name = "Acme".to_owned(), Effect::None),
            (|draft| draft.require_verified_email = true, Effect::NewRules),
            (|draft| draft.client_id = "other".to_owned(), Effect::OtherClient),
            (|draft| draft.issuer = "https://other.example".to_owned(), Effect::OtherIdp),
        ];
        for (adjust, expected) in cases {
            assert_eq!(Effect::of(&old, &settings(adjust), false), expected);
            let with_secret = if expected == Effect::None { Effect::NewSecret } else { expected };
            assert_eq!(Effect::of(&old, &settings(adjust), true), with_secret);
        }
    }
}
