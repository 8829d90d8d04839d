//! A connection's row that can't be opened or read is the matter of its account alone, and what a newer
//! version wrote is neither lost nor ignored.

use std::path::Path;
use std::sync::Arc;

use peerpanda_sso::clock::ManualClock;
use peerpanda_sso::config::Database;
use peerpanda_sso::pb;
use sqlx::Connection as _;
use tempfile::TempDir;

use crate::binary::{Program, command};
use crate::fake_idp::FakeIdp;
use crate::harness::{Refused, Service, begin_request, config, eventually, key, reason, refused};

/// A service on a database file that a test may change behind its back.
async fn over_a_file() -> (Service, TempDir) {
    let data = tempfile::tempdir().expect("a directory");
    let config = config(Database::Sqlite(data.path().join("sso.db")), None, &key());
    (Service::over(config, Arc::new(ManualClock::starting_now())).await, data)
}

/// Runs statements on the database, as another version or a person would.
async fn rewrite(data: &TempDir, sql: &'static str) {
    let mut database = connected(&data.path().join("sso.db")).await;
    sqlx::raw_sql(sql).execute(&mut database).await.expect("rewritten");
    database.close().await.expect("closed");
}

async fn settings_of_acme(data: &TempDir) -> serde_json::Value {
    let mut database = connected(&data.path().join("sso.db")).await;
    let settings: String =
        sqlx::query_scalar("SELECT settings FROM connections WHERE slug = 'acme'")
            .fetch_one(&mut database)
            .await
            .expect("read");
    serde_json::from_str(&settings).expect("JSON")
}

async fn connected(file: &Path) -> sqlx::SqliteConnection {
    let url = format!("sqlite://{}", file.display());
    sqlx::SqliteConnection::connect(&url).await.expect("connected")
}

/// How a login at the account is refused.
async fn refused_at(service: &mut Service, slug: &str) -> Refused {
    refused(service.begin(pb::BeginLoginRequest { slug: slug.to_owned(), ..begin_request() }).await)
}

async fn list(service: &mut Service) -> Vec<pb::Connection> {
    let request = pb::ListConnectionsRequest::default();
    service.admin.list_connections(request).await.expect("listed").into_inner().connections
}

/// Three rows that can't be used: a secret of a lost key, damaged settings, and those of a newer version.
const DAMAGE: &str = "
    UPDATE connections SET client_secret = X'00' WHERE slug = 'lost';
    UPDATE connections SET settings = json_set(settings, '$.logout_style', 'later')
        WHERE slug = 'damaged';
    UPDATE connections SET settings = json_set(settings, '$.min_format', 2) WHERE slug = 'newer';
";

const UNREADABLE: [(&str, &str); 3] =
    [("damaged", "settings_unreadable"), ("lost", "secret_unreadable"), ("newer", "newer_version")];

#[tokio::test]
async fn an_unreadable_connection_is_the_matter_of_its_account_alone() {
    let (mut service, data) = over_a_file().await;
    service.create(service.connection()).await.expect("created");
    for (slug, _) in UNREADABLE {
        service.create(service.idp.connection(slug)).await.expect("created");
    }
    rewrite(&data, DAMAGE).await;

    let listed = list(&mut service).await;
    let listed: Vec<_> =
        listed.iter().map(|it| (it.slug.as_str(), it.unreadable.as_str())).collect();
    assert_eq!(listed, [&[("acme", "")], UNREADABLE.as_slice()].concat());
    for (slug, cause) in UNREADABLE {
        let shown = service.get(slug).await.expect("shown");
        assert_eq!(shown.unreadable, cause);
        assert!(shown.revision > 0 && shown.redirect_uri.contains(slug), "{shown:?}");
        let refusal = refused_at(&mut service, slug).await;
        assert_eq!(refusal.reason, "CONNECTION_UNREADABLE", "{slug}");
        let metadata = ["cause", "owner", "retry"].map(|name| refusal.metadata[name].clone());
        assert_eq!(metadata, [cause, "operator", "never"]);
    }
    // The others are as before: they are changed, checked and used.
    service
        .edit(&["display_name"], |it| it.display_name = "Acme".to_owned())
        .await
        .expect("edited");
    service.check("acme").await.expect("checked");
    service.log_in().await.expect("a login");

    // What is damaged is changed by nobody, and can be deleted.
    for slug in ["damaged", "newer"] {
        let shown = service.get(slug).await.expect("shown");
        let named = pb::Connection { display_name: "New".to_owned(), ..shown.clone() };
        let refusal = refused(service.update(&["display_name"], named).await);
        assert_eq!(refusal.reason, "CONNECTION_UNREADABLE", "{slug}");
        let request =
            pb::DeleteConnectionRequest { slug: slug.to_owned(), revision: shown.revision };
        service.admin.delete_connection(request).await.expect("deleted");
    }
}

