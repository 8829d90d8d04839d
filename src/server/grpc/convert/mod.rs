//! Between the contract's messages and the model: requests are parsed here, all violations at once, and never asked
//! again.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use prost_types::value::Kind;
use serde_json::{Map, Value};

use crate::connections::{CheckRequest, ConnectionEdit, NewConnection, Proposal};
use crate::login::{BegunLogin, CompletedLogin, LogoutRequest};
use crate::model::Violation;
use crate::model::address::AddressPolicy;
use crate::model::attempt::{Attempt, LoginSummary, PhaseMicros};
use crate::model::cause::Cause;
use crate::model::change::{Change, ChangeRecord, FieldChange};
use crate::model::check::{CheckId, CheckOutcome, CheckRecord, CheckResult};
use crate::model::connection::{
    Connection, ConnectionState, CustomerUris, LogoutStyle, MetadataSource, RequiredClaim,
    TokenEndpointAuthMethod,
};
use crate::model::draft::{Draft, DraftEndpoints, DraftField};
use crate::model::identity::{EmailVerification, Identity, IdentityClaim};
use crate::model::login::{
    AuthorizationCode, BrowserBinding, Callback, IdpRefusal, LoginHints, LoginRequest, Prompt,
    RawIdToken, StateParameter, UncheckedReturnTo,
};
use crate::model::reason::{Owner, Reason};
use crate::model::secret::{ClientSecret, SecretsEdit, UncheckedSecret};
use crate::model::slug::{SLUG_RULE, Slug};
use crate::model::text::quotable;
use crate::model::time::{UnixMillis, UnixSeconds};
use crate::oidc::idps::{self, IdpProduct};
use crate::pb;

/// Fields of Connection that an update names and that are no settings.
const SECRET_FIELDS: [&str; 4] = [
    "client_secret",
    "client_secret_expire_time",
    "standby_client_secret",
    "standby_client_secret_expire_time",
];
const PAGE_TOKEN_RULE: &str = "must be the next_page_token of the page before";

/// What came of a request's form.
pub(in crate::server) type Checked<T> = Result<T, Vec<Violation>>;

/// A request that is parsed at the door.
pub(in crate::server) trait Parsed<Message>: Sized {
    fn parse(message: Message) -> Checked<Self>;
}

impl Parsed<pb::BeginLoginRequest> for LoginRequest {
    fn parse(message: pb::BeginLoginRequest) -> Checked<Self> {
        let mut form = Form::default();
        let slug = form.slug(&message.slug);
        let browser_binding = form.browser_binding(message.browser_binding);
        let return_to = match (message.return_to, message.target_link_uri) {
            (Some(_), Some(_)) => {
                form.wrong("target_link_uri", "must not be given together with return_to");
                None
            }
            (Some(text), None) => Some(UncheckedReturnTo { text, field: "return_to" }),
            (None, Some(text)) => Some(UncheckedReturnTo { text, field: "target_link_uri" }),
            (None, None) => None,
        };
        let hints = LoginHints {
            login_hint: message.login_hint.filter(|hint| !hint.is_empty()),
            prompt: form.prompt(&message.prompt),
            max_age: form.max_age(message.max_age),
            ui_locales: form.ui_locales(message.ui_locales),
            acr_values: message.acr_values,
        };
        if hints
            .login_hint
            .as_ref()
            .is_some_and(|hint| hint.len() > 512 || hint.chars().any(char::is_control))
        {
            form.wrong("login_hint", "must be at most 512 bytes without control characters");
        }
        if hints.prompt.contains(&Prompt::None) && hints.max_age == Some(Duration::ZERO) {
            form.wrong(
                "max_age",
                "must not be 0 together with prompt none: the two contradict each other",
            );
        }
        let is_acr = |value: &String| {
            (1..=256).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic())
        };
        if hints.acr_values.len() > 16 || !hints.acr_values.iter().all(is_acr) {
            form.wrong("acr_values", "must be at most 16, each 1 to 256 visible ASCII characters");
        }
        if message.iss.as_ref().is_some_and(|iss| iss.len() > MAX_URL) {
            form.wrong("iss", "must be at most 2048 bytes");
        }
        if message.client_key.as_ref().is_some_and(|key| {
            !(1..=256).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic())
        }) {
            form.wrong("client_key", "must be 1 to 256 visible ASCII characters");
        }
        form.done(slug, |slug| Self {
            slug,
            return_to,
            browser_binding,
            iss: message.iss,
            client_key: message.client_key,
            hints,
        })
    }
}

