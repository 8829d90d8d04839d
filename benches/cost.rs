//! The cost of a login, measured on the release build of the program with a real Redis and a real
//! PostgreSQL: CPU time and latency per call, with one account and with 10,000; memory with 10,000
//! accounts, a flood of begun logins and an IdP that hangs; Redis memory per pending login. The
//! load and the IdP are in this process, whose CPU time isn't counted.
//!
//! ```text
//! cargo bench --bench cost
//! ```
//!
//! Needs Redis and PostgreSQL, which `tests/run` installs. Prints the tables of docs/operations.md.

#![expect(clippy::print_stdout, reason = "the results are printed")]

#[path = "../tests/it/servers.rs"]
mod servers;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256};
use axum::extract::{Path as UrlPath, State};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use peerpanda_sso::clock::{Clock, SystemClock};
use peerpanda_sso::entropy::SystemEntropy;
use peerpanda_sso::pb;
use peerpanda_sso::pb::connection_service_client::ConnectionServiceClient;
use peerpanda_sso::pb::login_service_client::LoginServiceClient;
use peerpanda_sso::store::seal::MasterKey;
use serde_json::{Value, json};
use servers::{Postgres, Process, free_port, listening_ports, own_redis};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use url::Url;

/// Each account has an issuer of its own.
const ACCOUNTS: u64 = 10_000;
/// Calls at once.
const CONCURRENCY: u64 = 32;

/// An IdP for any number of issuers: http://localhost:PORT/NUMBER. The authorization code of a
/// login is its nonce.
struct Idp {
    base: String,
    key: RsaKeyPair,
    /// Milliseconds that the token endpoint takes.
    delay: AtomicU64,
}

impl Idp {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base =
            format!("http://localhost:{}", listener.local_addr().expect("an address").port());
        let idp = Arc::new(Self {
            base,
            key: RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
            delay: AtomicU64::new(0),
        });
        let router = Router::new()
            .route("/{number}/.well-known/openid-configuration", get(metadata))
            .route("/{number}/keys", get(keys))
            .route("/{number}/token", post(token))
            .with_state(Arc::clone(&idp));
        tokio::spawn(async move { axum::serve(listener, router).await });
        idp
    }

    fn issuer(&self, number: u64) -> String {
        format!("{}/{number}", self.base)
    }
}

/// As long as that of real IdPs: about 2 kB.
async fn metadata(State(idp): State<Arc<Idp>>, UrlPath(number): UrlPath<u64>) -> Json<Value> {
    let issuer = idp.issuer(number);
    Json(json!({
        "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"), "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"), "end_session_endpoint": format!("{issuer}/logout"),
        "id_token_signing_alg_values_supported": ["RS256"], "response_types_supported": ["code"],
        "claims_supported": (0..100).map(|claim| format!("claim_{claim}")).collect::<Vec<_>>(),
    }))
}

/// Three keys, as most IdPs publish.
async fn keys(State(idp): State<Arc<Idp>>, UrlPath(_): UrlPath<u64>) -> Json<Value> {
    // PKCS#1 DER of a 2048-bit key: 9 bytes of headers, then the modulus.
    let modulus = BASE64_URL_SAFE_NO_PAD.encode(&idp.key.public_key().as_ref()[9..265]);
    let key =
        |kid: &str| json!({ "kty": "RSA", "use": "sig", "kid": kid, "n": modulus, "e": "AQAB" });
    Json(json!({ "keys": [key("now"), key("next"), key("last")] }))
}

async fn token(
    State(idp): State<Arc<Idp>>,
    UrlPath(number): UrlPath<u64>,
    Form(form): Form<std::collections::HashMap<String, String>>,
) -> Json<Value> {
    tokio::time::sleep(Duration::from_millis(idp.delay.load(Ordering::Relaxed))).await;
    let now = SystemClock.unix_seconds().0;
    let claims = json!({
        "iss": idp.issuer(number), "sub": "alice", "aud": "client", "iat": now, "exp": now + 300, "nonce": form["code"],
        "email": "alice@example.com", "given_name": "Alice", "family_name": "Example",
    });
    let encoded = |text: String| BASE64_URL_SAFE_NO_PAD.encode(text);
    let message = format!(
        "{}.{}",
        encoded(json!({ "alg": "RS256", "kid": "now" }).to_string()),
        encoded(claims.to_string())
    );
    let mut signature = vec![0; idp.key.public_modulus_len()];
    idp.key
        .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
        .expect("signed");
    let id_token = format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature));
    Json(
        json!({ "access_token": "a", "token_type": "Bearer", "expires_in": 3600, "id_token": id_token }),
    )
}

