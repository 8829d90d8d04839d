//! What support is told of every misconfiguration, by a check before the first login, by the refusal of a
//! login and by the login attempts afterwards: what is wrong, whose turn it is and what to do. And that
//! nothing is said against a set-up that is right.

mod clients;
mod idps;
mod logins;
mod right;
mod walk;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use peerpanda_sso::clock::Clock;
use peerpanda_sso::pb;
use peerpanda_sso::pb::CheckOutcome;
use prost_types::FieldMask;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::Status;
use tonic_types::StatusExt;
use url::Url;

use crate::checks::Checked;
use crate::dns::FakeDns;
use crate::fake_idp::{Behaviour, Logout};
use crate::harness::{PUBLIC, Service, begin_request, complete_request, refused};
use crate::idps::Fixture;
use crate::quickstart::Browser;
use crate::tls::{Chain, idp_with_chain};
use walk::{Fault, SUPPORT};

#[tokio::test(flavor = "multi_thread")]
async fn each_misconfiguration_is_explained_by_check_login_and_attempts() {
    let faults = [
        clients::credentials(),
        clients::clients(),
        idps::documents(),
        idps::networks(),
        logins::tokens(),
        logins::people(),
    ];
    let faults: Vec<Fault> = faults.into_iter().flatten().collect();
    assert!(faults.len() >= 40, "{}", faults.len());
    let rows = faults.into_iter().map(|fault| (fault.name.to_owned(), fault)).collect();
    for_each_row(rows, Fault::walk).await;
}

/// A person has logged in by another client id, at an IdP whose subjects belong to the client.
#[tokio::test]
async fn a_new_client_at_an_idp_with_pairwise_subjects_is_found() {
    let mut account = Account::at(At::Product("entra_v2")).await;
    assert!(matches!(account.log_in(Person::LogsIn).await, Ended::LoggedIn));
    account.listed().await;
    account.service.clock.advance(Duration::from_secs(1));
    account.set_up(|c, _| c.client_id = "another".to_owned()).await;
    let checked = account.service.check("acme").await.expect("checked");
    let result = &checked.results["client.subjects"];
    assert_eq!((result.outcome(), &*owner_of(result)), (CheckOutcome::Warn, SUPPORT), "{result:?}");
    assert!(result.remedy.contains("keep the client id"), "{result:?}");
}

/// Where the account's IdP is, and what answers there.
#[derive(Clone, Copy)]
enum At {
    /// No product in particular.
    Generic,
    /// A product of `tests/it/idps`, with its documents and paths.
    Product(&'static str),
    /// Over TLS, with such a certificate.
    Tls(Chain),
    /// By names that a name server of the test answers for.
    NameServer,
}

/// An account at its IdP, which are set up right, and of which something can be made wrong.
struct Account {
    service: Service,
    /// What the IdP adds to callbacks.
    iss: Option<String>,
    /// As it was created, with the client secret.
    connection: pb::Connection,
}

/// How a person's login ends.
enum Ended {
    /// At a page of the IdP, which never sends the person back.
    AtIdp,
    LoggedIn,
    Refused {
        stage: pb::LoginStage,
        status: Status,
        /// The IdP's error and description, if it sent the person back with one.
        said: Option<(String, String)>,
    },
}

/// What a person meets at an IdP that shows its login page.
#[derive(Clone, Copy, Debug)]
enum Person {
    LogsIn,
    /// Is sent back with an error and a description.
    ComesBackWith(&'static str, &'static str),
    /// Is left at a page with this code.
    Sees(&'static str),
}

impl Account {
    async fn at(place: At) -> Self {
        let (mut service, iss) = match place {
            At::Generic => (Service::start().await, None),
            At::Product(name) => {
                let Fixture { service, is } = Fixture::of(name).await;
                let iss = is["callback_iss"].as_str().map(str::to_owned);
                reach_browser_endpoints(&service);
                (service, Some(iss))
            }
            At::Tls(chain) => {
                let (ca, idp) = idp_with_chain(chain).await;
                let ca = CertificateDer::from_pem_slice(ca.as_bytes()).expect("a certificate");
                let with_ca =
                    |config: &mut peerpanda_sso::config::Config| config.provider_cas = vec![ca];
                let mut service = Service::start_with(with_ca).await;
                service.idp = idp;
                (service, None)
            }
            At::NameServer => {
                let dns = FakeDns::start().await;
                let with_dns = |config: &mut peerpanda_sso::config::Config| {
                    config.provider_name_server = Some(dns.address);
                };
                (Service::start_with(with_dns).await, None)
            }
        };
        {
            let mut right = service.idp.behave();
            right.registered_redirect = Some(format!("{PUBLIC}/{ACCOUNT}/login/callback/"));
            right.registered_logout = Some(format!("{PUBLIC}/{ACCOUNT}/login/"));
            right.logout = Logout::Compares;
        }
        let iss = iss.unwrap_or_else(|| Some(service.idp.issuer.clone()));
        let (client_id, secret) =
            (service.idp.client_id.clone(), service.idp.client_secret.clone());
        let connection = pb::Connection {
            state: pb::ConnectionState::Testing.into(),
            client_id,
            client_secret: secret,
            ..service.get("acme").await.expect("there")
        };
        let discovery_url = service.idp.discovery_url();
        let connection = pb::Connection { discovery_url, ..connection };
        let mut account = Self { service, iss, connection };
        account.set_up(|_, _| {}).await;
        account
    }

