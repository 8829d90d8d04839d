//! Two replicas on one Redis and one PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use peerpanda_sso::clock::ManualClock;
use peerpanda_sso::config::{Config, Database};
use peerpanda_sso::pb;

use crate::harness::{
    Service, begin_request, complete_request, config, eventually, key, postgres_url, reason,
    redis_url,
};

/// Without the answer to a repeated callback.
async fn two_replicas() -> (Service, Service) {
    let (postgres, key, clock) =
        (postgres_url().await, key(), Arc::new(ManualClock::starting_now()));
    let replica = || Config {
        answer_ttl: Duration::ZERO,
        ..config(Database::Postgres(postgres.clone().into()), Some(redis_url()), &key)
    };
    let mut one = Service::over(replica(), Arc::clone(&clock)).await;
    let two = Service::over(replica(), clock).await;
    let connection = one.connection();
    one.create(connection).await.expect("created");
    (one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_begins_on_one_and_is_completed_on_the_other() {
    let (mut one, mut two) = two_replicas().await;
    let callback = one.approved().await;
    two.complete(complete_request(&callback)).await.expect("a login");
    assert_eq!(reason(one.complete(complete_request(&callback)).await), "STATE_USED");
}

/// RFC 9700 4.7.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_raced_on_both_is_used_once() {
    let (mut one, two) = two_replicas().await;
    for _ in 0..5 {
        let callback = one.approved().await;
        let mut calls = Vec::new();
        for number in 0..10 {
            let mut client = if number % 2 == 0 { one.login.clone() } else { two.login.clone() };
            let request = complete_request(&callback);
            calls.push(tokio::spawn(async move { client.complete_login(request).await }));
        }
        let mut won = 0;
        for call in calls {
            match call.await.expect("ended") {
                Ok(_) => won += 1,
                Err(status) => assert_eq!(reason::<()>(Err(status)), "STATE_USED"),
            }
        }
        assert_eq!(won, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_on_one_is_seen_by_the_other() {
    let (mut one, mut two) = two_replicas().await;
    let mut unknown = two.login.clone();
    let request = |slug: &str| pb::BeginLoginRequest { slug: slug.to_owned(), ..begin_request() };
    assert_eq!(reason(unknown.begin_login(request("late")).await), "CONNECTION_NOT_FOUND");
    two.begin(begin_request()).await.expect("known to the other replica");

    one.create(pb::Connection { slug: "late".to_owned(), ..one.connection() })
        .await
        .expect("created");
    one.edit(&["state"], |connection| connection.state = pb::ConnectionState::Disabled.into())
        .await
        .expect("disabled");
    let began = tokio::time::Instant::now();
    eventually("the change is seen", || {
        let mut login = two.login.clone();
        async move {
            login
                .begin_login(begin_request())
                .await
                .is_err_and(|status| status.message().contains("disabled"))
        }
    })
    .await;
    assert!(began.elapsed().as_secs() < 5);
    eventually("an account that was unknown is found after the poll", || {
        let mut login = two.login.clone();
        async move { login.begin_login(request("late")).await.is_ok() }
    })
    .await;
    assert!(began.elapsed().as_secs() < 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_pin_the_same_issuer() {
    let (mut one, mut two) = two_replicas().await;
    let (a, b) = tokio::join!(one.begin(begin_request()), two.begin(begin_request()));
    a.expect("begun");
    b.expect("begun");
    eventually("the issuer is pinned", || {
        let (mut admin, issuer) = (one.admin.clone(), one.idp.issuer.clone());
        let request = pb::GetConnectionRequest { slug: "acme".to_owned() };
        async move {
            let read = admin.get_connection(request).await.expect("there").into_inner();
            read.connection.expect("a connection").issuer == issuer
        }
    })
    .await;
}
