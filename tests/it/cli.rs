//! What support's commands print and accept, on the real program: the order and the width of their
//! output, many checks at once, waits, undo, completions in real shells, and listeners that are not the
//! service's.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use peerpanda_sso::clock::SystemClock;
use peerpanda_sso::pb;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use unicode_width::UnicodeWidthStr;

use crate::binary::{Program, command};
use crate::fake_idp::FakeIdp;
use crate::harness::{Service, eventually, reason};
use crate::support::{Terminal, program};

/// A program with a terminal, and `acme` at an IdP.
struct Desk {
    program: Program,
    terminal: Terminal,
    idp: FakeIdp,
    _data: tempfile::TempDir,
}

/// An IdP at which the account's redirect URI is registered.
async fn idp_of(slug: &str) -> FakeIdp {
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    idp.behave().registered_redirect =
        Some(format!("https://getpeerpanda.example/app/accounts/oidc/{slug}/login/callback/"));
    idp
}

impl Desk {
    async fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let mut program = program(data.path()).await;
        let idp = idp_of("acme").await;
        program.set_up(&idp).await;
        let terminal = Terminal::at(&program);
        terminal.file("wrong", "CANARYwrong\n");
        terminal.file("right", &idp.client_secret);
        Self { program, terminal, idp, _data: data }
    }

    /// Sets up an account at an IdP of its own, with its secret or a wrong one.
    async fn create(&self, slug: &str, is_right: bool) -> FakeIdp {
        let idp = idp_of(slug).await;
        let secret = if is_right { &idp.client_secret } else { "CANARYwrong" };
        self.terminal.file(&format!("{slug}.secret"), secret);
        let (discovery, file) = (idp.discovery_url(), format!("{slug}.secret"));
        let flags = ["--discovery-url", &discovery, "--client-id", &idp.client_id];
        let create = ["create", slug, "--client-secret-file", &file];
        self.terminal.succeed(&[&create[..], &flags[..]].concat()).await;
        idp
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_come_first_and_passes_are_counted() {
    let desk = Desk::start().await;
    desk.terminal.succeed(&["update", "acme", "--client-secret-file", "wrong"]).await;
    let checked = desk.terminal.run(&["check", "acme"]).await;
    assert_eq!(checked.code, 1, "{}", checked.text);
    assert!(checked.text.starts_with("FAIL         client.credentials"), "{}", checked.text);
    let outcomes = |text: &str| -> Vec<String> {
        let first = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        text.lines().filter(|line| !line.starts_with(' ')).map(first).collect()
    };
    let shown = outcomes(&checked.text);
    assert!(!shown.iter().any(|outcome| outcome == "PASS"), "{}", checked.text);
    let all = desk.terminal.run(&["check", "acme", "--output", "json"]).await.json();
    let results = all["results"].as_array().expect("results");
    let count = |name: &str| results.iter().filter(|it| it["outcome"] == name).count();
    let passed = count("CHECK_OUTCOME_PASS");
    let counted = format!("{passed} passed, {} skipped", count("CHECK_OUTCOME_SKIPPED"));
    let last = checked.text.lines().last().expect("a line");
    assert!(last.starts_with("FAIL: 1 failed, ") && last.ends_with(&counted), "{last}");
    let verbose = desk.terminal.run(&["check", "acme", "--verbose"]).await;
    let verbose = outcomes(&verbose.text);
    assert_eq!(verbose.iter().filter(|outcome| *outcome == "PASS").count(), passed);
    let order = ["FAIL", "WARN", "INCONCLUSIVE", "PASS", "SKIPPED", "FAIL:"];
    let places = verbose.iter().map(|outcome| order.iter().position(|known| known == outcome));
    let places: Vec<_> = places.map(|place| place.expect("an outcome")).collect();
    assert!(places.is_sorted(), "{verbose:?}");
}

/// A word that doesn't fit a line is in one piece, so that it can be copied.
fn assert_fits(text: &str, width: usize) {
    for line in text.lines().filter(|line| line.width() > width) {
        let longest = line.split_whitespace().map(UnicodeWidthStr::width).max();
        assert!(longest > Some(width - 40), "{} columns: {line:?}", line.width());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_is_wider_than_the_terminal() {
    let mut desk = Desk::start().await;
    let _other = desk.create("long-slug-of-a-customer-with-a-long-name", false).await;
    desk.terminal.succeed(&["update", "acme", "--client-secret-file", "wrong"]).await;
    assert_eq!(reason(desk.program.log_in(&desk.idp).await), "CLIENT_REJECTED");
    let verbs: [&[&str]; 6] = [
        &["get", "acme"],
        &["list"],
        &["check", "acme", "--verbose"],
        &["attempts", "acme"],
        &["changes", "acme"],
        &["check", "--all"],
    ];
    for arguments in verbs {
        let output = desk.terminal.run(arguments).await;
        assert!(output.text.lines().count() > 1, "{arguments:?}: {}", output.errors);
        assert_fits(&output.text, 100);
        // On a terminal of 64 columns.
        let line = format!(
            "stty cols 64 rows 40; '{}' connection {} --endpoint {}",
            env!("CARGO_BIN_EXE_peerpanda-sso"),
            arguments.join(" "),
            desk.program.admin_url
        );
        let script = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()
            .expect("script runs");
        let text = String::from_utf8(script.stdout).expect("UTF-8").replace('\r', "");
        assert!(text.lines().count() >= output.text.lines().count(), "{text}");
        assert_fits(&text, 64);
    }
    let wide = desk.terminal.succeed(&["attempts", "acme", "-o", "wide"]).await;
    assert!(wide.lines().any(|line| line.width() > 200), "{wide}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_all_goes_on_past_a_failure() {
    let desk = Desk::start().await;
    let beta = desk.create("beta", false).await;
    let _gamma = desk.create("gamma", true).await;
    let checked = desk.terminal.run(&["check", "--all"]).await;
    assert_eq!(checked.code, 1, "{}", checked.text);
    let place =
        |text: &str| checked.text.find(text).unwrap_or_else(|| panic!("{text}: {}", checked.text));
    let failed = place("FAIL         client.credentials");
    assert!(place("\nbeta\n") < failed && failed < place("\ngamma\n"), "{}", checked.text);
    assert!(checked.text.ends_with("3 connections checked, 1 failed\n"), "{}", checked.text);

    // Proposals: of a known account and of one mistake; nothing is changed.
    desk.terminal.file("beta.right", &beta.client_secret);
    desk.terminal.file(
        "proposals.yaml",
        "connections:\n- { slug: beta, client_secret_file: beta.right }\n- { slug: gamma, scope: x }\n",
    );
    let checked = desk.terminal.run(&["check", "-f", "proposals.yaml", "-o", "json"]).await;
    assert_eq!(checked.code, 1, "{}", checked.text);
    let checks = checked.json()["checks"].clone();
    assert_eq!(checks[0]["slug"], "beta");
    assert_ne!(checks[0]["summary"]["outcome"], "CHECK_OUTCOME_FAIL", "{checks}");
    let mistake = checks[1]["error"]["violations"][0]["description"].as_str().expect("a mistake");
    assert!(mistake.contains("did you mean \"scopes\"?"), "{mistake}");
    assert_eq!(desk.terminal.run(&["check", "beta"]).await.code, 1, "the secret is as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_waits_for_a_rate_limit_and_says_so() {
    let mut service = Service::start().await;
    service.idp.behave().registered_redirect =
        idp_of("acme").await.behave().registered_redirect.clone();
    let terminal = Terminal::to(&service.admin_url());
    let request = pb::CheckConnectionRequest { slug: "acme".to_owned(), ..Default::default() };
    while let Ok(found) = service.admin.check_connection(request.clone()).await {
        let mut found = found.into_inner();
        while found.message().await.expect("a result").is_some() {}
    }
    // One check is allowed each 10 s: almost at once.
    service.clock.advance(Duration::from_millis(9500));
    let mut waiting = command(terminal.folder.path())
        .args(["connection", "check", "acme", "--endpoint", &service.admin_url()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let said = BufReader::new(waiting.stderr.take().expect("piped")).lines().next();
    let said = said.expect("a line").expect("UTF-8");
    assert!(said.starts_with("waiting 1 s: acme: too many checks"), "{said}");
    service.clock.advance(Duration::from_millis(600));
    let ended = tokio::task::spawn_blocking(move || waiting.wait_with_output().expect("ended"));
    let ended = ended.await.expect("ended");
    let text = String::from_utf8(ended.stdout).expect("UTF-8");
    assert!(ended.status.success() && text.contains(": 0 failed, "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bash_zsh_and_fish_complete_verbs_flags_and_slugs() {
    let desk = Desk::start().await;
    let _beta = desk.create("beta", false).await;
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_peerpanda-sso"));
    let folder = desk.terminal.folder.path();
    for (shell, script) in [("bash", BASH), ("zsh", ZSH), ("fish", FISH)] {
        let file = format!("completions.{shell}");
        let printed = command(folder).args(["completions", shell]).output().expect("it runs");
        std::fs::write(folder.join(&file), printed.stdout).expect("written");
        let path = format!("{}:{}", binary.parent().expect("a folder").display(), "/usr/bin:/bin");
        let output = Command::new(shell)
            .args(if shell == "fish" { &["--no-config", "-c"][..] } else { &["-c"] })
            .arg(script)
            .current_dir(folder)
            .env_clear()
            .env("HOME", folder)
            .env("PATH", path)
            .env("TERM", "dumb")
            .env("LC_ALL", "C.UTF-8")
            .env("SSO_ENDPOINT", &desk.program.admin_url)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{shell}: {error}"));
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let line = |name: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
            line.unwrap_or_else(|| panic!("{shell}: {name} {text} {errors}")).trim().to_owned()
        };
        assert_eq!(line("verb:"), "attempts", "{shell}");
        assert_eq!(line("slug:"), "beta", "{shell}");
        assert_eq!(line("flag:"), "--trace", "{shell}");
        assert_eq!(line("value:"), "expires", "{shell}");
        assert!(line("file:").contains(&file), "{shell}: {text} {errors}");
    }
    // Without the service, at once and silently.
    let started = tokio::time::Instant::now();
    let unreachable =
        ["complete", "--", "connection", "--endpoint", "http://127.0.0.1:1", "get", ""];
    let output =
        command(folder).args(unreachable).stderr(Stdio::piped()).output().expect("it runs");
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// Calls the completion as bash does.
const BASH: &str = r#"source completions.bash
try() { name=$1; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
  _peerpanda_sso; echo "$name: ${COMPREPLY[*]}"; }
complete -p peerpanda-sso >/dev/null || exit 1
try verb peerpanda-sso connection att
try slug peerpanda-sso connection get be
try flag peerpanda-sso connection attempts acme --tr
try value peerpanda-sso connection list --sort = ex
compopt() { echo "file: $(compgen -f completions.b)"; }
try none peerpanda-sso connection apply -f completions.b"#;

/// Types into an interactive zsh, in which the program only prints its words.
const ZSH: &str = r#"zmodload zsh/zpty
zpty shell 'zsh -f -i'
zpty -w shell 'PS1=; autoload -Uz compinit; compinit -u -d ./zcompdump; source ./completions.zsh'
zpty -w shell "peerpanda-sso() { print -r -- wo''rds: \$* ';' }; print -r -- rea''dy:"
zpty -r shell out '*ready:*'
ask() {
  zpty -n -w shell "$1"$'\n'
  zpty -r shell out '*words: *;*'
  out=${out##*words: connection }
  typed=(${=out%%;*})
}
ask $'peerpanda-sso connection att\tbe\t--tr\t'
print -r -- "verb: $typed[1]"; print -r -- "slug: $typed[2]"; print -r -- "flag: $typed[3]"
ask $'peerpanda-sso connection list --sort ex\t'
print -r -- "value: $typed[3]"
ask $'peerpanda-sso connection apply -f completions.z\t'
print -r -- "file: $typed[3]"
zpty -d shell"#;

const FISH: &str = r#"source completions.fish
function try; echo "$argv[1]: "(complete -C "$argv[2]" | string replace -r '\t.*' ''); end
try verb 'peerpanda-sso connection att'
try slug 'peerpanda-sso connection get be'
try flag 'peerpanda-sso connection attempts acme --tr'
try value 'peerpanda-sso connection list --sort ex'
try file 'peerpanda-sso connection apply -f completions.f'"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_listener_is_named() {
    let desk = Desk::start().await;
    // An HTTP server, a listener that speaks TLS, and one that says nothing.
    let http = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let tls = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addresses = [&http, &tls].map(|it| it.local_addr().expect("an address"));
    for (listener, answer) in [
        (http, &b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..]),
        // An alert: unexpected_message (RFC 8446 6).
        (tls, &[21, 3, 3, 0, 2, 2, 10][..]),
    ] {
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ = socket.write_all(answer).await;
                let _ = socket.shutdown().await;
            }
        });
    }
    let admin = desk.program.admin_url.trim_start_matches("http://");
    for (endpoint, words) in [
        (format!("http://{}", addresses[0]), "an HTTP server that doesn't speak gRPC".to_owned()),
        (
            format!("http://{}", addresses[1]),
            format!("it speaks TLS: use https://{}", addresses[1]),
        ),
        (format!("https://{admin}"), format!("it doesn't speak TLS: use http://{admin}")),
        (desk.program.login_url.clone(), "the admin listener (SSO_ADMIN_LISTEN)".to_owned()),
        ("http://127.0.0.1:1".to_owned(), "refused".to_owned()),
    ] {
        let output = Terminal::to(&endpoint).run(&["list", "--timeout", "5"]).await;
        assert_eq!(output.code, 3, "{endpoint}: {}", output.errors);
        let start = format!("peerpanda-sso: no answer from {endpoint}: ");
        assert!(
            output.errors.starts_with(&start) && output.errors.contains(&words),
            "{endpoint}: {}",
            output.errors
        );
        let as_json = Terminal::to(&endpoint).run(&["list", "-o", "json", "--timeout", "5"]).await;
        let error: Value = serde_json::from_str(&as_json.errors).expect("JSON");
        assert!(error["error"]["message"].as_str().is_some_and(|text| text.contains(&words)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_shows_what_changed_and_is_undone() {
    let desk = Desk::start().await;
    let terminal = &desk.terminal;
    let updated = terminal
        .succeed(&["update", "acme", "--scopes", "openid email groups", "--display-name", "Acme"])
        .await;
    let expected = "acme: revision 1 -> 2\n    display_name: not set -> Acme\n    scopes: - profile, + groups\n";
    assert!(updated.starts_with(expected), "{updated}");
    assert!(updated.lines().count() <= 6, "only what changed: {updated}");
    let nothing = terminal.succeed(&["update", "acme", "--display-name", "Acme"]).await;
    assert_eq!(nothing, "acme: nothing has changed (revision 2)\n");
    terminal.succeed(&["update", "acme", "--client-secret-file", "wrong"]).await;
    let changes = terminal.succeed(&["changes", "acme"]).await;
    for words in ["revision 2 (can be restored) update by ", "scopes: - profile, + groups"] {
        assert!(changes.contains(words), "{words}: {changes}");
    }
    let restored = terminal.succeed(&["restore", "acme", "1"]).await;
    for words in ["acme: revision 3 -> 4\n", "scopes: - groups, + profile", "client_secret: "] {
        assert!(restored.contains(words), "{words}: {restored}");
    }
    let unknown = terminal.run(&["restore", "acme", "77"]).await;
    assert!(unknown.code == 1 && unknown.errors.contains("revision"), "{}", unknown.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_types_is_understood_or_explained() {
    let desk = Desk::start().await;
    let terminal = &desk.terminal;
    let shown = terminal.succeed(&["get", "Acme", "--timeout", "5"]).await;
    let order = [
        "Account\n",
        "  slug ",
        "IdP\n",
        "Client\n",
        "Claims and policy\n",
        "Secrets\n",
        "Record\n",
    ];
    let places: Vec<_> = order.iter().map(|text| shown.find(text).expect(text)).collect();
    assert!(places.is_sorted(), "{shown}");
    let missing = terminal.run(&["get", "acmee"]).await;
    assert!(
        missing.code == 1 && missing.errors.contains("did you mean acme?"),
        "{}",
        missing.errors
    );
    let verb = terminal.run(&["chek", "acme"]).await;
    assert!(verb.code == 2 && verb.errors.contains("'check'"), "{}", verb.errors);

    // The issuer, without its scheme, in place of the discovery URL.
    let flags =
        ["--discovery-url", "beta.okta.com", "--client-id", "c", "--client-secret-file", "right"];
    let created = terminal.succeed(&[&["create", "beta"], &flags[..]].concat()).await;
    let url = "https://beta.okta.com/.well-known/openid-configuration";
    let note = format!("took beta.okta.com for the issuer: discovery_url is {url}");
    let words = created.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(&note), "{created}");
    let refused = terminal
        .run(&["update", "beta", "--discovery-url", "https://sso.example/oauth/authorize"])
        .await;
    let tried = "https://sso.example/oauth/.well-known/openid-configuration";
    assert!(refused.code == 1 && refused.errors.contains(tried), "{}", refused.errors);

    // A refusal names the command to type, with the flags that were typed.
    terminal.succeed(&["activate", "acme", "--force"]).await;
    let unproven = terminal.run(&["update", "acme", "--scopes", "openid email"]).await;
    let command = "peerpanda-sso connection check acme --scopes 'openid email'";
    assert!(unproven.code == 1 && unproven.errors.contains(command), "{}", unproven.errors);
    let as_json = terminal.run(&["get", "-o", "json"]).await;
    let error: Value = serde_json::from_str(&as_json.errors).expect("JSON");
    let message = error["error"]["message"].as_str().expect("a message");
    assert!(as_json.code == 2 && message.contains("<SLUG>"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_refuses_what_the_run_refuses() {
    let desk = Desk::start().await;
    let terminal = &desk.terminal;
    let id = &desk.idp.client_id;
    terminal.file(
        "new.yaml",
        &format!(
            "connections:\n- slug: new\n  state: active\n  client_id: '{id}'\n  client_secret_file: right\n  \
             discovery_url: {}\n- {{ slug: acme, state: active, display_name: Acme }}\n",
            desk.idp.discovery_url()
        ),
    );
    for more in [&["--dry-run"][..], &[]] {
        let output = terminal.run(&[&["apply", "-f", "new.yaml"], more].concat()).await;
        assert_eq!(output.code, 1, "{}", output.text);
        assert_eq!(output.text.matches("CHECK_REQUIRED").count(), 2, "{more:?}: {}", output.text);
        assert!(output.text.contains("2 failed"), "{}", output.text);
    }
    let forced = ["apply", "-f", "new.yaml", "--force", "--dry-run"];
    assert!(terminal.succeed(&forced).await.contains("2 updated, 0 unchanged, 0 failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_accounts_are_listed_and_sorted() {
    let mut desk = Desk::start().await;
    let _beta = desk.create("beta", true).await;
    let terminal = &desk.terminal;
    assert!(terminal.succeed(&["list", "--failing"]).await.contains("0 connections"));
    terminal.succeed(&["update", "beta", "--client-secret-expires", "2020-01-01"]).await;
    terminal.succeed(&["update", "acme", "--client-secret-file", "wrong"]).await;
    assert_eq!(reason(desk.program.log_in(&desk.idp).await), "CLIENT_REJECTED");
    eventually("the failure is counted", || async {
        let failing = terminal.succeed(&["list", "--failing"]).await;
        failing.contains("1 connections") && failing.contains("acme")
    })
    .await;
    let order = async |by: &str| {
        let list = terminal.succeed(&["list", "--sort", by]).await;
        let slug = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
        list.lines().skip(1).take(2).map(slug).collect::<Vec<_>>()
    };
    assert_eq!(order("slug").await, ["acme", "beta"]);
    assert_eq!(order("failed").await, ["acme", "beta"]);
    assert_eq!(order("expires").await, ["beta", "acme"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_id_finds_its_attempt() {
    let mut desk = Desk::start().await;
    desk.terminal.succeed(&["update", "acme", "--client-secret-file", "wrong"]).await;
    assert_eq!(reason(desk.program.log_in(&desk.idp).await), "CLIENT_REJECTED");
    desk.terminal.succeed(&["update", "acme", "--client-secret-file", "right"]).await;
    desk.program.log_in(&desk.idp).await.expect("a login");
    let all = desk.terminal.run(&["attempts", "--all", "--since", "1h", "-o", "json"]).await.json();
    let attempts = all["attempts"].as_array().expect("attempts");
    let rejected = attempts.iter().find(|it| it["reason"] == "CLIENT_REJECTED").expect("one");
    let trace = rejected["trace_id"].as_str().expect("an id");
    let found = desk.terminal.succeed(&["attempts", "--trace", trace]).await;
    assert!(
        found.contains("CLIENT_REJECTED") && found.contains(trace) && found.contains("acme"),
        "{found}"
    );
    assert!(!found.contains("completed"), "{found}");
    let rejected = ["attempts", "acme", "--reason", "client_rejected", "-o", "json"];
    let rejected = desk.terminal.run(&rejected).await.json();
    let rejected = rejected["attempts"].as_array().expect("attempts").iter();
    assert_eq!(rejected.map(|it| &it["reason"]).collect::<Vec<_>>(), ["CLIENT_REJECTED"]);
    let unknown = desk.terminal.run(&["attempts", "--trace", &"0".repeat(32)]).await;
    assert!(unknown.code == 1 && unknown.text.contains("no kept attempt"), "{}", unknown.text);
}
