//! The fields of a connection that a file's entry or a command's flags name, read by the descriptor
//! of `Connection`, so that the proto alone says what a value looks like. Judges only the form; the
//! service judges the values. Quotes no value in a mistake, since it may be a secret.

use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value,
};
use prost_types::{FieldMask, Timestamp};
use secrecy::ExposeSecret;
use serde_json::{Map, Value as Json, json};

use super::super::FieldViolation;
use super::super::reflection::{descriptor, enum_names, is_timestamp};
use super::secrets::Secrets;
use crate::model::draft::DraftField;
use crate::pb;

/// Some fields of a connection. Has no `Debug`: it may hold secrets.
pub(super) struct Edit {
    connection: DynamicMessage,
    fields: Vec<String>,
}

impl Edit {
    /// Reads a JSON object in the proto's mapping, in which every scalar is a string. Also accepts
    /// short enum names, days as times, and a map from names to values as `required_claims`. A null
    /// counts as absent, an empty value clears its field. Returns what could be read, and all
    /// mistakes.
    pub(super) fn read(object: Map<String, Json>) -> (Self, Vec<FieldViolation>) {
        let mut connection = DynamicMessage::new(descriptor::<pb::Connection>());
        let (mut fields, mut mistakes) = (Vec::new(), Vec::new());
        for (name, value) in object.into_iter().filter(|(_, value)| !value.is_null()) {
            let mut violate = |field: &str, description| {
                mistakes.push(FieldViolation { field: field.to_owned(), description });
            };
            match find(&connection.descriptor(), &name) {
                None => violate("", unknown(&name, &connection.descriptor())),
                Some(field) if !is_settable(field.name()) => {
                    violate(&name, "can't be set: it is output only".to_owned());
                }
                Some(field) => match read_field(&field, &value) {
                    Ok(value) => {
                        if let Some(value) = value {
                            connection.set_field(&field, value);
                        }
                        fields.push(field.name().to_owned());
                    }
                    Err(description) => violate(field.name(), description),
                },
            }
        }
        (Self { connection, fields }, mistakes)
    }

    pub(super) fn set_secrets(&mut self, secrets: &Secrets) {
        for (field, secret) in secrets {
            let secret = Value::String(secret.expose_secret().to_owned());
            self.connection.set_field_by_name(field, secret);
            self.fields.push((*field).to_owned());
        }
    }

    /// The message, and the names of its fields that were given; an update takes these.
    pub(super) fn to_message(&self) -> (pb::Connection, Vec<String>) {
        let connection: pb::Connection =
            self.connection.transcode_to().expect("the descriptor is Connection's");
        let mut fields = self.fields.clone();
        fields.retain(|name| name != "slug");
        // The one replaces the other.
        let is_named = |name: &str| self.fields.iter().any(|field| field == name);
        if !connection.discovery_url.is_empty() && !is_named("endpoints") {
            fields.push("endpoints".to_owned());
        } else if connection.endpoints.is_some() && !is_named("discovery_url") {
            fields.push("discovery_url".to_owned());
        }
        (connection, fields)
    }
}

/// Whether support can set the field.
pub(super) fn is_settable(name: &str) -> bool {
    name == "slug" || DraftField::parse(name).is_some() || SECRET_FIELDS.contains(&name)
}

/// The mask that names these fields.
pub(super) fn mask(paths: Vec<String>) -> Option<FieldMask> {
    Some(FieldMask { paths })
}

fn find(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_name(name).or_else(|| message.get_field_by_json_name(name))
}

fn unknown(name: &str, message: &MessageDescriptor) -> String {
    let fields = message
        .fields()
        .filter(|field| is_settable(field.name()) || *message != descriptor::<pb::Connection>());
    let names: Vec<_> = fields.map(|field| field.name().to_owned()).collect();
    let hint = did_you_mean(name, names.iter().map(String::as_str));
    format!("unknown field {name:?}{hint}")
}

/// `; did you mean "…"?` for the most similar name; empty where none is similar.
pub(super) fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let scored = known.map(|known| (strsim::jaro_winkler(name, known), known));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.85);
    best.map_or_else(String::new, |(_, known)| format!("; did you mean {known:?}?"))
}