impl Parsed<pb::CompleteLoginRequest> for Callback {
    fn parse(message: pb::CompleteLoginRequest) -> Checked<Self> {
        let mut form = Form::default();
        let slug = form.slug(&message.slug);
        if message.state.is_empty() || message.state.len() > 512 {
            form.wrong("state", "must be 1 to 512 bytes: the callback's state parameter");
        }
        if message.iss.as_ref().is_some_and(|iss| iss.len() > MAX_URL) {
            form.wrong("iss", "must be at most 2048 bytes");
        }
        let error = message.error.filter(|error| !error.is_empty());
        let answer = match error {
            Some(error) => {
                if !message.code.is_empty() {
                    form.wrong("code", "must be empty where error is given");
                }
                if error.len() > 256 {
                    form.wrong("error", "must be at most 256 bytes");
                }
                if message.error_description.as_ref().is_some_and(|text| text.len() > 4096) {
                    form.wrong("error_description", "must be at most 4096 bytes");
                }
                Err(IdpRefusal {
                    error: quotable(&error),
                    description: message.error_description.as_deref().map(quotable),
                })
            }
            None => {
                // RFC 6749 A.11
                let fits = (1..=4096).contains(&message.code.len())
                    && message.code.bytes().all(|b| (0x20..0x7f).contains(&b));
                if !fits {
                    form.wrong(
                        "code",
                        "must be 1 to 4096 visible ASCII characters, or error must be given",
                    );
                }
                Ok(AuthorizationCode::new(message.code))
            }
        };
        // A cookie is whatever the browser sent: one that can't be ours is just not the one that the login began with.
        let browser_binding =
            message.browser_binding.filter(|text| !text.is_empty()).map(BrowserBinding::new);
        form.done(slug, |slug| Self {
            slug,
            state: StateParameter::new(message.state),
            iss: message.iss,
            browser_binding,
            answer,
        })
    }
}

pub(in crate::server) fn logout_request(message: pb::LogoutUrlRequest) -> Checked<LogoutRequest> {
    let mut form = Form::default();
    let slug = form.slug(&message.slug);
    let id_token_hint = message.id_token_hint.filter(|hint| !hint.is_empty());
    let is_token =
        |hint: &String| hint.len() <= 65_536 && hint.bytes().all(|b| b.is_ascii_graphic());
    if !id_token_hint.as_ref().is_none_or(is_token) {
        form.wrong("id_token_hint", "must be an ID token of at most 65536 bytes");
    }
    let state = message.state.filter(|state| !state.is_empty());
    if state
        .as_ref()
        .is_some_and(|state| state.len() > 512 || !state.bytes().all(|b| b.is_ascii_graphic()))
    {
        form.wrong("state", "must be at most 512 visible ASCII characters");
    }
    let post_logout_redirect_uri = message.post_logout_redirect_uri.filter(|uri| !uri.is_empty());
    let id_token_hint = id_token_hint.map(RawIdToken::new);
    form.done(slug, |slug| LogoutRequest { slug, id_token_hint, post_logout_redirect_uri, state })
}

pub(in crate::server) fn slug_alone(text: &str) -> Checked<Slug> {
    let mut form = Form::default();
    let slug = form.slug(text);
    form.done(slug, |slug| slug)
}

/// Validated whole, so that every mistake is reported at once.
pub(in crate::server) fn new_connection(
    message: pb::CreateConnectionRequest,
    addresses: &AddressPolicy,
) -> Checked<NewConnection> {
    let mut form = Form::default();
    let mut connection = message.connection.unwrap_or_default();
    let slug = form.slug(&connection.slug);
    let secrets = form.secrets(&mut connection, |_| true).apply_to(None);
    let settings = form.draft(connection).apply(None, addresses);
    let (settings, secrets) = (form.valid(settings), form.valid(secrets));
    let whole = slug.zip(settings).zip(secrets);
    form.done(whole, |((slug, settings), secrets)| NewConnection {
        slug,
        settings,
        secrets,
        validate_only: message.validate_only,
    })
}