#[tokio::test]
async fn a_new_secret_replaces_one_that_can_not_be_opened() {
    let (mut service, data) = over_a_file().await;
    let standby = pb::Connection {
        standby_client_secret: "CANARYstandby".to_owned(),
        ..service.connection()
    };
    service.create(standby).await.expect("created");
    service.log_in().await.expect("a login");
    let lose =
        "UPDATE connections SET client_secret = X'00', standby_secret = X'01', revision = 99;
                UPDATE connection_changes SET change = change + 1000;
                UPDATE change_counter SET latest = latest + 1000";
    rewrite(&data, lose).await;
    eventually("the change is seen", || {
        let mut login = service.login.clone();
        async move {
            let begun = login.begin_login(begin_request()).await;
            begun.is_err_and(|status| reason::<()>(Err(status)) == "CONNECTION_UNREADABLE")
        }
    })
    .await;
    let shown = service.get("acme").await.expect("shown");
    assert_eq!(
        (shown.client_id.as_str(), shown.secret_fingerprint.as_str()),
        (service.idp.client_id.as_str(), "")
    );

    let refusal = refused(service.edit(&["display_name"], |it| it.display_name.push('!')).await);
    assert_eq!(refusal.fields, ["client_secret", "standby_client_secret"]);
    assert!(refusal.message.contains("no key of the service opens"), "{}", refusal.message);
    // Checks without the secret have nothing to check; one with a proposal checks that one.
    assert_eq!(refused(service.check("acme").await).reason, "CONNECTION_UNREADABLE");
    let right = service.idp.client_secret.clone();
    let with = |it: &mut pb::Connection| {
        it.client_secret = right.clone();
        it.standby_client_secret = String::new();
    };
    let mut proposal = shown;
    with(&mut proposal);
    let paths = ["client_secret", "standby_client_secret"];
    let request = pb::CheckConnectionRequest {
        slug: "acme".to_owned(),
        proposal: Some(proposal),
        update_mask: Some(prost_types::FieldMask { paths: paths.map(str::to_owned).to_vec() }),
    };
    service.check_with(request).await.expect("checked");
    let edited = service.edit(&paths, with).await.expect("edited");
    assert_eq!(edited.unreadable, "");
    let change = &service.changes().await[0];
    let field = change.fields.iter().find(|field| field.field == "client_secret");
    let field = field.expect("recorded");
    assert_eq!((field.before.as_str(), &field.after), ("", &edited.secret_fingerprint));
    service.log_in().await.expect("a login");
}

