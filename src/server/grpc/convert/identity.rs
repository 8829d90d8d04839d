//! The Identity message, which CompleteLogin and GetIdentity answer with.

use std::collections::HashMap;

use prost_types::value::Kind;
use serde_json::{Map, Value};

use super::timestamp;
use crate::model::identity::{EmailVerification, Identity};
use crate::pb;

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

/// google.protobuf.Struct has only doubles: integers above 2^53 lose precision.
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_of_json_value_is_sent() {
        let Value::Object(object) = json!({
            "null": null, "bool": true, "number": 1.5, "text": "t", "list": [1, "a"], "object": { "a": {} },
        }) else {
            panic!("an object");
        };
        let sent = to_struct(object);
        let kind = |name: &str| sent.fields[name].kind.clone().expect("a kind");
        assert_eq!(kind("null"), Kind::NullValue(0));
        assert_eq!(kind("bool"), Kind::BoolValue(true));
        assert_eq!(kind("number"), Kind::NumberValue(1.5));
        assert_eq!(kind("text"), Kind::StringValue("t".to_owned()));
        let Kind::ListValue(list) = kind("list") else { panic!("a list") };
        assert_eq!(list.values.len(), 2);
        let Kind::StructValue(object) = kind("object") else { panic!("an object") };
        assert_eq!(
            object.fields["a"].kind,
            Some(Kind::StructValue(prost_types::Struct::default()))
        );
    }
}