/// The program under load.
struct Program {
    process: Process,
    login: Vec<LoginServiceClient<Channel>>,
    admin: ConnectionServiceClient<Channel>,
}

impl Program {
    async fn start(folder: &Path, settings: &[(&str, String)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peerpanda-sso"));
        command.arg("serve").current_dir(folder).env_clear();
        command.env("SSO_LISTEN", "127.0.0.1:0").env("SSO_ADMIN_LISTEN", "127.0.0.1:0");
        command
            .env("SSO_ALLOW_INSECURE_PROVIDERS", "true")
            // The addresses are read from the log.
            .env("RUST_LOG", "warn,peerpanda_sso::app=info")
            .env("SSO_BEGIN_RATE", "10000000/1s");
        command
            .envs(settings.iter().map(|(name, value)| (*name, value.as_str())))
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        let (login_port, admin_port) = listening_ports(&mut child).await;
        let process = Process(child);
        let mut login = Vec::new();
        for _ in 0..4 {
            login.push(LoginServiceClient::new(connected(login_port).await));
        }
        let admin = ConnectionServiceClient::new(connected(admin_port).await);
        Self { process, login, admin }
    }

    /// User and system time so far.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.0.id()))
            .expect("it runs");
        let fields: Vec<&str> =
            stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().expect("a number")
            + fields[12].parse::<u64>().expect("a number");
        // USER_HZ is 100 on Linux.
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory in MiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id()))
            .expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number")
            / 1024
    }

    async fn set_up(&mut self, idp: &Idp, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let connection = pb::Connection {
                slug: format!("account-{number}"),
                issuer: idp.issuer(number),
                discovery_url: format!("{}/.well-known/openid-configuration", idp.issuer(number)),
                client_id: "client".to_owned(),
                client_secret: "secret".to_owned(),
                ..pb::Connection::default()
            };
            let request =
                pb::CreateConnectionRequest { connection: Some(connection), validate_only: false };
            let created = self
                .admin
                .create_connection(request)
                .await
                .expect("created")
                .into_inner()
                .connection;
            let pb::Connection { slug, revision, .. } = created.expect("a connection");
            let request =
                pb::ActivateConnectionRequest { slug, revision, force: true, validate_only: false };
            self.admin.activate_connection(request).await.expect("activated");
        }
    }

    /// Calls `call` for 0..`count`, [`CONCURRENCY`] at once. Gives the cost and the results.
    async fn measured<T: Send + 'static, F>(
        &self,
        count: u64,
        call: impl Fn(LoginServiceClient<Channel>, u64) -> F + Clone + Send + 'static,
    ) -> (Cost, Vec<T>)
    where
        F: Future<Output = T> + Send,
    {
        let (cpu, began) = (self.cpu(), Instant::now());
        let next = Arc::new(AtomicU64::new(0));
        let workers: Vec<_> = (0..CONCURRENCY)
            .map(|worker| {
                let (client, call, next) = (
                    self.login[worker as usize % self.login.len()].clone(),
                    call.clone(),
                    Arc::clone(&next),
                );
                tokio::spawn(async move {
                    let mut done = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return done;
                        }
                        let began = Instant::now();
                        let value = call(client.clone(), number).await;
                        done.push((began.elapsed(), value));
                    }
                })
            })
            .collect();
        let mut done = Vec::new();
        for worker in workers {
            done.extend(worker.await.expect("ended"));
        }
        let elapsed = began.elapsed();
        let cpu = self.cpu() - cpu;
        let (mut latencies, values): (Vec<_>, Vec<_>) = done.into_iter().unzip();
        latencies.sort();
        let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
        (
            Cost {
                per_call: cpu / count as u32,
                p50: at(50),
                p99: at(99),
                per_second: count as f64 / elapsed.as_secs_f64(),
            },
            values,
        )
    }

    async fn begin(&self, count: u64, accounts: u64) -> (Cost, Vec<Begun>) {
        self.measured(count, move |mut client, number| async move {
            // Steps of a prime, so that successive calls don't use neighbouring memory.
            let slug = format!("account-{}", number * 7919 % accounts);
            let request =
                pb::BeginLoginRequest { slug: slug.clone(), ..pb::BeginLoginRequest::default() };
            let begun = client.begin_login(request).await.expect("begun").into_inner();
            let url = Url::parse(&begun.redirect_url).expect("a URL");
            let nonce = url
                .query_pairs()
                .find(|(name, _)| name == "nonce")
                .expect("a nonce")
                .1
                .into_owned();
            Begun { slug, state: begun.state, nonce }
        })
        .await
    }

    async fn complete(&self, begun: Vec<Begun>) -> Cost {
        let begun = Arc::new(begun);
        let count = begun.len() as u64;
        let (cost, _) = self
            .measured(count, move |mut client, number| {
                let Begun { slug, state, nonce } = begun[number as usize].clone();
                async move {
                    let request = pb::CompleteLoginRequest {
                        slug,
                        state,
                        code: nonce,
                        ..pb::CompleteLoginRequest::default()
                    };
                    client.complete_login(request).await.expect("a login");
                }
            })
            .await;
        cost
    }
}

