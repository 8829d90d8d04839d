//! ConnectionService, refusals first.

use peerpanda_sso::pb;
use tonic::Code;

use crate::harness::{PUBLIC, Service, reason, refused};

#[tokio::test]
async fn a_malformed_connection_is_told_all_its_violations_at_once() {
    let mut service = Service::start().await;
    assert_eq!(
        reason(service.admin.create_connection(pb::CreateConnectionRequest::default()).await),
        "BAD_REQUEST"
    );
    let refused = refused(
        service
            .create(pb::Connection {
                slug: "new".to_owned(),
                discovery_url: "https://idp.example.com/".to_owned(),
                state: 77,
                client_secret: "CANARYsecret\u{0}".to_owned(),
                ..pb::Connection::default()
            })
            .await,
    );
    assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "BAD_REQUEST"));
    assert_eq!(refused.fields, ["state"], "the form first");
    let refused = crate::harness::refused(
        service
            .create(pb::Connection {
                slug: "new".to_owned(),
                discovery_url: "https://idp.example.com/".to_owned(),
                client_secret: "CANARYsecret\u{0}".to_owned(),
                ..pb::Connection::default()
            })
            .await,
    );
    assert_eq!(refused.fields, ["discovery_url", "client_id", "client_secret"]);
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
async fn a_secret_never_comes_back_and_its_fingerprint_does() {
    let mut service = Service::start().await;
    let read = service.get("acme").await.expect("there");
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
        service.get("acme").await.expect("there").secret_fingerprint
    );
    assert_eq!(created.state, pb::ConnectionState::Testing as i32);
}

#[tokio::test]
async fn an_update_needs_a_mask_and_the_revision_that_was_read() {
    let mut service = Service::start().await;
    let update = |connection: pb::Connection, paths: &[&str]| pb::UpdateConnectionRequest {
        connection: Some(connection),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }),
        force: false,
        validate_only: false,
    };
    let read = service.get("acme").await.expect("there");
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
            refused(service.admin.update_connection(update(connection, paths)).await).fields,
            [field]
        );
    }
    service
        .edit(&["display_name"], |connection| connection.display_name = "One".to_owned())
        .await
        .expect("edited");
    let refused = refused(service.admin.update_connection(update(read, &["display_name"])).await);
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Aborted, "REVISION_CONFLICT"));
    let read = service.get("acme").await.expect("there");
    assert_eq!(read.display_name, "One");
    assert_eq!(read.client_id, service.idp.client_id, "what the mask doesn't name stays");
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
async fn manual_endpoints_stand_in_for_discovery() {
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
    let revision = service.get("acme").await.expect("there").revision;
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