/// `None`: the field is cleared. The error is the mistake's description.
fn read_field(field: &FieldDescriptor, given: &Json) -> Result<Option<Value>, String> {
    let kind = field.kind();
    match (given, &kind) {
        (Json::Object(entries), _) if field.is_map() => {
            let entry = |(name, value): (&String, &Json)| {
                let value = value.as_str().ok_or("must be a map from names to texts")?;
                Ok((MapKey::String(name.clone()), Value::String(value.to_owned())))
            };
            Ok(Some(Value::Map(entries.iter().map(entry).collect::<Result<_, String>>()?)))
        }
        _ if field.is_map() => Err("must be a map from names to texts".to_owned()),
        (Json::Array(items), _) if field.is_list() => {
            let items = items.iter().filter_map(|item| read_value(&kind, item).transpose());
            Ok(Some(Value::List(items.collect::<Result<_, _>>()?)))
        }
        // A map from names to values is the short form of a list of RequiredClaim.
        (Json::Object(claims), Kind::Message(_)) if field.is_list() => {
            let claim = |(name, values)| json!({ "name": name, "values": values });
            read_field(field, &claims.iter().map(claim).collect())
        }
        _ if field.is_list() => Err("must be a list".to_owned()),
        _ => read_value(&kind, given),
    }
}

fn read_value(kind: &Kind, given: &Json) -> Result<Option<Value>, String> {
    match (kind, given) {
        (Kind::String, Json::String(text)) => Ok(Some(Value::String(text.clone()))),
        (Kind::String, _) => Err("must be a text".to_owned()),
        (Kind::Bool, _) => match given.as_str() {
            Some("true" | "yes" | "on") => Ok(Some(Value::Bool(true))),
            Some("false" | "no" | "off") => Ok(Some(Value::Bool(false))),
            _ => Err("must be true or false".to_owned()),
        },
        (Kind::Enum(descriptor), _) => {
            let text = given.as_str().unwrap_or_default().trim();
            let is_given = |name: &str| text.eq_ignore_ascii_case(name);
            let names: Vec<_> = enum_names(descriptor).collect();
            match names.iter().find(|(full, short, _)| is_given(full) || is_given(short)) {
                Some((_, _, number)) => Ok(Some(Value::EnumNumber(*number))),
                None => {
                    let names: Vec<_> = names.into_iter().map(|(_, short, _)| short).collect();
                    Err(format!("must be {}", names.join(" or ")))
                }
            }
        }
        (Kind::Message(descriptor), _) if is_timestamp(kind) => {
            Ok(parse_time(given.as_str().unwrap_or("?"))?.map(|time| {
                let mut value = DynamicMessage::new(descriptor.clone());
                value.transcode_from(&time).expect("the descriptor is Timestamp's");
                Value::Message(value)
            }))
        }
        (Kind::Message(descriptor), Json::Object(given)) => {
            let mut message = DynamicMessage::new(descriptor.clone());
            for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                let field = find(descriptor, name).ok_or_else(|| unknown(name, descriptor))?;
                let value = read_field(&field, value).map_err(|what| format!("{name} {what}"))?;
                if let Some(value) = value {
                    message.set_field(&field, value);
                }
            }
            Ok(Some(Value::Message(message)))
        }
        _ => Err("must be a map".to_owned()),
    }
}

/// RFC 3339, or a day, which means its beginning in UTC. `None` for an empty text.
///
/// # Errors
/// The mistake's description.
pub(super) fn parse_time(text: &str) -> Result<Option<Timestamp>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let time = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let rule = "must be a time such as 2027-01-31 or 2027-01-31T12:00:00Z";
    time.parse().map(Some).map_err(|_| rule.to_owned())
}

