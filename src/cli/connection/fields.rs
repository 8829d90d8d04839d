//! A connection's fields as flags: one table, by which a flag's value becomes JSON in the proto's
//! mapping, which [`Edit`] reads as it reads a file. The form of a value follows from its field.

use std::collections::HashMap;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser, ValueParser};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use prost_reflect::{FieldDescriptor, Kind};
use serde_json::{Map, Value as Json, json};

use super::super::reflection::{Mapped, descriptor, enum_names, is_timestamp, reflect};
use super::super::{Failure, FieldViolation};
use super::edit::{Edit, parse_time};
use super::groups::heading;
use crate::pb;

/// Path of the field, name of the value, help.
const FLAGS: [(&str, &str, &str); 26] = [
    ("display_name", "TEXT", "Set the name that people read"),
    ("state", "STATE", "Set the state; `activate` makes a connection ACTIVE"),
    (
        "discovery_url",
        "URL",
        "Set the URL of the IdP's metadata document, or one from which it follows: the issuer, its \
         domain, the authorization endpoint, the URL of a known console",
    ),
    (
        "issuer",
        "URL",
        "Set the issuer, exactly as the IdP's tokens name it [default: as discovered]",
    ),
    ("endpoints.authorization_endpoint", "URL", "Set the endpoints without a metadata document"),
    ("endpoints.token_endpoint", "URL", "Set the token endpoint"),
    ("endpoints.jwks_uri", "URL", "Set the URL of the IdP's signing keys"),
    ("endpoints.userinfo_endpoint", "URL", "Set the UserInfo endpoint"),
    ("endpoints.end_session_endpoint", "URL", "Set the logout endpoint"),
    ("client_id", "ID", "Set the client's identifier at the IdP"),
    ("token_endpoint_auth_method", "METHOD", "Authenticate at the token endpoint in this way"),
    ("scopes", "SCOPE,...", "Ask for these scopes, openid among them; spaces separate, too"),
    ("claim_mapping.email", "CLAIM,...", "Read the e-mail from the first of these that is present"),
    ("claim_mapping.given_name", "CLAIM,...", "Read the given name in the same way"),
    ("claim_mapping.family_name", "CLAIM,...", "Read the family name in the same way"),
    ("claim_mapping.groups", "CLAIM", "Read the person's groups from this claim"),
    ("allowed_email_domains", "DOMAIN,...", "Accept only e-mail addresses of these domains"),
    ("require_verified_email", "BOOL", "Refuse an e-mail that the IdP doesn't call verified"),
    ("id_token_signing_algs", "ALG,...", "Accept only these algorithms of ID tokens"),
    ("additional_audiences", "AUD,...", "Accept these audiences in addition to the client id"),
    ("logout_style", "STYLE", "Log out at the IdP in this way"),
    ("allowed_tenant_ids", "GUID,...", "Accept only these Entra tenants"),
    ("authorization_params", "NAME=VALUE,...", "Add these to every authorization request"),
    (
        "required_claims",
        "NAME=VALUE|VALUE,...",
        "Require one of its values of each of these claims",
    ),
    ("client_secret_expire_time", "TIME", "Set when the secret expires: a day, or RFC 3339"),
    ("standby_client_secret_expire_time", "TIME", "Set when the standby secret expires"),
];
/// Flag, shorter name.
const ALIASES: [(&str, &str); 3] = [
    ("token-endpoint-auth-method", "auth-method"),
    ("client-secret-expire-time", "client-secret-expires"),
    ("standby-client-secret-expire-time", "standby-client-secret-expires"),
];

/// The name of the field in the proto, without that of its message.
fn flag(path: &str) -> String {
    let name = match path.split_once('.') {
        Some((_, "groups")) => "groups_claim".to_owned(),
        Some(("claim_mapping", name)) => format!("{name}_claims"),
        Some((_, name)) => name.to_owned(),
        None => path.to_owned(),
    };
    name.replace('_', "-")
}

/// The fields that flags name, as JSON. A flag that is absent leaves its field as it is; an empty
/// value clears the field.
#[derive(Clone, Default)]
pub(super) struct Fields(Map<String, Json>);

impl Fields {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether [`Fields::edit`] needs the present mapping.
    pub(super) fn map_claims(&self) -> bool {
        self.0.contains_key("claim_mapping")
    }

    /// `mapping`: the present mapping, in which claims that no flag names stay.
    pub(super) fn edit(mut self, mapping: Option<pb::ClaimMapping>) -> Result<Edit, Failure> {
        if let (Some(Json::Object(given)), Some(known)) = (self.0.get_mut("claim_mapping"), mapping)
            && let Ok(Json::Object(known)) = serde_json::to_value(Mapped(reflect(&known)))
        {
            for (name, value) in known {
                given.entry(name).or_insert(value);
            }
        }
        let (edit, mistakes) = Edit::read(self.0);
        match mistakes.into_iter().next() {
            Some(FieldViolation { field, description }) => {
                Err(Failure::Usage(format!("{field} {description}")))
            }
            None => Ok(edit),
        }
    }
}

