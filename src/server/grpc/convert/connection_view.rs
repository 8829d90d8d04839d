//! Connections, their checks and their changes, as support sees them. No secret is converted.

use super::timestamp_millis;
use crate::connections::Changed;
use crate::model::change::FieldChange;
use crate::model::check::{CheckId, CheckOutcome, CheckRecord, CheckResult};
use crate::model::connection::{
    Connection, ConnectionState, CustomerUris, LogoutStyle, MetadataSource, TokenEndpointAuthMethod,
};
use crate::model::reason::Owner;
use crate::model::secret::ClientSecret;
use crate::model::unreadable::StoredConnection;
use crate::pb;

/// A connection as support sees it: everything but the secrets, or what can be read of it.
pub(in crate::server) fn stored_to_pb(
    stored: &StoredConnection,
    public_origin: &str,
) -> pb::Connection {
    let unreadable = match stored {
        Ok(connection) => return connection_to_pb(connection, public_origin),
        Err(unreadable) => unreadable,
    };
    let uris = CustomerUris::new(public_origin, &unreadable.slug);
    let known = match &unreadable.without_secrets {
        Some(connection) => connection_to_pb(connection, public_origin),
        None => pb::Connection {
            slug: unreadable.slug.to_string(),
            revision: unreadable.revision,
            create_time: Some(timestamp_millis(unreadable.create_time)),
            update_time: Some(timestamp_millis(unreadable.update_time)),
            redirect_uri: uris.redirect_uri(),
            initiate_login_uri: uris.login_uri(),
            post_logout_redirect_uri: uris.login_uri(),
            ..pb::Connection::default()
        },
    };
    pb::Connection { unreadable: unreadable.why.cause().to_string(), ..known }
}

/// A connection as support sees it: everything but the secrets.
pub(in crate::server) fn connection_to_pb(
    connection: &Connection,
    public_origin: &str,
) -> pb::Connection {
    let uris = CustomerUris::new(public_origin, &connection.slug);
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
    let auth_method = match settings.stated_auth_method() {
        None => pb::TokenEndpointAuthMethod::Unspecified,
        Some(TokenEndpointAuthMethod::ClientSecretBasic) => {
            pb::TokenEndpointAuthMethod::ClientSecretBasic
        }
        Some(TokenEndpointAuthMethod::ClientSecretPost) => {
            pb::TokenEndpointAuthMethod::ClientSecretPost
        }
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
        unreadable: String::new(),
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
        prompt: settings.prompt.iter().map(ToString::to_string).collect(),
        login_hint: settings.login_hint.clone().unwrap_or_default(),
        max_age: settings.max_age.and_then(|age| prost_types::Duration::try_from(age).ok()),
    }
}

/// `connection`: the one that was checked, or the current one.
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
        warned: codes(&check.warned),
        inconclusive: codes(&check.inconclusive),
        skipped: codes(&check.skipped),
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
            Some(Owner::EndUser) => pb::Party::EndUser,
            Some(Owner::Operator) => pb::Party::Operator,
            Some(Owner::Transient) => pb::Party::Transient,
            None => pb::Party::Unspecified,
        };
        Self {
            id: result.id.to_string(),
            outcome: outcome_to_pb(result.outcome).into(),
            expected: result.expected,
            found: result.found,
            actor: actor.into(),
            remedy: result.remedy.map(|remedy| remedy.text).unwrap_or_default(),
            cause: result.cause.map(|cause| cause.to_string()).unwrap_or_default(),
        }
    }
}

fn outcome_to_pb(outcome: CheckOutcome) -> pb::CheckOutcome {
    match outcome {
        CheckOutcome::Pass => pb::CheckOutcome::Pass,
        CheckOutcome::Warn => pb::CheckOutcome::Warn,
        CheckOutcome::Fail => pb::CheckOutcome::Fail,
        CheckOutcome::Inconclusive => pb::CheckOutcome::Inconclusive,
        CheckOutcome::Skipped => pb::CheckOutcome::Skipped,
    }
}

impl From<Changed> for pb::ConnectionChange {
    fn from(Changed { record, can_restore }: Changed) -> Self {
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
            hosts: record.hosts,
            can_restore,
        }
    }
}

pub(super) fn state_to_pb(state: ConnectionState) -> pb::ConnectionState {
    match state {
        ConnectionState::Testing => pb::ConnectionState::Testing,
        ConnectionState::Active => pb::ConnectionState::Active,
        ConnectionState::Disabled => pb::ConnectionState::Disabled,
    }
}
