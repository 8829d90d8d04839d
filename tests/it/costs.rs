//! What an attack costs: the memory of the program and the latency of other callers, while strangers,
//! greedy callers and odd IdPs do what the limits are for. `tests/costs` runs it against the release build
//! and prints the table of docs/operations.md.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use peerpanda_sso::clock::SystemClock;
use peerpanda_sso::pb;
use peerpanda_sso::pb::login_service_client::LoginServiceClient;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::transport::{Certificate, Channel, ClientTlsConfig};

use crate::binary::{Program, command};
use crate::callers::{caller, hash, with_token};
use crate::fake_idp::{FakeIdp, locked, random};
use crate::harness::{complete_request, key, postgres_url, redis_url, refused};
use crate::hostile::{CHECK, GET_IDENTITY, PREFACE, Raw, WATCH, connect_from, resident};
use crate::operations::metrics_port;
use crate::rig::{begin_at, complete_at};
use crate::tls::private_ca;

const MIB: usize = 1 << 20;
/// Without the attack, and then with it.
const CALM: Duration = Duration::from_secs(2);
const ATTACK: Duration = Duration::from_secs(5);
/// The web tier lets a user log in.
const USER_EVERY: Duration = Duration::from_millis(25);
/// What the table promises: more memory, or a user who is refused, is a defect.
const MAX_GROWTH: usize = 128 * MIB;

/// The program as in production, and the customer whose users must not notice.
struct Target {
    _data: TempDir,
    program: Program,
    idp: Arc<FakeIdp>,
    /// For the web tier; a connection carries 512 calls.
    web: Channel,
    /// Host and port of the login listener.
    login: String,
}

impl Target {
    async fn start() -> Self {
        Self::start_with(false, false).await
    }

    async fn start_with(has_tls: bool, has_silent_dns: bool) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let path = |name: &str| data.path().join(name).display().to_string();
        let write = |name: &str, text: String| {
            std::fs::write(data.path().join(name), text).expect("written");
            path(name)
        };
        let callers = [("web", "login"), ("backend", "identity"), ("support", "admin")].map(
            |(name, role)| {
                caller(
                    name,
                    role,
                    &format!("token_sha256 = [\"{}\"]", hash(&format!("CANARY{name}"))),
                )
            },
        );
        let mut settings = vec![
            ("SSO_CALLERS_FILE", write("callers.toml", callers.concat())),
            ("SSO_DATABASE_URL", postgres_url().await),
            ("SSO_REDIS_URL", redis_url()),
            ("SSO_ENCRYPTION_KEYS", key().encoded().to_string()),
            ("SSO_METRICS_LISTEN", "127.0.0.1:0".to_owned()),
            ("SSO_IDENTITY_AUDIENCE", "backends".to_owned()),
        ];
        let mut tls = None;
        if has_tls {
            let (ca, own) = (private_ca(), KeyPair::generate().expect("a key"));
            let names = vec!["localhost".to_owned()];
            let leaf = CertificateParams::new(names).expect("parameters");
            let leaf = leaf.signed_by(&own, &ca).expect("signed");
            settings.push(("SSO_TLS_CERT_FILE", write("tls.pem", leaf.pem())));
            settings.push(("SSO_TLS_KEY_FILE", write("tls.key", own.serialize_pem())));
            let trusted = Certificate::from_pem(ca.pem());
            tls = Some(ClientTlsConfig::new().ca_certificate(trusted).domain_name("localhost"));
        }
        let settings: Vec<_> =
            settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut program = command(data.path());
        if has_silent_dns {
            write("resolv.conf", format!("nameserver {SILENT_DNS}\n"));
            let own_view = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
            let in_view = program;
            program = std::process::Command::new("unshare");
            program.args(["--mount", "sh", "-c", own_view, &path("resolv.conf")]);
            program.arg(in_view.get_program()).current_dir(data.path()).env_clear();
            program.env("PATH", "/usr/bin:/bin").stdin(std::process::Stdio::null());
        }
        let program = Program::run(program, &settings).await;
        let connected = |url: &str| {
            let url = if has_tls { url.replace("http:", "https:") } else { url.to_owned() };
            let endpoint = Channel::from_shared(url).expect("a URL");
            match &tls {
                Some(tls) => endpoint.tls_config(tls.clone()).expect("settings").connect_lazy(),
                None => endpoint.connect_lazy(),
            }
        };
        let (web, admin) = (connected(&program.login_url), connected(&program.admin_url));
        let login = program.login_url.replace("http://", "");
        let idp = Arc::new(FakeIdp::start(Arc::new(SystemClock)).await);
        let mut target = Self { _data: data, program, idp, web, login };
        target.program.admin = pb::connection_service_client::ConnectionServiceClient::new(admin);
        target.create(target.idp.connection("acme")).await;
        for _ in 0..20 {
            target.users().log_in().await.expect("a login");
        }
        // The pinned issuer is applied at the next poll.
        sleep(Duration::from_millis(2500)).await;
        target
    }

    async fn create(&self, connection: pb::Connection) {
        let connection = Some(connection);
        let request = pb::CreateConnectionRequest { connection, validate_only: false };
        let mut admin = self.program.admin.clone();
        admin.create_connection(with_token(request, "CANARYsupport")).await.expect("created");
    }

    fn users(&self) -> Users {
        let client = LoginServiceClient::new(self.web.clone());
        Users { client, idp: Arc::clone(&self.idp), took: Arc::default(), refused: Arc::default() }
    }

    /// Connections of the web tier for what strangers do through it.
    async fn clients(&self, count: usize) -> Vec<LoginServiceClient<Channel>> {
        let mut clients = Vec::new();
        for _ in 0..count {
            let endpoint = Channel::from_shared(self.program.login_url.clone()).expect("a URL");
            clients.push(LoginServiceClient::new(endpoint.connect().await.expect("connected")));
        }
        clients
    }
}