pub(super) const SECRET_FIELDS: [&str; 4] = [
    "client_secret",
    "client_secret_expire_time",
    "standby_client_secret",
    "standby_client_secret_expire_time",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(object: Json) -> (pb::Connection, Vec<String>, Vec<String>) {
        let Json::Object(object) = object else { panic!("not an object") };
        let (edit, mistakes) = Edit::read(object);
        let (connection, fields) = edit.to_message();
        let mistakes = mistakes.iter().map(|it| format!("{}: {}", it.field, it.description));
        (connection, fields, mistakes.collect())
    }

    #[test]
    fn a_field_is_read_in_each_spelling() {
        use pb::{LogoutStyle, TokenEndpointAuthMethod};
        for method in [
            "client_secret_post",
            "TOKEN_ENDPOINT_AUTH_METHOD_CLIENT_SECRET_POST",
            "Client_Secret_Post",
        ] {
            let (connection, fields, mistakes) =
                read(json!({ "token_endpoint_auth_method": method }));
            assert_eq!(
                connection.token_endpoint_auth_method(),
                TokenEndpointAuthMethod::ClientSecretPost
            );
            assert_eq!((fields.len(), mistakes.len()), (1, 0), "{method}: {mistakes:?}");
        }
        let (connection, fields, mistakes) = read(json!({
            "slug": "acme", "displayName": "Acme", "logout_style": "rp_initiated",
            "require_verified_email": "true", "scopes": ["openid", "email"],
            "required_claims": { "hd": ["a", "b"] }, "authorization_params": { "hd": "a" },
            "claim_mapping": { "email": ["mail"], "groups": "roles" },
            "client_secret_expire_time": "2027-01-31", "issuer": null,
        }));
        assert_eq!(mistakes, Vec::<String>::new());
        assert_eq!((connection.slug.as_str(), connection.display_name.as_str()), ("acme", "Acme"));
        assert_eq!(connection.logout_style(), LogoutStyle::RpInitiated);
        assert!(connection.require_verified_email && connection.scopes == ["openid", "email"]);
        let claim =
            pb::RequiredClaim { name: "hd".to_owned(), values: vec!["a".into(), "b".into()] };
        assert_eq!(connection.required_claims, [claim]);
        assert_eq!(connection.authorization_params["hd"], "a");
        let mapping = connection.claim_mapping.expect("a mapping");
        assert_eq!((mapping.email, mapping.groups), (vec!["mail".to_owned()], "roles".to_owned()));
        let time = connection.client_secret_expire_time.expect("a time");
        assert_eq!(time.to_string(), "2027-01-31T00:00:00Z");
        assert!(!fields.contains(&"slug".to_owned()) && !fields.contains(&"issuer".to_owned()));
    }

    #[test]
    fn an_empty_value_clears_the_field() {
        let (connection, fields, mistakes) =
            read(json!({ "scopes": [], "display_name": "", "client_secret_expire_time": "" }));
        assert!(mistakes.is_empty() && connection == pb::Connection::default());
        let mut fields = fields;
        fields.sort();
        assert_eq!(fields, ["client_secret_expire_time", "display_name", "scopes"]);
    }

    #[test]
    fn discovery_url_and_endpoints_replace_each_other() {
        let endpoints = json!({ "authorization_endpoint": "a", "token_endpoint": "t" });
        for (object, expected) in [
            (json!({ "discovery_url": "https://a" }), ["discovery_url", "endpoints"]),
            (json!({ "endpoints": endpoints }), ["endpoints", "discovery_url"]),
            (
                json!({ "endpoints": endpoints, "discovery_url": "b" }),
                ["discovery_url", "endpoints"],
            ),
        ] {
            assert_eq!(read(object.clone()).1, expected, "{object}");
        }
    }

    #[test]
    fn every_mistake_is_reported_by_its_field_and_without_its_value() {
        let (_, fields, mistakes) = read(json!({
            "dicovery_url": "CANARY", "zzz": "CANARY", "revision": "1", "client_secret": ["CANARY"],
            "scopes": "CANARY", "require_verified_email": "CANARY", "claim_mapping": { "emial": [] },
            "authorization_params": { "a": ["CANARY"] }, "logout_style": "CANARY",
            "client_secret_expire_time": "CANARY", "endpoints": { "jwks_uri": {} }, "client_id": "c",
        }));
        let all = mistakes.join("\n");
        for expected in [
            ": unknown field \"dicovery_url\"; did you mean \"discovery_url\"?",
            ": unknown field \"zzz\"",
            "revision: can't be set: it is output only",
            "client_secret: must be a text",
            "scopes: must be a list",
            "require_verified_email: must be true or false",
            "claim_mapping: unknown field \"emial\"; did you mean \"email\"?",
            "authorization_params: must be a map from names to texts",
            "logout_style: must be auto or rp_initiated or auth0_v2 or cognito or none",
            "client_secret_expire_time: must be a time such as 2027-01-31 or 2027-01-31T12:00:00Z",
            "endpoints: jwks_uri must be a text",
        ] {
            assert!(mistakes.iter().any(|mistake| mistake == expected), "{expected}\nin\n{all}");
        }
        assert!(mistakes.len() == 11 && !all.contains("CANARY"), "{all}");
        assert_eq!(fields, ["client_id"], "the rest is read");
    }
}