#[derive(Clone)]
struct Begun {
    slug: String,
    state: String,
    nonce: String,
}

struct Cost {
    per_call: Duration,
    p50: Duration,
    p99: Duration,
    per_second: f64,
}

impl Cost {
    fn show(&self, what: &str) {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        println!(
            "| {what} | {} µs | {:.1} ms | {:.1} ms | {:.0} |",
            self.per_call.as_micros(),
            ms(self.p50),
            ms(self.p99),
            self.per_second
        );
    }
}

async fn connected(port: u16) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("a URL");
    endpoint.connect().await.expect("the program answers")
}

async fn redis_memory(url: &str) -> i64 {
    let client = redis::Client::open(url).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
    let info: String =
        redis::cmd("INFO").arg("memory").query_async(&mut connection).await.expect("answered");
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("a size");
    used.trim().parse().expect("a number")
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().expect("a directory");
    let redis_port = free_port();
    let _redis = own_redis(redis_port);
    let redis_url = format!("redis://127.0.0.1:{redis_port}");
    let postgres = Postgres::start(&folder, &[]).await;
    let idp = Idp::start().await;
    let settings = [
        ("SSO_REDIS_URL", redis_url.clone()),
        ("SSO_DATABASE_URL", postgres.url.clone()),
        ("SSO_ENCRYPTION_KEYS", MasterKey::generate(&SystemEntropy).encoded().to_string()),
    ];
    let mut program = Program::start(folder.path(), &settings).await;
    program.set_up(&idp, 0..1).await;
    program.begin(100, 1).await;

    println!(
        "\n| call, {CONCURRENCY} at once | CPU in the service | median | 99 % | calls/s |\n|---|---|---|---|---|"
    );
    let (cost, begun) = program.begin(20_000, 1).await;
    cost.show("BeginLogin, one account");
    program.complete(begun).await.show("CompleteLogin, one account");
    let mut memory = vec![("one account, 20,000 logins done".to_owned(), program.memory())];

    program.set_up(&idp, 1..ACCOUNTS).await;
    memory.push((format!("{ACCOUNTS} accounts set up, no login yet"), program.memory()));
    let (_, first) = program.begin(ACCOUNTS, ACCOUNTS).await;
    memory.push((format!("{ACCOUNTS} accounts and their IdPs' metadata in use"), program.memory()));
    program.complete(first).await;
    let (cost, begun) = program.begin(20_000, ACCOUNTS).await;
    cost.show(&format!("BeginLogin, {ACCOUNTS} accounts"));
    program.complete(begun).await.show(&format!("CompleteLogin, {ACCOUNTS} accounts"));
    memory.push((format!("{ACCOUNTS} accounts, 30,000 logins done"), program.memory()));

    let before = redis_memory(&redis_url).await;
    program.begin(100_000, ACCOUNTS).await;
    let pending = (redis_memory(&redis_url).await - before) / 100_000;
    memory.push(("after a flood of 100,000 begun logins".to_owned(), program.memory()));
    let (_, begun) = program.begin(5_000, ACCOUNTS).await;
    idp.delay.store(8_000, Ordering::Relaxed);
    let hanging: Vec<_> = begun
        .into_iter()
        .enumerate()
        .map(|(number, Begun { slug, state, nonce })| {
            let mut client = program.login[number % program.login.len()].clone();
            tokio::spawn(async move {
                let request = pb::CompleteLoginRequest {
                    slug,
                    state,
                    code: nonce,
                    ..pb::CompleteLoginRequest::default()
                };
                let _ = client.complete_login(request).await;
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    memory.push(("5,000 logins at once at IdPs that hang".to_owned(), program.memory()));
    for login in hanging {
        login.await.expect("ended");
    }
    memory.push(("afterwards".to_owned(), program.memory()));

    println!("\n| memory of the service | MiB |\n|---|---|");
    for (what, mib) in memory {
        println!("| {what} | {mib} |");
    }
    println!("\nRedis: {pending} bytes for each pending login, its own overhead included.");
}
