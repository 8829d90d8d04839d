//! Connections as a YAML file (JSON is YAML, too): what `apply` reads and `export` writes. A
//! document is a `ListConnectionsResponse` in the proto's JSON mapping: on the way in with secrets
//! or the names of their files, on the way out only with the fields that can be set. Never quotes
//! the file in an error.

use std::collections::HashMap;
use std::path::Path;

use prost_reflect::Value;
use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};
use serde_saphyr::Spanned;
use serde_saphyr::options::NonFiniteFloatPolicy;

use super::super::reflection::{Mapped, reflect};
use super::super::{Failure, FieldViolation};
use super::edit::{Edit, did_you_mean, is_settable};
use super::secrets::{self, Secrets};
use crate::pb;

/// One connection of a file. Fields that it doesn't name stay as they are.
pub(super) struct Entry {
    /// `connections[3] (acme)`
    pub(super) label: String,
    pub(super) slug: String,
    pub(super) edit: Edit,
    /// What is wrong with the entry's form.
    pub(super) mistakes: Vec<FieldViolation>,
}

/// Reads a file, and the secrets that it names. `-` is standard input.
///
/// # Errors
/// The file can't be read, or isn't a list of connections. A mistake in an entry belongs to the
/// entry.
pub(super) fn read(file: &Path) -> Result<Vec<Entry>, Failure> {
    let failed = |what: String| Failure::Usage(format!("{}: {what}", file.display()));
    let text = secrets::read_text(file).map_err(|error| failed(error.to_string()))?;
    parse(&text, file.parent().unwrap_or(Path::new(""))).map_err(failed)
}

/// `folder`: relative paths of secrets start here.
fn parse(text: &str, folder: &Path) -> Result<Vec<Entry>, String> {
    let options = serde_saphyr::options! {
        budget: None,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
    };
    // The parser's own message would quote the file.
    let document: Spanned<Node> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let line =
                error.location().map_or_else(String::new, |at| format!(" at line {}", at.line()));
            format!("invalid YAML{line}")
        })?;
    let rule = "must be a list of connections: see `peerpanda-sso connection apply --help`";
    let Json::Object(mut document) = to_json(&document, text) else { return Err(rule.to_owned()) };
    let Some(Json::Array(entries)) = document.remove("connections") else {
        return Err(rule.to_owned());
    };
    if let Some(name) = document.keys().next() {
        let hint = did_you_mean(name, ["connections"].into_iter());
        return Err(format!("unknown field {name:?}{hint}"));
    }
    let entries = entries.into_iter().enumerate();
    let mut entries: Vec<_> =
        entries.map(|(index, entry)| Entry::read(index, entry, folder)).collect();
    let mut counts: HashMap<String, usize> = HashMap::new();
    for entry in &entries {
        *counts.entry(entry.slug.clone()).or_default() += 1;
    }
    counts.remove("");
    for entry in entries.iter_mut().filter(|entry| counts.get(&entry.slug) > Some(&1)) {
        let description = "must not appear more than once in a file".to_owned();
        entry.mistakes.push(FieldViolation { field: "slug".to_owned(), description });
    }
    Ok(entries)
}

impl Entry {
    fn read(index: usize, entry: Json, folder: &Path) -> Self {
        let mut mistakes = Vec::new();
        let mut violate = |field: &str, description: String| {
            mistakes.push(FieldViolation { field: field.to_owned(), description });
        };
        let mut object = match entry {
            Json::Object(object) => object,
            _ => {
                violate("", "must be a map of a connection's fields".to_owned());
                Map::new()
            }
        };
        let mut secrets = Secrets::new();
        for name in ["client_secret", "standby_client_secret"] {
            let (file, expires) = (format!("{name}_file"), format!("{name}_expires"));
            if let Some(path) = object.remove(&file).filter(|path| !path.is_null()) {
                if object.contains_key(name) {
                    violate(name, format!("must not be given together with {file}"));
                }
                match path.as_str().map(|path| secrets::read_file(&folder.join(path))) {
                    Some(Ok(secret)) => secrets.push((name, secret)),
                    Some(Err(error)) => violate(name, error),
                    None => violate(&file, "must be a text".to_owned()),
                }
            }
            if let Some(time) = object.remove(&expires) {
                let field = format!("{name}_expire_time");
                if object.contains_key(&field) {
                    violate(&field, format!("must not be given together with {expires}"));
                }
                object.insert(field, time);
            }
        }
        let slug = object.get("slug").and_then(Json::as_str).unwrap_or_default().trim().to_owned();
        let (mut edit, of_fields) = Edit::read(object);
        mistakes.extend(of_fields);
        edit.set_secrets(&secrets);
        let name = if slug.is_empty() { String::new() } else { format!(" ({slug})") };
        Self { label: format!("connections[{index}]{name}"), slug, edit, mistakes }
    }
}

