//! ConnectionService's requests.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::{Checked, Form};
use crate::connections::{CheckRequest, ConnectionEdit, NewConnection, Proposal, Restoration};
use crate::model::Violation;
use crate::model::address::AddressPolicy;
use crate::model::change::Change;
use crate::model::connection::{
    ConnectionState, LogoutStyle, RequiredClaim, TokenEndpointAuthMethod,
};
use crate::model::draft::{Draft, DraftEndpoints, DraftField};
use crate::model::secret::{SecretsEdit, UncheckedSecret};
use crate::model::slug::Slug;
use crate::model::text::quotable;
use crate::oidc::idps::IdpProduct;
use crate::pb;

pub(in crate::server) fn slug_alone(text: &str) -> Checked<Slug> {
    let mut form = Form::default();
    let slug = form.slug(text);
    form.done(slug, |slug| slug)
}

/// The settings are validated, too, so that every mistake is reported at once.
pub(in crate::server) fn new_connection<'p>(
    message: pb::CreateConnectionRequest,
    addresses: impl FnOnce(Option<&Slug>) -> &'p AddressPolicy,
) -> Checked<NewConnection> {
    let mut form = Form::default();
    let mut connection = message.connection.unwrap_or_default();
    let slug = form.slug(&connection.slug);
    let secrets = form.secrets(&mut connection, |_| true).apply_to(None);
    let settings = form.draft(connection, |_| true).apply(None, addresses(slug.as_ref()));
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
    let connection = message.connection.unwrap_or_default();
    let slug = form.slug(&connection.slug);
    let revision = form.revision("connection.revision", connection.revision);
    let paths = message.update_mask.unwrap_or_default().paths;
    let proposal = form.proposal(connection, &paths);
    form.done(slug, |slug| ConnectionEdit {
        slug,
        revision,
        proposal,
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
        (Some(proposal), Some(mask)) => Some(form.proposal(proposal, &mask.paths)),
        _ => {
            form.violation("proposal", "must be set together with update_mask");
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

pub(in crate::server) fn restoration(
    message: &pb::RestoreConnectionRequest,
) -> Checked<Restoration> {
    let mut form = Form::default();
    let slug = form.slug(&message.slug);
    let revision = form.revision("revision", message.revision);
    let present = Some(message.current_revision).filter(|revision| *revision != 0);
    form.done(slug, |slug| Restoration { slug, revision, present, force: message.force })
}

/// An account, and how many items of it to list; see [`page_size`].
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

/// 0 means `default`; more than `most` means `most`.
pub(super) fn page_size(size: i32, default: u32, most: u32) -> Checked<u32> {
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
        Ok(pb::IdentityProvider::Ping) => Some(IdpProduct::Ping),
        Ok(pb::IdentityProvider::Onelogin) => Some(IdpProduct::OneLogin),
        Ok(pb::IdentityProvider::Adfs) => Some(IdpProduct::Adfs),
        Ok(pb::IdentityProvider::Generic) => Some(IdpProduct::Generic),
        Err(_) => {
            form.violation("idp", unknown_enum("IdentityProvider", message.idp));
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

impl Form {
    /// What an update mask names of a connection.
    fn proposal(&mut self, mut connection: pb::Connection, paths: &[String]) -> Proposal {
        let is_named = |name: &str| paths.iter().any(|path| path == name);
        let fields = self.fields(paths);
        let secrets = self.secrets(&mut connection, is_named);
        Proposal { fields, draft: self.draft(connection, is_named), secrets }
    }

    /// The settings that an update mask names. It may also name the secrets.
    fn fields(&mut self, paths: &[String]) -> Vec<DraftField> {
        let mut fields = Vec::new();
        if paths.is_empty() {
            self.violation("update_mask", "must name the fields to change");
        }
        for path in paths {
            match DraftField::parse(path) {
                Some(field) => fields.push(field),
                None if SECRET_FIELDS.contains(&path.as_str()) => {}
                None => self.violation(
                    "update_mask",
                    format!("{:?} is not a field that an update can set", quotable(path)),
                ),
            }
        }
        fields
    }

    /// Moves the secrets out of a message.
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

    fn draft(&mut self, message: pb::Connection, is_named: impl Fn(&str) -> bool) -> Draft {
        // A number that this version doesn't know matters only where its field is named.
        let number = |name, number| if is_named(name) { number } else { 0 };
        let max_age = message.max_age.filter(|_| is_named("max_age"));
        let mapping = message.claim_mapping.unwrap_or_default();
        let endpoints = message.endpoints.unwrap_or_default();
        Draft {
            state: self.state(number("state", message.state)),
            auth_method: self.auth_method(number(
                "token_endpoint_auth_method",
                message.token_endpoint_auth_method,
            )),
            logout_style: self.logout_style(number("logout_style", message.logout_style)),
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
            prompt: message.prompt,
            login_hint: message.login_hint,
            max_age: self.max_age(max_age),
        }
    }

    fn state(&mut self, number: i32) -> Option<ConnectionState> {
        match pb::ConnectionState::try_from(number) {
            Ok(pb::ConnectionState::Unspecified) => None,
            Ok(pb::ConnectionState::Testing) => Some(ConnectionState::Testing),
            Ok(pb::ConnectionState::Active) => Some(ConnectionState::Active),
            Ok(pb::ConnectionState::Disabled) => Some(ConnectionState::Disabled),
            Err(_) => {
                self.violation("state", unknown_enum("ConnectionState", number));
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
                self.violation(
                    "token_endpoint_auth_method",
                    unknown_enum("TokenEndpointAuthMethod", number),
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
                self.violation("logout_style", unknown_enum("LogoutStyle", number));
                None
            }
        }
    }
}

fn unknown_enum(name: &str, number: i32) -> String {
    format!("unknown {name} {number}")
}

/// Fields of Connection that an update mask may name though they aren't settings.
const SECRET_FIELDS: [&str; 4] = [
    "client_secret",
    "client_secret_expire_time",
    "standby_client_secret",
    "standby_client_secret_expire_time",
];
const PAGE_TOKEN_RULE: &str = "must be the next_page_token of the previous page";

#[cfg(test)]
mod tests {
    use super::super::tests::fields;
    use super::*;

    fn paths(paths: &[&str]) -> Option<prost_types::FieldMask> {
        Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).into()).collect() })
    }

    fn connection() -> pb::Connection {
        pb::Connection { slug: "acme".to_owned(), revision: 1, ..pb::Connection::default() }
    }

    fn edit(connection: pb::Connection, mask: &[&str]) -> Checked<ConnectionEdit> {
        connection_edit(pb::UpdateConnectionRequest {
            connection: Some(connection),
            update_mask: paths(mask),
            ..pb::UpdateConnectionRequest::default()
        })
    }

    #[test]
    fn a_malformed_update_is_refused_with_all_its_violations() {
        let long = prost_types::Duration { seconds: i64::MAX, nanos: 0 };
        let with = |change: fn(&mut pb::Connection)| {
            let mut connection = connection();
            change(&mut connection);
            connection
        };
        let far = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
        for (connection, mask, expected) in [
            (connection(), vec!["display_name"], vec![]),
            (connection(), vec![], vec!["update_mask"]),
            (connection(), vec!["slug"], vec!["update_mask"]),
            (connection(), vec!["CANARY\n", "nothing"], vec!["update_mask", "update_mask"]),
            (connection(), vec!["client_secret"], vec![]),
            (with(|connection| connection.slug = "-".to_owned()), vec!["scopes"], vec!["slug"]),
            (
                with(|connection| connection.revision = 0),
                vec!["scopes"],
                vec!["connection.revision"],
            ),
            (with(|connection| connection.state = 99), vec!["state"], vec!["state"]),
            (with(|connection| connection.state = 99), vec!["display_name"], vec![]),
            (with(|connection| connection.logout_style = 99), vec!["scopes"], vec![]),
            (
                pb::Connection { max_age: Some(long), ..connection() },
                vec!["max_age"],
                vec!["max_age"],
            ),
            (pb::Connection { max_age: Some(long), ..connection() }, vec!["scopes"], vec![]),
            (
                with(|connection| connection.token_endpoint_auth_method = -1),
                vec!["token_endpoint_auth_method"],
                vec!["token_endpoint_auth_method"],
            ),
            (
                with(|connection| connection.logout_style = 99),
                vec!["logout_style"],
                vec!["logout_style"],
            ),
            (
                pb::Connection { client_secret_expire_time: Some(far), ..connection() },
                vec!["client_secret_expire_time"],
                vec!["client_secret_expire_time"],
            ),
            (
                pb::Connection { slug: String::new(), revision: 0, state: 99, ..connection() },
                vec!["nothing", "state"],
                vec!["slug", "connection.revision", "update_mask", "state"],
            ),
        ] {
            assert_eq!(fields(edit(connection, &mask)), expected, "{mask:?}");
        }
    }

    #[test]
    fn only_secrets_that_the_mask_names_change() {
        let sent = || pb::Connection {
            client_secret: "a".to_owned(),
            standby_client_secret: String::new(),
            ..connection()
        };
        let secrets = |mask: &[&str]| edit(sent(), mask).expect("valid").proposal.secrets;
        let unnamed = secrets(&["scopes"]);
        assert!(unnamed.active.is_none());
        assert!(matches!(unnamed.standby, Change::Keep));
        assert!(matches!(unnamed.active_expire, Change::Keep));
        let named = secrets(&[
            "client_secret",
            "client_secret_expire_time",
            "standby_client_secret",
            "standby_client_secret_expire_time",
        ]);
        assert!(named.active.is_some());
        assert!(matches!(named.standby, Change::Clear), "an empty one removes it");
        assert!(matches!(named.active_expire, Change::Clear));
        assert!(matches!(named.standby_expire, Change::Clear));
    }

    #[test]
    fn a_proposal_and_its_mask_go_together() {
        let check = |proposal, update_mask| {
            let slug = "acme".to_owned();
            fields(check_request(pb::CheckConnectionRequest { slug, proposal, update_mask }))
        };
        assert!(check(None, None).is_empty());
        assert_eq!(check(Some(connection()), None), ["proposal"]);
        assert_eq!(check(None, paths(&["scopes"])), ["proposal"]);
        assert!(check(Some(connection()), paths(&["scopes"])).is_empty());
        assert_eq!(check(Some(connection()), paths(&["revision"])), ["update_mask"]);
    }

    #[test]
    fn lists_have_sizes_and_tokens_of_their_own() {
        let list = |page_size, page_token: &str| {
            page(&pb::ListConnectionsRequest { page_size, page_token: page_token.to_owned() })
        };
        let acme = Slug::parse("acme").expect("a slug");
        assert_eq!(list(0, ""), Ok((100, None)));
        assert_eq!(list(5000, ""), Ok((1000, None)));
        assert_eq!(list(7, &page_token(&acme)), Ok((7, Some(acme.clone()))));
        assert_eq!(fields(list(-1, "")), ["page_size"]);
        assert_eq!(fields(list(1, "acme!")), ["page_token"]);
        assert_eq!(fields(slug_and_size("ACME", -1, 10, 20)), ["slug", "page_size"]);
        assert_eq!(slug_and_size("acme", 30, 10, 20), Ok((acme.clone(), 20)));
        let changes = |page_token: &str| {
            let (slug, page_token) = ("acme".to_owned(), page_token.to_owned());
            changes_request(&pb::ListConnectionChangesRequest { slug, page_size: 0, page_token })
        };
        assert_eq!(changes("12"), Ok((acme.clone(), Some(12), 100)));
        assert_eq!(fields(changes("x")), ["page_token"]);
        let guide = |idp| {
            let slug = "acme".to_owned();
            guide_request(&pb::GetSetupGuideRequest { slug, idp, ready: false })
        };
        assert_eq!(guide(0), Ok((acme, None)));
        assert_eq!(fields(guide(99)), ["idp"]);
        let violations = guide(99).expect_err("unknown");
        assert_eq!(violations[0].description, "unknown IdentityProvider 99");
    }
}
