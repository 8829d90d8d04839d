//! RestoreConnection: the way back to an earlier revision.

use std::sync::Arc;

use peerpanda_sso::app::{Environment, reseal};
use peerpanda_sso::clock::ManualClock;
use peerpanda_sso::config::Database;
use peerpanda_sso::pb;
use peerpanda_sso::store::seal::Keyring;

use crate::fake_idp::FakeIdp;
use crate::harness::{Service, config, key, refused};

async fn restore(
    service: &mut Service,
    revision: u64,
    force: bool,
) -> Result<pb::RestoreConnectionResponse, tonic::Status> {
    let request = pb::RestoreConnectionRequest {
        slug: "acme".to_owned(),
        revision,
        force,
        current_revision: 0,
    };
    service.admin.restore_connection(request).await.map(tonic::Response::into_inner)
}

/// The revisions that can be restored, newest first.
async fn restorable(service: &mut Service) -> Vec<u64> {
    let changes = service.changes().await;
    changes.iter().filter(|change| change.can_restore).map(|change| change.revision).collect()
}

#[tokio::test]
async fn an_earlier_revision_is_restored_with_its_secret() {
    let mut service = Service::start().await;
    let before = service.get("acme").await.expect("there");
    let other = FakeIdp::start(Arc::clone(&service.clock) as _).await;
    let elsewhere = |it: &mut pb::Connection| {
        it.discovery_url = other.discovery_url();
        it.client_secret = "CANARYother".to_owned();
        it.display_name = "Moved".to_owned();
    };
    let paths = ["discovery_url", "client_secret", "display_name"];
    service.edit(&paths, elsewhere).await.expect("edited");
    let disable = |it: &mut pb::Connection| it.state = pb::ConnectionState::Disabled.into();
    service.edit(&["state"], disable).await.expect("edited");

    let request = pb::RestoreConnectionRequest {
        slug: "acme".to_owned(),
        revision: before.revision,
        force: false,
        current_revision: before.revision,
    };
    let refusal = refused(service.admin.restore_connection(request).await);
    assert_eq!(refusal.reason, "REVISION_CONFLICT", "the present revision is another one");
    let restored = restore(&mut service, before.revision, false).await.expect("restored");
    assert_eq!(restored.changed_fields, ["display_name", "discovery_url", "client_secret"]);
    let now = restored.connection.expect("a connection");
    assert_eq!(now.state(), pb::ConnectionState::Disabled, "nothing is switched on by it");
    assert!(now.revision > before.revision);
    assert_eq!(now.secret_fingerprint, before.secret_fingerprint);
    let change = &service.changes().await[0];
    assert_eq!((change.action.as_str(), change.is_forced), ("restore", false));
    let activated = service.activate("acme", now.revision, true).await.expect("activated");
    assert_eq!(activated.discovery_url, before.discovery_url);
    service.log_in().await.expect("a login with the secret of that revision");
}

#[tokio::test]
async fn a_restore_of_an_active_connection_needs_the_proofs_of_an_update() {
    let mut service = Service::start().await;
    let before = service.get("acme").await.expect("there").revision;
    service.edit(&["scopes"], |it| it.scopes = vec!["openid".to_owned()]).await.expect("edited");
    let refusal = refused(restore(&mut service, before, false).await);
    assert_eq!(refusal.reason, "CHECK_REQUIRED");
    restore(&mut service, before, true).await.expect("restored by force");
    assert!(service.changes().await[0].is_forced);
}

#[tokio::test]
async fn twenty_revisions_are_kept_and_said() {
    let mut service = Service::start().await;
    let mut revisions = Vec::new();
    for number in 0..24 {
        let name = format!("Acme {number}");
        let edited = service.edit(&["display_name"], |it| it.display_name = name).await;
        revisions.push(edited.expect("edited").revision);
    }
    revisions.reverse();
    assert_eq!(restorable(&mut service).await, revisions[1..21], "not the present one");
    let restored = restore(&mut service, revisions[20], false).await.expect("restored");
    assert_eq!(restored.connection.expect("a connection").display_name, "Acme 3");
    assert_eq!(restored.effect, "", "no login is affected");
    for gone in [revisions[20], 1] {
        let refusal = refused(restore(&mut service, gone, false).await);
        assert_eq!(refusal.fields, ["revision"], "{}", refusal.message);
    }
}

#[tokio::test]
async fn restoring_what_is_present_writes_nothing() {
    let mut service = Service::start().await;
    let before = service.get("acme").await.expect("there");
    let changes = service.changes().await.len();
    let restored = restore(&mut service, before.revision, false).await.expect("answered");
    assert!(restored.changed_fields.is_empty());
    assert_eq!(restored.connection.expect("a connection").revision, before.revision);
    // So does an earlier revision that is the same.
    service.edit(&["display_name"], |it| it.display_name = "New".to_owned()).await.expect("edited");
    let renamed = service.edit(&["display_name"], |it| it.display_name.clear()).await;
    let renamed = renamed.expect("edited").revision;
    let restored = restore(&mut service, before.revision, false).await.expect("answered");
    assert_eq!(restored.connection.expect("a connection").revision, renamed);
    assert_eq!(service.changes().await.len(), changes + 2);
}

#[tokio::test]
async fn a_revision_of_a_deleted_connection_is_not_restored() {
    let mut service = Service::start().await;
    let first = service.get("acme").await.expect("there").revision;
    let edited = service.edit(&["display_name"], |it| it.display_name = "New".to_owned()).await;
    let revision = edited.expect("edited").revision;
    let request = pb::DeleteConnectionRequest { slug: "acme".to_owned(), revision };
    service.admin.delete_connection(request).await.expect("deleted");
    let refusal = refused(restore(&mut service, first, true).await);
    assert_eq!(refusal.reason, "CONNECTION_NOT_FOUND");
    service.create(service.connection()).await.expect("created again");
    assert!(restorable(&mut service).await.iter().all(|kept| *kept > revision));
    assert_eq!(refused(restore(&mut service, first, true).await).fields, ["revision"]);
}

/// An earlier revision is needed just when something went wrong, so no key of it may be dropped unseen.
#[tokio::test]
async fn keys_rotate_reseals_earlier_revisions() {
    let (data, old, new) = (tempfile::tempdir().expect("a directory"), key(), key());
    let file = data.path().join("sso.db");
    let clock = Arc::new(ManualClock::starting_now());
    let over = |keys: Vec<_>| {
        let mut config = config(Database::Sqlite(file.clone()), None, &old);
        config.keyring = Keyring::new(keys).expect("a key");
        config
    };
    let mut service = Service::over(over(vec![old.clone()]), Arc::clone(&clock)).await;
    service.create(service.connection()).await.expect("created");
    let before = service.get("acme").await.expect("there");
    let change = |it: &mut pb::Connection| it.client_secret = "CANARYother".to_owned();
    service.edit(&["client_secret"], change).await.expect("edited");
    let (database, both) = (Database::Sqlite(file.clone()), vec![new.clone(), old.clone()]);
    let keyring = Keyring::new(both).expect("keys");
    let resealed = reseal(&database, keyring, &Environment::default()).await.expect("resealed");
    assert_eq!((resealed.all, resealed.changed, resealed.unreadable.len()), (3, 3, 0));
    let mut service = Service::over(over(vec![new]), clock).await;
    let restored = restore(&mut service, before.revision, true).await.expect("restored");
    let restored = restored.connection.expect("a connection");
    assert_eq!(restored.secret_fingerprint, before.secret_fingerprint);
}
