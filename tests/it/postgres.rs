//! PostgreSQL that is read-only, slow or newer than the program: the effect on logins and on support.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use peerpanda_sso::clock::SystemClock;
use peerpanda_sso::pb;
use peerpanda_sso::pb::login_service_client::LoginServiceClient;
use sqlx::Connection as _;

use crate::binary::Program;
use crate::call_budgets::applied_changes;
use crate::fake_idp::{FakeIdp, locked};
use crate::harness::{
    Postgres, Process, as_user_postgres, begin_request, eventually, free_port, key, reason,
};

const LOGIN_SERVICE: &str = "peerpanda.sso.v1.LoginService";

/// A database that hangs holds up the calls for unknown accounts, of which a bounded number waits.
#[tokio::test(flavor = "multi_thread")]
async fn calls_for_unknown_accounts_leave_room_for_known_ones() {
    const CALLS: usize = 1000;
    let data = tempfile::tempdir().expect("a directory");
    let postgres = Postgres::start(&data, &[]).await;
    let (key, idp) = (key().encoded().to_string(), FakeIdp::start(Arc::new(SystemClock)).await);
    let settings = [
        ("SSO_DATABASE_URL", postgres.url.as_str()),
        ("SSO_ENCRYPTION_KEYS", key.as_str()),
        ("SSO_MAX_IN_FLIGHT", "1000"),
        ("RUST_LOG", "info,sqlx=debug"),
    ];
    let mut program = Program::serve(data.path(), &settings).await;
    eventually("logins work", || async { program.health(LOGIN_SERVICE).await == 1 }).await;
    program.set_up(&idp).await;
    program.log_in(&idp).await.expect("a login");
    applied_changes(&program).await;
    postgres.signal("STOP");
    let mut waiting = tokio::task::JoinSet::new();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = LoginServiceClient::connect(program.login_url.clone()).await;
        clients.push(client.expect("connected"));
    }
    for number in 0..CALLS {
        let mut client = clients[number % clients.len()].clone();
        waiting.spawn(async move { client.begin_login(at(&format!("unknown{number}"))).await });
    }
    let mut refused = 0;
    while refused < CALLS - 300 {
        let call = waiting.join_next().await.expect("more").expect("ended");
        assert_eq!(reason(call), "STORE_UNAVAILABLE", "refused at once, and not as OVERLOADED");
        refused += 1;
    }
    program.log_in(&idp).await.expect("a login at a known account");
    assert!(!waiting.is_empty(), "some still wait");
    postgres.signal("CONT");
}

/// Starts the program on this PostgreSQL and waits until logins work.
async fn program_over(data: &tempfile::TempDir, postgres: &Postgres, key: &str) -> Program {
    let settings = [
        ("SSO_DATABASE_URL", postgres.url.as_str()),
        ("SSO_ENCRYPTION_KEYS", key),
        ("SSO_IDENTITY_AUDIENCE", "https://backends.example"),
        ("RUST_LOG", "info,sqlx=debug"),
    ];
    let program = Program::serve(data.path(), &settings).await;
    eventually("logins work", || async { program.health(LOGIN_SERVICE).await == 1 }).await;
    program
}

