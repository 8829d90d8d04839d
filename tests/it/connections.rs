//! ConnectionService, refusals first.

use std::sync::Arc;

use peerpanda_sso::clock::ManualClock;
use peerpanda_sso::config::Database;
use peerpanda_sso::model::address::AddressPolicy;
use peerpanda_sso::pb;
use tonic::Code;

use crate::harness::{PUBLIC, Service, config, key, reason, refused};

#[tokio::test]
async fn all_violations_of_a_malformed_connection_are_reported_at_once() {
    let mut service = Service::start().await;
    assert_eq!(
        reason(service.admin.create_connection(pb::CreateConnectionRequest::default()).await),
        "BAD_REQUEST"
    );
    let refused = refused(
        service
            .create(pb::Connection {
                slug: "new".to_owned(),
                discovery_url: "https://idp.example.com/login".to_owned(),
                state: 77,
                client_secret: "CANARYsecret\u{0}".to_owned(),
                ..pb::Connection::default()
            })
            .await,
    );
    assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "BAD_REQUEST"));
    assert_eq!(refused.fields, ["state", "discovery_url", "client_id", "client_secret"]);
    assert!(!refused.message.contains("CANARY"));
}

#[tokio::test]
async fn a_slug_is_taken_once() {
    let mut service = Service::start().await;
    let again = service.connection();
    let refused = refused(service.create(again).await);
    assert_eq!((refused.code, refused.reason.as_str()), (Code::AlreadyExists, "CONNECTION_EXISTS"));
}

#[tokio::test]
async fn a_secret_is_never_returned_and_its_fingerprint_is() {
    let mut service = Service::start().await;
    let read = service.get("acme").await.expect("a connection");
    assert_eq!(read.client_secret, "");
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, service.idp.client_secret.as_bytes());
    let expected: String = digest.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(read.secret_fingerprint, expected);
    assert_eq!(read.redirect_uri, format!("{PUBLIC}/app/accounts/oidc/acme/login/callback/"));
    assert_eq!(read.initiate_login_uri, format!("{PUBLIC}/app/accounts/oidc/acme/login/"));
    assert_eq!(read.post_logout_redirect_uri, read.initiate_login_uri);
    assert_eq!(read.scopes, ["openid", "email", "profile"]);
}

#[tokio::test]
async fn input_is_trimmed() {
    let mut service = Service::start().await;
    let connection = pb::Connection {
        slug: "trimmed".to_owned(),
        discovery_url: format!("  {}\n", service.idp.discovery_url()),
        client_id: format!("\t{} ", service.idp.client_id),
        client_secret: format!(" {}\r\n", service.idp.client_secret),
        ..pb::Connection::default()
    };
    let created = service.create(connection).await.expect("created");
    assert_eq!(created.client_id, service.idp.client_id);
    assert_eq!(
        created.secret_fingerprint,
        service.get("acme").await.expect("a connection").secret_fingerprint
    );
    assert_eq!(created.state, pb::ConnectionState::Testing as i32);
}

#[tokio::test]
async fn an_update_needs_a_mask_and_the_revision_that_was_read() {
    let mut service = Service::start().await;
    let read = service.get("acme").await.expect("a connection");
    for (connection, paths, field) in [
        (read.clone(), &[][..], "update_mask"),
        (read.clone(), &["slug"][..], "update_mask"),
        (read.clone(), &["nonsense"][..], "update_mask"),
        (
            pb::Connection { revision: 0, ..read.clone() },
            &["display_name"][..],
            "connection.revision",
        ),
        (
            pb::Connection { client_id: String::new(), ..read.clone() },
            &["client_id"][..],
            "client_id",
        ),
        (read.clone(), &["client_secret"][..], "client_secret"),
    ] {
        assert_eq!(
            refused(service.admin.update_connection(update_request(connection, paths)).await)
                .fields,
            [field]
        );
    }
    service
        .edit(&["display_name"], |connection| connection.display_name = "One".to_owned())
        .await
        .expect("edited");
    let refused =
        refused(service.admin.update_connection(update_request(read, &["display_name"])).await);
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Aborted, "REVISION_CONFLICT"));
    let read = service.get("acme").await.expect("a connection");
    assert_eq!(read.display_name, "One");
    assert_eq!(read.client_id, service.idp.client_id, "fields outside the mask stay");
}

