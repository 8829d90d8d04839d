//! Redis in every topology, on real servers: over TLS, with users, as a replica, behind Sentinels and as
//! a Cluster; and the effect on logins when a server dies.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use peerpanda_sso::clock::ManualClock;
use peerpanda_sso::config::Database;
use peerpanda_sso::model::slug::Slug;
use peerpanda_sso::store::redis::RedisPendingLogins;
use peerpanda_sso::store::redis::url::RedisUrl;
use peerpanda_sso::store::{PendingKey, PendingLogins, StoreError};
use rcgen::{CertificateParams, KeyPair};
use tonic::Status;

use crate::fake_idp::random;
use crate::harness::{
    Process, Service, begin_request, complete_request, config, eventually, free_port, key,
    own_redis, reason, redis_server, refused,
};
use crate::tls::private_ca;

const TTL: Duration = Duration::from_secs(60);

fn account() -> Slug {
    Slug::parse("acme").expect("a slug")
}

fn store_at(url: &str) -> RedisPendingLogins {
    RedisPendingLogins::lazy(&RedisUrl::parse(url).expect("a URL"), None).expect("a store")
}

async fn detail_of_refusal(store: &RedisPendingLogins) -> String {
    match store.put(&account(), &PendingKey::new(random()), b"1", TTL).await {
        Err(StoreError::Unavailable { detail, .. }) => detail,
        other => panic!("{other:?}"),
    }
}

fn cli(arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    let output = command.args(["60", "redis-cli"]).args(arguments).stdin(Stdio::null()).output();
    let output = output.expect("redis-cli runs; tests/run installs it");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
        + String::from_utf8_lossy(&output.stderr).trim()
}

