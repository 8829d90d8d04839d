//! Callbacks that arrive twice: a browser reloads, goes back, or sends a request again.

use std::collections::HashSet;
use std::time::Duration;

use peerpanda_sso::config::Database;
use peerpanda_sso::pb;

use crate::harness::{
    Service, complete_request, config, eventually, key, reason, redis_url, refused,
};

/// Completes a login, and waits until its answer is kept.
async fn completed(service: &mut Service) -> (pb::CompleteLoginRequest, pb::CompleteLoginResponse) {
    let callback = complete_request(&service.approved().await);
    let answer = service.complete(callback.clone()).await.expect("a login");
    eventually("the answer is kept", || {
        let (mut login, callback) = (service.login.clone(), callback.clone());
        async move { login.complete_login(callback).await.is_ok() }
    })
    .await;
    (callback, answer)
}

async fn the_same_callback_gets_the_same_answer(service: &mut Service) {
    let (callback, answer) = completed(service).await;
    let exchanges = service.idp.count("/token");
    for _ in 0..3 {
        let again = service.complete(callback.clone()).await.expect("the same answer");
        assert_eq!(again, answer);
    }
    assert_eq!(service.idp.count("/token"), exchanges, "without the IdP");
    let foreign = pb::CompleteLoginRequest {
        browser_binding: Some("another-browser-0123".to_owned()),
        ..callback.clone()
    };
    assert_eq!(reason(service.complete(foreign).await), "BROWSER_MISMATCH");
    let other_code = pb::CompleteLoginRequest { code: "made-up".to_owned(), ..callback.clone() };
    assert_eq!(reason(service.complete(other_code).await), "STATE_USED");
    let error = pb::CompleteLoginRequest {
        code: String::new(),
        error: Some("access_denied".to_owned()),
        ..callback
    };
    assert_eq!(reason(service.complete(error).await), "STATE_USED");
}

#[tokio::test]
async fn the_same_callback_gets_the_same_answer_from_memory_for_half_a_minute() {
    let mut service = Service::start_with(|config| {
        config.identity_audience = Some("backends".to_owned());
    })
    .await;
    eventually("identity tokens are issued", || {
        let mut service_login = service.login.clone();
        let request = pb::CompleteLoginRequest::default();
        async move { reason(service_login.complete_login(request).await) == "BAD_REQUEST" }
    })
    .await;
    the_same_callback_gets_the_same_answer(&mut service).await;
    let (callback, _) = completed(&mut service).await;
    service.clock.advance(Duration::from_secs(30));
    assert_eq!(reason(service.complete(callback).await), "STATE_USED");
}

#[tokio::test]
async fn the_same_callback_gets_the_same_answer_from_redis() {
    let data = tempfile::tempdir().expect("a directory");
    let config = config(Database::Sqlite(data.path().join("sso.db")), Some(redis_url()), &key());
    let clock = std::sync::Arc::new(peerpanda_sso::clock::ManualClock::starting_now());
    let mut service = Service::over(config, clock).await;
    let connection = service.connection();
    service.create(connection).await.expect("created");
    the_same_callback_gets_the_same_answer(&mut service).await;
}

#[tokio::test]
async fn a_change_of_the_connection_ends_kept_answers() {
    let mut service = Service::start().await;
    let (callback, _) = completed(&mut service).await;
    let edit = service.edit(&["display_name"], |connection| {
        connection.display_name = "Another".to_owned();
    });
    edit.await.expect("edited");
    eventually("the change is applied", || {
        let (mut login, callback) = (service.login.clone(), callback.clone());
        async move { login.complete_login(callback).await.is_err() }
    })
    .await;
    assert_eq!(refused(service.complete(callback).await).retry, "login");
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_that_race_exchange_the_code_once() {
    let mut service = Service::start().await;
    let callback = complete_request(&service.approved().await);
    service.idp.behave().token_delay = Duration::from_millis(200);
    let racing: Vec<_> = (0..20)
        .map(|_| {
            let (mut login, callback) = (service.login.clone(), callback.clone());
            tokio::spawn(async move { login.complete_login(callback).await })
        })
        .collect();
    let mut answers = HashSet::new();
    for call in racing {
        match call.await.expect("ended") {
            Ok(answer) => drop(answers.insert(format!("{:?}", answer.into_inner()))),
            Err(status) => assert_eq!(reason(Err::<(), _>(status)), "STATE_USED"),
        }
    }
    assert_eq!(answers.len(), 1, "one answer, however often");
    assert_eq!(service.idp.count("/token"), 1);
}

#[tokio::test]
async fn a_repeated_callback_is_not_recorded_as_an_attempt() {
    let mut service = Service::start().await;
    let (callback, _) = completed(&mut service).await;
    service.complete(callback).await.expect("the same answer");
    assert_eq!(service.attempts().await.attempts.len(), 1);
}
