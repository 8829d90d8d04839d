//! A database that went back to an earlier state, that is away for long, or in which a replica froze: what
//! replicas go on believing, and for how long.

use std::sync::Arc;
use std::time::Duration;

use peerpanda_sso::clock::ManualClock;
use peerpanda_sso::config::{Config, Database};
use peerpanda_sso::pb;
use peerpanda_sso::store::seal::MasterKey;
use peerpanda_sso::store::sql::postgres::PostgresUrl;
use sqlx::Connection as _;
use tempfile::TempDir;

use crate::harness::{
    Postgres, Service, begin_request, complete_request, config, eventually, key, postgres_url,
    reason, redis_url,
};

async fn connected(url: &str) -> sqlx::PgConnection {
    sqlx::PgConnection::connect(url).await.expect("connected")
}

/// Keeps a copy of the tables, as a backup does.
async fn back_up(database: &mut sqlx::PgConnection) {
    let copy = "DROP SCHEMA IF EXISTS backup CASCADE; \
                CREATE SCHEMA backup; \
                CREATE TABLE backup.change_counter AS TABLE public.change_counter; \
                CREATE TABLE backup.connections AS TABLE public.connections; \
                CREATE TABLE backup.connection_changes AS TABLE public.connection_changes; \
                CREATE TABLE backup.connection_log AS TABLE public.connection_log";
    sqlx::raw_sql(copy).execute(database).await.expect("copied");
}

/// Puts the tables back as they were, and changes them again, in one transaction.
async fn restore(database: &mut sqlx::PgConnection, and_then: &'static str) {
    let mut tx = database.begin().await.expect("begun");
    let back = "TRUNCATE change_counter, connections, connection_changes, connection_log; \
                INSERT INTO change_counter SELECT * FROM backup.change_counter; \
                INSERT INTO connections SELECT * FROM backup.connections; \
                INSERT INTO connection_changes SELECT * FROM backup.connection_changes; \
                INSERT INTO connection_log OVERRIDING SYSTEM VALUE \
                    SELECT * FROM backup.connection_log";
    sqlx::raw_sql(back).execute(&mut *tx).await.expect("restored");
    sqlx::raw_sql(and_then).execute(&mut *tx).await.expect("changed");
    tx.commit().await.expect("committed");
}

/// A replica whose background tasks run at the intervals of tests.
async fn replica(url: &str, key: &MasterKey) -> Service {
    let config = config(Database::Postgres(url.to_owned().into()), Some(redis_url()), key);
    Service::over(config, Arc::new(ManualClock::starting_now())).await
}

async fn is_refused_as(service: &Service, expected: &str) {
    eventually(expected, || {
        let mut login = service.login.clone();
        async move {
            let begun = login.begin_login(begin_request()).await;
            begun.is_err_and(|status| reason::<()>(Err(status)) == expected)
        }
    })
    .await;
}

async fn rename(service: &mut Service, times: usize) {
    for number in 0..times {
        let name = format!("Acme {number}");
        service
            .edit(&["display_name"], |connection| connection.display_name = name)
            .await
            .expect("edited");
    }
}

/// The counter of the restored database is below the one that the replica has seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_disabled_after_a_restore_is_refused_by_every_replica() {
    let (url, key) = (postgres_url().await, key());
    let (mut a, mut b) = (replica(&url, &key).await, replica(&url, &key).await);
    a.create(b.connection()).await.expect("created");
    let mut database = connected(&url).await;
    back_up(&mut database).await;
    rename(&mut b, 6).await;
    a.begin(begin_request()).await.expect("known to a");
    restore(&mut database, "SELECT 1").await;
    b.edit(&["state"], |connection| connection.state = pb::ConnectionState::Disabled.into())
        .await
        .expect("disabled");
    is_refused_as(&a, "CONNECTION_DISABLED").await;
}

/// So many changes follow the restore at once that the counter is above the one that the replica has seen:
/// only the marks of the changes tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_is_noticed_though_its_counter_has_caught_up() {
    let (url, key) = (postgres_url().await, key());
    let mut a = replica(&url, &key).await;
    a.create(a.connection()).await.expect("created");
    let mut database = connected(&url).await;
    back_up(&mut database).await;
    rename(&mut a, 6).await;
    a.begin(begin_request()).await.expect("known");
    let disable = "UPDATE connections \
                   SET settings = replace(settings, '\"state\":\"active\"', '\"state\":\"disabled\"'); \
                   UPDATE change_counter SET latest = latest + 100";
    restore(&mut database, disable).await;
    is_refused_as(&a, "CONNECTION_DISABLED").await;
}

/// The replica has read the newest row, and knows no change that the restored database lacks.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_read_just_before_a_restore_is_read_again() {
    let (url, key) = (postgres_url().await, key());
    let mut service = replica(&url, &key).await;
    let mut database = connected(&url).await;
    back_up(&mut database).await;
    service.create(service.connection()).await.expect("created");
    service.begin(begin_request()).await.expect("read");
    restore(&mut database, "SELECT 1").await;
    is_refused_as(&service, "CONNECTION_NOT_FOUND").await;
}

