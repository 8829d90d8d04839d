//! The rows of the tables, and their conversion to and from the model. Columns with JSON must stay
//! readable by the previous and the next version, since both run during a rolling upgrade: settings get
//! new members only at the top, which an older version keeps. Where an older version must not go on
//! without understanding the new member or value, it is written with a `min_format` above `FORMAT`.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::FromRow;
use zeroize::Zeroizing;

use super::{from_i64, saturating_i64};
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::model::attempt::TestLogin;
use crate::model::change::ChangeRecord;
use crate::model::check::CheckRecord;
use crate::model::connection::{Connection, ConnectionSettings, Issuer, SecretBinding};
use crate::model::secret::{ClientSecret, ClientSecrets};
use crate::model::slug::Slug;
use crate::model::time::{UnixMillis, UnixSeconds};
use crate::model::unreadable::{StoredConnection, Unreadable, UnreadableConnection};
use crate::store::seal::{CannotOpen, Keyring};
use crate::store::{ChangeDetails, StoreError, StoredSigningKey};

/// Converts rows, and seals and opens the secrets in them.
#[derive(Clone)]
pub struct RowCodec {
    /// Seals and opens the secrets.
    pub keyring: Arc<Keyring>,
    /// For the nonces of sealing.
    pub entropy: Arc<dyn Entropy>,
    /// For the times of changes.
    pub clock: Arc<dyn Clock>,
}

/// A row of `connections`.
#[derive(FromRow)]
pub(super) struct ConnectionRow {
    pub(super) slug: String,
    pub(super) incarnation: i64,
    pub(super) revision: i64,
    pub(super) settings: String,
    pub(super) pinned_issuer: Option<String>,
    pub(super) client_secret: Vec<u8>,
    pub(super) standby_secret: Option<Vec<u8>>,
    pub(super) secret_expire: Option<i64>,
    pub(super) standby_expire: Option<i64>,
    pub(super) secret_switched: Option<i64>,
    pub(super) last_check: Option<String>,
    pub(super) last_proposal: Option<String>,
    pub(super) test_login_digest: Option<String>,
    pub(super) test_login_time: Option<i64>,
    pub(super) create_time: i64,
    pub(super) update_time: i64,
}

/// A row of `signing_keys`.
#[derive(FromRow)]
pub(super) struct SigningKeyRow {
    pub(super) generation: i64,
    pub(super) create_time: i64,
    pub(super) private_key: Vec<u8>,
}

impl RowCodec {
    /// Reads a row. One that can't be read is the result, too, so that it hides no other.
    ///
    /// # Errors
    /// The slug is invalid: the row belongs to no account.
    pub(super) fn connection(&self, row: ConnectionRow) -> Result<StoredConnection, StoreError> {
        let slug = Slug::parse(&row.slug)
            .ok_or_else(|| StoreError::Unreadable("a connection has an invalid slug".to_owned()))?;
        let unreadable = UnreadableConnection {
            revision: from_i64(row.revision),
            create_time: millis(row.create_time),
            update_time: millis(row.update_time),
            slug,
            why: Unreadable::Settings,
            detail: String::new(),
            without_secrets: None,
        };
        let settings = match read_settings(&row.settings) {
            Ok(settings) => settings,
            Err((why, detail)) => {
                return Ok(Err(Box::new(UnreadableConnection { why, detail, ..unreadable })));
            }
        };
        let slug = &unreadable.slug;
        let binding = settings.secret_binding();
        let mut fault = None;
        let mut open = |sealed: &[u8]| {
            self.client_secret(slug, &binding, sealed).unwrap_or_else(|detail| {
                fault = Some(detail);
                ClientSecret::missing()
            })
        };
        let secrets = ClientSecrets {
            active: open(&row.client_secret),
            active_expire: row.secret_expire.map(millis),
            standby: row.standby_secret.as_deref().map(open),
            standby_expire: row.standby_expire.map(millis),
        };
        let test_login = row.test_login_digest.zip(row.test_login_time);
        let connection = Connection {
            slug: slug.clone(),
            incarnation: from_i64(row.incarnation),
            revision: unreadable.revision,
            settings,
            pinned_issuer: row.pinned_issuer.map(Issuer::new),
            secrets,
            secret_switched: row.secret_switched.map(millis),
            last_check: check_record(slug, row.last_check),
            last_proposal: check_record(slug, row.last_proposal),
            test_login: test_login.map(|(proof, time)| TestLogin { proof, time: millis(time) }),
            create_time: unreadable.create_time,
            update_time: unreadable.update_time,
        };
        Ok(match fault {
            None => Ok(connection),
            Some(detail) => Err(Box::new(UnreadableConnection {
                why: Unreadable::Secret,
                detail,
                without_secrets: Some(connection),
                ..unreadable
            })),
        })
    }