pub(in crate::server) fn connection_edit(
    message: pb::UpdateConnectionRequest,
) -> Checked<ConnectionEdit> {
    let mut form = Form::default();
    let mut connection = message.connection.unwrap_or_default();
    let slug = form.slug(&connection.slug);
    let revision = form.revision("connection.revision", connection.revision);
    let paths = message.update_mask.unwrap_or_default().paths;
    let fields = form.fields(&paths);
    let secrets = form.secrets(&mut connection, |name| paths.iter().any(|path| path == name));
    let draft = form.draft(connection);
    form.done(slug, |slug| ConnectionEdit {
        slug,
        revision,
        fields,
        draft,
        secrets,
        force: message.force,
        validate_only: message.validate_only,
    })
}

pub(in crate::server) fn check_request(
    message: pb::CheckConnectionRequest,
) -> Checked<CheckRequest> {
    let mut form = Form::default();
    let slug = form.slug(&message.slug);
    let proposal = match (message.proposal, message.update_mask) {
        (None, None) => None,
        (Some(proposal), Some(mask)) => {
            let paths = mask.paths;
            let fields = form.fields(&paths);
            let mut proposal = proposal;
            let secrets = form.secrets(&mut proposal, |name| paths.iter().any(|path| path == name));
            Some(Proposal { fields, draft: form.draft(proposal), secrets })
        }
        _ => {
            form.wrong("proposal", "and update_mask go together");
            None
        }
    };
    form.done(slug, |slug| CheckRequest { slug, proposal })
}

pub(in crate::server) fn slug_and_revision(slug: &str, revision: u64) -> Checked<(Slug, u64)> {
    let mut form = Form::default();
    let slug = form.slug(slug);
    let revision = form.revision("revision", revision);
    form.done(slug, |slug| (slug, revision))
}

/// An account, and how many to show of it; see [`page_size`].
pub(in crate::server) fn slug_and_size(
    slug: &str,
    size: i32,
    default: u32,
    most: u32,
) -> Checked<(Slug, u32)> {
    let mut form = Form::default();
    let slug = form.slug(slug);
    let size = page_size(size, default, most).unwrap_or_else(|violations| {
        form.violations.extend(violations);
        0
    });
    form.done(slug, |slug| (slug, size))
}

/// 0 is `default`, more than `most` is cut.
fn page_size(size: i32, default: u32, most: u32) -> Checked<u32> {
    match u32::try_from(size) {
        Ok(0) => Ok(default),
        Ok(size) => Ok(size.min(most)),
        Err(_) => Err(vec![Violation::new("page_size", "must not be negative")]),
    }
}

pub(in crate::server) fn changes_request(
    message: &pb::ListConnectionChangesRequest,
) -> Checked<(Slug, Option<i64>, u32)> {
    let (slug, size) = slug_and_size(&message.slug, message.page_size, 100, 1000)?;
    let before = match message.page_token.as_str() {
        "" => None,
        token => match token.parse() {
            Ok(before) => Some(before),
            Err(_) => return Err(vec![Violation::new("page_token", PAGE_TOKEN_RULE)]),
        },
    };
    Ok((slug, before, size))
}

pub(in crate::server) fn guide_request(
    message: &pb::GetSetupGuideRequest,
) -> Checked<(Slug, Option<IdpProduct>)> {
    let mut form = Form::default();
    let slug = form.slug(&message.slug);
    let product = match pb::IdentityProvider::try_from(message.idp) {
        Ok(pb::IdentityProvider::Unspecified) => None,
        Ok(pb::IdentityProvider::Entra) => Some(IdpProduct::Entra),
        Ok(pb::IdentityProvider::Okta) => Some(IdpProduct::Okta),
        Ok(pb::IdentityProvider::Google) => Some(IdpProduct::Google),
        Ok(pb::IdentityProvider::Auth0) => Some(IdpProduct::Auth0),
        Ok(pb::IdentityProvider::Keycloak) => Some(IdpProduct::Keycloak),
        Ok(pb::IdentityProvider::Generic) => Some(IdpProduct::Generic),
        Err(_) => {
            form.wrong("idp", format!("{} is no IdentityProvider", message.idp));
            None
        }
    };
    form.done(slug, |slug| (slug, product))
}