/// Users of `acme`.
#[derive(Clone)]
struct Users {
    client: LoginServiceClient<Channel>,
    idp: Arc<FakeIdp>,
    took: Arc<Mutex<Vec<Duration>>>,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Users {
    async fn log_in(mut self) -> Result<(), tonic::Status> {
        let began = Instant::now();
        let begun = self.client.begin_login(with_token(begin_at("acme"), WEB)).await?.into_inner();
        locked(&self.took).push(began.elapsed());
        let callback = self.idp.approve(&begun.redirect_url, "alice");
        let began = Instant::now();
        self.client.complete_login(with_token(complete_request(&callback), WEB)).await?;
        locked(&self.took).push(began.elapsed());
        Ok(())
    }

    /// The 99th percentile of their calls, and the reasons of those that were refused.
    async fn come_until(self, until: Instant) -> (Duration, Vec<String>) {
        let (mut logins, mut ticks) = (JoinSet::new(), tokio::time::interval(USER_EVERY));
        while Instant::now() < until {
            ticks.tick().await;
            let user = self.clone();
            logins.spawn(async move {
                let all = Arc::clone(&user.refused);
                if let Err(status) = user.log_in().await {
                    locked(&all).push(refused::<()>(Err(status)).reason);
                }
            });
        }
        logins.join_all().await;
        let mut took = locked(&self.took).clone();
        took.sort();
        (took[(took.len() - 1) * 99 / 100], std::mem::take(&mut *locked(&self.refused)))
    }
}

/// Prints the rows, and remembers what breaks the promise.
#[derive(Default)]
struct Table {
    broken: Vec<String>,
}

impl Table {
    #[expect(clippy::print_stdout, reason = "tests/costs shows the table")]
    fn begin() -> Self {
        println!(
            "\n| attack, for {} s | bound | memory, before → peak | others' p99, before → during | others refused |\n\
             |---|---|---|---|---|",
            ATTACK.as_secs()
        );
        Self::default()
    }