/// The fields that a check can be asked to judge.
#[derive(Clone, Default)]
pub(super) struct CheckFields(Fields);

impl std::ops::Deref for CheckFields {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.0
    }
}

impl CheckFields {
    pub(super) fn edit(self, mapping: Option<pb::ClaimMapping>) -> Result<Edit, Failure> {
        self.0.edit(mapping)
    }
}

impl Args for CheckFields {
    fn augment_args(command: Command) -> Command {
        let is_judged = |(path, ..): &(&str, _, _)| !matches!(*path, "display_name" | "state");
        command.args(FLAGS.into_iter().filter(is_judged).map(arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for CheckFields {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Fields::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl Args for Fields {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.into_iter().map(arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Fields {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut fields = Map::new();
        for (path, ..) in FLAGS {
            // A check has fewer flags than an update.
            let Ok(Some(value)) = matches.try_get_one::<Json>(&flag(path)) else { continue };
            let value = value.clone();
            match path.split_once('.') {
                None => fields.insert(path.to_owned(), value),
                Some((outer, inner)) => {
                    let outer = fields.entry(outer).or_insert_with(|| json!({}));
                    outer.as_object_mut().and_then(|outer| outer.insert(inner.to_owned(), value))
                }
            };
        }
        Ok(Self(fields))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn arg((path, value_name, help): (&str, &'static str, &'static str)) -> Arg {
    let (outer, inner) = path.split_once('.').unwrap_or((path, ""));
    let field = descriptor::<pb::Connection>().get_field_by_name(outer);
    let nested =
        field.as_ref().and_then(|field| field.kind().as_message()?.get_field_by_name(inner));
    let field = nested.or(field).expect("every path of FLAGS is a field of Connection");
    let flag = flag(path);
    let alias = ALIASES.iter().find(|(name, _)| *name == flag).map(|(_, alias)| *alias);
    let mut arg = Arg::new(flag.clone()).long(flag).value_name(value_name).help(help);
    arg = arg.help_heading(heading(outer));
    arg = arg.visible_aliases(alias).value_parser(parser(&field));
    match (field.kind(), inner) {
        (Kind::Bool, _) => arg.num_args(0..=1).default_missing_value("true"),
        (_, "authorization_endpoint") => arg.requires("token-endpoint").requires("jwks-uri"),
        _ if outer == "endpoints" => arg.requires("authorization-endpoint"),
        _ => arg,
    }
}

/// Reads a flag's value into the JSON that [`Edit`] expects of this field.
fn parser(field: &FieldDescriptor) -> ValueParser {
    fn by(read: fn(&str) -> Result<Json, String>) -> ValueParser {
        ValueParser::from(move |text: &str| read(text))
    }
    match field.kind() {
        _ if field.is_map() => by(|text| Ok(json!(pairs(text)?))),
        kind if is_timestamp(&kind) => by(|text| parse_time(text).map(|_| Json::from(text))),
        // RequiredClaim
        Kind::Message(_) => by(|text| {
            let claims = pairs(text)?.into_iter();
            Ok(claims.map(|(name, values)| (name, values.split('|').collect::<Json>())).collect())
        }),
        _ if field.is_list() && is_spaced(field.name()) => {
            by(|text| Ok(text.split_whitespace().flat_map(items).collect()))
        }
        _ if field.is_list() => by(|text| Ok(items(text).collect())),
        Kind::Enum(descriptor) => {
            // An update can't make a connection ACTIVE.
            let names = enum_names(&descriptor).filter(|(_, short, _)| short != "active");
            let values = names.map(|(full, short, _)| PossibleValue::new(short).alias(full));
            PossibleValuesParser::new(values).map(Json::from).into()
        }
        Kind::Bool => PossibleValuesParser::new(["true", "false"]).map(Json::from).into(),
        _ => by(|text| Ok(Json::from(text))),
    }
}

/// Whether no item of the field has spaces, so that they separate items as commas do.
fn is_spaced(field: &str) -> bool {
    matches!(
        field,
        "scopes" | "allowed_email_domains" | "id_token_signing_algs" | "allowed_tenant_ids"
    )
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn pairs(text: &str) -> Result<HashMap<String, &str>, String> {
    let pair = |item| match str::split_once(item, '=') {
        Some((name, value)) => Ok((name.trim().to_owned(), value.trim())),
        None => Err(format!("{item:?} must be NAME=VALUE")),
    };
    items(text).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Fields, String> {
        let command = Fields::augment_args(Command::new("test").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).map_err(|error| error.to_string())?;
        Fields::from_arg_matches(&matches).map_err(|error| error.to_string())
    }

    fn edited(
        arguments: &[&str],
        mapping: Option<pb::ClaimMapping>,
    ) -> (pb::Connection, Vec<String>) {
        let fields = parsed(arguments).unwrap_or_else(|error| panic!("{error}"));
        fields.edit(mapping).unwrap_or_else(|error| panic!("{error}")).to_message()
    }

    #[test]
    fn each_flag_sets_its_field() {
        let texts =
            |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let time = |text: &str| Some(text.parse().expect("a time"));
        type Set = fn(&mut pb::Connection);
        let cases: [(&[&str], Set); 14] = [
            (&["--display-name", "Acme"], |it| it.display_name = "Acme".to_owned()),
            (&["--state", "disabled"], |it| it.state = pb::ConnectionState::Disabled.into()),
            (&["--issuer="], |it| it.issuer = String::new()),
            (&["--client-id", "0123"], |it| it.client_id = "0123".to_owned()),
            (&["--auth-method", "client_secret_post"], |it| {
                it.token_endpoint_auth_method =
                    pb::TokenEndpointAuthMethod::ClientSecretPost.into();
            }),
            (&["--token-endpoint-auth-method", "client_secret_basic"], |it| {
                it.token_endpoint_auth_method =
                    pb::TokenEndpointAuthMethod::ClientSecretBasic.into();
            }),
            (&["--scopes", "openid, email,"], |it| {
                it.scopes = vec!["openid".to_owned(), "email".to_owned()];
            }),
            (&["--scopes", "openid email,  profile"], |it| {
                it.scopes = ["openid", "email", "profile"].map(str::to_owned).to_vec();
            }),
            (&["--allowed-email-domains", ""], |it| it.allowed_email_domains = Vec::new()),
            (&["--require-verified-email"], |it| it.require_verified_email = true),
            (&["--require-verified-email", "false"], |it| it.require_verified_email = false),
            (&["--logout-style", "auth0_v2"], |it| {
                it.logout_style = pb::LogoutStyle::Auth0V2.into();
            }),
            (&["--authorization-params", "hd=a, x=b=c"], |it| {
                it.authorization_params =
                    [("hd".to_owned(), "a".to_owned()), ("x".to_owned(), "b=c".to_owned())].into();
            }),
            (&["--required-claims", "hd=a|b"], |it| {
                let values = vec!["a".to_owned(), "b".to_owned()];
                it.required_claims = vec![pb::RequiredClaim { name: "hd".to_owned(), values }];
            }),
        ];
        for (arguments, set) in cases {
            let mut expected = pb::Connection::default();
            set(&mut expected);
            let (connection, fields) = edited(arguments, None);
            assert_eq!((connection, fields.len()), (expected, 1), "{arguments:?}");
        }
        for flag in ["--client-secret-expire-time", "--client-secret-expires"] {
            let (connection, fields) = edited(&[flag, "2027-01-31"], None);
            assert_eq!(connection.client_secret_expire_time, time("2027-01-31T00:00:00Z"));
            assert_eq!(fields, texts(&["client_secret_expire_time"]));
        }
        let (connection, fields) = edited(
            &["--authorization-endpoint", "a", "--token-endpoint", "t", "--jwks-uri", "k"],
            None,
        );
        assert_eq!(connection.endpoints.expect("endpoints").token_endpoint, "t");
        assert_eq!(fields, texts(&["endpoints", "discovery_url"]));
    }

    #[test]
    fn claims_that_no_flag_names_keep_their_mapping() {
        let known = pb::ClaimMapping {
            email: vec!["mail".to_owned()],
            groups: "roles".to_owned(),
            ..Default::default()
        };
        let (connection, fields) = edited(&["--email-claims", "upn,mail"], Some(known));
        let mapping = connection.claim_mapping.expect("a mapping");
        assert_eq!(
            (mapping.email.join(" "), mapping.groups.as_str()),
            ("upn mail".to_owned(), "roles")
        );
        assert_eq!(fields, ["claim_mapping"]);
    }

    #[test]
    fn a_malformed_flag_is_refused() {
        for (arguments, expected) in [
            (&["--state", "active"][..], "testing, disabled"),
            (&["--logout-style", "x"], "rp_initiated"),
            (&["--authorization-params", "x"], "must be NAME=VALUE"),
            (&["--client-secret-expires", "soon"], "must be a time such as"),
            (&["--token-endpoint", "t"], "--authorization-endpoint"),
            (&["--authorization-endpoint", "t"], "--jwks-uri"),
        ] {
            let error = parsed(arguments).err().unwrap_or_else(|| panic!("accepted {arguments:?}"));
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
        assert!(parsed(&[]).is_ok_and(|fields| fields.is_empty()));
    }
}