    /// Makes the connection, or what is at the IdP, such.
    async fn set_up(&mut self, change: fn(&mut pb::Connection, &mut Behaviour)) {
        change(&mut self.connection, &mut self.service.idp.behave());
        let behind = self.service.idp.behave().clock_ahead;
        if behind != 0 {
            let now = self.service.clock.unix_seconds().0;
            let iat = now.saturating_add_signed(behind);
            self.service.idp.behave().claims = json!({ "iat": iat, "exp": now + 300 });
        }
        let update = pb::UpdateConnectionRequest {
            connection: Some(self.connection.clone()),
            update_mask: Some(FieldMask { paths: FIELDS.map(str::to_owned).to_vec() }),
            force: true,
            validate_only: false,
        };
        let saved = self.service.admin.update_connection(update).await.expect("saved").into_inner();
        self.connection.revision = saved.connection.expect("a connection").revision;
    }

    /// A person's login, in a browser.
    async fn log_in(&mut self, person: Person) -> Ended {
        let refused = |stage, said| move |status| Ended::Refused { stage, status, said };
        let begun = match self.service.begin(begin_request()).await {
            Ok(begun) => begun,
            Err(status) => return refused(pb::LoginStage::Begin, None)(status),
        };
        let page = Browser::default().get(&begun.redirect_url).await;
        if page.status != 200 || !page.body.contains("Log in") {
            return Ended::AtIdp;
        }
        let policy = self.service.idp.behave().authorize_error;
        let person = match (policy.0, person) {
            // It needn't know who it is to refuse it.
            (error, Person::LogsIn) if error != "login_required" => {
                Person::ComesBackWith(error, policy.1)
            }
            (_, person) => person,
        };
        let callback = self.service.idp.approve(&begun.redirect_url, "alice");
        let mut request =
            pb::CompleteLoginRequest { iss: self.iss.clone(), ..complete_request(&callback) };
        let mut said = None;
        match person {
            Person::LogsIn => {}
            Person::Sees(_) => return Ended::AtIdp,
            Person::ComesBackWith(error, description) => {
                request.code = String::new();
                request.error = Some(error.to_owned());
                request.error_description = Some(description.to_owned());
                said = Some((error.to_owned(), description.to_owned()));
            }
        }
        match self.service.complete(request).await {
            Ok(_) => Ended::LoggedIn,
            Err(status) => refused(pb::LoginStage::Complete, said)(status),
        }
    }

    async fn listed(&mut self) -> (Vec<pb::LoginAttempt>, pb::LoginSummary) {
        let listed = self.service.attempts().await;
        (listed.attempts, listed.summary.expect("a summary"))
    }
}

/// The endpoints that the browser opens are on the product's own host: here the fake IdP serves them,
/// too, under the product's paths.
fn reach_browser_endpoints(service: &Service) {
    let mut behaviour = service.idp.behave();
    for (member, path) in
        [("authorization_endpoint", "/authorize"), ("end_session_endpoint", "/logout")]
    {
        let Some(document) = behaviour.document.as_mut() else { return };
        let Some(url) = document[member].as_str().map(|url| Url::parse(url).expect("a URL")) else {
            continue;
        };
        document[member] = json!(format!("{}{}", service.idp.issuer, url.path()));
        behaviour.routes.insert(url.path().to_owned(), path.to_owned());
    }
}

const ACCOUNT: &str = "app/accounts/oidc/acme";

/// What a change can make wrong.
const FIELDS: [&str; 15] = [
    "state",
    "issuer",
    "discovery_url",
    "endpoints",
    "client_id",
    "client_secret",
    "client_secret_expire_time",
    "standby_client_secret",
    "token_endpoint_auth_method",
    "scopes",
    "claim_mapping",
    "allowed_email_domains",
    "require_verified_email",
    "required_claims",
    "logout_style",
];

/// Whose turn it is, as refusals and attempts name it.
fn owner_of(result: &pb::CheckResult) -> String {
    result.actor().as_str_name().trim_start_matches("PARTY_").to_lowercase()
}

/// Every result that isn't as it should be.
fn findings(checked: &Checked) -> Vec<&pb::CheckResult> {
    let is_finding = |result: &&pb::CheckResult| {
        matches!(result.outcome(), CheckOutcome::Fail | CheckOutcome::Warn)
    };
    checked.results.values().filter(is_finding).collect()
}

/// Runs the rows of a table, several at once, and reports all that go wrong.
async fn for_each_row<R: Send + 'static, F: Future<Output = ()> + Send + 'static>(
    rows: Vec<(String, R)>,
    walk: fn(R) -> F,
) {
    let (count, places) = (rows.len(), Arc::new(Semaphore::new(ROWS_AT_ONCE)));
    let mut running = JoinSet::new();
    for (name, row) in rows {
        let places = Arc::clone(&places);
        running.spawn(async move {
            let _place = places.acquire_owned().await.expect("a place");
            let walked = tokio::spawn(walk(row)).await;
            walked.err().map(|error| {
                let panic = error.into_panic();
                let text = panic.downcast_ref::<String>().cloned();
                let text =
                    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                format!("{name}: {}", text.unwrap_or_default())
            })
        });
    }
    let wrong: Vec<String> = running.join_all().await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{} of {count} rows:\n{}", wrong.len(), wrong.join("\n"));
}

/// Rows that are walked at the same time: each mostly waits.
const ROWS_AT_ONCE: usize = 8;
