//! JSON from an IdP: parsed once, strictly. A document with a member twice is refused, since two readers could see two
//! different documents in it (RFC 8725 2.4, RFC 7519 4); so is one that is nested deeply.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Parses a JSON object.
///
/// # Errors
/// What is wrong with it, without quoting it.
pub(super) fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = Strict { depth: 0 }.deserialize(&mut deserializer).and_then(|value| {
        deserializer.end()?;
        Ok(value)
    });
    match parsed {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(NO_OBJECT.to_owned()),
        Err(error) => Err(describe(&error)),
    }
}

/// The same within another document's deserialisation.
pub(super) fn strict_object<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Map<String, Value>, D::Error> {
    match (Strict { depth: 0 }).deserialize(deserializer)? {
        Value::Object(object) => Ok(object),
        _ => Err(own_error(format_args!("{NO_OBJECT}"))),
    }
}

/// An error whose text [`describe`] passes on: it must hold no value of the document.
pub(super) fn own_error<E: Error>(text: fmt::Arguments<'_>) -> E {
    E::custom(format_args!("{OWN}{text}"))
}

/// serde's own messages quote what they met; only ours are known to hold nothing of the document but a member's name.
pub(super) fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.strip_prefix(OWN) {
        Some(own) => crate::model::text::quotable(own),
        None => format!("it is not JSON (line {}, column {})", error.line(), error.column()),
    }
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            Err(own_error(format_args!("{TOO_DEEP}")))
        } else {
            Ok(Self { depth: self.depth + 1 })
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(deeper)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(deeper)?;
            if object.contains_key(&name) {
                return Err(own_error(format_args!("{TWICE} {name:?}")));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

const MAX_DEPTH: usize = 24;
const OWN: &str = "\u{1}";
const NO_OBJECT: &str = "it is JSON, but no object";
const TWICE: &str = "it has a member twice:";
const TOO_DEEP: &str = "it is nested too deeply";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_twice_is_refused_in_any_spelling_and_depth() {
        assert!(parse_object(br#"{"a":1,"b":{"a":2}}"#).is_ok());
        for bad in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"{"x":[{"a":1,"a":2}]}"#] {
            assert!(parse_object(bad.as_bytes()).expect_err(bad).starts_with(TWICE), "{bad}");
        }
    }

    proptest::proptest! {
        /// What it accepts is what serde_json reads, and nothing panics.
        #[test]
        fn it_reads_as_serde_json_does_or_refuses(text in "[{}\\[\\]\":,a-c0-2.eE\\\\untrl -]{0,40}") {
            if let Ok(object) = parse_object(text.as_bytes()) {
                proptest::prop_assert_eq!(Value::Object(object), serde_json::from_str::<Value>(&text).expect("JSON"));
            }
        }
    }

    #[test]
    fn what_is_no_object_is_refused_without_quoting_it() {
        for bad in ["", "[]", "\"s3cret\"", "{\"a\":s3cret}", "{}{}", "{\"a\":1", "nul"] {
            let error = parse_object(bad.as_bytes()).expect_err(bad);
            assert!(!error.contains("s3cret"), "{error}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
        assert!(parse_object(deep.as_bytes()).expect_err("deep").starts_with(TOO_DEEP));
        assert!(parse_object(&[b'{', b'"', 0xff, b'"', b':', b'1', b'}']).is_err());
    }
}
