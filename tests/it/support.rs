//! Support's commands on the real program: the whole story of a customer, files of connections, and
//! ten thousand of them at once.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use peerpanda_sso::clock::SystemClock;
use peerpanda_sso::pb;
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::{Program, command};
use crate::documented::assert_documented;
use crate::fake_idp::{FakeIdp, locked};
use crate::harness::{begin_request, complete_request, eventually, key, postgres_url, reason};

/// A command's exit code and output.
pub(crate) struct CommandOutput {
    pub(crate) code: i32,
    pub(crate) text: String,
    pub(crate) errors: String,
}

impl CommandOutput {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.text, self.errors))
    }
}

/// Support's terminal: a folder and the service's address.
pub(crate) struct Terminal {
    pub(crate) folder: TempDir,
    endpoint: String,
    /// The commands and their output, as docs/support.md shows them.
    transcript: Mutex<String>,
}

impl Terminal {
    pub(crate) fn at(program: &Program) -> Self {
        Self::to(&program.admin_url)
    }

    pub(crate) fn to(endpoint: &str) -> Self {
        Self {
            folder: tempfile::tempdir().expect("a directory"),
            endpoint: endpoint.to_owned(),
            transcript: Mutex::default(),
        }
    }

    pub(crate) fn transcript(&self) -> String {
        locked(&self.transcript).clone()
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.folder.path().join(name), text).expect("written");
        name.to_owned()
    }

    /// Runs `peerpanda-sso connection …` with this standard input.
    pub(crate) async fn run_with(&self, arguments: &[&str], input: &str) -> CommandOutput {
        let mut command = command(self.folder.path());
        command
            .arg("connection")
            .args(arguments)
            .env("SSO_ENDPOINT", &self.endpoint)
            .env("USER", "ada");
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        let input = input.to_owned();
        let run = move || {
            let mut child = command.spawn().expect("the program runs");
            let mut stdin = child.stdin.take().expect("piped");
            // A command that doesn't read its input may have ended already.
            let _ = stdin.write_all(input.as_bytes());
            drop(stdin);
            child.wait_with_output().expect("ended")
        };
        let output = tokio::task::spawn_blocking(run).await.expect("ended");
        let output = CommandOutput {
            code: output.status.code().expect("an exit code"),
            text: String::from_utf8(output.stdout).expect("UTF-8"),
            errors: String::from_utf8(output.stderr).expect("UTF-8"),
        };
        let typed: Vec<String> = arguments
            .iter()
            .map(|word| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() })
            .collect();
        writeln!(
            locked(&self.transcript),
            "$ peerpanda-sso connection {}\n{}{}",
            typed.join(" "),
            output.text,
            output.errors
        )
        .expect("written");
        for shown in [&output.text, &output.errors] {
            assert!(
                !shown.contains("CANARY") && !shown.contains('\u{1b}'),
                "no secret, and no colour: {shown}"
            );
        }
        output
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> CommandOutput {
        self.run_with(arguments, "").await
    }

    pub(crate) async fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert_eq!(output.code, 0, "{arguments:?}: {} {}", output.text, output.errors);
        output.text
    }
}