pub(in crate::server) fn page(
    message: &pb::ListConnectionsRequest,
) -> Checked<(u32, Option<Slug>)> {
    let page_size = page_size(message.page_size, 100, 1000)?;
    if message.page_token.is_empty() {
        return Ok((page_size, None));
    }
    let after = BASE64_URL_SAFE_NO_PAD.decode(&message.page_token).ok();
    let after =
        after.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(|text| Slug::parse(&text));
    match after {
        Some(after) => Ok((page_size, Some(after))),
        None => Err(vec![Violation::new("page_token", PAGE_TOKEN_RULE)]),
    }
}

pub(in crate::server) fn page_token(last: &Slug) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(last.as_str())
}

#[derive(Default)]
struct Form {
    violations: Vec<Violation>,
}

impl Form {
    fn wrong(&mut self, field: &'static str, description: impl Into<String>) {
        self.violations.push(Violation::new(field, description));
    }

    fn done<S, T>(self, needed: Option<S>, make: impl FnOnce(S) -> T) -> Checked<T> {
        match needed {
            Some(needed) if self.violations.is_empty() => Ok(make(needed)),
            _ => Err(self.violations),
        }
    }

    fn valid<T>(&mut self, checked: Checked<T>) -> Option<T> {
        match checked {
            Ok(value) => Some(value),
            Err(violations) => {
                self.violations.extend(violations);
                None
            }
        }
    }

    fn slug(&mut self, text: &str) -> Option<Slug> {
        let slug = Slug::parse(text);
        if slug.is_none() {
            self.wrong("slug", SLUG_RULE);
        }
        slug
    }

    fn revision(&mut self, field: &'static str, revision: u64) -> u64 {
        if revision == 0 {
            self.wrong(field, "must be the revision that was read");
        }
        revision
    }

    /// The settings that an update names; the secrets are named there too.
    fn fields(&mut self, paths: &[String]) -> Vec<DraftField> {
        let mut fields = Vec::new();
        if paths.is_empty() {
            self.wrong("update_mask", "must name the fields to change");
        }
        for path in paths {
            match DraftField::parse(path) {
                Some(field) => fields.push(field),
                None if SECRET_FIELDS.contains(&path.as_str()) => {}
                None => self.wrong(
                    "update_mask",
                    format!("{:?} is not a field that an update can set", quotable(path)),
                ),
            }
        }
        fields
    }

    /// Takes the secrets out of a message, so that none is left in it.
    fn secrets(
        &mut self,
        message: &mut pb::Connection,
        is_named: impl Fn(&str) -> bool,
    ) -> SecretsEdit {
        let active = UncheckedSecret::new(std::mem::take(&mut message.client_secret));
        let standby = UncheckedSecret::new(std::mem::take(&mut message.standby_client_secret));
        let mut expiry = |field, time: Option<prost_types::Timestamp>| match time {
            _ if !is_named(field) => Change::Keep,
            None => Change::Clear,
            Some(time) => self.time(field, time).map_or(Change::Keep, Change::Set),
        };
        let active_expire =
            expiry("client_secret_expire_time", message.client_secret_expire_time.take());
        let standby_expire = expiry(
            "standby_client_secret_expire_time",
            message.standby_client_secret_expire_time.take(),
        );
        SecretsEdit {
            active: is_named("client_secret").then_some(active),
            active_expire,
            standby: match is_named("standby_client_secret") {
                true if standby.is_blank() => Change::Clear,
                true => Change::Set(standby),
                false => Change::Keep,
            },
            standby_expire,
        }
    }

    fn time(&mut self, field: &'static str, time: prost_types::Timestamp) -> Option<UnixMillis> {
        // Up to the year 9999, as RFC 3339 has it.
        let seconds = u64::try_from(time.seconds).ok().filter(|seconds| *seconds < 253_402_300_800);
        if seconds.is_none() {
            self.wrong(field, "must be a time from 1970 to 9999");
        }
        seconds.map(|seconds| UnixSeconds(seconds).into())
    }