    /// The error is for the log.
    fn client_secret(
        &self,
        slug: &Slug,
        binding: &SecretBinding,
        sealed: &[u8],
    ) -> Result<ClientSecret, String> {
        let secret = self.open_secret(slug.as_str(), binding, sealed);
        let secret = secret.map_err(|error| format!("client secret: {error}"))?;
        let secret = std::str::from_utf8(&secret);
        let secret = secret.map_err(|_| "client secret: not UTF-8 text".to_owned())?;
        Ok(ClientSecret::from_store(secret.to_owned()))
    }

    /// Seals a secret that was entered for these settings.
    pub(super) fn seal_secret(
        &self,
        slug: &Slug,
        settings: &ConnectionSettings,
        secret: &ClientSecret,
    ) -> Vec<u8> {
        let context = secret_context(slug.as_str(), &settings.secret_binding());
        self.seal(&context, secret.expose().as_bytes())
    }

    /// Opens a secret that was entered for this binding, or that 0.1 sealed for the account alone.
    fn open_secret(
        &self,
        slug: &str,
        binding: &SecretBinding,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        let bound = self.keyring.open(&secret_context(slug, binding), sealed);
        bound.or_else(|_| self.keyring.open(&unbound_secret_context(slug), sealed))
    }

    /// The record of a change, as JSON.
    pub(super) fn change_record(
        &self,
        details: &ChangeDetails,
        revision: i64,
    ) -> Result<String, StoreError> {
        to_json(&ChangeRecord {
            time: self.now(),
            actor: details.actor.clone(),
            action: details.action.to_owned(),
            revision: from_i64(revision),
            fields: details.fields.clone(),
            is_forced: details.is_forced,
            hosts: details.hosts.clone(),
        })
    }

    pub(super) fn signing_key(&self, row: &SigningKeyRow) -> Result<StoredSigningKey, StoreError> {
        let generation = row.generation;
        let opened = self.keyring.open(&signing_key_context(generation), &row.private_key);
        let pkcs8 = opened.map_err(|error| {
            StoreError::Unreadable(format!("signing key {generation}: {error}"))
        })?;
        Ok(StoredSigningKey {
            generation: from_i64(generation),
            created_at: UnixSeconds(from_i64(row.create_time)),
            pkcs8,
        })
    }

    pub(super) fn seal_signing_key(&self, key: &StoredSigningKey) -> Vec<u8> {
        self.seal(&signing_key_context(saturating_i64(key.generation)), &key.pkcs8)
    }