/// As in a rolling upgrade or a rollback: both versions serve from one database.
#[tokio::test]
async fn an_edit_keeps_what_a_newer_version_stored() {
    let (mut service, data) = over_a_file().await;
    service.create(service.connection()).await.expect("created");
    let newer = "UPDATE connections SET settings =
                     json_set(settings, '$.required_acr', json('{\"values\": [\"a\"]}'))";
    rewrite(&data, newer).await;
    service.log_in().await.expect("a login");
    service.edit(&["display_name"], |it| it.display_name = "New".to_owned()).await.expect("edited");
    let settings = settings_of_acme(&data).await;
    assert_eq!(settings["display_name"], "New");
    assert_eq!(settings["required_acr"], serde_json::json!({ "values": ["a"] }));

    // What an edit would lose, it doesn't touch; logins go on.
    let inside =
        "UPDATE connections SET settings = json_set(settings, '$.claim_mapping.phone', 'tel')";
    rewrite(&data, inside).await;
    let refusal = refused(service.edit(&["display_name"], |it| it.display_name.clear()).await);
    assert_eq!(refusal.reason, "CONNECTION_UNREADABLE");
    assert_eq!(refusal.metadata["cause"], "newer_version");
    assert_eq!(settings_of_acme(&data).await["claim_mapping"]["phone"], "tel");
    service.log_in().await.expect("a login");

    // Records of another version hide none of this one's.
    let records = "UPDATE connection_log SET record = '{}'
                       WHERE id = (SELECT MIN(id) FROM connection_log);
                   UPDATE connections SET last_check = '{\"outcome\": \"later\"}';
                   INSERT INTO login_attempts (slug, time, reason, attempt)
                       VALUES ('acme', 1, 'LATER', '{\"reason\": \"LATER\"}')";
    rewrite(&data, records).await;
    let changes = service.changes().await;
    let oldest = changes.last().expect("a change");
    assert_eq!(oldest.action, "unreadable");
    assert!(changes.iter().any(|change| change.action == "update"), "{changes:?}");
    assert!(service.get("acme").await.expect("shown").last_check.is_none());
    let request = pb::ListLoginAttemptsRequest {
        slug: "acme".to_owned(),
        page_size: 0,
        ..Default::default()
    };
    let attempts = service.admin.list_login_attempts(request).await.expect("listed").into_inner();
    assert_eq!(attempts.attempts.len(), 2, "both logins");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_go_on_past_an_unreadable_connection() {
    let data = tempfile::tempdir().expect("a directory");
    let mut program = Program::serve(data.path(), &[("SSO_DATABASE_URL", "sqlite://sso.db")]).await;
    let idp = FakeIdp::start(Arc::new(peerpanda_sso::clock::SystemClock)).await;
    for slug in ["acme", "damaged", "lost", "newer"] {
        let connection = Some(idp.connection(slug));
        let request = pb::CreateConnectionRequest { connection, validate_only: false };
        program.admin.create_connection(request).await.expect("created");
    }
    rewrite(&data, DAMAGE).await;
    std::fs::write(
        data.path().join("file.yaml"),
        "connections: [{ slug: acme, display_name: Acme }, { slug: newer, display_name: Newer }]",
    )
    .expect("written");
    let run = |arguments: &[&str]| {
        let mut command = command(data.path());
        command.arg("connection").args(arguments).args(["--endpoint", &program.admin_url]);
        let output = command.stderr(std::process::Stdio::piped()).output().expect("ran");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, text, _) = run(&["list"]);
    assert_eq!(code, Some(0), "{text}");
    for (slug, cause) in UNREADABLE {
        let line = text.lines().find(|line| line.trim_start().starts_with(slug)).expect("a line");
        assert!(line.contains(cause), "{line}");
    }
    let (code, text, errors) = run(&["export"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("slug: acme") && text.contains("slug: lost"), "{text}");
    assert!(errors.contains("left out damaged: settings_unreadable"), "{errors}");
    assert!(errors.contains("left out newer: newer_version"), "{errors}");
    let (code, text, _) = run(&["apply", "-f", "file.yaml"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("updated   acme: display_name"), "{text}");
    assert!(text.contains("connections[1] (newer)"), "{text}");
    assert!(text.contains("CONNECTION_UNREADABLE"), "{text}");
}

/// A hundred of the largest connections are more than a client accepts as one message.
#[tokio::test]
async fn a_page_of_large_connections_is_shorter() {
    let (mut service, _data) = over_a_file().await;
    let values: Vec<String> = (0..100).map(|number| format!("{number:0>300}")).collect();
    for number in 0..100 {
        let connection = pb::Connection {
            required_claims: vec![pb::RequiredClaim {
                name: "c".to_owned(),
                values: values.clone(),
            }],
            ..service.idp.connection(&format!("tenant-{number:03}"))
        };
        service.create(connection).await.expect("created");
    }
    let (mut pages, mut slugs, mut page_token) = (0, Vec::new(), String::new());
    loop {
        let request = pb::ListConnectionsRequest { page_size: 1000, page_token };
        let page = service.admin.list_connections(request).await.expect("a page").into_inner();
        slugs.extend(page.connections.into_iter().map(|connection| connection.slug));
        page_token = page.next_page_token;
        pages += 1;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, 3);
    assert!(slugs.len() == 100 && slugs.is_sorted(), "{slugs:?}");
}