/// The file that sets these connections up, except for their secrets.
pub(super) fn write(connections: Vec<pb::Connection>) -> Result<String, Failure> {
    let page = pb::ListConnectionsResponse { connections, ..Default::default() };
    let mut page = reflect(&page);
    if let Some(Value::List(connections)) = page.get_field_by_name_mut("connections") {
        for connection in connections.iter_mut().filter_map(Value::as_message_mut) {
            let outputs: Vec<_> = connection.fields().map(|(field, _)| field).collect();
            for field in outputs.iter().filter(|field| !is_settable(field.name())) {
                connection.clear_field(field);
            }
        }
    }
    serde_saphyr::to_string(&Mapped(page)).map_err(Failure::other)
}

/// A YAML node. A number or boolean keeps its spelling: `client_secret: 0123` must not become 123.
enum Node {
    Null,
    Text(String),
    Unquoted,
    List(Vec<Spanned<Node>>),
    Map(Vec<(String, Spanned<Node>)>),
}

/// Every scalar becomes a string. `source`: the YAML text.
fn to_json(node: &Spanned<Node>, source: &str) -> Json {
    match &node.value {
        Node::Null => Json::Null,
        Node::Text(text) => Json::from(text.as_str()),
        Node::Unquoted => {
            let span = node.defined.span();
            let start = span.byte_offset().unwrap_or_default() as usize;
            let end = start.saturating_add(span.byte_len().unwrap_or_default() as usize);
            Json::from(source.get(start..end).unwrap_or_default().trim())
        }
        Node::List(items) => items.iter().map(|item| to_json(item, source)).collect(),
        Node::Map(entries) => {
            entries.iter().map(|(name, value)| (name.clone(), to_json(value, source))).collect()
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

macro_rules! unquoted {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Node, E> {
            Ok(Node::Unquoted)
        })*
    };
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML node")
    }

    unquoted!(visit_bool: bool, visit_u64: u64, visit_i64: i64);
    unquoted!(visit_u128: u128, visit_i128: i128, visit_f64: f64);

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Node, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Node::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<Entry> {
        parse(text, Path::new("/nowhere")).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn mistakes(entry: &Entry) -> Vec<String> {
        let text = |it: &FieldViolation| format!("{}: {}", it.field, it.description);
        entry.mistakes.iter().map(text).collect()
    }

    #[test]
    fn a_scalar_keeps_its_spelling() {
        for (yaml, expected) in [
            ("0123", "0123"),
            ("1_000", "1_000"),
            ("0x1F", "0x1F"),
            ("1e5", "1e5"),
            ("yes", "yes"),
            ("true", "true"),
            (
                "1234567890123456789012345678901234567890123",
                "1234567890123456789012345678901234567890123",
            ),
            ("-5", "-5"),
            ("1.50", "1.50"),
            (".inf", ".inf"),
            ("2027-01-31", "2027-01-31"),
            ("\"0123\"", "0123"),
            ("'a: b'", "a: b"),
            ("ü12", "ü12"),
            ("123   # comment", "123"),
            ("!!str 123", "123"),
        ] {
            let text = format!("# ä\nconnections:\n- slug: acme\n  client_id: {yaml}\n");
            let (connection, _) = parsed(&text)[0].edit.to_message();
            assert_eq!(connection.client_id, expected, "{yaml}");
            let text = format!(
                "connections: [{{ slug: acme, scopes: [{}, x] }}]",
                yaml.replace("   # comment", "")
            );
            let (connection, _) = parsed(&text)[0].edit.to_message();
            assert_eq!(connection.scopes, [expected, "x"], "{yaml}");
        }
        let (_, fields) =
            parsed("connections: [{ slug: acme, client_id: ~, issuer: null, scopes: }]")[0]
                .edit
                .to_message();
        assert!(fields.is_empty(), "null counts as absent: {fields:?}");
    }

    #[test]
    fn files_of_earlier_versions_are_read() {
        let text = "connections:\n- slug: acme\n  state: testing\n  client_secret: s\n  \
            client_secret_expires: 2027-01-31\n  standby_client_secret_expires: 2028-01-31T12:00:00Z\n  \
            token_endpoint_auth_method: client_secret_post\n  required_claims: { hd: [a] }\n";
        let entries = parsed(text);
        let (connection, _) = entries[0].edit.to_message();
        assert_eq!(mistakes(&entries[0]), Vec::<String>::new());
        assert_eq!(connection.state(), pb::ConnectionState::Testing);
        let times =
            [connection.client_secret_expire_time, connection.standby_client_secret_expire_time];
        let times = times.map(|time| time.expect("a time").to_string());
        assert_eq!(times, ["2027-01-31T00:00:00Z", "2028-01-31T12:00:00Z"]);
    }

    #[test]
    fn a_mistake_belongs_to_its_entry() {
        let entries = parsed(
            "connections:\n- { slug: a, dicovery_url: CANARY }\n- { slug: b, client_id: c }\n- CANARY\n\
             - { slug: c, client_secret: CANARY, client_secret_file: x }\n- { slug: d }\n- { slug: d }\n- {}\n- {}\n",
        );
        assert_eq!(entries[0].label, "connections[0] (a)");
        assert_eq!(
            mistakes(&entries[0]),
            [": unknown field \"dicovery_url\"; did you mean \"discovery_url\"?"]
        );
        assert_eq!(mistakes(&entries[1]), Vec::<String>::new());
        assert_eq!(entries[2].label, "connections[2]");
        assert_eq!(mistakes(&entries[2]), [": must be a map of a connection's fields"]);
        let both = mistakes(&entries[3]);
        assert!(
            both[0].contains("must not be given together with client_secret_file")
                && both[1].contains("can't read /nowhere/x"),
            "{both:?}"
        );
        for entry in &entries[4..6] {
            assert_eq!(mistakes(entry), ["slug: must not appear more than once in a file"]);
        }
        assert!(entries[6].mistakes.is_empty(), "the service says that the slug is missing");
    }

    #[test]
    fn a_file_that_is_not_a_list_of_connections_is_refused_without_being_quoted() {
        for (text, expected) in [
            ("CANARY", "must be a list of connections"),
            ("", "must be a list of connections"),
            ("connections: CANARY", "must be a list of connections"),
            ("conections: []", "must be a list of connections"),
            (
                "connections: []\nconection: CANARY",
                "unknown field \"conection\"; did you mean \"connections\"?",
            ),
            ("connections: [{ slug: acme, client_secret: \"CANARY ]", "invalid YAML at line 1"),
            (
                "connections: [{ slug: a, client_secret: CANARY, client_secret: CANARY }]",
                "invalid YAML at line 1",
            ),
        ] {
            let error =
                parse(text, Path::new("")).err().unwrap_or_else(|| panic!("accepted {text}"));
            assert!(error.starts_with(expected) && !error.contains("CANARY"), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_written_has_the_fields_that_can_be_set_and_reads_back() {
        let connection = pb::Connection {
            slug: "acme".to_owned(),
            state: pb::ConnectionState::Active.into(),
            client_id: "0123".to_owned(),
            required_claims: vec![pb::RequiredClaim {
                name: "hd".into(),
                values: vec!["a".into()],
            }],
            client_secret_expire_time: Some("2027-01-31T00:00:00Z".parse().expect("a time")),
            revision: 7,
            redirect_uri: "https://a".to_owned(),
            secret_fingerprint: "12345678".to_owned(),
            logins: Some(pb::LoginSummary::default()),
            ..Default::default()
        };
        let text = write(vec![connection.clone()]).expect("written");
        assert!(text.contains("state: CONNECTION_STATE_ACTIVE"), "{text}");
        let entries = parsed(&text);
        assert_eq!(mistakes(&entries[0]), Vec::<String>::new(), "{text}");
        let read = entries[0].edit.to_message().0;
        let settable = pb::Connection {
            revision: 0,
            redirect_uri: String::new(),
            secret_fingerprint: String::new(),
            logins: None,
            ..connection
        };
        assert_eq!(read, settable, "{text}");
    }
}