    /// Seals a sealed value again, under the newest key and for this context. `None`: it already is.
    /// `former`: the context for which an earlier version sealed it.
    pub(super) fn reseal(
        &self,
        context: &str,
        former: Option<&str>,
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, CannotOpen> {
        let opened = match (self.keyring.open(context, sealed), former) {
            (Ok(_), _) if self.keyring.is_newest(sealed) => return Ok(None),
            (Ok(opened), _) => opened,
            (Err(_), Some(former)) => self.keyring.open(former, sealed)?,
            (Err(error), None) => return Err(error),
        };
        Ok(Some(self.seal(context, &opened)))
    }

    /// A random mark of a change.
    pub(super) fn mark(&self) -> String {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        hex::encode(bytes)
    }

    pub(super) fn now(&self) -> UnixMillis {
        self.clock.unix_millis()
    }

    fn seal(&self, context: &str, plaintext: &[u8]) -> Vec<u8> {
        self.keyring.seal(self.entropy.as_ref(), context, plaintext)
    }
}

/// The format of settings that this version writes and understands.
const FORMAT: u32 = 1;

fn read_settings(json: &str) -> Result<ConnectionSettings, (Unreadable, String)> {
    #[derive(Deserialize)]
    struct Header {
        #[serde(default)]
        min_format: u32,
    }
    let damaged = |error: serde_json::Error| (Unreadable::Settings, format!("settings: {error}"));
    let header: Header = serde_json::from_str(json).map_err(damaged)?;
    if header.min_format > FORMAT {
        let detail = format!("settings: format {}, this version has {FORMAT}", header.min_format);
        return Err((Unreadable::NewerVersion, detail));
    }
    serde_json::from_str(json).map_err(damaged)
}

/// The settings to write in the place of stored ones: with the members that a newer version added, which
/// this one doesn't know.
///
/// # Errors
/// A newer version added a member further inside, which an edit would lose.
pub(super) fn replaced_settings(
    stored: &str,
    settings: &ConnectionSettings,
) -> Result<String, StoreError> {
    let as_stored: Value = from_json(stored)?;
    let as_known: Value = match read_settings(stored) {
        Ok(known) => to_value(&known)?,
        Err((why, detail)) => return Err(StoreError::ConnectionUnreadable { why, detail }),
    };
    let mut replaced = to_value(settings)?;
    let (Value::Object(as_stored), Value::Object(members)) = (as_stored, &mut replaced) else {
        return Err(StoreError::Unreadable("settings: not an object".to_owned()));
    };
    for (name, value) in as_stored {
        match as_known.get(&name) {
            None => {
                members.insert(name, value);
            }
            Some(known) if lacks_member_of(known, &value) => {
                let why = Unreadable::NewerVersion;
                let detail = format!("settings: {name} has members of a newer version");
                return Err(StoreError::ConnectionUnreadable { why, detail });
            }
            Some(_) => {}
        }
    }
    to_json(&replaced)
}

/// Whether `known`, which was read from `stored` and written again, has lost a member of it.
fn lacks_member_of(known: &Value, stored: &Value) -> bool {
    match (known, stored) {
        (Value::Object(known), Value::Object(stored)) => stored
            .iter()
            .any(|(name, value)| known.get(name).is_none_or(|it| lacks_member_of(it, value))),
        (Value::Array(known), Value::Array(stored)) => {
            known.len() != stored.len()
                || known.iter().zip(stored).any(|(known, stored)| lacks_member_of(known, stored))
        }
        _ => false,
    }
}

/// A record that can't be read, as of a newer version, counts as none: the check can be repeated.
fn check_record(slug: &Slug, json: Option<String>) -> Option<CheckRecord> {
    serde_json::from_str(&json?)
        .inspect_err(|error| {
            tracing::warn!(account.slug = %slug, %error, "failed to read the record of a check");
        })
        .ok()
}

/// A record that can't be read, as of a newer version, is shown as one, so that the history has no gap.
pub(super) fn change_record(json: &str) -> ChangeRecord {
    serde_json::from_str(json).unwrap_or_else(|error| {
        tracing::warn!(%error, "failed to read the record of a change");
        ChangeRecord {
            time: UnixMillis(0),
            actor: String::new(),
            action: "unreadable".to_owned(),
            revision: 0,
            fields: Vec::new(),
            is_forced: false,
            hosts: Vec::new(),
        }
    })
}

fn to_value(value: &impl Serialize) -> Result<Value, StoreError> {
    serde_json::to_value(value).map_err(|error| StoreError::Unreadable(error.to_string()))
}

pub(super) fn to_json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unreadable(error.to_string()))
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Unreadable(error.to_string()))
}

pub(super) fn millis(number: i64) -> UnixMillis {
    UnixMillis(from_i64(number))
}

/// The context under which a client secret is sealed: it opens only in this row, and only while the row
/// names the origin and the client for which it was entered. Both secrets of a connection share it, since
/// they change places.
pub(super) fn secret_context(slug: &str, binding: &SecretBinding) -> String {
    let SecretBinding { origin, client_id } = binding;
    // JSON, so that no two bindings have one text.
    serde_json::json!(["connections", slug, "client_secret", origin, client_id]).to_string()
}

/// The context under which 0.1 sealed a client secret. Still opened, until the master key is replaced.
pub(super) fn unbound_secret_context(slug: &str) -> String {
    format!("connections/{slug}/client_secret")
}

