//! The fields of a connection by subject, in the order in which a person fills them in: for help and
//! for `get`.

/// A subject, and its fields by their names in the proto.
pub(super) const GROUPS: [(&str, &[&str]); 6] = [
    ("Account", &["slug", "display_name", "state", "unreadable", "revision"]),
    ("IdP", &["discovery_url", "issuer", "endpoints", "allowed_tenant_ids", "logout_style"]),
    (
        "Client",
        &[
            "client_id",
            "token_endpoint_auth_method",
            "scopes",
            "authorization_params",
            "prompt",
            "login_hint",
            "max_age",
        ],
    ),
    (
        "Claims and policy",
        &[
            "claim_mapping",
            "required_claims",
            "allowed_email_domains",
            "require_verified_email",
            "id_token_signing_algs",
            "additional_audiences",
        ],
    ),
    (
        "Secrets",
        &[
            "client_secret",
            "secret_fingerprint",
            "client_secret_expire_time",
            "standby_client_secret",
            "standby_secret_fingerprint",
            "standby_client_secret_expire_time",
            "secret_switch_time",
        ],
    ),
    (
        "Record",
        &[
            "redirect_uri",
            "initiate_login_uri",
            "post_logout_redirect_uri",
            "last_check",
            "test_login_time",
            "logins",
            "create_time",
            "update_time",
        ],
    ),
];

/// The subject of a field.
pub(super) fn heading(field: &str) -> &'static str {
    let group = GROUPS.iter().find(|(_, fields)| fields.contains(&field));
    group.map_or("", |(heading, _)| heading)
}

#[cfg(test)]
mod tests {
    use super::super::super::reflection::descriptor;
    use super::*;
    use crate::pb;

    #[test]
    fn every_field_has_one_group() {
        let mut grouped: Vec<&str> =
            GROUPS.iter().flat_map(|(_, fields)| fields.iter().copied()).collect();
        let connection = descriptor::<pb::Connection>();
        let mut fields: Vec<_> = connection.fields().map(|it| it.name().to_owned()).collect();
        grouped.sort_unstable();
        fields.sort_unstable();
        assert_eq!(grouped, fields);
    }
}
