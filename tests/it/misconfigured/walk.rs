//! One misconfiguration: how it comes about, and what a check, a refused login and the login attempts must
//! say of it.

use super::*;

/// What is wrong, and what support must be told.
pub(super) struct Fault {
    pub(super) name: &'static str,
    at: At,
    wrong: fn(&mut pb::Connection, &mut Behaviour),
    person: Person,
    check: Finding,
    login: Login,
    told: Told,
    /// Where a login can't tell the same as the check.
    told_at_login: Option<Told>,
}

/// The one finding of a check.
#[derive(Clone, Copy)]
enum Finding {
    /// Only a person's login can show the fault.
    None,
    Of(CheckOutcome, &'static str),
}

/// How logins end.
#[derive(Clone, Copy)]
enum Login {
    Works,
    /// At the IdP, of which we are told nothing.
    NeverReturns,
    Refused(pb::LoginStage, &'static str),
}

#[derive(Clone, Copy, Debug)]
struct Told {
    cause: &'static str,
    owner: &'static str,
    /// Words of the remedy.
    remedy: &'static str,
}

pub(super) const SUPPORT: &str = "support";
pub(super) const IDP_ADMIN: &str = "customer_idp_admin";
pub(super) const TRANSIENT: &str = "transient";
pub(super) const PERSON: &str = "end_user";

/// A fault in the connection or at the IdP; without more, logins work and nothing is found.
pub(super) fn fault(name: &'static str, wrong: fn(&mut pb::Connection, &mut Behaviour)) -> Fault {
    Fault {
        name,
        at: At::Generic,
        wrong,
        person: Person::LogsIn,
        check: Finding::None,
        login: Login::Works,
        told: Told { cause: "", owner: "", remedy: "" },
        told_at_login: None,
    }
}

impl Fault {
    pub(super) fn at(self, at: At) -> Self {
        Self { at, ..self }
    }

    /// The person is sent back with an error.
    pub(super) fn comes_back(self, error: &'static str, description: &'static str) -> Self {
        Self { person: Person::ComesBackWith(error, description), ..self }
    }

    /// The person is left at a page of the IdP with this code.
    pub(super) fn sees(self, page: &'static str) -> Self {
        Self { person: Person::Sees(page), ..self }
    }

    /// The check that fails.
    pub(super) fn fails(self, id: &'static str) -> Self {
        Self { check: Finding::Of(CheckOutcome::Fail, id), ..self }
    }

    pub(super) fn warns(self, id: &'static str) -> Self {
        Self { check: Finding::Of(CheckOutcome::Warn, id), ..self }
    }

    pub(super) fn undecided(self, id: &'static str) -> Self {
        Self { check: Finding::Of(CheckOutcome::Inconclusive, id), ..self }
    }

    /// BeginLogin refuses everybody.
    pub(super) fn no_begin(self, reason: &'static str) -> Self {
        Self { login: Login::Refused(pb::LoginStage::Begin, reason), ..self }
    }

    /// CompleteLogin refuses.
    pub(super) fn refused(self, reason: &'static str) -> Self {
        Self { login: Login::Refused(pb::LoginStage::Complete, reason), ..self }
    }

    pub(super) fn never_returns(self) -> Self {
        Self { login: Login::NeverReturns, ..self }
    }

    /// Cause, owner and words of the remedy.
    pub(super) fn told(
        self,
        cause: &'static str,
        owner: &'static str,
        remedy: &'static str,
    ) -> Self {
        Self { told: Told { cause, owner, remedy }, ..self }
    }

    pub(super) fn told_at_login(
        self,
        cause: &'static str,
        owner: &'static str,
        remedy: &'static str,
    ) -> Self {
        Self { told_at_login: Some(Told { cause, owner, remedy }), ..self }
    }

    /// Through check, login and attempts.
    pub(super) async fn walk(self) {
        let mut account = Account::at(self.at).await;
        account.set_up(self.wrong).await;
        self.check(&mut account).await;
        let told = self.told_at_login.unwrap_or(self.told);
        match (self.login, account.log_in(self.person).await) {
            (Login::Works, Ended::LoggedIn) => {}
            (Login::NeverReturns, Ended::AtIdp) => never_returned(&mut account, self.person).await,
            (Login::Refused(stage, reason), Ended::Refused { stage: actual, status, said }) => {
                assert_eq!(actual, stage, "{status:?}");
                explained(&mut account, (stage, reason), status, said, told).await;
            }
            (Login::Works | Login::Refused(..), Ended::AtIdp) => {
                panic!("the login ended at the IdP")
            }
            (_, Ended::LoggedIn) => panic!("the login worked"),
            (_, Ended::Refused { status, .. }) => panic!("the login was refused: {status:?}"),
        }
    }