    fn browser_binding(&mut self, text: Option<String>) -> Option<BrowserBinding> {
        let text = text?;
        if !(16..=512).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_graphic()) {
            self.wrong("browser_binding", "must be 16 to 512 visible ASCII characters");
        }
        Some(BrowserBinding::new(text))
    }

    fn prompt(&mut self, values: &[String]) -> Vec<Prompt> {
        let mut prompts = Vec::new();
        for value in values.iter().take(8) {
            match value.as_str() {
                "none" => prompts.push(Prompt::None),
                "login" => prompts.push(Prompt::Login),
                "consent" => prompts.push(Prompt::Consent),
                "select_account" => prompts.push(Prompt::SelectAccount),
                other => self.wrong(
                    "prompt",
                    format!(
                        "must be of none, login, consent, select_account, not {:?}",
                        quotable(other)
                    ),
                ),
            }
        }
        if values.len() > 1 && prompts.contains(&Prompt::None) {
            self.wrong("prompt", "none must stand alone");
        }
        prompts.dedup();
        prompts
    }

    fn max_age(&mut self, duration: Option<prost_types::Duration>) -> Option<Duration> {
        const MAX_SECONDS: i64 = 366 * 24 * 60 * 60;
        let duration = duration?;
        if duration.nanos != 0 || !(0..=MAX_SECONDS).contains(&duration.seconds) {
            self.wrong("max_age", format!("must be whole seconds from 0 to {MAX_SECONDS}"));
            return None;
        }
        Some(Duration::from_secs(u64::try_from(duration.seconds).unwrap_or_default()))
    }

    fn ui_locales(&mut self, locales: Vec<String>) -> Vec<String> {
        let is_tag = |tag: &String| {
            (1..=35).contains(&tag.len())
                && tag
                    .split('-')
                    .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()))
        };
        if locales.len() > 16 || !locales.iter().all(is_tag) {
            self.wrong("ui_locales", "must be at most 16 BCP 47 language tags");
        }
        locales
    }

    fn draft(&mut self, message: pb::Connection) -> Draft {
        let mapping = message.claim_mapping.unwrap_or_default();
        let endpoints = message.endpoints.unwrap_or_default();
        Draft {
            state: self.state(message.state),
            auth_method: self.auth_method(message.token_endpoint_auth_method),
            logout_style: self.logout_style(message.logout_style),
            display_name: message.display_name,
            issuer: message.issuer,
            discovery_url: message.discovery_url,
            endpoints: DraftEndpoints {
                authorization: endpoints.authorization_endpoint,
                token: endpoints.token_endpoint,
                jwks: endpoints.jwks_uri,
                userinfo: endpoints.userinfo_endpoint,
                end_session: endpoints.end_session_endpoint,
            },
            client_id: message.client_id,
            scopes: message.scopes,
            mapped_email: mapping.email,
            mapped_given_name: mapping.given_name,
            mapped_family_name: mapping.family_name,
            mapped_groups: mapping.groups,
            allowed_email_domains: message.allowed_email_domains,
            require_verified_email: message.require_verified_email,
            id_token_signing_algs: message.id_token_signing_algs,
            additional_audiences: message.additional_audiences,
            allowed_tenant_ids: message.allowed_tenant_ids,
            authorization_params: message.authorization_params.into_iter().collect(),
            required_claims: message
                .required_claims
                .into_iter()
                .map(|claim| RequiredClaim { name: claim.name, values: claim.values })
                .collect(),
        }
    }

    fn state(&mut self, number: i32) -> Option<ConnectionState> {
        match pb::ConnectionState::try_from(number) {
            Ok(pb::ConnectionState::Unspecified) => None,
            Ok(pb::ConnectionState::Testing) => Some(ConnectionState::Testing),
            Ok(pb::ConnectionState::Active) => Some(ConnectionState::Active),
            Ok(pb::ConnectionState::Disabled) => Some(ConnectionState::Disabled),
            Err(_) => {
                self.wrong("state", format!("{number} is no ConnectionState"));
                None
            }
        }
    }

    fn auth_method(&mut self, number: i32) -> Option<TokenEndpointAuthMethod> {
        match pb::TokenEndpointAuthMethod::try_from(number) {
            Ok(pb::TokenEndpointAuthMethod::Unspecified) => None,
            Ok(pb::TokenEndpointAuthMethod::ClientSecretBasic) => {
                Some(TokenEndpointAuthMethod::ClientSecretBasic)
            }
            Ok(pb::TokenEndpointAuthMethod::ClientSecretPost) => {
                Some(TokenEndpointAuthMethod::ClientSecretPost)
            }
            Err(_) => {
                self.wrong(
                    "token_endpoint_auth_method",
                    format!("{number} is no TokenEndpointAuthMethod"),
                );
                None
            }
        }
    }

    fn logout_style(&mut self, number: i32) -> Option<LogoutStyle> {
        match pb::LogoutStyle::try_from(number) {
            Ok(pb::LogoutStyle::Unspecified) => None,
            Ok(pb::LogoutStyle::Auto) => Some(LogoutStyle::Auto),
            Ok(pb::LogoutStyle::RpInitiated) => Some(LogoutStyle::RpInitiated),
            Ok(pb::LogoutStyle::Auth0V2) => Some(LogoutStyle::Auth0V2),
            Ok(pb::LogoutStyle::Cognito) => Some(LogoutStyle::Cognito),
            Ok(pb::LogoutStyle::None) => Some(LogoutStyle::None),
            Err(_) => {
                self.wrong("logout_style", format!("{number} is no LogoutStyle"));
                None
            }
        }
    }
}

