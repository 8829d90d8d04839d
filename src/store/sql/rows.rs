//! The rows of the tables, and their conversion to and from the model. Columns with JSON must stay
//! readable by the previous and the next version, since both run during a rolling upgrade.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::FromRow;
use zeroize::Zeroizing;

use super::{from_i64, saturating_i64};
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::model::attempt::TestLogin;
use crate::model::change::ChangeRecord;
use crate::model::connection::{Connection, ConnectionSettings, Issuer, SecretBinding};
use crate::model::secret::{ClientSecret, ClientSecrets};
use crate::model::slug::Slug;
use crate::model::time::{UnixMillis, UnixSeconds};
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
    pub(super) fn connection(&self, row: ConnectionRow) -> Result<Connection, StoreError> {
        let slug = Slug::parse(&row.slug)
            .ok_or_else(|| StoreError::Unreadable("a connection has an invalid slug".to_owned()))?;
        let unreadable = |what: &str| StoreError::Unreadable(format!("{slug}: {what}"));
        let settings: ConnectionSettings = serde_json::from_str(&row.settings)
            .map_err(|error| unreadable(&format!("settings: {error}")))?;
        let binding = settings.secret_binding();
        let open = |sealed: &[u8]| -> Result<ClientSecret, StoreError> {
            let secret = self.open_secret(slug.as_str(), &binding, sealed);
            let secret = secret.map_err(|error| unreadable(&format!("client secret: {error}")))?;
            let secret = std::str::from_utf8(&secret)
                .map_err(|_| unreadable("client secret: not UTF-8 text"))?;
            Ok(ClientSecret::from_store(secret.to_owned()))
        };
        let secrets = ClientSecrets {
            active: open(&row.client_secret)?,
            active_expire: row.secret_expire.map(millis),
            standby: row.standby_secret.as_deref().map(open).transpose()?,
            standby_expire: row.standby_expire.map(millis),
        };
        let check = |text: &Option<String>| {
            let check = text.as_deref().map(serde_json::from_str).transpose();
            check.map_err(|error| unreadable(&format!("record of a check: {error}")))
        };
        let (last_check, last_proposal) = (check(&row.last_check)?, check(&row.last_proposal)?);
        let test_login = row.test_login_digest.zip(row.test_login_time);
        Ok(Connection {
            incarnation: from_i64(row.incarnation),
            revision: from_i64(row.revision),
            settings,
            pinned_issuer: row.pinned_issuer.map(Issuer::new),
            secrets,
            secret_switched: row.secret_switched.map(millis),
            last_check,
            last_proposal,
            test_login: test_login.map(|(proof, time)| TestLogin { proof, time: millis(time) }),
            create_time: millis(row.create_time),
            update_time: millis(row.update_time),
            slug,
        })
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
        let connection = codec.connection(row(&codec)).expect("readable");
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
            settings: good().settings.replace(from, to),
            client_secret: codec.seal_secret(&slug(), &settings, &canary),
            ..good()
        };
        let moved_path = moved("/.well-known", "/realm/.well-known");
        assert!(codec.connection(moved_path).is_ok(), "the origin is the same");
        for (row, expected) in [
            (ConnectionRow { slug: "A".to_owned(), ..good() }, "invalid slug"),
            (ConnectionRow { settings: "{}".to_owned(), ..good() }, "acme: settings"),
            (ConnectionRow { client_secret: foreign, ..good() }, "acme: client secret"),
            (moved("idp.example", "thief.example"), "acme: client secret"),
            (moved("https://idp.example", "https://idp.example:8443"), "acme: client secret"),
            (moved(r#""client_id":"client""#, r#""client_id":"other""#), "acme: client secret"),
            (ConnectionRow { standby_secret: Some(vec![1]), ..good() }, "acme: client secret"),
            (ConnectionRow { last_check: Some("x".to_owned()), ..good() }, "record of a check"),
        ] {
            let error = codec.connection(row).expect_err(expected).to_string();
            assert!(error.contains(expected) && !error.contains("CANARY"), "{error}");
        }
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
