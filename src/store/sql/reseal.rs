//! [`Reseal`] in SQL. Every update names the sealed value that was read, so a value that changes in the
//! meantime is left alone and found by the next pass.

use async_trait::async_trait;
use sqlx::FromRow;

use super::rows::{from_json, secret_context, signing_key_context, unbound_secret_context};
use super::statement::{Backend, Statement};
use super::{SqlStore, from_i64};
use crate::model::connection::ConnectionSettings;
use crate::store::seal::CannotOpen;
use crate::store::{Reseal, Resealed, StoreError};

/// The sealed columns of `connections` and `connection_revisions`.
#[derive(FromRow)]
struct SecretsRow {
    slug: String,
    revision: i64,
    settings: String,
    client_secret: Vec<u8>,
    standby_secret: Option<Vec<u8>>,
}

/// A sealed value, where it is, and the statement that replaces it by the value bound as `$1`.
struct Sealed {
    description: String,
    context: String,
    /// The context for which an earlier version sealed it.
    former: Option<String>,
    value: Vec<u8>,
    replace: Box<dyn FnOnce(Vec<u8>) -> Statement + Send>,
}

#[async_trait]
impl<D: Backend> Reseal for SqlStore<D> {
    async fn reseal(&self) -> Result<Resealed, StoreError> {
        let mut changed = 0;
        for _ in 0..MAX_PASSES {
            let pass = self.reseal_pass(&mut changed).await?;
            if !pass.found_older {
                self.drop_documents_of_older_keys().await?;
                return Ok(Resealed { changed, all: pass.all, unreadable: pass.unreadable });
            }
        }
        let detail = "values are still being sealed under an older key: \
                      does every replica have the newest key first?";
        Err(StoreError::Unavailable { store: D::STORE, detail: detail.to_owned() })
    }
}

/// What one pass over all sealed values found.
#[derive(Default)]
struct Pass {
    all: u64,
    unreadable: Vec<String>,
    found_older: bool,
}

impl<D: Backend> SqlStore<D> {
    async fn reseal_pass(&self, changed: &mut u64) -> Result<Pass, StoreError> {
        let mut pass = Pass::default();
        for table in [&PRESENT, &EARLIER] {
            self.reseal_secrets(table, &mut pass, changed).await?;
        }
        for row in self.signing_key_rows().await? {
            let sealed = signing_key(row.generation, row.private_key);
            *changed += self.reseal_value(&mut pass, sealed).await?;
        }
        Ok(pass)
    }

    async fn reseal_secrets(
        &self,
        table: &'static SecretsTable,
        pass: &mut Pass,
        changed: &mut u64,
    ) -> Result<(), StoreError> {
        let (mut after, mut revision) = (String::new(), 0);
        loop {
            let page = Statement::new(table.page).bind(after.as_str()).bind(revision);
            let rows: Vec<SecretsRow> = self.fetch(page).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after.clone_from(&last.slug);
            revision = from_i64(last.revision);
            for sealed in rows.into_iter().flat_map(|row| client_secrets(row, table)) {
                *changed += self.reseal_value(pass, sealed).await?;
            }
        }
    }

    /// Returns how many rows changed.
    async fn reseal_value(&self, pass: &mut Pass, sealed: Sealed) -> Result<u64, StoreError> {
        pass.all += 1;
        match self.codec.reseal(&sealed.context, sealed.former.as_deref(), &sealed.value) {
            Ok(None) => Ok(0),
            Ok(Some(resealed)) => {
                pass.found_older = true;
                self.execute((sealed.replace)(resealed)).await
            }
            Err(CannotOpen) => {
                pass.unreadable.push(sealed.description);
                Ok(0)
            }
        }
    }
}

/// Replaced in either column, since the two secrets may change places in the meantime.
fn client_secrets(row: SecretsRow, table: &'static SecretsTable) -> impl Iterator<Item = Sealed> {
    let SecretsRow { slug, revision, settings, client_secret, standby_secret } = row;
    // Without settings the context is unknown, and nothing opens the secrets.
    let binding = from_json::<ConnectionSettings>(&settings).map(|it| it.secret_binding());
    let context = binding.map(|binding| secret_context(&slug, &binding)).unwrap_or_default();
    [Some(client_secret), standby_secret].into_iter().flatten().map(move |value| {
        let (slug, old) = (slug.clone(), value.clone());
        let revision =
            if table.is_earlier { format!(", revision {revision}") } else { String::new() };
        Sealed {
            description: format!("a client secret of {slug}{revision}"),
            context: context.clone(),
            former: (!context.is_empty()).then(|| unbound_secret_context(&slug)),
            value,
            replace: Box::new(move |resealed| {
                Statement::new(table.replace).bind(resealed).bind(slug).bind(old)
            }),
        }
    })
}

/// A table with client secrets.
struct SecretsTable {
    /// The rows after the slug `$1` and the revision `$2`.
    page: &'static str,
    /// Replaces a secret of the account `$2` that is sealed as `$3` by `$1`.
    replace: &'static str,
    is_earlier: bool,
}

macro_rules! secrets_table {
    ($table:literal, $is_earlier:literal) => {
        SecretsTable {
            page: concat!(
                "SELECT slug, revision, settings, client_secret, standby_secret FROM ",
                $table,
                " WHERE (slug, revision) > ($1, $2) \
                 ORDER BY slug, revision \
                 LIMIT 500"
            ),
            replace: concat!(
                "UPDATE ",
                $table,
                " SET \
                     client_secret = CASE WHEN client_secret = $3 THEN $1 ELSE client_secret END, \
                     standby_secret = CASE WHEN standby_secret = $3 THEN $1 ELSE standby_secret END \
                 WHERE slug = $2 AND (client_secret = $3 OR standby_secret = $3)"
            ),
            is_earlier: $is_earlier,
        }
    };
}

static PRESENT: SecretsTable = secrets_table!("connections", false);
static EARLIER: SecretsTable = secrets_table!("connection_revisions", true);

fn signing_key(generation: i64, value: Vec<u8>) -> Sealed {
    let old = value.clone();
    Sealed {
        description: format!("the signing key {generation}"),
        context: signing_key_context(generation),
        former: None,
        value,
        replace: Box::new(move |resealed| {
            Statement::new(
                "UPDATE signing_keys SET private_key = $1 \
                 WHERE generation = $2 AND private_key = $3",
            )
            .bind(resealed)
            .bind(generation)
            .bind(old)
        }),
    }
}

/// Replicas may seal values under an older key while this runs.
const MAX_PASSES: u32 = 5;
