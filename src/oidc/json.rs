//! Strict JSON parsing for every document and token of an IdP. Duplicate members are refused, since
//! two readers could see two different documents in them (RFC 8725 2.4, RFC 7519 4); so is deep
//! nesting. An error must never quote the document, which can hold tokens.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::model::text::quotable;
use crate::model::time::UnixSeconds;

/// Parses a JSON object.
///
/// # Errors
/// What is wrong with it, without quoting a value.
pub(super) fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(without_byte_order_mark(bytes));
    let parsed = Strict { depth: 0 }.deserialize(&mut deserializer).and_then(|value| {
        deserializer.end()?;
        Ok(value)
    });
    match parsed {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(NOT_AN_OBJECT.to_owned()),
        Err(error) => Err(describe_document(bytes, &error)),
    }
}

/// Whether a document is a page of HTML or XML in place of JSON, whatever its content type says: of a
/// login, a firewall or a misspelt URL.
pub(super) fn is_page(bytes: &[u8]) -> bool {
    without_byte_order_mark(bytes).trim_ascii_start().starts_with(b"<")
}

/// What is wrong with a document.
pub(super) fn describe_document(bytes: &[u8], error: &serde_json::Error) -> String {
    if is_page(bytes) { "it is a page (HTML) and not JSON".to_owned() } else { describe(error) }
}

/// Some IdPs begin a document with one. A parser may ignore it (RFC 8259 8.1).
pub(super) fn without_byte_order_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)
}

/// [`parse_object`] within the deserialization of another type.
pub(super) fn strict_object<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Map<String, Value>, D::Error> {
    match (Strict { depth: 0 }).deserialize(deserializer)? {
        Value::Object(object) => Ok(object),
        _ => Err(safe_error(format_args!("{NOT_AN_OBJECT}"))),
    }
}

/// An error whose text [`describe`] passes on, so it must not quote a value.
pub(super) fn safe_error<E: Error>(text: fmt::Arguments<'_>) -> E {
    E::custom(format_args!("{SAFE}{text}"))
}

/// A parser error without values: serde's messages quote them, those of [`safe_error`] don't.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.strip_prefix(SAFE) {
        Some(safe) => quotable(safe),
        None => format!("it is not JSON (line {}, column {})", error.line(), error.column()),
    }
}

/// RFC 7519 2 NumericDate, in whole seconds, up to the last second of a protobuf Timestamp
/// (9999-12-31T23:59:59Z).
pub(super) fn numeric_date(value: &Value) -> Option<UnixSeconds> {
    const LAST: f64 = 253_402_300_799.0;
    let seconds = value.as_f64().filter(|seconds| (0.0..=LAST).contains(seconds))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is within 0 and LAST"
    )]
    Some(UnixSeconds(seconds as u64))
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            Err(safe_error(format_args!("{TOO_DEEP}")))
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
                return Err(safe_error(format_args!("{DUPLICATE} {name:?}")));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

const MAX_DEPTH: usize = 24;
/// Marks the messages of [`safe_error`]; no message of serde begins like this.
const SAFE: &str = "\u{1}";
const NOT_AN_OBJECT: &str = "it is not a JSON object";
const DUPLICATE: &str = "it has a duplicate member:";
const TOO_DEEP: &str = "it is nested too deeply";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_twice_is_refused_in_any_spelling_and_depth() {
        assert!(parse_object(br#"{"a":1,"b":{"a":2}}"#).is_ok());
        for bad in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"{"x":[{"a":1,"a":2}]}"#] {
            assert!(parse_object(bad.as_bytes()).expect_err(bad).starts_with(DUPLICATE), "{bad}");
        }
    }

    #[test]
    fn one_byte_order_mark_is_skipped() {
        assert!(parse_object("\u{feff}{\"a\":1}".as_bytes()).is_ok());
        for bad in ["\u{feff}", "\u{feff}\u{feff}{}", "{}\u{feff}", "\u{fffe}{}"] {
            assert!(parse_object(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        /// Whatever is accepted is read as serde_json reads it.
        #[test]
        fn it_reads_as_serde_json_does_or_refuses(text in "[{}\\[\\]\":,a-c0-2.eE\\\\untrl -]{0,40}") {
            if let Ok(object) = parse_object(text.as_bytes()) {
                proptest::prop_assert_eq!(Value::Object(object), serde_json::from_str::<Value>(&text).expect("JSON"));
            }
        }
    }

    #[test]
    fn anything_but_an_object_is_refused_without_quoting_it() {
        for bad in ["", "[]", "\"s3cret\"", "{\"a\":s3cret}", "{}{}", "{\"a\":1", "nul"] {
            let error = parse_object(bad.as_bytes()).expect_err(bad);
            assert!(!error.contains("s3cret"), "{error}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
        assert!(parse_object(deep.as_bytes()).expect_err("deep").starts_with(TOO_DEEP));
        assert!(parse_object(&[b'{', b'"', 0xff, b'"', b':', b'1', b'}']).is_err());
    }
}
