//! The cost of a login: calls to the IdP, commands to Redis, statements in SQL.

use std::sync::Arc;

use peerpanda_sso::clock::SystemClock;
use sqlx::Connection as _;

use crate::binary::Program;
use crate::fake_idp::{FakeIdp, locked};
use crate::harness::{
    begin_request, complete_request, eventually, free_port, key, own_redis, postgres_url,
};

/// How often each command was called, as counted by the server, without the commands of this count and of
/// health checks.
async fn redis_commands(url: &str) -> Vec<(String, u64)> {
    let client = redis::Client::open(url).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connected");
    let info: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(&mut connection)
        .await
        .expect("answered");
    let count = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = rest.split(',').next()?.parse().ok()?;
        (!["info", "ping", "client|setinfo", "hello", "select"].contains(&name))
            .then(|| (name.to_owned(), calls))
    };
    info.lines().filter_map(count).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_login_costs_one_idp_call_two_redis_commands_and_no_sql() {
    let data = tempfile::tempdir().expect("a directory");
    let (port, key, postgres) = (free_port(), key(), postgres_url().await);
    let _redis = own_redis(port);
    let redis_url = format!("redis://127.0.0.1:{port}");
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let encoded_key = key.encoded();
    let settings = [
        ("SSO_REDIS_URL", redis_url.as_str()),
        ("SSO_DATABASE_URL", postgres.as_str()),
        ("SSO_ENCRYPTION_KEYS", encoded_key.as_str()),
        // One more command, which no login waits for.
        ("SSO_ANSWER_TTL", "0s"),
        ("RUST_LOG", "sqlx=debug"),
    ];
    let mut program = Program::serve(data.path(), &settings).await;
    program.set_up(&idp).await;
    eventually("Redis answers", || {
        let mut login = program.login.clone();
        async move { login.begin_login(begin_request()).await.is_ok() }
    })
    .await;
    program.log_in(&idp).await.expect("a login that fills the caches");
    applied_changes(&program).await;

    // With one account, and with ten thousand.
    for is_crowded in [false, true] {
        if is_crowded {
            let mut database = sqlx::PgConnection::connect(&postgres).await.expect("connected");
            let fill = "INSERT INTO connections ( \
                            slug, incarnation, revision, settings, client_secret, \
                            create_time, update_time \
                        ) \
                        SELECT 'crowd-' || n, incarnation, revision, settings, client_secret, \
                            create_time, update_time \
                        FROM connections, generate_series(1, 10000) n \
                        WHERE slug = 'acme'";
            sqlx::query(fill).execute(&mut database).await.expect("filled");
        }
        // The service's own probe of Redis, every two seconds, writes as well.
        let mut spent = Vec::new();
        for _ in 0..3 {
            spent = commands_of_one_login(&program, &idp, &redis_url).await;
            if spent == ["set", "getdel"] {
                break;
            }
        }
        assert_eq!(spent, ["set", "getdel"]);
    }
}

/// Waits until the program has applied all changes so far, such as the issuer pinned by a first login.
/// Needs the log of sqlx's statements. The first of three more queries for changes may have begun before
/// the last change, the second returns it, and the third follows once it is applied.
pub(crate) async fn applied_changes(program: &Program) {
    let polls =
        || locked(&program.log).iter().filter(|line| line.contains("FROM change_counter ")).count();
    let before = polls();
    eventually("the changes are applied", || async { polls() >= before + 3 }).await;
}

/// Logs in, at no more calls of the IdP and statements of SQL than allowed. Gives the commands to Redis.
async fn commands_of_one_login(program: &Program, idp: &FakeIdp, redis_url: &str) -> Vec<String> {
    // sqlx logs every statement. Those of the poll, which run without logins too, don't read this table.
    let statements =
        || locked(&program.log).iter().filter(|line| line.contains("FROM connections ")).count();
    let (sql_before, redis_before, idp_before) =
        (statements(), redis_commands(redis_url).await, idp.seen().len());
    assert!(sql_before > 0, "sqlx must log its statements");
    let begun =
        program.login.clone().begin_login(begin_request()).await.expect("begun").into_inner();
    let redis_between = redis_commands(redis_url).await;
    assert_eq!(idp.seen().len(), idp_before, "BeginLogin must not call the IdP");
    let callback = idp.approve(&begun.redirect_url, "alice");
    program.login.clone().complete_login(complete_request(&callback)).await.expect("a login");
    let redis_after = redis_commands(redis_url).await;
    assert_eq!(idp.seen().len(), idp_before + 1, "CompleteLogin must call only the token endpoint");
    assert_eq!(statements(), sql_before, "a login must need no SQL");
    [spent(&redis_before, &redis_between), spent(&redis_between, &redis_after)].concat()
}

/// The commands in between, each as often as it was called.
fn spent(before: &[(String, u64)], after: &[(String, u64)]) -> Vec<String> {
    let earlier =
        |name: &str| before.iter().find(|(own, _)| own == name).map_or(0, |(_, calls)| *calls);
    after.iter().flat_map(|(name, calls)| (earlier(name)..*calls).map(|_| name.clone())).collect()
}