pub(crate) async fn program(data: &Path) -> Program {
    Program::serve(data, &[("SSO_PUBLIC_URL", "https://getpeerpanda.example")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_set_up_proven_activated_and_helped() {
    let data = tempfile::tempdir().expect("a directory");
    let mut program = program(data.path()).await;
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    idp.behave().registered_redirect =
        Some("https://getpeerpanda.example/app/accounts/oidc/acme/login/callback/".to_owned());
    let terminal = Terminal::at(&program);
    terminal.file("wrong", "CANARYwrong\n");
    terminal.file("right", &format!("{}\n", idp.client_secret));

    // The guide needs no connection.
    let guide = terminal.succeed(&["guide", "acme", "--idp", "okta"]).await;
    assert!(
        guide.contains("https://getpeerpanda.example/app/accounts/oidc/acme/login/callback/"),
        "{guide}"
    );

    // The customer's values from the chat, with a wrong secret.
    let discovery = idp.discovery_url();
    let create = [
        "create",
        "acme",
        "--display-name",
        "Acme Inc.",
        "--discovery-url",
        &discovery,
        "--client-id",
        &idp.client_id,
    ];
    let output = terminal.run(&create).await;
    assert!(
        output.code == 2 && output.errors.contains("--client-secret-file"),
        "without a terminal it can't ask: {}",
        output.errors
    );
    let created = terminal
        .run_with(&[&create[..], &["--client-secret-file", "-"]].concat(), "CANARYwrong\n")
        .await;
    assert!(
        created.code == 0
            && created.text.contains("testing")
            && created.text.contains("redirect_uri"),
        "{}",
        created.text
    );
    let again = terminal.run(&[&create[..], &["--client-secret-file", "wrong"]].concat()).await;
    assert!(again.code == 1 && again.errors.contains("CONNECTION_EXISTS"), "{}", again.errors);

    // The check says what is wrong, and on whose side.
    let checked = terminal.run(&["check", "acme"]).await;
    assert_eq!(checked.code, 1, "{}", checked.text);
    let failed = checked.text.lines().find(|line| line.starts_with("FAIL  ")).expect("a failure");
    assert!(failed.contains("client.credentials"), "{failed}");
    assert!(checked.text.contains("support: compare client id, secret"), "{}", checked.text);
    assert!(terminal.run(&["guide", "acme", "--ready"]).await.errors.contains("CHECK_REQUIRED"));

    // The secret is corrected, and a check proves it.
    terminal
        .succeed(&[
            "update",
            "acme",
            "--client-secret-file",
            "right",
            "--client-secret-expire-time",
            "2999-01-31",
        ])
        .await;
    let checked = terminal.run(&["check", "acme", "--output", "json"]).await;
    assert_eq!(checked.code, 0, "{}", checked.text);
    let results = checked.json()["results"].clone();
    let credentials = results
        .as_array()
        .expect("results")
        .iter()
        .find(|result| result["id"] == "client.credentials");
    assert_eq!(credentials.expect("a result")["outcome"], "CHECK_OUTCOME_PASS");
    let note = terminal.succeed(&["guide", "acme", "--ready"]).await;
    assert!(
        note.contains("Acme Inc.: single sign-on is ready to test")
            && note.contains("client secret"),
        "{note}"
    );
    assert!(terminal.run(&["activate", "acme"]).await.errors.contains("a test login"));

    // The customer tests it.
    let completed = program.log_in(&idp).await.expect("a test login");
    assert_eq!(completed.connection_state(), pb::ConnectionState::Testing);
    assert!(terminal.succeed(&["activate", "acme"]).await.contains("active"));
    assert_eq!(
        program.log_in(&idp).await.expect("a login").connection_state(),
        pb::ConnectionState::Active
    );

    // The secret is rotated at the IdP: the old one is rejected once, then the new one serves.
    terminal
        .succeed(&[
            "update",
            "acme",
            "--client-secret-file",
            "wrong",
            "--standby-client-secret-file",
            "right",
            "--force",
        ])
        .await;
    assert_eq!(reason(program.log_in(&idp).await), "CLIENT_REJECTED");
    eventually("the new secret serves", || {
        let (mut login, idp) = (program.login.clone(), &idp);
        async move {
            let Ok(begun) = login.begin_login(begin_request()).await else { return false };
            let callback = idp.approve(&begun.into_inner().redirect_url, "alice");
            login.complete_login(complete_request(&callback)).await.is_ok()
        }
    })
    .await;
    let attempts = terminal.run(&["attempts", "acme", "--output", "json"]).await.json();
    let rejected = attempts["attempts"]
        .as_array()
        .expect("attempts")
        .iter()
        .find(|attempt| attempt["reason"] == "CLIENT_REJECTED");
    assert!(
        rejected.expect("the provoked failure")["remedy"]
            .as_str()
            .is_some_and(|remedy| remedy.contains("compare client id"))
    );
    let table = terminal.succeed(&["attempts", "acme"]).await;
    assert!(
        table.contains("CLIENT_REJECTED (invalid_client)") && table.contains("last success: 2"),
        "{table}"
    );

    // A change of an ACTIVE connection says what it affects, and needs a check first.
    let refused = terminal.run(&["update", "acme", "--scopes", "openid"]).await;
    assert!(
        refused.code == 1 && refused.errors.contains("every login that ends from now on"),
        "{}",
        refused.errors
    );
    for part in ["CHECK_REQUIRED: ", "(cause ", ", trace "] {
        assert!(refused.errors.contains(part), "{part}: {}", refused.errors);
    }
    let as_json = terminal.run(&["update", "acme", "--scopes", "openid", "--output", "json"]).await;
    let error: Value = serde_json::from_str(&as_json.errors).expect("JSON");
    assert_eq!(error["error"]["reason"], "CHECK_REQUIRED");
    assert!(error["error"]["trace_id"].as_str().is_some_and(|id| id.len() == 32), "{error}");
    assert_eq!(terminal.run(&["check", "acme", "--scopes", "openid,email"]).await.code, 0);
    terminal.succeed(&["update", "acme", "--scopes", "openid,email"]).await;
    terminal.succeed(&["update", "acme", "--scopes", "openid,profile", "--force"]).await;

    let changes = terminal.succeed(&["changes", "acme"]).await;
    for words in ["anybody (ada)", "switch_secret", "the service", "update (forced)", "activate"] {
        assert!(changes.contains(words), "{words}: {changes}");
    }
    let listed = terminal.succeed(&["list"]).await;
    assert!(
        listed.contains("acme") && listed.contains("active") && listed.contains("1 connections"),
        "{listed}"
    );
    terminal.succeed(&["update", "acme", "--client-secret-expires", "2020-01-01"]).await;
    assert!(terminal.succeed(&["list", "--expiring"]).await.contains("(soon)"));

    assert!(terminal.run(&["delete", "acme"]).await.errors.contains("--yes"));
    terminal.succeed(&["delete", "acme", "--yes"]).await;
    assert!(terminal.run(&["get", "acme"]).await.errors.contains("CONNECTION_NOT_FOUND"));
    assert_documented(&terminal.transcript(), "# Setting up", "## When a client");
    assert_documented(&terminal.transcript(), "## Changing an ACTIVE", "## Undoing");
    let unreachable = Terminal { endpoint: "http://127.0.0.1:1".to_owned(), ..terminal };
    assert_eq!(unreachable.run(&["list"]).await.code, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_applied_idempotently_and_past_what_is_wrong_in_it() {
    let data = tempfile::tempdir().expect("a directory");
    let program = program(data.path()).await;
    let terminal = Terminal::at(&program);
    terminal.file("acme.secret", "CANARYacme");
    let file = terminal.file(
        "accounts.yaml",
        "connections:\n\
         - slug: acme\n  display_name: Acme\n  discovery_url: https://acme.example/.well-known/openid-configuration\n  \
           client_id: a\n  client_secret_file: acme.secret\n  client_secret_expires: 2999-01-31\n  logout_style: none\n\
         - slug: broken\n  discovery_url: ftp://nowhere\n  client_id: b\n  client_secret: CANARYbroken\n\
         - slug: manual\n  issuer: https://idp.example\n  client_id: c\n  client_secret: CANARYmanual\n  \
           token_endpoint_auth_method: client_secret_post\n  allowed_email_domains: [Corp.example]\n  \
           required_claims: { hd: [corp.example] }\n  authorization_params: { hd: corp.example }\n  endpoints:\n    \
             authorization_endpoint: https://idp.example/a\n    token_endpoint: https://idp.example/t\n    jwks_uri: https://idp.example/k\n",
    );
    let apply = |more: &'static [&'static str]| [&["apply", "-f", "accounts.yaml"], more].concat();
    let dry = terminal.run(&apply(&["--dry-run"])).await;
    assert!(
        dry.code == 1 && dry.text.contains("dry run: 2 created, 0 updated, 0 unchanged, 1 failed"),
        "{}",
        dry.text
    );
    assert!(dry.text.contains("failed    connections[1] (broken): BAD_REQUEST"), "{}", dry.text);
    assert!(terminal.succeed(&["list"]).await.contains("0 connections"), "nothing was changed");
    let first = terminal.run(&apply(&[])).await;
    assert!(
        first.code == 1 && first.text.contains("2 created, 0 updated, 0 unchanged, 1 failed"),
        "{}",
        first.text
    );
    assert!(
        first.text.contains("failed    connections[1] (broken): BAD_REQUEST")
            && first.text.contains("\n  discovery_url: must be https"),
        "{}",
        first.text
    );
    let second = terminal.run(&apply(&["--output", "json"])).await.json();
    assert_eq!(
        (second["unchanged"].as_u64(), second["failed"].as_u64()),
        (Some(2), Some(1)),
        "{second}"
    );

    let text = std::fs::read_to_string(terminal.folder.path().join(&file)).expect("read");
    terminal.file(
        "accounts.yaml",
        &text
            .replace("display_name: Acme", "display_name: Acme Inc.\n  state: disabled")
            .replace("ftp://nowhere", "https://b.example/.well-known/openid-configuration"),
    );
    let third = terminal.run(&apply(&[])).await;
    assert!(
        third.code == 0 && third.text.contains("1 created, 1 updated, 1 unchanged, 0 failed"),
        "{}",
        third.text
    );
    assert!(third.text.contains("updated   acme: display_name, state"), "{}", third.text);
    terminal.file("acme.secret", "CANARYrotated");
    assert!(terminal.succeed(&apply(&[])).await.contains("updated   acme: client_secret"));

    // An export holds everything but the secrets, and changes nothing when it is applied.
    let exported = terminal.succeed(&["export"]).await;
    assert!(exported.contains("slug: manual") && !exported.contains("secret: "), "{exported}");
    terminal.file("exported.yaml", &exported);
    let listed = terminal.succeed(&["list", "--output", "json"]).await;
    let all_unchanged = "0 created, 0 updated, 3 unchanged, 0 failed";
    assert!(
        terminal.succeed(&["apply", "-f", "exported.yaml"]).await.contains(all_unchanged),
        "{exported}"
    );
    let from_input = terminal.run_with(&["apply", "-f", "-"], &exported).await;
    assert!(from_input.code == 0 && from_input.text.contains(all_unchanged), "{}", from_input.text);
    assert_eq!(
        terminal.succeed(&["list", "--output", "json"]).await,
        listed,
        "not even the revision"
    );
    for (bad, words) in [
        (
            "{ slug: acme, client_secret: CANARY, client_secret_file: acme.secret }",
            "client_secret: must not be given together with client_secret_file",
        ),
        (
            "{ slug: acme, client_secrets: CANARY }",
            "connections[0] (acme): unknown field \"client_secrets\"; did you mean \"client_secret\"?",
        ),
        ("{ slug: acme, client_secret_file: nowhere }", "nowhere"),
        ("{ slug: acme, state: active }", "CHECK_REQUIRED"),
        (
            "{ slug: acme, token_endpoint_auth_method: none }",
            "must be client_secret_basic or client_secret_post",
        ),
    ] {
        terminal.file(
            "bad.yaml",
            &format!("connections: [{bad}, {{ slug: manual, display_name: M }}]"),
        );
        let output = terminal.run(&["apply", "-f", "bad.yaml"]).await;
        // Lines are broken to fit a page.
        let text = output.text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            output.code == 1 && text.contains(words) && text.contains("1 failed"),
            "{bad}: {}",
            output.text
        );
    }
    // From manual endpoints to discovery, and nothing else is touched.
    terminal.file(
        "moved.yaml",
        "connections: [{ slug: manual, discovery_url: https://idp.example/.well-known/openid-configuration }]",
    );
    assert!(terminal.succeed(&["apply", "-f", "moved.yaml"]).await.contains("1 updated"));
    assert!(terminal.succeed(&["apply", "-f", "moved.yaml"]).await.contains("1 unchanged"));
    terminal.succeed(&["update", "manual", "--email-claims", "mail,email"]).await;
    let updated = terminal.succeed(&["update", "manual", "--groups-claim", "roles"]).await;
    assert!(updated.contains("claim_mapping.groups: not set -> roles"), "{updated}");
    let mapped = terminal.succeed(&["get", "manual"]).await;
    assert!(mapped.contains("email: mail, email") && mapped.contains("groups: roles"), "{mapped}");
    for (bad, words) in [
        ("connections: [{ slug: acme, client_secret: CANARY ]", "invalid YAML at line 1"),
        ("conections: [{ slug: acme }, { slug: acme }]", "must be a list of connections"),
        ("CANARY", "must be a list of connections"),
    ] {
        terminal.file("bad.yaml", bad);
        let output = terminal.run(&["apply", "-f", "bad.yaml"]).await;
        assert!(output.code == 2 && output.errors.contains(words), "{bad}: {}", output.errors);
    }
}

/// The service normalizes what it stores; the same file must not differ from it the second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_service_normalizes_is_unchanged_the_second_time() {
    let data = tempfile::tempdir().expect("a directory");
    let program = program(data.path()).await;
    let terminal = Terminal::at(&program);
    terminal.file("secret", "  CANARYsecret \n");
    terminal.file(
        "accounts.yaml",
        "connections:\n\
         - slug: beta\n  display_name: \"Beta  \"\n  client_id: \" b \"\n  client_secret_file: secret\n  \
           discovery_url: https://BETA.okta.com:443/.well-known/openid-configuration\n  \
           allowed_email_domains: [ Corp.Example , b.example]\n  scopes: []\n  claim_mapping: {}\n\
         - slug: manual\n  issuer: https://idp.example\n  client_id: 0123\n  client_secret: CANARYmanual\n  \
           state: CONNECTION_STATE_DISABLED\n  require_verified_email: false\n  endpoints:\n    \
             authorization_endpoint: HTTPS://idp.example:443/a\n    token_endpoint: https://IDP.example/t\n    \
             jwks_uri: https://idp.example/k\n",
    );
    let apply = ["apply", "-f", "accounts.yaml"];
    let first = terminal.succeed(&apply).await;
    assert!(first.contains("2 created, 0 updated, 0 unchanged, 0 failed"), "{first}");
    let (listed, changes) = (
        terminal.succeed(&["list", "--output", "json"]).await,
        terminal.succeed(&["changes", "beta"]).await,
    );
    for arguments in [&apply[..], &["apply", "-f", "accounts.yaml", "--dry-run"]] {
        let again = terminal.succeed(arguments).await;
        assert!(again.contains("0 created, 0 updated, 2 unchanged, 0 failed"), "{again}");
    }
    assert_eq!(
        terminal.succeed(&["list", "--output", "json"]).await,
        listed,
        "not even the revision"
    );
    assert_eq!(terminal.succeed(&["changes", "beta"]).await, changes);
    let shown = terminal.run(&["get", "manual", "--output", "json"]).await.json();
    assert_eq!(shown["connection"]["client_id"], "0123", "as it is spelled");
    assert_eq!(shown["connection"]["state"], "CONNECTION_STATE_DISABLED");
}

/// Mistakes that the command finds and mistakes that the service finds, of every entry, in one run.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_reports_every_mistake_of_every_entry() {
    let data = tempfile::tempdir().expect("a directory");
    let program = program(data.path()).await;
    let terminal = Terminal::at(&program);
    terminal.file(
        "accounts.yaml",
        "connections:\n\
         - slug: good\n  discovery_url: https://a.example/.well-known/openid-configuration\n  client_id: a\n  client_secret: CANARYa\n\
         - slug: acme\n  dicovery_url: https://b.example\n  client_secret_file: nowhere\n  client_secret_expires: soon\n  scopes: [email]\n\
         - slug: Not A Slug\n  discovery_url: ftp://nowhere\n  client_id: c\n  client_secret: CANARYc\n",
    );
    for more in [&["--dry-run"][..], &[]] {
        let output = terminal.run(&[&["apply", "-f", "accounts.yaml"], more].concat()).await;
        assert_eq!(output.code, 1, "{}", output.text);
        for expected in [
            "created   good: ",
            "failed    connections[1] (acme): BAD_REQUEST",
            "\n  unknown field \"dicovery_url\"; did you mean \"discovery_url\"?",
            "\n  client_secret: can't read nowhere",
            "\n  client_secret_expire_time: must be a time such as",
            "\n  scopes: must include \"openid\"",
            "\n  client_id: must be",
            "failed    connections[2] (Not A Slug): BAD_REQUEST",
            "\n  slug: must be",
            "\n  discovery_url: must be https",
            "1 created, 0 updated, 0 unchanged, 2 failed",
        ] {
            assert!(output.text.contains(expected), "{expected}\nin\n{}", output.text);
        }
    }
    assert!(
        terminal.succeed(&["list"]).await.contains("1 connections"),
        "one bad entry stops no other"
    );
}

/// The service lets the standby secret take over; the file must not undo that.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_have_changed_places_stay_when_the_file_is_applied_again() {
    let data = tempfile::tempdir().expect("a directory");
    let mut program = program(data.path()).await;
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let terminal = Terminal::at(&program);
    terminal.file("right", &idp.client_secret);
    terminal.file(
        "accounts.yaml",
        &format!(
            "connections:\n- slug: acme\n  discovery_url: {}\n  client_id: \"{}\"\n  client_secret: CANARYold\n  \
             client_secret_expires: 2998-01-31\n  standby_client_secret_file: right\n  standby_client_secret_expires: 2999-01-31\n",
            idp.discovery_url(),
            idp.client_id
        ),
    );
    let apply = ["apply", "-f", "accounts.yaml"];
    assert!(terminal.succeed(&apply).await.contains("1 created"));
    assert_eq!(reason(program.log_in(&idp).await), "CLIENT_REJECTED");
    eventually("the standby secret has taken over", || async {
        let shown = terminal.run(&["get", "acme", "--output", "json"]).await.json();
        shown["connection"]["secret_switch_time"].is_string()
    })
    .await;
    assert!(terminal.succeed(&apply).await.contains("0 updated, 1 unchanged"));
    program.log_in(&idp).await.expect("a login with the secret that took over");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_are_applied_in_one_command_and_listed() {
    const COUNT: usize = 10_000;
    let data = tempfile::tempdir().expect("a directory");
    let (postgres, key) = (postgres_url().await, key().encoded().to_string());
    let settings = [("SSO_DATABASE_URL", postgres.as_str()), ("SSO_ENCRYPTION_KEYS", key.as_str())];
    let mut program = Program::serve(data.path(), &settings).await;
    let terminal = Terminal::at(&program);
    let mut text = "connections:\n".to_owned();
    for number in 0..COUNT {
        let url = format!("https://idp{number}.example/.well-known/openid-configuration");
        writeln!(text, "- slug: account-{number}\n  discovery_url: {url}\n  client_id: c\n  client_secret: CANARY{number}")
            .expect("written");
    }
    terminal.file("accounts.yaml", &text);
    let applied = terminal.succeed(&["apply", "-f", "accounts.yaml"]).await;
    assert!(applied.contains("10000 created, 0 updated, 0 unchanged, 0 failed"), "{applied}");
    assert_eq!(applied.lines().count(), 1, "no line for each of so many");
    let listed = terminal.run(&["list", "--output", "json"]).await.json();
    assert_eq!(listed["connections"].as_array().expect("a list").len(), COUNT);
    let again = terminal.succeed(&["apply", "-f", "accounts.yaml"]).await;
    assert!(again.contains("0 created, 0 updated, 10000 unchanged, 0 failed"), "{again}");
    // The pages are in the order of the slugs.
    let mut request = pb::ListConnectionsRequest { page_size: 777, page_token: String::new() };
    let mut slugs = Vec::new();
    loop {
        let page =
            program.admin.list_connections(request.clone()).await.expect("a page").into_inner();
        slugs.extend(page.connections.into_iter().map(|connection| connection.slug));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert!(slugs.len() == COUNT && slugs.is_sorted());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_without_a_change_fails_before_it_connects() {
    let data = tempfile::tempdir().expect("a directory");
    let (folder, endpoint) = (data, "http://127.0.0.1:1".to_owned());
    let terminal = Terminal { folder, endpoint, transcript: Mutex::default() };
    let output = terminal.run(&["update", "acme"]).await;
    assert!(output.code == 2 && output.errors.contains("nothing to change"), "{}", output.errors);
    assert_eq!(terminal.run(&["update", "acme", "--scopes", "openid"]).await.code, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_have_help_and_completions_and_identify_the_caller() {
    let data = tempfile::tempdir().expect("a directory");
    let stdout_of = |arguments: &[&str]| {
        let output = command(data.path()).args(arguments).output().expect("the program runs");
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    for verb in [
        "create", "get", "list", "update", "delete", "check", "activate", "guide", "attempts",
        "changes", "restore", "apply", "export",
    ] {
        let help = stdout_of(&["connection", verb, "--help"]);
        assert!(
            help.contains("Usage:") && help.contains("--endpoint") && help.contains("--token-file"),
            "{verb}: {help}"
        );
        assert!(!help.contains("--client-secret <"), "no secret by an argument: {help}");
        let lines = help.lines().count();
        assert!(lines < 100 && help.contains("\nService:\n"), "{verb}: {lines} lines {help}");
    }
    let help = stdout_of(&["connection", "check", "--help"]);
    for heading in ["IdP:", "Client:", "Claims and policy:", "Secrets:", "Output:", "Service:"] {
        assert!(help.contains(&format!("\n{heading}\n")), "{heading} {help}");
    }
    assert!(!help.contains("--display-name") && !help.contains("--state"), "{help}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout_of(&["completions", shell]).contains("peerpanda-sso"), "{shell}");
    }
    // A caller with a token, by the callers file.
    let token = stdout_of(&["tokens", "generate"]);
    let value = |name: &str| {
        token.lines().find_map(|line| line.strip_prefix(name)).expect("a line").trim().to_owned()
    };
    let callers = format!(
        "[[caller]]\nname = \"support\"\nroles = [\"admin\"]\ntoken_sha256 = [\"{}\"]\n",
        value("token_sha256:")
    );
    std::fs::write(data.path().join("callers.toml"), callers).expect("written");
    let program = Program::serve(data.path(), &[("SSO_CALLERS_FILE", "callers.toml")]).await;
    let terminal = Terminal::at(&program);
    assert!(terminal.run(&["list"]).await.errors.contains("CALLER_UNKNOWN"));
    terminal.file("token", &value("token:"));
    assert!(terminal.succeed(&["list", "--token-file", "token"]).await.contains("0 connections"));
    terminal.file("secret", "CANARYsecret");
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let discovery = idp.discovery_url();
    let create = [
        "create",
        "acme",
        "--discovery-url",
        &discovery,
        "--client-id",
        "c",
        "--client-secret-file",
        "secret",
        "--token-file",
        "token",
    ];
    terminal.succeed(&create).await;
    assert!(
        terminal
            .succeed(&["changes", "acme", "--token-file", "token"])
            .await
            .contains("support (ada)")
    );
}