impl From<BegunLogin> for pb::BeginLoginResponse {
    fn from(begun: BegunLogin) -> Self {
        Self {
            redirect_url: begun.redirect_url,
            state: begun.state.expose().to_owned(),
            expire_time: Some(timestamp(begun.expire_time)),
        }
    }
}

impl From<CompletedLogin> for pb::CompleteLoginResponse {
    fn from(completed: CompletedLogin) -> Self {
        Self {
            identity: Some(completed.identity.into()),
            return_to: completed
                .return_to
                .map(|return_to| return_to.as_str().to_owned())
                .unwrap_or_default(),
            id_token: completed.id_token.expose().to_owned(),
            connection_state: state_to_pb(completed.connection_state).into(),
            identity_token: String::new(),
        }
    }
}

impl From<Identity> for pb::Identity {
    fn from(identity: Identity) -> Self {
        let email_verification = match identity.email_verification {
            EmailVerification::Verified => pb::EmailVerification::Verified,
            EmailVerification::Unverified => pb::EmailVerification::Unverified,
            EmailVerification::NotStated => pb::EmailVerification::NotStated,
        };
        Self {
            slug: identity.slug.to_string(),
            issuer: identity.issuer.to_string(),
            subject: identity.subject,
            email: identity.email,
            email_verification: email_verification.into(),
            given_name: identity.given_name,
            family_name: identity.family_name,
            name: identity.name,
            preferred_username: identity.preferred_username,
            picture: identity.picture,
            locale: identity.locale,
            groups: identity.groups,
            id_token_issue_time: Some(timestamp(identity.id_token_issue_time)),
            auth_time: identity.auth_time.map(timestamp),
            acr: identity.acr,
            amr: identity.amr,
            session_id: identity.session_id,
            claims: Some(to_struct(identity.claims)),
            claim_sources: identity
                .claim_sources
                .into_iter()
                .map(|(field, source)| (field.into_owned(), source))
                .collect::<HashMap<_, _>>(),
        }
    }
}