#[tokio::test]
async fn a_new_secret_is_used_by_the_next_login() {
    let mut service = Service::start().await;
    service.log_in().await.expect("the old secret");
    service
        .edit(&["client_secret"], |connection| connection.client_secret = "wrong".to_owned())
        .await
        .expect("edited");
    assert_eq!(reason(service.log_in().await), "CLIENT_REJECTED");
}

#[tokio::test]
async fn manual_endpoints_replace_discovery() {
    let mut service = Service::start().await;
    let issuer = service.idp.issuer.clone();
    let connection = service
        .edit(&["discovery_url", "endpoints", "issuer"], |connection| {
            connection.discovery_url.clear();
            connection.issuer = issuer.clone();
            connection.endpoints = Some(pb::ProviderEndpoints {
                authorization_endpoint: format!("{issuer}/authorize"),
                token_endpoint: format!("{issuer}/token"),
                jwks_uri: format!("{issuer}/keys"),
                ..pb::ProviderEndpoints::default()
            });
        })
        .await
        .expect("edited");
    assert_eq!(connection.discovery_url, "");
    service.idp.seen().clear();
    service.log_in().await.expect("a login");
    assert_eq!(service.idp.count("/.well-known/openid-configuration"), 0);
}

#[tokio::test]
async fn a_deletion_needs_the_revision_that_was_read() {
    let mut service = Service::start().await;
    let revision = service.get("acme").await.expect("a connection").revision;
    for (revision, expected) in [(0, "BAD_REQUEST"), (revision + 1, "REVISION_CONFLICT")] {
        let request = pb::DeleteConnectionRequest { slug: "acme".to_owned(), revision };
        assert_eq!(reason(service.admin.delete_connection(request).await), expected);
    }
    let request = pb::DeleteConnectionRequest { slug: "acme".to_owned(), revision };
    service.admin.delete_connection(request.clone()).await.expect("deleted");
    assert_eq!(reason(service.admin.delete_connection(request).await), "CONNECTION_NOT_FOUND");
    assert_eq!(reason(service.get("acme").await), "CONNECTION_NOT_FOUND");
}