    /// Measures an attack, which ends at the given time and says what it did.
    #[expect(clippy::print_stdout, reason = "tests/costs shows the table")]
    async fn add(
        &mut self,
        attack: &str,
        bound: &str,
        target: &Target,
        run: impl AsyncFnOnce(&Target, Instant) -> String,
    ) {
        let (calm, _) = target.users().come_until(Instant::now() + CALM).await;
        let before = resident(&target.program);
        let (peak, ends) = (Arc::new(AtomicUsize::new(before)), Arc::new(AtomicBool::new(false)));
        let until = Instant::now() + ATTACK;
        let users = tokio::spawn(target.users().come_until(until));
        let sampled = async {
            while !ends.load(Ordering::Relaxed) {
                peak.fetch_max(resident(&target.program), Ordering::Relaxed);
                sleep(Duration::from_millis(20)).await;
            }
        };
        let attacked = async {
            let did = run(target, until).await;
            ends.store(true, Ordering::Relaxed);
            did
        };
        let ((), did) = tokio::join!(sampled, attacked);
        let (during, refused) = users.await.expect("ended");
        let (peak, ms) = (peak.load(Ordering::Relaxed), |took: Duration| took.as_secs_f64() * 1e3);
        println!(
            "| {attack}{did} | {bound} | {} → {} MiB | {:.0} → {:.0} ms | {} |",
            before / MIB,
            peak / MIB,
            ms(calm),
            ms(during),
            refused.len()
        );
        if !refused.is_empty() || peak - before > MAX_GROWTH {
            self.broken.push(format!("{attack}: {refused:?}"));
        }
    }
}

/// From `networks` addresses, opens connections to `to` that say `bytes` and nothing more, and holds on to
/// the last few of each.
async fn hold_connections(to: &str, networks: u8, bytes: &'static [u8], until: Instant) -> String {
    let (mut tasks, opened) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for network in 1..=networks {
        let (to, opened) = (to.to_owned(), Arc::clone(&opened));
        tasks.spawn(async move {
            let mut held = VecDeque::new();
            while Instant::now() < until {
                let mut stream = connect_from([127, 0, 9, network], &to).await;
                opened.fetch_add(1, Ordering::Relaxed);
                let _ = stream.write_all(bytes).await;
                held.push_back(stream);
                if held.len() > 100 {
                    held.pop_front();
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
    }
    tasks.join_all().await;
    format!(": {} from {networks} networks", opened.load(Ordering::Relaxed))
}

/// Repeats `act` on `count` tasks until the time is over. Counts.
async fn repeat<F: Future<Output = usize> + Send + 'static>(
    count: usize,
    until: Instant,
    act: impl Fn(usize) -> F + Clone + Send + 'static,
) -> usize {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let act = act.clone();
        tasks.spawn(async move {
            let mut done = 0;
            while Instant::now() < until {
                done += tokio::time::timeout_at(until, act(number)).await.unwrap_or_default();
            }
            done
        });
    }
    tasks.join_all().await.into_iter().sum()
}

async fn raw_from(network: usize, to: &str) -> Raw {
    let network = u8::try_from(network % 200 + 1).expect("small");
    Raw::over(connect_from([127, 0, 8, network], to).await, to).await
}

/// Opens calls on one connection, each with the start of a message of `announced` bytes.
async fn announce(mut raw: Raw, path: &str, token: Option<&str>, announced: u32) -> usize {
    let mut open = Vec::new();
    let start = Bytes::from([&[0][..], &announced.to_be_bytes(), &[0; 60 * 1024]].concat());
    for _ in 0..160 {
        let Ok((response, mut body)) = raw.open(path, token).await else { break };
        body.reserve_capacity(start.len());
        let _ = body.send_data(start.clone(), false);
        open.push((response, body));
    }
    sleep(Duration::from_secs(1)).await;
    open.len()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures the release build on an idle machine: tests/costs runs it"]
async fn an_attack_costs_little_and_others_nothing() {
    let mut table = Table::begin();
    let target = Target::start().await;
    table
        .add("none", "", &target, async |_, until| {
            sleep_until(until).await;
            String::new()
        })
        .await;
    strangers(&mut table).await;
    callers(&mut table).await;
    idps(&mut table).await;
    assert!(table.broken.is_empty(), "{:?}", table.broken);
}

async fn strangers(table: &mut Table) {
    let connections = "1,024 connections of strangers, 128 from one network, 5 s for the preface";
    table
        .add(
            "connections with one byte at the gRPC port",
            connections,
            &Target::start().await,
            async |target, until| hold_connections(&target.login, 50, &PREFACE[..1], until).await,
        )
        .await;
    let target = Target::start_with(true, false).await;
    let handshakes = "the same, 5 s for the handshake";
    table
        .add("half TLS handshakes at the gRPC port", handshakes, &target, async |target, until| {
            const HALF: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
            hold_connections(&target.login, 50, HALF, until).await
        })
        .await;
    let probes = "64 connections of the metrics listener";
    table
        .add(
            "connections with one byte at the metrics port",
            probes,
            &Target::start().await,
            async |target, until| {
                let metrics = format!("127.0.0.1:{}", metrics_port(&target.program));
                hold_connections(&metrics, 50, b"G", until).await
            },
        )
        .await;
    let messages = "1 kB for a health call, 256 calls of strangers, 64 from one network";
    table
        .add(
            "health calls that announce 4 MiB and send 60 kB",
            messages,
            &Target::start().await,
            async |target, until| {
                let to = target.login.clone();
                let calls = repeat(32, until, move |number| {
                    let to = to.clone();
                    async move { announce(raw_from(number, &to).await, CHECK, None, 4 << 20).await }
                });
                format!(": {} calls from 32 networks", calls.await)
            },
        )
        .await;
    let resets = "512 streams on a connection, which ends after 64 resets, then 10 a second";
    table
        .add(
            "calls that are reset at once",
            resets,
            &Target::start().await,
            async |target, until| {
                let (to, count) = (target.login.clone(), Arc::new(AtomicUsize::new(0)));
                let counted = Arc::clone(&count);
                repeat(16, until, move |number| {
                    let (to, count) = (to.clone(), Arc::clone(&counted));
                    async move {
                        let mut raw = raw_from(number, &to).await;
                        while raw.is_open() {
                            for _ in 0..100 {
                                let Ok((_, mut body)) = raw.open(CHECK, None).await else { break };
                                body.send_reset(h2::Reason::CANCEL);
                                count.fetch_add(1, Ordering::Relaxed);
                            }
                            sleep(Duration::from_millis(10)).await;
                        }
                        0
                    }
                })
                .await;
                format!(": {} from 16 networks", count.load(Ordering::Relaxed))
            },
        )
        .await;
    let watches = "1,024 streams of strangers, 64 from one network";
    table
        .add("health watches", watches, &Target::start().await, async |target, until| {
            let to = target.login.clone();
            let opened = repeat(64, until, move |number| {
                let to = to.clone();
                async move {
                    let mut raw = raw_from(number, &to).await;
                    let mut open = Vec::new();
                    for _ in 0..200 {
                        let Ok((response, mut body)) = raw.open(WATCH, None).await else { break };
                        let _ = body.send_data(Bytes::from_static(&[0; 5]), true);
                        open.push(response);
                    }
                    sleep(Duration::from_secs(2)).await;
                    open.len()
                }
            });
            format!(": {} from 64 networks", opened.await)
        })
        .await;
    let refusals = "10 log lines a second";
    table
        .add(
            "calls without credentials",
            refusals,
            &Target::start().await,
            async |target, until| {
                let clients = target.clients(4).await;
                let calls = repeat(64, until, move |number| {
                    let mut client = clients[number % clients.len()].clone();
                    async move {
                        let refused = client.begin_login(begin_at("acme")).await.is_err();
                        usize::from(refused)
                    }
                });
                let calls = calls.await;
                let log = locked(&target.program.log);
                let lines = log.iter().filter(|line| line.contains("CALLER_UNKNOWN")).count();
                format!(", 64 at once: {calls}, {lines} log lines")
            },
        )
        .await;
}

/// What strangers do through the web tier, and what callers of other roles do.
async fn callers(table: &mut Table) {
    let slugs = "10,000 slugs remembered as unknown, 256 reads of SQL at once";
    table
        .add(
            "begins at made-up accounts, 64 at once",
            slugs,
            &Target::start().await,
            async |target, until| {
                let clients = target.clients(4).await;
                let calls = repeat(64, until, move |number| {
                    let mut client = clients[number % clients.len()].clone();
                    async move {
                        let slug = format!("x{}", random().to_lowercase().replace(['-', '_'], "x"));
                        let begun = client.begin_login(with_token(begin_at(&slug), WEB)).await;
                        usize::from(refused(begun).reason == "CONNECTION_NOT_FOUND")
                    }
                });
                format!(": {}", calls.await)
            },
        )
        .await;
    let states = "checked before any I/O";
    table
        .add(
            "callbacks with made-up states, 64 at once",
            states,
            &Target::start().await,
            async |target, until| {
                let clients = target.clients(4).await;
                let calls = repeat(64, until, move |number| {
                    let mut client = clients[number % clients.len()].clone();
                    async move {
                        let request = pb::CompleteLoginRequest {
                            slug: "acme".to_owned(),
                            code: random(),
                            state: random().repeat(5)[..75].to_owned(),
                            ..pb::CompleteLoginRequest::default()
                        };
                        let refusal =
                            refused(client.complete_login(with_token(request, WEB)).await);
                        usize::from(refusal.reason == "STATE_INVALID")
                    }
                });
                format!(": {}", calls.await)
            },
        )
        .await;
    let codes = "`SSO_BEGIN_RATE` (6000/1m) of the account, 64 calls of its IdP at once";
    callbacks(table, "made-up codes at another account, 64 at once", codes, None).await;
    let attempts = "the same; 4,096 attempts queued, 200 kept of an account";
    let error = Some("access_denied");
    callbacks(table, "refusals of an IdP at another account, 64 at once", attempts, error).await;

    let share = "2,048 calls of IdentityService (half of `SSO_MAX_IN_FLIGHT`), three quarters for one caller; 16 MiB of messages";
    table
        .add(
            "unfinished GetIdentity calls of a backend",
            share,
            &Target::start().await,
            async |target, until| {
                let to = target.login.clone();
                let calls = repeat(16, until, move |_| {
                    let to = to.clone();
                    async move {
                        let raw = Raw::connect(&to).await;
                        announce(raw, GET_IDENTITY, Some("CANARYbackend"), 200 << 10).await
                    }
                });
                format!(", each announces 200 KiB: {}", calls.await)
            },
        )
        .await;
    table
        .add(
            "whole GetIdentity calls of a backend",
            share,
            &Target::start().await,
            async |target, until| {
                let to = target.login.clone();
                let calls = repeat(64, until, move |_| {
                    let to = to.clone();
                    async move {
                        let mut raw = Raw::connect(&to).await;
                        let mut done = 0;
                        while Instant::now() < until
                            && raw.call(GET_IDENTITY, Some("CANARYbackend"), &[]).await.is_ok()
                        {
                            done += 1;
                        }
                        done
                    }
                });
                format!(", 64 at once: {}", calls.await)
            },
        )
        .await;
}

/// Logins at an account of their own that end with a made-up code or the IdP's error.
async fn callbacks(table: &mut Table, attack: &str, bound: &str, error: Option<&'static str>) {
    let target = Target::start().await;
    table
        .add(attack, bound, &target, async |target, until| {
            let idp = Arc::new(FakeIdp::start(Arc::new(SystemClock)).await);
            target.create(idp.connection("attacked")).await;
            let clients = target.clients(4).await;
            let calls = repeat(64, until, move |number| {
                let (mut client, idp) = (clients[number % clients.len()].clone(), Arc::clone(&idp));
                async move {
                    let begin = pb::BeginLoginRequest {
                        client_key: Some(random()),
                        ..begin_at("attacked")
                    };
                    let Ok(begun) = client.begin_login(with_token(begin, WEB)).await else {
                        sleep(Duration::from_millis(50)).await;
                        return 0;
                    };
                    let mut callback = idp.approve(&begun.into_inner().redirect_url, "mallory");
                    callback.code = error.map_or_else(random, |_| String::new());
                    let request = pb::CompleteLoginRequest {
                        error: error.map(str::to_owned),
                        ..complete_at("attacked", &callback)
                    };
                    usize::from(client.complete_login(with_token(request, WEB)).await.is_err())
                }
            });
            format!(": {}", calls.await)
        })
        .await;
}

async fn idps(table: &mut Table) {
    let waiting = "64 waiting logins of an account";
    table
        .add(
            "5,000 users who wait to begin at an IdP that hangs",
            waiting,
            &Target::start().await,
            async |target, until| {
                let hanging = FakeIdp::start(Arc::new(SystemClock)).await;
                hanging.behave().metadata_delay = Duration::from_secs(60);
                target.create(hanging.connection("hanging")).await;
                let clients = target.clients(10).await;
                let calls = repeat(5_000, until, move |number| {
                    let mut client = clients[number % clients.len()].clone();
                    async move {
                        let begun = client.begin_login(with_token(begin_at("hanging"), WEB)).await;
                        assert_eq!(refused(begun).retry, "call");
                        // As the refusal asks for.
                        sleep(Duration::from_secs(1)).await;
                        1
                    }
                });
                format!(", each tries once a second: {} refusals", calls.await)
            },
        )
        .await;
    let target = Target::start().await;
    let huge = FakeIdp::start(Arc::new(SystemClock)).await;
    publish_much(&huge);
    for number in 0..300 {
        target.create(huge.connection(&format!("huge-{number}"))).await;
    }
    table
        .add(
            "300 accounts whose IdPs publish 900 kB of metadata and 200 large keys, all begin",
            "1 MiB for a document, 200 keys, of which 20 kB are kept; `SSO_KNOWN_CONNECTIONS` \
             (20,000) × 24 kB for all IdPs",
            &target,
            async |target, until| {
                let clients = target.clients(4).await;
                let mut begins = JoinSet::new();
                for number in 0..300 {
                    let mut client = clients[number % clients.len()].clone();
                    begins.spawn(async move {
                        let slug = format!("huge-{number}");
                        client.begin_login(with_token(begin_at(&slug), WEB)).await.is_ok()
                    });
                }
                let begun = begins.join_all().await;
                sleep_until(until).await;
                format!(": {} begun", begun.into_iter().filter(|is_begun| *is_begun).count())
            },
        )
        .await;

    let Ok(_silent) = UdpSocket::bind((SILENT_DNS, 53)) else {
        panic!("the measurement with a silent name server needs root");
    };
    let target = Target::start_with(false, true).await;
    for number in 0..300 {
        let host = format!("idp-{number}.silent.test");
        let connection = target.idp.connection(&format!("silent-{number}"));
        let discovery_url = connection.discovery_url.replace("localhost", &host);
        target.create(pb::Connection { discovery_url, ..connection }).await;
    }
    table
        .add(
            "1,500 users at 300 accounts whose names no name server answers for",
            "128 lookups at once, 32 of names that lately had no answer, 3 s each; 64 waiting logins \
             of an account",
            &target,
            async |target, until| {
                let clients = target.clients(8).await;
                let calls = repeat(1_500, until, move |number| {
                    let mut client = clients[number % clients.len()].clone();
                    async move {
                        let slug = format!("silent-{}", number % 300);
                        let begun = client.begin_login(with_token(begin_at(&slug), WEB)).await;
                        assert!(begun.is_err());
                        sleep(Duration::from_secs(1)).await;
                        1
                    }
                });
                format!(", each tries again after a second: {} refusals", calls.await)
            },
        )
        .await;
}

/// As large as documents may be.
fn publish_much(idp: &FakeIdp) {
    let modulus = |key: u8| {
        let bytes = [[0xff, key].as_slice(), &[key | 1; 1022]].concat();
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    };
    let keys = (0..200)
        .map(|key| json!({ "kty": "RSA", "kid": key.to_string(), "n": modulus(key), "e": "AQAB" }));
    let keys = json!({ "keys": keys.collect::<Vec<_>>() });
    let at = |path: &str| format!("{}{path}", idp.issuer);
    let metadata = json!({
        "issuer": idp.issuer,
        "authorization_endpoint": at("/authorize"),
        "token_endpoint": at("/token"),
        "jwks_uri": at("/keys"),
        "id_token_signing_alg_values_supported": ["RS256"],
        "padding": "x".repeat(900 << 10),
    });
    for (path, document) in [("/.well-known/openid-configuration", metadata), ("/keys", keys)] {
        idp.behave().answers.insert(path, (200, document.to_string(), String::new()));
    }
}

const WEB: &str = "CANARYweb";
/// A name server that says nothing.
const SILENT_DNS: &str = "127.53.53.53";