/// A connection as support sees it: everything but the secret.
pub(in crate::server) fn connection_to_pb(
    connection: &Connection,
    uris: &CustomerUris<'_>,
) -> pb::Connection {
    let settings = &connection.settings;
    let (discovery_url, endpoints) = match &settings.source {
        MetadataSource::Discovery(url) => (url.to_string(), None),
        MetadataSource::Manual(endpoints) => {
            let optional =
                |url: &Option<url::Url>| url.as_ref().map(url::Url::to_string).unwrap_or_default();
            let endpoints = pb::ProviderEndpoints {
                authorization_endpoint: endpoints.authorization.to_string(),
                token_endpoint: endpoints.token.to_string(),
                jwks_uri: endpoints.jwks.to_string(),
                userinfo_endpoint: optional(&endpoints.userinfo),
                end_session_endpoint: optional(&endpoints.end_session),
            };
            (String::new(), Some(endpoints))
        }
    };
    let auth_method = match settings.auth_method {
        TokenEndpointAuthMethod::ClientSecretBasic => {
            pb::TokenEndpointAuthMethod::ClientSecretBasic
        }
        TokenEndpointAuthMethod::ClientSecretPost => pb::TokenEndpointAuthMethod::ClientSecretPost,
    };
    let logout_style = match settings.logout_style {
        LogoutStyle::Auto => pb::LogoutStyle::Auto,
        LogoutStyle::RpInitiated => pb::LogoutStyle::RpInitiated,
        LogoutStyle::Auth0V2 => pb::LogoutStyle::Auth0V2,
        LogoutStyle::Cognito => pb::LogoutStyle::Cognito,
        LogoutStyle::None => pb::LogoutStyle::None,
    };
    let mapping = settings.claim_mapping.clone();
    pb::Connection {
        slug: connection.slug.to_string(),
        display_name: settings.display_name.clone(),
        state: state_to_pb(settings.state).into(),
        issuer: connection.issuer().map(ToString::to_string).unwrap_or_default(),
        discovery_url,
        endpoints,
        client_id: settings.client_id.clone(),
        client_secret: String::new(),
        standby_client_secret: String::new(),
        client_secret_expire_time: connection.secrets.active_expire.map(timestamp_millis),
        standby_client_secret_expire_time: connection.secrets.standby_expire.map(timestamp_millis),
        standby_secret_fingerprint: connection
            .secrets
            .standby
            .as_ref()
            .map(ClientSecret::fingerprint)
            .unwrap_or_default(),
        secret_switch_time: connection.secret_switched.map(timestamp_millis),
        last_check: connection.latest_check().map(|check| summary_of_check(check, connection)),
        test_login_time: connection
            .test_login
            .as_ref()
            .filter(|login| login.proof == connection.proof_digest())
            .map(|login| timestamp_millis(login.time)),
        logins: None,
        token_endpoint_auth_method: auth_method.into(),
        scopes: settings.scopes.clone(),
        claim_mapping: Some(pb::ClaimMapping {
            email: mapping.email,
            given_name: mapping.given_name,
            family_name: mapping.family_name,
            groups: mapping.groups.unwrap_or_default(),
        }),
        allowed_email_domains: settings.allowed_email_domains.clone(),
        require_verified_email: settings.require_verified_email,
        id_token_signing_algs: settings
            .id_token_signing_algs
            .iter()
            .map(|alg| alg.name().to_owned())
            .collect(),
        additional_audiences: settings.additional_audiences.clone(),
        logout_style: logout_style.into(),
        revision: connection.revision,
        create_time: Some(timestamp_millis(connection.create_time)),
        update_time: Some(timestamp_millis(connection.update_time)),
        redirect_uri: uris.redirect_uri(),
        initiate_login_uri: uris.login_uri(),
        post_logout_redirect_uri: uris.login_uri(),
        secret_fingerprint: connection.secrets.active.fingerprint(),
        allowed_tenant_ids: settings.allowed_tenant_ids.clone(),
        authorization_params: settings.authorization_params.clone().into_iter().collect(),
        required_claims: settings
            .required_claims
            .iter()
            .map(|claim| pb::RequiredClaim {
                name: claim.name.clone(),
                values: claim.values.clone(),
            })
            .collect(),
    }
}

/// `connection`: as it was checked, or as it is.
pub(in crate::server) fn summary_of_check(
    check: &CheckRecord,
    connection: &Connection,
) -> pb::CheckSummary {
    pb::CheckSummary {
        time: Some(timestamp_millis(check.time)),
        revision: check.revision,
        outcome: outcome_to_pb(check.outcome).into(),
        is_current: check.proof == connection.proof_digest(),
        failed: codes(&check.failed),
        passed: codes(&check.passed),
    }
}

pub(in crate::server) fn found(
    found: pb::check_connection_response::Found,
) -> pb::CheckConnectionResponse {
    pb::CheckConnectionResponse { found: Some(found) }
}

fn codes(ids: &[CheckId]) -> Vec<String> {
    ids.iter().map(CheckId::to_string).collect()
}

impl From<CheckResult> for pb::CheckResult {
    fn from(result: CheckResult) -> Self {
        let actor = match result.remedy.as_ref().map(|remedy| remedy.owner) {
            Some(Owner::Support) => pb::Party::Support,
            Some(Owner::CustomerIdpAdmin) => pb::Party::CustomerIdpAdmin,
            Some(Owner::EndUser | Owner::Operator | Owner::Transient) | None => {
                pb::Party::Unspecified
            }
        };
        Self {
            id: result.id.to_string(),
            outcome: outcome_to_pb(result.outcome).into(),
            expected: result.expected,
            found: result.found,
            actor: actor.into(),
            remedy: result.remedy.map(|remedy| remedy.text).unwrap_or_default(),
        }
    }
}

fn outcome_to_pb(outcome: CheckOutcome) -> pb::CheckOutcome {
    match outcome {
        CheckOutcome::Pass => pb::CheckOutcome::Pass,
        CheckOutcome::Warn => pb::CheckOutcome::Warn,
        CheckOutcome::Fail => pb::CheckOutcome::Fail,
        CheckOutcome::Inconclusive => pb::CheckOutcome::Inconclusive,
    }
}