#[tokio::test]
async fn pages_hold_every_connection_once() {
    let mut service = Service::start().await;
    for number in 0..7 {
        let connection = pb::Connection { slug: format!("c{number}"), ..service.connection() };
        service.create(connection).await.expect("created");
    }
    let (mut slugs, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListConnectionsRequest { page_size: 3, page_token };
        let page = service.admin.list_connections(request).await.expect("a page").into_inner();
        assert!(
            page.connections.len() <= 3
                && page.connections.iter().all(|connection| connection.client_secret.is_empty())
        );
        slugs.extend(page.connections.into_iter().map(|connection| connection.slug));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(slugs, ["acme", "c0", "c1", "c2", "c3", "c4", "c5", "c6"]);
    for bad in [
        pb::ListConnectionsRequest { page_size: -1, ..Default::default() },
        pb::ListConnectionsRequest { page_size: 1, page_token: "!".to_owned() },
    ] {
        assert_eq!(reason(service.admin.list_connections(bad).await), "BAD_REQUEST");
    }
}

#[tokio::test]
async fn validate_only_answers_as_the_write_would_and_writes_nothing() {
    let mut service = Service::start().await;
    let issuer = service.idp.issuer.to_uppercase().replace("HTTP://", "http://");
    let new = pb::Connection {
        slug: "new".to_owned(),
        display_name: " New ".to_owned(),
        discovery_url: format!("{issuer}/.well-known/openid-configuration"),
        client_id: "client".to_owned(),
        client_secret: "CANARYsecret".to_owned(),
        ..pb::Connection::default()
    };
    let request = |connection: &pb::Connection, validate_only| pb::CreateConnectionRequest {
        connection: Some(connection.clone()),
        validate_only,
    };
    let preview = service.admin.create_connection(request(&new, true)).await.expect("valid");
    let preview = preview.into_inner();
    assert_eq!(reason(service.get("new").await), "CONNECTION_NOT_FOUND");
    let created = service.admin.create_connection(request(&new, false)).await.expect("created");
    let created = created.into_inner();
    assert_eq!(preview.changed_fields, created.changed_fields);
    let (preview, created) = (preview.connection.expect("one"), created.connection.expect("one"));
    assert_eq!(preview.revision, 0);
    assert_eq!(created.display_name, "New");
    let same = pb::Connection {
        revision: created.revision,
        create_time: created.create_time,
        update_time: created.update_time,
        ..preview
    };
    assert_eq!(same, created);
    assert_eq!(
        reason(service.admin.create_connection(request(&new, true)).await),
        "CONNECTION_EXISTS"
    );

    let edited = pb::Connection { display_name: "Renamed".to_owned(), ..created.clone() };
    let mut update = update_request(edited, &["display_name", "client_id"]);
    update.validate_only = true;
    let preview = service.admin.update_connection(update.clone()).await.expect("valid");
    let preview = preview.into_inner();
    assert_eq!(preview.changed_fields, ["display_name"]);
    assert_eq!(preview.connection.expect("one").display_name, "Renamed");
    assert_eq!(service.get("new").await.expect("a connection").display_name, "New");
    update.validate_only = false;
    let updated = service.admin.update_connection(update).await.expect("updated").into_inner();
    assert_eq!(updated.changed_fields, ["display_name"]);
    assert!(updated.connection.expect("one").revision > created.revision);
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_and_records_nothing() {
    let mut service = Service::start().await;
    let read = service.get("acme").await.expect("a connection");
    let same = pb::Connection {
        display_name: format!(" {} ", read.display_name),
        client_secret: service.idp.client_secret.clone(),
        ..read.clone()
    };
    let paths = ["display_name", "discovery_url", "endpoints", "scopes", "client_secret"];
    let answer = service.admin.update_connection(update_request(same, &paths)).await;
    let answer = answer.expect("accepted").into_inner();
    assert_eq!(answer.changed_fields, [""; 0]);
    assert_eq!(answer.effect, "");
    assert_eq!(answer.connection.expect("one").revision, read.revision);
    assert_eq!(service.get("acme").await.expect("a connection").revision, read.revision);
    let request =
        pb::ListConnectionChangesRequest { slug: "acme".to_owned(), ..Default::default() };
    let changes = service.admin.list_connection_changes(request).await.expect("listed");
    let actions: Vec<String> =
        changes.into_inner().changes.into_iter().map(|change| change.action).collect();
    assert_eq!(actions, ["activate", "create"]);
}

#[tokio::test]
async fn an_update_is_not_refused_for_a_stored_field_that_it_does_not_name() {
    let data = tempfile::tempdir().expect("a directory");
    let file = data.path().join("sso.db");
    let key = key();
    let clock = Arc::new(ManualClock::starting_now());
    let lenient = config(Database::Sqlite(file.clone()), None, &key);
    let mut service = Service::over(lenient, Arc::clone(&clock)).await;
    let created = service.create(service.idp.connection("acme")).await.expect("created");
    let discovery_url = created.discovery_url.clone();
    assert!(discovery_url.starts_with("http://"), "{discovery_url}");

    // SSO_ALLOW_INSECURE_PROVIDERS was taken away.
    let mut strict = config(Database::Sqlite(file), None, &key);
    strict.provider_addresses = AddressPolicy::default();
    let mut service = Service::over(strict, clock).await;
    let edited = pb::Connection { display_name: "Acme".to_owned(), ..created };
    let update = update_request(edited.clone(), &["display_name"]);
    let updated = service.admin.update_connection(update).await.expect("updated").into_inner();
    let updated = updated.connection.expect("one");
    assert_eq!((updated.display_name.as_str(), updated.discovery_url), ("Acme", discovery_url));
    let edited = pb::Connection { revision: updated.revision, ..edited };
    let update = update_request(edited, &["discovery_url"]);
    let refused = refused(service.admin.update_connection(update).await);
    assert_eq!(refused.fields, ["discovery_url"]);
}

fn update_request(connection: pb::Connection, paths: &[&str]) -> pb::UpdateConnectionRequest {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    pb::UpdateConnectionRequest {
        connection: Some(connection),
        update_mask: Some(prost_types::FieldMask { paths }),
        force: false,
        validate_only: false,
    }
}
