//! Five failures as support meets them, which docs/support.md tells: what a customer reports, what the
//! commands say, and what helps.

use std::sync::Arc;
use std::time::Duration;

use peerpanda_sso::clock::Clock;
use peerpanda_sso::pb;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use crate::documented::assert_documented;
use crate::fake_idp::{FakeIdp, Logout};
use crate::harness::{PUBLIC, Service, begin_request, complete_request, refused};
use crate::support::Terminal;
use crate::tls::{Chain, idp_with_chain};

/// 2020-01-02T07:30:00Z, when the certificate expired the day before.
const MORNING: u64 = 1_577_950_200_000;
const MINUTE: Duration = Duration::from_secs(60);

/// The customers' IdPs and support's terminal.
struct Desk {
    service: Service,
    terminal: Terminal,
}

impl Desk {
    /// At half past seven.
    async fn start() -> (Self, FakeIdp) {
        let (ca, with_expired) = idp_with_chain(Chain::Expired).await;
        let ca = CertificateDer::from_pem_slice(ca.as_bytes()).expect("a certificate");
        let service = Service::start_with(|config| config.provider_cas = vec![ca]).await;
        let now = service.clock.unix_millis().0;
        service.clock.set_back(Duration::from_millis(now.saturating_sub(MORNING)));
        service.clock.advance(Duration::from_millis(MORNING.saturating_sub(now)));
        let terminal = Terminal::to(&service.admin_url());
        (Self { service, terminal }, with_expired)
    }

    /// An account at its IdP, which is ACTIVE.
    async fn account(&mut self, slug: &str, idp: &FakeIdp) {
        let uri = |end: &str| format!("{PUBLIC}/app/accounts/oidc/{slug}/login/{end}");
        {
            let mut behaviour = idp.behave();
            behaviour.registered_redirect = Some(uri("callback/"));
            behaviour.registered_logout = Some(uri(""));
            behaviour.logout = Logout::Compares;
            behaviour.metadata = json!({
                "scopes_supported": ["openid", "email", "profile"],
                "claims_supported": ["sub", "email", "given_name", "family_name"],
            });
        }
        let state = pb::ConnectionState::Active.into();
        self.service
            .create(pb::Connection { state, ..idp.connection(slug) })
            .await
            .expect("created");
    }

    async fn with_idp(&mut self, slug: &str) -> FakeIdp {
        let clock = Arc::clone(&self.service.clock) as Arc<dyn Clock>;
        let idp = FakeIdp::start_for(clock, "peerpanda", "CANARYsecret").await;
        self.account(slug, &idp).await;
        idp
    }

    async fn begin(&mut self, slug: &str) -> Result<pb::BeginLoginResponse, tonic::Status> {
        self.service.clock.advance(MINUTE);
        self.service.begin(pb::BeginLoginRequest { slug: slug.to_owned(), ..begin_request() }).await
    }

    /// A person logs in, or is sent back with an error.
    async fn log_in(
        &mut self,
        slug: &str,
        idp: &FakeIdp,
        error: Option<(&str, &str)>,
    ) -> Result<pb::CompleteLoginResponse, tonic::Status> {
        let begun = self.begin(slug).await?;
        let callback = idp.approve(&begun.redirect_url, "alice");
        let mut request =
            pb::CompleteLoginRequest { slug: slug.to_owned(), ..complete_request(&callback) };
        if let Some((error, description)) = error {
            request.code = String::new();
            request.error = Some(error.to_owned());
            request.error_description = Some(description.to_owned());
        }
        self.service.complete(request).await
    }

    /// What a command prints.
    async fn shows(&self, command: &[&str], words: &[&str]) {
        let output = self.terminal.run(command).await;
        let text = output.text.split_whitespace().collect::<Vec<_>>().join(" ");
        for words in words {
            assert!(
                text.contains(words),
                "{command:?}: {words}: {} {}",
                output.text,
                output.errors
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_failures_are_told_as_the_commands_show_them() {
    let (mut desk, with_expired) = Desk::start().await;

    // The IdP is down since the morning.
    let hooli = desk.with_idp("hooli").await;
    desk.log_in("hooli", &hooli, None).await.expect("a login");
    let begun = desk.begin("hooli").await.expect("begun");
    for path in ["/.well-known/openid-configuration", "/keys", "/token", "/authorize"] {
        hooli.behave().answers.insert(path, (503, String::new(), String::new()));
    }
    // Whoever was at its login page comes back, but the code can't be exchanged.
    let callback = hooli.approve(&begun.redirect_url, "bob");
    let request =
        pb::CompleteLoginRequest { slug: "hooli".to_owned(), ..complete_request(&callback) };
    assert_eq!(refused(desk.service.complete(request).await).metadata["cause"], "http_5xx");
    for _ in 0..3 {
        desk.service.clock.advance(10 * MINUTE);
        desk.begin("hooli").await.expect("begun with the documents that are kept");
    }

    // The secret was replaced at the IdP.
    let initech = desk.with_idp("initech").await;
    desk.log_in("initech", &initech, None).await.expect("a login");
    initech.behave().accepted_secret = Some("CANARYnew".to_owned());
    for _ in 0..3 {
        assert_eq!(refused(desk.log_in("initech", &initech, None).await).reason, "CLIENT_REJECTED");
    }
    desk.shows(&["attempts", "initech"], &["×3", "support: compare client id, secret"]).await;
    desk.shows(&["check", "initech"], &["FAIL client.credentials", "invalid_client"]).await;

    // The redirect URI isn't registered.
    let globex = desk.with_idp("globex").await;
    globex.behave().registered_redirect = None;
    globex.behave().unregistered_page =
        Some((400, "We are sorry... Invalid parameter: redirect_uri"));
    for _ in 0..3 {
        desk.begin("globex").await.expect("begun");
    }
    desk.service.clock.advance(5 * MINUTE);
    desk.shows(&["attempts", "globex"], &["none came back"]).await;
    desk.shows(&["check", "globex"], &["FAIL client.redirect_uri", "globex/login/callback/"]).await;

    // The person isn't assigned.
    let umbrella = desk.with_idp("umbrella").await;
    let words = "User is not assigned to the client application.";
    let refusal = desk.log_in("umbrella", &umbrella, Some(("access_denied", words))).await;
    let trace_id = refused(refusal).metadata["trace_id"].clone();
    let attempt = ["attempts", "--trace", &trace_id];
    desk.shows(&attempt, &["umbrella", "person_not_assigned", words, "assign"]).await;

    desk.shows(&["check", "umbrella"], &["PASS: 0 failed"]).await;

    // The certificate has expired.
    desk.account("stark", &with_expired).await;
    for _ in 0..2 {
        assert_eq!(refused(desk.begin("stark").await.map(|_| ())).reason, "PROVIDER_UNAVAILABLE");
    }
    desk.shows(&["attempts", "stark"], &["tls_certificate_expired", "expired on", "renew"]).await;
    desk.shows(&["check", "stark"], &["FAIL metadata.document"]).await;

    desk.service.clock.advance(90 * MINUTE);
    desk.shows(&["list", "--failing"], &["hooli", "initech"]).await;
    desk.shows(&["attempts", "hooli"], &["none came back", "http_5xx"]).await;
    desk.shows(&["check", "hooli"], &["FAIL metadata.document", "HTTP 503"]).await;

    assert_documented(&desk.terminal.transcript(), "## Five failures", "## Changing an ACTIVE");
}
