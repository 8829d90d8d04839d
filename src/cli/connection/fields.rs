//! A connection's fields as flags: one table, by which a flag's value becomes JSON in the proto's mapping.
//! The form of a value follows from the field's descriptor; [`Edit`] reads it as it reads a file.

use std::collections::HashMap;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser, ValueParser};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value as Json, json};

use super::super::Failure;
use super::super::reflection::{descriptor, enum_names};
use super::edit::{Edit, parse_time};
use crate::pb;

/// Flag, path of the field, name of the value, help.
type Flag = (&'static str, &'static str, &'static str, &'static str);

const FLAGS: [Flag; 26] = [
    ("display-name", "display_name", "TEXT", "Set the name that people read"),
    ("state", "state", "STATE", "Set the state; `activate` makes a connection ACTIVE"),
    ("discovery-url", "discovery_url", "URL", "Set the URL of the IdP's metadata document"),
    (
        "issuer",
        "issuer",
        "URL",
        "Set the issuer, exactly as the IdP's tokens name it. Required with manual endpoints, otherwise read from the metadata document",
    ),
    (
        "authorization-endpoint",
        "endpoints.authorization_endpoint",
        "URL",
        "Set the endpoints manually instead of by --discovery-url",
    ),
    ("token-endpoint", "endpoints.token_endpoint", "URL", "Set the token endpoint"),
    ("jwks-uri", "endpoints.jwks_uri", "URL", "Set the URL of the IdP's signing keys"),
    ("userinfo-endpoint", "endpoints.userinfo_endpoint", "URL", "Set the UserInfo endpoint"),
    ("end-session-endpoint", "endpoints.end_session_endpoint", "URL", "Set the logout endpoint"),
    ("client-id", "client_id", "ID", "Set the client's identifier at the IdP"),
    (
        "token-endpoint-auth-method",
        "token_endpoint_auth_method",
        "METHOD",
        "Authenticate at the token endpoint by this method",
    ),
    ("scopes", "scopes", "SCOPE,...", "Ask for these scopes, openid among them"),
    (
        "email-claims",
        "claim_mapping.email",
        "CLAIM,...",
        "Take the e-mail address from the first of these claims that is present",
    ),
    (
        "given-name-claims",
        "claim_mapping.given_name",
        "CLAIM,...",
        "Take the given name from the first of these claims that is present",
    ),
    (
        "family-name-claims",
        "claim_mapping.family_name",
        "CLAIM,...",
        "Take the family name from the first of these claims that is present",
    ),
    ("groups-claim", "claim_mapping.groups", "CLAIM", "Take the person's groups from this claim"),
    (
        "allowed-email-domains",
        "allowed_email_domains",
        "DOMAIN,...",
        "Accept only e-mail addresses of these domains",
    ),
    (
        "require-verified-email",
        "require_verified_email",
        "BOOL",
        "Refuse an e-mail address that the IdP doesn't call verified",
    ),
    ("id-token-signing-algs", "id_token_signing_algs", "ALG,...", "Accept only these algorithms"),
    (
        "additional-audiences",
        "additional_audiences",
        "AUD,...",
        "Accept these audiences in ID tokens in addition to the client id",
    ),
    ("logout-style", "logout_style", "STYLE", "Log out at the IdP in this way"),
    ("allowed-tenant-ids", "allowed_tenant_ids", "GUID,...", "Accept only these Entra tenants"),
    (
        "authorization-params",
        "authorization_params",
        "NAME=VALUE,...",
        "Add these parameters to every authorization request",
    ),
    (
        "required-claims",
        "required_claims",
        "NAME=VALUE|VALUE,...",
        "Require that each of these claims has one of its values",
    ),
    (
        "client-secret-expire-time",
        "client_secret_expire_time",
        "TIME",
        "Set when the client secret expires: 2027-01-31 or 2027-01-31T12:00:00Z. Empty: unknown",
    ),
    (
        "standby-client-secret-expire-time",
        "standby_client_secret_expire_time",
        "TIME",
        "Set when the standby client secret expires",
    ),
];
/// Flag, short name.
const ALIASES: [(&str, &str); 3] = [
    ("token-endpoint-auth-method", "auth-method"),
    ("client-secret-expire-time", "client-secret-expires"),
    ("standby-client-secret-expire-time", "standby-client-secret-expires"),
];