/// A revision that is used a second time must not bring the IdP's client of the first time back.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_before_a_restore_is_not_used_under_the_same_revision() {
    let (url, key) = (postgres_url().await, key());
    let mut service = replica(&url, &key).await;
    let first = pb::Connection { client_secret: "CANARYold".to_owned(), ..service.connection() };
    service.create(first).await.expect("created");
    let mut database = connected(&url).await;
    back_up(&mut database).await;
    let wrong = service.edit(&["client_secret"], |connection| {
        connection.client_secret = "CANARYwrong".to_owned();
    });
    let wrong = wrong.await.expect("edited");
    assert_eq!(reason(service.log_in().await), "CLIENT_REJECTED");
    restore(&mut database, "SELECT 1").await;
    let right = service.idp.client_secret.clone();
    let right = service.edit(&["client_secret"], |connection| connection.client_secret = right);
    assert_eq!(right.await.expect("edited").revision, wrong.revision, "the same number again");
    eventually("the right secret is used", || {
        let (mut login, idp) = (service.login.clone(), &service.idp);
        async move {
            let begun = login.begin_login(begin_request()).await.expect("begun").into_inner();
            let callback = idp.approve(&begun.redirect_url, "alice");
            login.complete_login(complete_request(&callback)).await.is_ok()
        }
    })
    .await;
}

async fn over_own_postgres(
    data: &TempDir,
    settings: &[&str],
    adjust: impl FnOnce(&mut Config),
) -> (Postgres, Service) {
    let postgres = Postgres::start(data, settings).await;
    let mut config = config(Database::Postgres(postgres.url.clone().into()), None, &key());
    adjust(&mut config);
    let mut service = Service::over(config, Arc::new(ManualClock::starting_now())).await;
    service.create(service.connection()).await.expect("created");
    (postgres, service)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sql_known_connections_are_used_for_a_limited_time() {
    let data = tempfile::tempdir().expect("a directory");
    let limit = Duration::from_secs(600);
    let (mut postgres, mut service) =
        over_own_postgres(&data, &[], |config| config.known_connections_max_age = limit).await;
    service.log_in().await.expect("a login");
    postgres.kill();
    service.clock.advance(limit - Duration::from_secs(10));
    service.log_in().await.expect("a login without SQL");
    service.clock.advance(Duration::from_secs(20));
    assert_eq!(reason(service.begin(begin_request()).await), "STORE_UNAVAILABLE");
    postgres.run().await;
    eventually("logins work again", || {
        let mut login = service.login.clone();
        async move { login.begin_login(begin_request()).await.is_ok() }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_slugs_push_no_account_out_of_memory() {
    let data = tempfile::tempdir().expect("a directory");
    let (mut postgres, mut service) =
        over_own_postgres(&data, &[], |config| config.known_connections = 5).await;
    service.log_in().await.expect("a login");
    service.log_in().await.expect("a login after the issuer was pinned");
    for round in 0..2 {
        for number in 0..1500 {
            let slug = format!("made-up-{round}-{number}");
            let request = pb::BeginLoginRequest { slug, ..begin_request() };
            assert_eq!(reason(service.begin(request).await), "CONNECTION_NOT_FOUND");
        }
    }
    postgres.kill();
    service.log_in().await.expect("a login without SQL");
}

/// A replica that froze in a transaction holds the lock for which every change waits.
#[tokio::test(flavor = "multi_thread")]
async fn the_transaction_of_a_frozen_replica_is_ended() {
    let data = tempfile::tempdir().expect("a directory");
    let (postgres, mut service) = over_own_postgres(&data, &[], |_| {}).await;
    // A session with the settings of a replica, which then does nothing more.
    let url = PostgresUrl::parse(&postgres.url).expect("a URL");
    let mut frozen = sqlx::PgConnection::connect_with(url.options()).await.expect("connected");
    sqlx::raw_sql("BEGIN; UPDATE change_counter SET latest = latest")
        .execute(&mut frozen)
        .await
        .expect("locked");
    service.log_in().await.expect("a first login doesn't wait for the pin of the issuer");
    let admin = service.admin.clone();
    eventually("changes are possible again", || {
        let (mut admin, connection) = (admin.clone(), service.idp.connection("late"));
        let request =
            pb::CreateConnectionRequest { connection: Some(connection), validate_only: false };
        async move { admin.create_connection(request).await.is_ok() }
    })
    .await;
    // The attempt during the lock failed; a later login tries again.
    service.clock.advance(Duration::from_secs(11));
    service.log_in().await.expect("a login");
    let issuer = service.idp.issuer.clone();
    eventually("the issuer is pinned", || {
        let request = pb::GetConnectionRequest { slug: "acme".to_owned() };
        let (mut admin, issuer) = (admin.clone(), issuer.clone());
        async move {
            let read = admin.get_connection(request).await.expect("there").into_inner();
            read.connection.expect("a connection").issuer == issuer
        }
    })
    .await;
}