/// The context under which a signing key is sealed.
pub(super) fn signing_key_context(generation: i64) -> String {
    format!("signing_keys/{generation}/private_key")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::entropy::SystemEntropy;
    use crate::model::address::AddressPolicy;
    use crate::model::cause::Cause;
    use crate::model::change::FieldChange;
    use crate::model::draft::Draft;
    use crate::store::seal::MasterKey;

    fn codec(keys: &[&MasterKey]) -> RowCodec {
        let keys = keys.iter().map(|key| (*key).clone()).collect();
        RowCodec {
            keyring: Arc::new(Keyring::new(keys).expect("a key")),
            entropy: Arc::new(SystemEntropy),
            clock: Arc::new(SystemClock),
        }
    }

    fn slug() -> Slug {
        Slug::parse("acme").expect("a slug")
    }

    fn row(codec: &RowCodec) -> ConnectionRow {
        let draft = Draft {
            discovery_url: "https://idp.example/.well-known/openid-configuration".to_owned(),
            client_id: "client".to_owned(),
            ..Draft::default()
        };
        let settings = draft.apply(None, &AddressPolicy::default()).expect("valid settings");
        let seal = |text: &str| {
            codec.seal_secret(&slug(), &settings, &ClientSecret::from_store(text.to_owned()))
        };
        ConnectionRow {
            slug: "acme".to_owned(),
            incarnation: 3,
            revision: 7,
            settings: to_json(&settings).expect("JSON"),
            pinned_issuer: Some("https://idp.example".to_owned()),
            client_secret: seal("active"),
            standby_secret: Some(seal("standby")),
            secret_expire: Some(11),
            standby_expire: None,
            secret_switched: Some(12),
            last_check: Some(CHECK.to_owned()),
            last_proposal: None,
            test_login_digest: Some("proof".to_owned()),
            test_login_time: Some(13),
            create_time: 14,
            update_time: 15,
        }
    }

    const CHECK: &str = r#"{"time":1,"revision":7,"proof":"p","outcome":"pass","failed":[],
        "passed":["jwks.keys","added.later"],"hosts":["idp.example"]}"#;

    #[test]
    fn a_connection_is_read_from_its_row() {
        let codec = codec(&[&MasterKey::generate(&SystemEntropy)]);
        let connection = codec.connection(row(&codec)).expect("a slug").expect("readable");
        assert_eq!((connection.incarnation, connection.revision), (3, 7));
        assert_eq!(connection.settings.client_id, "client");
        assert_eq!(connection.issuer().map(Issuer::as_str), Some("https://idp.example"));
        assert_eq!(connection.secrets.active.expose(), "active");
        let standby = connection.secrets.standby.as_ref().map(ClientSecret::expose);
        assert_eq!((standby, connection.secrets.standby_expire), (Some("standby"), None));
        assert_eq!(connection.secrets.active_expire, Some(UnixMillis(11)));
        assert_eq!(connection.secret_switched, Some(UnixMillis(12)));
        let check = connection.last_check.expect("a check");
        assert_eq!(check.passed.len(), 1, "a check that a later version added is ignored");
        let test_login = TestLogin { proof: "proof".to_owned(), time: UnixMillis(13) };
        assert_eq!(connection.test_login, Some(test_login));
        assert_eq!(
            (connection.create_time, connection.update_time),
            (UnixMillis(14), UnixMillis(15))
        );
    }

    #[test]
    fn an_unreadable_row_names_what_is_wrong_and_no_secret() {
        let codec = codec(&[&MasterKey::generate(&SystemEntropy)]);
        let good = || row(&codec);
        let other = Slug::parse("other").expect("a slug");
        let settings: ConnectionSettings = from_json(&good().settings).expect("settings");
        let canary = ClientSecret::from_store("CANARY".to_owned());
        let foreign = codec.seal_secret(&other, &settings, &canary);
        let moved = |from: &str, to: &str| ConnectionRow {
            settings: good().settings.replacen(from, to, 1),
            client_secret: codec.seal_secret(&slug(), &settings, &canary),
            ..good()
        };
        let read = |row| codec.connection(row).expect("a slug");
        let moved_path = moved("/.well-known", "/realm/.well-known");
        assert!(read(moved_path).is_ok(), "the origin is the same");
        let added = moved("{", r#"{"added_later":{"a":1},"min_format":1,"#);
        assert!(read(added).is_ok(), "an unknown member is ignored");
        use Unreadable::{NewerVersion, Secret, Settings};
        for (row, why, expected) in [
            (ConnectionRow { settings: "{}".to_owned(), ..good() }, Settings, "settings: missing"),
            (moved(r#""auto""#, r#""later""#), Settings, "unknown variant `later`"),
            (moved("{", r#"{"min_format":2,"#), NewerVersion, "format 2, this version has 1"),
            (ConnectionRow { client_secret: foreign, ..good() }, Secret, "client secret"),
            (moved("idp.example", "thief.example"), Secret, "client secret"),
            (moved("https://idp.example", "https://idp.example:8443"), Secret, "client secret"),
            (moved(r#""client_id":"client""#, r#""client_id":"other""#), Secret, "client secret"),
            (ConnectionRow { standby_secret: Some(vec![1]), ..good() }, Secret, "client secret"),
        ] {
            let error = read(row).expect_err(expected);
            let text = error.to_string();
            assert_eq!(error.why, why, "{text}");
            assert!(text.contains(expected) && !text.contains("CANARY"), "{text}");
            let rest = error.without_secrets.as_ref();
            assert_eq!((error.revision, rest.is_some()), (7, why == Secret), "{text}");
        }
        let broken = ConnectionRow { standby_secret: Some(vec![1]), ..good() };
        let rest =
            read(broken).expect_err("a secret is missing").without_secrets.expect("the rest");
        assert_eq!(rest.secrets.active.expose(), "active", "what opens is there");
        assert!(rest.secrets.standby.is_some_and(|it| it.is_missing() && it.fingerprint() == ""));
        let nameless = ConnectionRow { slug: "A".to_owned(), ..good() };
        assert!(codec.connection(nameless).is_err(), "it belongs to no account");
        let strange = ConnectionRow { last_check: Some("x".to_owned()), ..good() };
        assert!(read(strange).expect("readable").last_check.is_none());
    }

    #[test]
    fn an_edit_keeps_what_a_newer_version_added_or_is_refused() {
        let codec = codec(&[&MasterKey::generate(&SystemEntropy)]);
        let stored = row(&codec).settings;
        let mut settings: ConnectionSettings = from_json(&stored).expect("settings");
        settings.display_name = "New".to_owned();
        let replaced = replaced_settings(&stored, &settings).expect("nothing is unknown");
        assert_eq!(replaced, to_json(&to_value(&settings).expect("JSON")).expect("JSON"));
        let newer = stored.replacen('{', r#"{"min_format":1,"rule":{"a":[1]},"#, 1);
        let replaced = replaced_settings(&newer, &settings).expect("the rest is known");
        let replaced: Value = from_json(&replaced).expect("JSON");
        assert_eq!(replaced["display_name"], "New");
        assert_eq!(replaced["rule"], serde_json::json!({ "a": [1] }));
        assert_eq!(replaced["min_format"], 1);
        let inside = stored.replace(r#""claim_mapping":{"#, r#""claim_mapping":{"phone":[],"#);
        assert_ne!(inside, stored);
        let error = replaced_settings(&inside, &settings).expect_err("it would be lost");
        assert_eq!(error.cause(), Cause::NewerVersion);
    }

    #[test]
    fn a_change_is_recorded_in_the_format_of_earlier_versions() {
        let codec = codec(&[&MasterKey::generate(&SystemEntropy)]);
        let change = FieldChange {
            field: "client_id".to_owned(),
            before: "a".to_owned(),
            after: "b".to_owned(),
        };
        let details = ChangeDetails::new("support", "update", vec![change]);
        let json = codec.change_record(&details, 8).expect("JSON");
        assert!(json.contains(r#""fields":[["client_id","a","b"]]"#), "{json}");
        let record: ChangeRecord = from_json(&json).expect("readable");
        assert_eq!((record.revision, record.fields), (8, details.fields));
    }

    #[test]
    fn a_value_is_resealed_once() {
        let (old, new) = (MasterKey::generate(&SystemEntropy), MasterKey::generate(&SystemEntropy));
        let key = StoredSigningKey {
            generation: 2,
            created_at: UnixSeconds(9),
            pkcs8: b"private".to_vec().into(),
        };
        let (context, both) = (signing_key_context(2), codec(&[&new, &old]));
        let sealed = codec(&[&old]).seal_signing_key(&key);
        let resealed = both.reseal(&context, None, &sealed).expect("opens").expect("resealed");
        assert!(both.reseal(&context, None, &resealed).expect("opens").is_none());
        assert!(codec(&[&new]).reseal(&context, None, &sealed).is_err());
        let bound = both.reseal("bound", Some(&context), &resealed).expect("opens");
        let bound = bound.expect("resealed, though the key is the newest");
        assert!(both.reseal("bound", Some(&context), &bound).expect("opens").is_none());
        let row = SigningKeyRow { generation: 2, create_time: 9, private_key: resealed };
        let read = codec(&[&new]).signing_key(&row).expect("opens");
        assert_eq!((read.generation, read.created_at), (2, UnixSeconds(9)));
        assert_eq!(read.pkcs8.as_slice(), b"private");
    }
}