/// The fields that flags name, as JSON. A flag that is absent leaves its field as it is; an empty value
/// clears the field.
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
        {
            let pb::ClaimMapping { email, given_name, family_name, groups } = known;
            let known = json!({ "email": email, "given_name": given_name, "family_name": family_name, "groups": groups });
            for (name, value) in known.as_object().into_iter().flatten() {
                given.entry(name).or_insert_with(|| value.clone());
            }
        }
        let (edit, mistakes) = Edit::read(self.0);
        match mistakes.first() {
            Some(mistake) => {
                Err(Failure::Usage(format!("{} {}", mistake.field, mistake.description)))
            }
            None => Ok(edit),
        }
    }
}

impl Args for Fields {
    fn augment_args(command: Command) -> Command {
        let connection = descriptor::<pb::Connection>();
        command.args(FLAGS.into_iter().map(|flag| arg(flag, &connection)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Fields {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut fields = Map::new();
        for (flag, path, ..) in FLAGS {
            let Some(value) = matches.get_one::<Json>(flag).cloned() else { continue };
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

fn arg((flag, path, value_name, help): Flag, connection: &MessageDescriptor) -> Arg {
    let mut field = None;
    let mut message = Some(connection.clone());
    for name in path.split('.') {
        field = message.and_then(|message| message.get_field_by_name(name));
        message = field.as_ref().and_then(|field| field.kind().as_message().cloned());
    }
    let field = field.expect("every path of FLAGS is a field of Connection");
    let mut arg =
        Arg::new(flag).long(flag).value_name(value_name).help(help).value_parser(parser(&field));
    if let Some((_, alias)) = ALIASES.iter().find(|(name, _)| *name == flag) {
        arg = arg.visible_alias(*alias);
    }
    match (field.kind(), flag) {
        (Kind::Bool, _) => arg.num_args(0..=1).default_missing_value("true"),
        (_, "authorization-endpoint") => arg.requires("token-endpoint").requires("jwks-uri"),
        _ if path.starts_with("endpoints.") => arg.requires("authorization-endpoint"),
        _ => arg,
    }
}

/// Reads a flag's value into the JSON that [`Edit`] expects of this field.
fn parser(field: &FieldDescriptor) -> ValueParser {
    if field.is_map() {
        return ValueParser::from(|text: &str| Ok::<_, String>(json!(pairs(text)?)));
    }
    match field.kind() {
        Kind::Message(message) if message.full_name() == "google.protobuf.Timestamp" => {
            ValueParser::from(|text: &str| match parse_time(text) {
                Ok(_) => Ok(Json::from(text)),
                Err(rule) => Err(format!("must be {rule}")),
            })
        }
        // RequiredClaim
        Kind::Message(_) => ValueParser::from(|text: &str| {
            let values = |(name, values): (String, String)| {
                (name, values.split('|').map(str::to_owned).collect::<Vec<_>>())
            };
            Ok::<_, String>(json!(pairs(text)?.into_iter().map(values).collect::<HashMap<_, _>>()))
        }),
        _ if field.is_list() => ValueParser::from(|text: &str| Ok::<_, String>(json!(items(text)))),
        Kind::Enum(descriptor) => {
            // An update can't make a connection ACTIVE.
            let names = enum_names(&descriptor).filter(|(_, short, _)| short != "active");
            let values = names.map(|(full, short, _)| PossibleValue::new(short).alias(full));
            PossibleValuesParser::new(values).map(Json::from).into()
        }
        Kind::Bool => PossibleValuesParser::new(["true", "false"]).map(Json::from).into(),
        _ => ValueParser::from(|text: &str| Ok::<_, String>(Json::from(text))),
    }
}

fn items(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect()
}

fn pairs(text: &str) -> Result<HashMap<String, String>, String> {
    let pair = |item: &str| {
        let (name, value) =
            item.split_once('=').ok_or_else(|| format!("{item:?} must be NAME=VALUE"))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    items(text).into_iter().map(pair).collect()
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
        let cases: [(&[&str], Set); 13] = [
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