/// A PgBouncer that runs each transaction in any of two sessions of a PostgreSQL. Its URL has the parameter
/// that the service needs for that.
async fn pgbouncer(data: &tempfile::TempDir, postgres: &Postgres) -> (Process, String) {
    let (port, server) = (free_port(), postgres.url.rsplit([':', '/']).nth(1).expect("a port"));
    let (file, users) = (data.path().join("pgbouncer.ini"), data.path().join("users.txt"));
    std::fs::write(&users, "\"sso\" \"\"\n").expect("written");
    let text = format!(
        "[databases]\npostgres = host=127.0.0.1 port={server}\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n\
         auth_file = {}\npool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 100\n",
        users.display()
    );
    std::fs::write(&file, text).expect("written");
    let mut command = as_user_postgres(Path::new("pgbouncer"));
    command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process(command.spawn().expect("pgbouncer runs: tests/run installs it"));
    let url = format!("postgres://sso@127.0.0.1:{port}/postgres");
    eventually("PgBouncer answers", || async {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    })
    .await;
    (process, format!("{url}?pgbouncer=true"))
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_work_through_a_pgbouncer_that_shares_sessions() {
    let data = tempfile::tempdir().expect("a directory");
    let mut postgres = Postgres::start(&data, &[]).await;
    let (_pgbouncer, url) = pgbouncer(&data, &postgres).await;
    postgres.url = url;
    let (key, idp) = (key().encoded().to_string(), FakeIdp::start(Arc::new(SystemClock)).await);
    // The replicas migrate at the same time, and have pools of their own.
    let (one, two) =
        tokio::join!(program_over(&data, &postgres, &key), program_over(&data, &postgres, &key));
    let create = |program: &Program, number: usize| {
        let (mut admin, slug) = (program.admin.clone(), format!("a{number}"));
        let connection = pb::Connection { slug, ..idp.connection("acme") };
        tokio::spawn(async move {
            let connection = Some(connection);
            let request = pb::CreateConnectionRequest { connection, validate_only: false };
            admin.create_connection(request).await.map(|_| ())
        })
    };
    let created = (0..60).map(|number| create([&one, &two][number % 2], number));
    for created in created.collect::<Vec<_>>() {
        created.await.expect("ended").expect("created");
    }
    let begin = |program: &Program, number: usize| {
        let mut login = program.login.clone();
        tokio::spawn(async move { login.begin_login(at(&format!("a{number}"))).await.map(|_| ()) })
    };
    let begun = (0..60).map(|number| begin([&two, &one][number % 2], number));
    for begun in begun.collect::<Vec<_>>() {
        begun.await.expect("ended").expect("begun at the other replica");
    }
    for program in [&one, &two] {
        let log = locked(&program.log).join("\n");
        assert!(!log.contains("prepared statement") && !log.contains("store unavailable"), "{log}");
    }
}

/// Restarts the server as a replica of a primary that is gone, which makes it read-only.
async fn become_replica(postgres: &mut Postgres) {
    postgres.kill();
    std::fs::write(postgres.folder.join("standby.signal"), "").expect("written");
    postgres.run().await;
}

fn at(slug: &str) -> pb::BeginLoginRequest {
    pb::BeginLoginRequest { slug: slug.to_owned(), ..begin_request() }
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_work_on_a_read_only_postgresql() {
    let data = tempfile::tempdir().expect("a directory");
    let mut postgres = Postgres::start(&data, &[]).await;
    let (key, idp) = (key().encoded().to_string(), FakeIdp::start(Arc::new(SystemClock)).await);
    let mut program = program_over(&data, &postgres, &key).await;
    program.set_up(&idp).await;
    program.log_in(&idp).await.expect("a login");
    become_replica(&mut postgres).await;
    program.log_in(&idp).await.expect("a login at a known account");
    let late = pb::CreateConnectionRequest {
        connection: Some(idp.connection("late")),
        validate_only: false,
    };
    assert_eq!(reason(program.admin.create_connection(late).await), "STORE_UNAVAILABLE");
    let slug = "acme".to_owned();
    program
        .admin
        .get_connection(pb::GetConnectionRequest { slug })
        .await
        .expect("support can still read");
    drop(program);

    // A start writes nothing if the tables are up to date, and replicas don't wait for each other.
    let mut program = program_over(&data, &postgres, &key).await;
    let mut other = program_over(&data, &postgres, &key).await;
    // Each program has its own pending logins.
    program.log_in(&idp).await.expect("a login by a program that was started in the meantime");
    other.log_in(&idp).await.expect("a login by a second program");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_starts_on_the_tables_of_a_newer_one() {
    let data = tempfile::tempdir().expect("a directory");
    let postgres = Postgres::start(&data, &[]).await;
    let key = key().encoded().to_string();
    drop(program_over(&data, &postgres, &key).await);
    let mut newer = sqlx::PgConnection::connect(&postgres.url).await.expect("connected");
    let row = "INSERT INTO _sqlx_migrations \
               (version, description, success, checksum, execution_time) \
               VALUES (9999, 'newer', true, '', 0)";
    sqlx::query(row).execute(&mut newer).await.expect("written");
    program_over(&data, &postgres, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_accounts_that_exhaust_the_pool_do_not_block_known_ones() {
    let data = tempfile::tempdir().expect("a directory");
    let postgres = Postgres::start(&data, &[]).await;
    let (key, idp) = (key().encoded().to_string(), FakeIdp::start(Arc::new(SystemClock)).await);
    let mut program = program_over(&data, &postgres, &key).await;
    program.set_up(&idp).await;
    program.log_in(&idp).await.expect("a login");
    applied_changes(&program).await;

    let mut other = sqlx::PgConnection::connect(&postgres.url).await.expect("connected");
    let mut lock = other.begin().await.expect("begun");
    sqlx::query("LOCK TABLE connections IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .expect("locked");
    let waiting = (0..40).map(|number| {
        let mut client = program.login.clone();
        tokio::spawn(
            async move { reason(client.begin_login(at(&format!("unknown{number}"))).await) },
        )
    });
    let waiting: Vec<_> = waiting.collect();
    for _ in 0..20 {
        program.log_in(&idp).await.expect("a login at a known account");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for refused in waiting {
        let refused = tokio::time::timeout(Duration::from_secs(15), refused)
            .await
            .expect("in time")
            .expect("ended");
        assert_eq!(refused, "STORE_UNAVAILABLE");
    }
    lock.rollback().await.expect("unlocked");
    eventually("unknown accounts are refused as such again", || {
        let mut client = program.login.clone();
        async move { reason(client.begin_login(at("unknown")).await) == "CONNECTION_NOT_FOUND" }
    })
    .await;
}