    /// The check has one finding, which is this.
    async fn check(&self, account: &mut Account) {
        let checked = account.service.check("acme").await.expect("checked");
        let Finding::Of(outcome, id) = self.check else {
            assert!(findings(&checked).is_empty(), "check: {:?}", findings(&checked));
            return;
        };
        let others = findings(&checked).into_iter().filter(|result| result.id != id);
        assert_eq!(others.collect::<Vec<_>>(), Vec::<&pb::CheckResult>::new(), "check: not {id}");
        let result = &checked.results[id];
        assert_eq!(result.outcome(), outcome, "check: {result:?}");
        if outcome == CheckOutcome::Inconclusive {
            return;
        }
        let Told { cause, owner, remedy } = self.told;
        assert_eq!((&*result.cause, &*owner_of(result)), (cause, owner), "check: {result:?}");
        assert!(result.remedy.contains(remedy), "check: {result:?}");
    }
}

/// A refusal and its attempt say the same, and what the IdP said.
async fn explained(
    account: &mut Account,
    (stage, reason): (pb::LoginStage, &str),
    status: Status,
    said: Option<(String, String)>,
    told: Told,
) {
    let help = status.get_details_help().map(|help| help.links).unwrap_or_default();
    let refusal = refused(Err::<(), _>(status));
    let (mut attempts, summary) = account.listed().await;
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    let attempt = attempts.remove(0);
    let seen = (&*refusal.reason, &*refusal.metadata["cause"], &*refusal.owner);
    assert_eq!(seen, (reason, told.cause, told.owner), "login: {refusal:?}");
    let seen = (&*attempt.reason, &*attempt.cause, &*attempt.owner);
    assert_eq!(seen, (reason, told.cause, told.owner), "attempts: {attempt:?}");
    assert_eq!(attempt.stage(), stage, "attempts: {attempt:?}");
    assert_eq!(attempt.trace_id, refusal.metadata["trace_id"]);
    assert!(attempt.remedy.contains(told.remedy), "attempts: {attempt:?}");
    let remedies: Vec<&str> = help.iter().map(|link| link.description.as_str()).collect();
    let expected = if told.owner == TRANSIENT { vec![] } else { vec![attempt.remedy.as_str()] };
    assert_eq!(remedies, expected, "login: {refusal:?}");
    let (error, description) = match said {
        // Anybody can write such a callback, so support is shown nothing of it.
        Some(_) if told.cause == "other_error" => ("other".to_owned(), String::new()),
        Some(said) => said,
        None => account.token_error(&refusal.reason),
    };
    let seen = (&*attempt.idp_error, &*attempt.idp_error_description);
    assert_eq!(seen, (&*error, &*description), "attempts: {attempt:?}");
    assert_eq!(summary.failures[reason], 1, "{summary:?}");
    assert_eq!(summary.suspicion, None, "{summary:?}");
}

/// Nothing comes back to us, so the attempts have a suspicion once it has gone on for a while.
async fn never_returned(account: &mut Account, person: Person) {
    for _ in 1..UNRETURNED {
        assert!(matches!(account.log_in(person).await, Ended::AtIdp), "at the IdP again");
    }
    account.service.clock.advance(SUSPECTED_AFTER);
    let (attempts, summary) = account.listed().await;
    assert_eq!(attempts, [], "nothing was refused");
    let suspicion = summary.suspicion.clone().unwrap_or_else(|| panic!("{summary:?}"));
    assert_eq!(suspicion.owner, IDP_ADMIN, "{suspicion:?}");
    for words in ["none came back", "redirect URI", "assigned", "disabled", "Ask"] {
        assert!(suspicion.text.contains(words), "{words}: {suspicion:?}");
    }
    if let Person::Sees(code) = person {
        assert!(suspicion.text.contains(code), "{code}: {suspicion:?}");
    }
}

impl Account {
    /// What the token endpoint was told to say, if it is why the login was refused.
    fn token_error(&self, reason: &str) -> (String, String) {
        let behaviour = self.service.idp.behave();
        let is_at_token = ["CLIENT_REJECTED", "CODE_REJECTED", "TOKEN_RESPONSE_INVALID"];
        let answer = behaviour.token_answer.as_ref().filter(|_| is_at_token.contains(&reason));
        let answer: Value = match answer {
            Some((_, body)) => serde_json::from_str(body).unwrap_or_default(),
            None if reason == "CLIENT_REJECTED" => json!({ "error": "invalid_client" }),
            None => Value::Null,
        };
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        (text("error"), text("error_description"))
    }
}

/// Logins that begin and don't come back, until that is suspicious; and how long it must go on.
const UNRETURNED: usize = 3;
const SUSPECTED_AFTER: Duration = Duration::from_secs(5 * 60);

pub(super) fn answer(
    idp: &mut Behaviour,
    path: &'static str,
    status: u16,
    body: &str,
    location: &str,
) {
    idp.answers.insert(path, (status, body.to_owned(), location.to_owned()));
}

pub(super) fn token_error(status: u16, error: &str, description: &str) -> Option<(u16, String)> {
    let body = json!({ "error": error, "error_description": description });
    Some((status, body.to_string()))
}

pub(super) const METADATA: &str = "/.well-known/openid-configuration";
pub(super) const CALLBACK: &str = "/app/accounts/oidc/acme/login/callback/";
