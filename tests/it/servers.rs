//! Servers that a test or a benchmark starts for itself, and may stop: Redis and PostgreSQL as
//! Debian packages them, and the program under test.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sqlx::Connection as _;
use tempfile::TempDir;

/// A program that is killed when its test ends.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.0.id().to_string())
            .status()
            .expect("kill runs");
        assert!(status.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a Redis.
pub(crate) fn own_redis(port: u16) -> Process {
    redis_server(&["--port", &port.to_string(), "--save", "", "--appendonly", "no"])
}

/// Starts `redis-server` with these arguments on loopback.
pub(crate) fn redis_server(arguments: &[&str]) -> Process {
    let mut command = Command::new("redis-server");
    // It writes files, such as a replica's copy of its master, to its working directory.
    command.args(arguments).current_dir(std::env::temp_dir());
    if !arguments.contains(&"--sentinel") {
        command.args(["--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0"]);
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    Process(child.expect("redis-server runs: tests/run installs it"))
}

/// A PostgreSQL. Its processes end when it is dropped.
pub(crate) struct Postgres {
    pub(crate) url: String,
    pub(crate) folder: PathBuf,
    server: Option<Process>,
}

impl Postgres {
    /// Starts an empty one in this directory with these settings.
    pub(crate) async fn start(data: &TempDir, settings: &[&str]) -> Self {
        use std::os::unix::fs::PermissionsExt;
        // PostgreSQL runs as another user than the tests.
        std::fs::set_permissions(data.path(), std::fs::Permissions::from_mode(0o755))
            .expect("changed");
        let folder = data.path().join("postgres");
        std::fs::create_dir(&folder).expect("a directory");
        let owned =
            Command::new("chown").arg("postgres").arg(&folder).output().expect("chown runs");
        assert!(owned.status.success() || !is_root());
        let made = as_postgres("initdb")
            .arg("-D")
            .arg(&folder)
            .args(["-U", "sso", "--auth=trust", "--no-sync"])
            .output();
        let made = made.expect("initdb runs: tests/run installs it");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let fixed = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
            .iter()
            .chain(settings);
        let text: String = fixed.map(|setting| setting.replacen('=', " = '", 1) + "'\n").collect();
        std::fs::write(folder.join("postgresql.auto.conf"), format!("port = {port}\n{text}"))
            .expect("written");
        let url = format!("postgres://sso@127.0.0.1:{port}/postgres");
        let mut postgres = Self { url, folder, server: None };
        postgres.run().await;
        postgres
    }

    /// Starts it or restarts it, and waits until it answers.
    pub(crate) async fn run(&mut self) {
        let mut command = as_postgres("postgres");
        command
            .arg("-D")
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.server = Some(Process(command.spawn().expect("postgres runs: tests/run installs it")));
        eventually("PostgreSQL answers", || async {
            sqlx::PgConnection::connect(&self.url).await.is_ok()
        })
        .await;
    }

    /// Sends a signal to the server and to the processes that serve its connections.
    pub(crate) fn signal(&self, signal: &str) {
        let server = self.server.as_ref().expect("it runs");
        let _ = Command::new("pkill")
            .arg(format!("-{signal}"))
            .arg("-P")
            .arg(server.0.id().to_string())
            .status();
        server.signal(signal);
    }

    /// Kills it at once.
    pub(crate) fn kill(&mut self) {
        // Stopped first, so that it can't recover while its children are killed.
        self.server.as_ref().expect("it runs").signal("STOP");
        self.signal("KILL");
        self.server = None;
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.kill();
        }
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A program of the newest installed PostgreSQL.
fn as_postgres(program: &str) -> Command {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL: tests/run installs it");
    let mut versions: Vec<PathBuf> =
        versions.filter_map(Result::ok).map(|version| version.path()).collect();
    versions
        .sort_by_key(|path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    let path = versions.pop().expect("a version").join("bin").join(program);
    as_user_postgres(&path)
}

/// A program as a user other than root.
pub(crate) fn as_user_postgres(path: &Path) -> Command {
    if !is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(path)
        .current_dir("/");
    command
}

/// Waits until the program under test logs `listening`; gives the ports of its login and admin
/// listeners. The rest of its log is discarded.
pub(crate) async fn listening_ports(child: &mut Child) -> (u16, u16) {
    let stderr = child.stderr.take().expect("piped");
    let (sender, ports) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut sender = Some(sender);
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let port = |name| logged_port(std::slice::from_ref(&line), name);
            if let (Some(login), Some(admin)) = (port("login.address"), port("admin.address"))
                && let Some(sender) = sender.take()
            {
                let _ = sender.send((login, admin));
            }
        }
    });
    let ports = tokio::time::timeout(Duration::from_secs(30), ports).await;
    ports.expect("in time").expect("the program listens")
}

/// The port of an address that a log names. The log's lines are text or JSON.
pub(crate) fn logged_port(log: &[String], name: &str) -> Option<u16> {
    let port = |line: &String| {
        let value = line.split_once(name)?.1.trim_start_matches(['"', '=', ':']);
        let address: SocketAddr = value.split(['"', ' ']).next()?.parse().ok()?;
        Some(address.port())
    };
    log.iter().find_map(port)
}

/// For Redis and PostgreSQL, which don't report the port that they chose.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Waits until a condition holds, for at most ten seconds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not within ten seconds");
}