impl From<LoginSummary> for pb::LoginSummary {
    fn from(summary: LoginSummary) -> Self {
        Self {
            last_success_time: summary.last_success.map(timestamp_millis),
            failures: summary
                .failures
                .into_iter()
                .map(|(reason, count)| (reason.to_string(), count))
                .collect(),
            unrecognized_callbacks: summary.unrecognized_callbacks,
        }
    }
}

pub(in crate::server) fn attempt_to_pb(
    attempt: Attempt,
    redirect_uri: &str,
    method: &str,
) -> pb::LoginAttempt {
    let product = IdpProduct::of(attempt.issuer.as_deref().unwrap_or_default());
    // An attempt recorded by an older version has no cause: any cause of its reason will do.
    let causes = || Cause::ALL.iter().find(|cause| Some(cause.reason()) == attempt.reason);
    let cause = attempt.cause.or_else(|| causes().copied());
    let remedy = cause.map(|cause| idps::remedy(cause.remedy(), product, redirect_uri, method));
    let names = |claims: Vec<IdentityClaim>| claims.iter().map(IdentityClaim::to_string).collect();
    let missing = attempt.claims_present.as_ref().map(|present| {
        let all = IdentityClaim::ALL.iter().copied();
        all.filter(|claim| !present.contains(claim)).collect()
    });
    pb::LoginAttempt {
        time: Some(timestamp_millis(attempt.time)),
        reason: attempt.reason.map(Reason::name).unwrap_or_default().to_owned(),
        owner: cause.map(|cause| cause.owner().name()).unwrap_or_default().to_owned(),
        trace_id: attempt.trace_id,
        idp_error: attempt.idp_error.unwrap_or_default(),
        claims_present: names(attempt.claims_present.unwrap_or_default()),
        claims_missing: names(missing.unwrap_or_default()),
        issuer: attempt.issuer.unwrap_or_default(),
        phases: attempt
            .phases
            .into_iter()
            .map(|PhaseMicros { phase, micros }| pb::PhaseDuration {
                phase,
                duration: prost_types::Duration::try_from(Duration::from_micros(micros)).ok(),
            })
            .collect(),
        is_test: attempt.is_test,
        remedy: remedy.unwrap_or_default(),
        cause: attempt.cause.map(Cause::code).unwrap_or_default().to_owned(),
    }
}

impl From<ChangeRecord> for pb::ConnectionChange {
    fn from(record: ChangeRecord) -> Self {
        let field = |change: FieldChange| pb::FieldChange {
            field: change.field,
            before: change.before,
            after: change.after,
        };
        Self {
            time: Some(timestamp_millis(record.time)),
            actor: record.actor,
            action: record.action,
            revision: record.revision,
            fields: record.fields.into_iter().map(field).collect(),
            is_forced: record.is_forced,
        }
    }
}

fn state_to_pb(state: ConnectionState) -> pb::ConnectionState {
    match state {
        ConnectionState::Testing => pb::ConnectionState::Testing,
        ConnectionState::Active => pb::ConnectionState::Active,
        ConnectionState::Disabled => pb::ConnectionState::Disabled,
    }
}

fn timestamp(time: UnixSeconds) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: i64::try_from(time.0).unwrap_or(i64::MAX), nanos: 0 }
}

fn timestamp_millis(time: UnixMillis) -> prost_types::Timestamp {
    let nanos = i32::try_from(time.0 % 1000).unwrap_or_default() * 1_000_000;
    prost_types::Timestamp { nanos, ..timestamp(time.seconds()) }
}

/// google.protobuf.Struct has one kind of number, so integers above 2^53 lose their last digits there.
fn to_struct(object: Map<String, Value>) -> prost_types::Struct {
    prost_types::Struct {
        fields: object.into_iter().map(|(name, value)| (name, to_value(value))).collect(),
    }
}

fn to_value(value: Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => Kind::ListValue(prost_types::ListValue {
            values: items.into_iter().map(to_value).collect(),
        }),
        Value::Object(object) => Kind::StructValue(to_struct(object)),
    };
    prost_types::Value { kind: Some(kind) }
}

const MAX_URL: usize = 2048;