async fn answers(port: u16) {
    eventually("Redis answers", || async {
        cli(&["-p", &port.to_string(), "ping"]).contains("PONG")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_passwords_are_sent_and_never_repeated_in_an_error() {
    let port = free_port();
    let (port_text, user) =
        (port.to_string(), "--user sso on >CANARYp@ss ~sso:* +set +getdel +hello +client");
    let mut arguments = vec!["--port", &port_text, "--save", "", "--requirepass", "CANARYadmin"];
    arguments.extend(user.split(' '));
    let _redis = redis_server(&arguments);
    eventually("Redis answers", || async {
        cli(&["-p", &port.to_string(), "ping"]).contains("NOAUTH")
    })
    .await;
    let good = store_at(&format!("redis://sso:CANARYp%40ss@127.0.0.1:{port}"));
    good.put(&account(), &PendingKey::new(random()), b"1", TTL).await.expect("put as the user");
    good.ping().await.expect("answered");
    store_at(&format!("redis://:CANARYadmin@127.0.0.1:{port}"))
        .ping()
        .await
        .expect("answered as the default user");
    for credentials in ["", "sso:CANARYwrong@", ":CANARYwrong@", "CANARYnobody:x@"] {
        let detail =
            detail_of_refusal(&store_at(&format!("redis://{credentials}127.0.0.1:{port}"))).await;
        assert!(!detail.contains("CANARY"), "{detail}");
    }
}

/// Lets a server refuse every command that could use more memory.
pub(crate) fn fill(port: u16) {
    assert_eq!(cli(&["-p", &port.to_string(), "config", "set", "maxmemory", "1"]), "OK");
}

pub(crate) fn make_room(port: u16) {
    assert_eq!(cli(&["-p", &port.to_string(), "config", "set", "maxmemory", "0"]), "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_is_unhealthy_and_still_completes_logins() {
    let port = free_port();
    let _redis = own_redis(port);
    answers(port).await;
    let (store, key) = (store_at(&format!("redis://127.0.0.1:{port}")), PendingKey::new(random()));
    store.put(&account(), &key, b"1", TTL).await.expect("put");
    store.ping().await.expect("healthy");
    fill(port);
    let detail = detail_of_refusal(&store).await;
    assert!(detail.contains("OOM command not allowed when used memory > 'maxmemory'"), "{detail}");
    store.ping().await.expect_err("no login can begin");
    assert_eq!(store.take(&key).await.expect("answered"), Some(b"1".to_vec()));
    make_room(port);
    store.ping().await.expect("healthy again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_without_getdel_returns_a_pending_login_at_most_once() {
    let (folder, port) = (tempfile::tempdir().expect("a directory"), free_port());
    let file = folder.path().join("redis.conf");
    let text = format!("port {port}\nbind 127.0.0.1\nsave \"\"\nrename-command GETDEL \"\"\n");
    fs::write(&file, text).expect("written");
    let _redis = redis_server(&[file.to_str().expect("UTF-8")]);
    answers(port).await;
    assert!(cli(&["-p", &port.to_string(), "getdel", "x"]).contains("unknown command"));
    let (store, key) = (store_at(&format!("redis://127.0.0.1:{port}")), PendingKey::new(random()));
    assert_eq!(store.take(&key).await.expect("answered"), None);
    store.put(&account(), &key, b"1", TTL).await.expect("put");
    let taken = futures_util::future::join_all((0..100).map(|_| store.take(&key))).await;
    let taken: Vec<_> = taken.into_iter().filter_map(|taken| taken.expect("answered")).collect();
    assert_eq!(taken, [b"1".to_vec()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_over_tls_is_verified() {
    let (folder, ca, other_ca) =
        (tempfile::tempdir().expect("a directory"), private_ca(), private_ca());
    let server_key = KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)
        .expect("parameters")
        .signed_by(&server_key, &ca)
        .expect("signed");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let (cert, key_file, ca_file) = (
        file("crt", &certificate.pem()),
        file("key", &server_key.serialize_pem()),
        file("ca", &ca.pem()),
    );
    let port = free_port();
    let tls_port = port.to_string();
    let _redis = redis_server(&[
        "--port",
        "0",
        "--tls-port",
        &tls_port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key_file,
        "--tls-ca-cert-file",
        &ca_file,
        "--tls-auth-clients",
        "no",
        "--save",
        "",
    ]);
    let over = |url: &str, ca: String| {
        RedisPendingLogins::lazy(&RedisUrl::parse(url).expect("a URL"), Some(ca.into_bytes()))
            .expect("a store")
    };
    let good = over(&format!("rediss://localhost:{port}"), ca.pem());
    eventually("Redis answers over TLS", || async { good.ping().await.is_ok() }).await;
    let pending = PendingKey::new(random());
    good.put(&account(), &pending, b"1", TTL).await.expect("put");
    assert_eq!(good.take(&pending).await.expect("answered"), Some(b"1".to_vec()));
    detail_of_refusal(&over(&format!("rediss://localhost:{port}"), other_ca.pem())).await;
    detail_of_refusal(&over(&format!("rediss://localhost.localdomain:{port}"), ca.pem())).await;
    detail_of_refusal(&store_at(&format!("redis://localhost:{port}"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_refused_until_it_becomes_the_master() {
    let (master_port, port) = (free_port(), free_port());
    let _master = own_redis(master_port);
    let replica_of = format!("127.0.0.1 {master_port}");
    let _replica =
        redis_server(&["--port", &port.to_string(), "--save", "", "--replicaof", &replica_of]);
    answers(port).await;
    let store = store_at(&format!("redis://127.0.0.1:{port}"));
    assert!(detail_of_refusal(&store).await.contains("READONLY"));
    assert!(store.ping().await.is_err(), "health must not report SERVING");
    cli(&["-p", &port.to_string(), "replicaof", "no", "one"]);
    eventually("the replica becomes a master", || async { store.ping().await.is_ok() }).await;
}

/// A master, a replica and three Sentinels that watch them as `logins`.
pub(crate) struct Sentinels {
    pub(crate) master_port: u16,
    pub(crate) replica_port: u16,
    pub(crate) master: Option<Process>,
    _others: Vec<Process>,
    pub(crate) url: String,
}

pub(crate) async fn sentinels(folder: &Path) -> Sentinels {
    let (master_port, replica_port) = (free_port(), free_port());
    let master = own_redis(master_port);
    let replica_of = format!("127.0.0.1 {master_port}");
    let replica = redis_server(&[
        "--port",
        &replica_port.to_string(),
        "--save",
        "",
        "--replicaof",
        &replica_of,
    ]);
    answers(master_port).await;
    answers(replica_port).await;
    let mut others = vec![replica];
    let mut hosts = Vec::new();
    for number in 0..3 {
        let port = free_port();
        let file = folder.join(format!("sentinel-{number}.conf"));
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor logins 127.0.0.1 {master_port} 2\n\
             sentinel down-after-milliseconds logins 500\nsentinel failover-timeout logins 3000\n",
            folder.display()
        );
        fs::write(&file, text).expect("written");
        others.push(redis_server(&[file.to_str().expect("UTF-8"), "--sentinel"]));
        hosts.push(format!("127.0.0.1:{port}"));
    }
    for host in &hosts {
        let port = host.rsplit(':').next().expect("a port");
        eventually("the Sentinels know each other and the replica", || async {
            let known = cli(&["-p", port, "sentinel", "master", "logins"]);
            let value = |name: &str| {
                known.lines().skip_while(|line| *line != name).nth(1).unwrap_or_default().to_owned()
            };
            value("num-other-sentinels") == "2" && value("num-slaves") == "1"
        })
        .await;
    }
    let url = format!("redis+sentinel://{}/logins", hosts.join(","));
    Sentinels { master_port, replica_port, master: Some(master), _others: others, url }
}

async fn service_over(url: String) -> (tempfile::TempDir, Service) {
    let data = tempfile::tempdir().expect("a directory");
    let config = config(Database::Sqlite(data.path().join("sso.db")), Some(url), &key());
    let mut service = Service::over(config, Arc::new(ManualClock::starting_now())).await;
    let connection = service.connection();
    service.create(connection).await.expect("created");
    (data, service)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_began_before_a_failover_is_completed_after_it() {
    let folder = tempfile::tempdir().expect("a directory");
    let mut sentinels = sentinels(folder.path()).await;
    let (_data, mut service) = service_over(sentinels.url.clone()).await;
    service.log_in().await.expect("a login by the first master");
    let under_way = service.approved().await;
    // Wait for the replica, since the service doesn't.
    assert_eq!(cli(&["-p", &sentinels.master_port.to_string(), "wait", "1", "2000"]), "1");
    sentinels.master.take().expect("a master").signal("KILL");
    let refusal = refused(service.begin(begin_request()).await);
    assert_eq!((refusal.reason.as_str(), refusal.retry.as_str()), ("STORE_UNAVAILABLE", "call"));
    eventually("the replica becomes the master", || {
        let mut login = service.login.clone();
        async move { login.begin_login(begin_request()).await.is_ok() }
    })
    .await;
    service.complete(complete_request(&under_way)).await.expect("the login that was under way");
    service.log_in().await.expect("and new ones");
    // The old master restarts and becomes a replica, which must get no writes.
    sentinels.master = Some(own_redis(sentinels.master_port));
    for _ in 0..20 {
        service.log_in().await.expect("logins continue");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Three masters with a replica each.
struct Cluster {
    nodes: Vec<(u16, Process)>,
}

async fn cluster(folder: &Path) -> Cluster {
    let mut nodes = Vec::new();
    while nodes.len() < 6 {
        // The cluster bus listens on the port plus 10000.
        let port = free_port();
        if port > 55_000 || std::net::TcpListener::bind(("127.0.0.1", port + 10_000)).is_err() {
            continue;
        }
        let own = folder.join(port.to_string());
        fs::create_dir(&own).expect("a directory");
        let arguments = [
            "--port",
            &port.to_string(),
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1000",
            "--save",
            "",
            "--dir",
            own.to_str().expect("UTF-8"),
        ];
        nodes.push((port, redis_server(&arguments)));
    }
    for (port, _) in &nodes {
        answers(*port).await;
    }
    let hosts: Vec<String> = nodes.iter().map(|(port, _)| format!("127.0.0.1:{port}")).collect();
    let mut arguments = vec!["--cluster", "create"];
    arguments.extend(hosts.iter().map(String::as_str));
    arguments.extend(["--cluster-replicas", "1", "--cluster-yes"]);
    let created = cli(&arguments);
    assert!(created.contains("All 16384 slots covered"), "{created}");
    let first = nodes[0].0.to_string();
    eventually("the Cluster is complete", || async {
        cli(&["-p", &first, "cluster", "info"]).contains("cluster_state:ok")
            && cli(&["-p", &first, "cluster", "nodes"]).matches(" slave ").count() == 3
    })
    .await;
    Cluster { nodes }
}

impl Cluster {
    fn url(&self) -> String {
        let hosts: Vec<String> =
            self.nodes.iter().take(3).map(|(port, _)| format!("127.0.0.1:{port}")).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_unhealthy_if_most_of_its_masters_are_full() {
    let folder = tempfile::tempdir().expect("a directory");
    let cluster = cluster(folder.path()).await;
    let store = store_at(&cluster.url());
    eventually("the Cluster accepts writes", || async { store.ping().await.is_ok() }).await;
    fill(cluster.nodes[0].0);
    store.ping().await.expect("two thirds of the logins can begin");
    fill(cluster.nodes[1].0);
    store.ping().await.expect_err("one third of the logins can begin");
}

/// Whether a call succeeded. It may be refused only as STORE_UNAVAILABLE, which a client repeats.
fn is_served<T: std::fmt::Debug>(answer: Result<T, Status>) -> bool {
    let is_ok = answer.is_ok();
    assert!(is_ok || reason(answer) == "STORE_UNAVAILABLE");
    is_ok
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_work_while_a_cluster_moves_slots_and_masters() {
    let folder = tempfile::tempdir().expect("a directory");
    let mut cluster = cluster(folder.path()).await;
    let (_data, mut service) = service_over(cluster.url()).await;
    for _ in 0..20 {
        service.log_in().await.expect("logins in many slots");
    }
    // MOVED and ASK: slots move to another master while values are stored in them and added.
    let store = store_at(&cluster.url());
    let waiting: Vec<PendingKey> = (0..200).map(|_| PendingKey::new(random())).collect();
    for key in &waiting {
        store.put(&account(), key, b"1", TTL).await.expect("put");
    }
    let ids: Vec<String> = cluster.nodes[..2]
        .iter()
        .map(|(port, _)| cli(&["-p", &port.to_string(), "cluster", "myid"]))
        .collect();
    let host = format!("127.0.0.1:{}", cluster.nodes[0].0);
    let reshard = tokio::task::spawn_blocking(move || {
        cli(&[
            "--cluster",
            "reshard",
            &host,
            "--cluster-from",
            &ids[0],
            "--cluster-to",
            &ids[1],
            "--cluster-slots",
            "3000",
            "--cluster-yes",
        ])
    });
    for key in &waiting {
        assert_eq!(store.take(key).await.expect("answered while slots move"), Some(b"1".to_vec()));
        let fresh = PendingKey::new(random());
        store.put(&account(), &fresh, b"2", TTL).await.expect("put while slots move");
        assert_eq!(store.take(&fresh).await.expect("answered"), Some(b"2".to_vec()));
    }
    assert!(reshard.await.expect("ended").contains("Moving slot"));
    let under_way = service.approved().await;
    // Wait for the replicas, since the service doesn't.
    for (port, _) in &cluster.nodes[..3] {
        cli(&["-p", &port.to_string(), "wait", "1", "2000"]);
    }
    // A master dies, and its replica takes over.
    cluster.nodes.remove(0).1.signal("KILL");
    eventually("every slot is served again", || async {
        let mut login = service.login.clone();
        let mut served = 0;
        for _ in 0..30 {
            served += usize::from(is_served(login.begin_login(begin_request()).await));
        }
        served == 30
    })
    .await;
    service.complete(complete_request(&under_way)).await.expect("the login that was under way");
    for _ in 0..20 {
        // On a busy machine the nodes lose sight of each other for a moment: a client repeats the call.
        eventually("logins in every slot", || async {
            let mut login = service.login.clone();
            let begun = login.begin_login(begin_request()).await;
            let Ok(begun) = begun else { return is_served(begun) };
            let callback = service.idp.approve(&begun.into_inner().redirect_url, "alice");
            let completed = login.complete_login(complete_request(&callback)).await;
            is_served(completed)
        })
        .await;
    }
}
