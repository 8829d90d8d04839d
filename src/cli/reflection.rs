//! The proto's own JSON mapping for the commands' JSON and YAML, by the descriptors of `proto/`, so
//! that the command line has no model of its own of a message. Field names are the proto's.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey,
    MessageDescriptor, SerializeOptions, Value,
};
use prost_types::Timestamp;
use serde::{Serialize, Serializer};

use super::{Failure, print_json};
use crate::pb;

/// The descriptor of a generated message.
pub(super) fn descriptor<T: Name>() -> MessageDescriptor {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        DescriptorPool::decode(pb::DESCRIPTORS).expect("build.rs writes valid descriptors")
    });
    POOL.get_message_by_name(&T::full_name()).expect("build.rs writes every descriptor")
}

/// A generated message whose fields can be walked.
pub(super) fn reflect<T: Message + Name>(message: &T) -> DynamicMessage {
    let mut reflected = DynamicMessage::new(descriptor::<T>());
    reflected.transcode_from(message).expect("the descriptor is the message's own");
    reflected
}

/// Serializes as the proto's JSON mapping says; fields that have their default value are omitted.
pub(super) struct Mapped(pub(super) DynamicMessage);

impl Serialize for Mapped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let options = SerializeOptions::new().use_proto_field_name(true);
        self.0.serialize_with_options(serializer, &options)
    }
}

pub(super) fn print_message<T: Message + Name>(message: &T) -> Result<(), Failure> {
    print_json(&Mapped(reflect(message)))
}

/// The values of an enum except the unspecified one: full name, short name for people
/// (`client_secret_basic`), number.
pub(super) fn enum_names(
    descriptor: &EnumDescriptor,
) -> impl Iterator<Item = (String, String, i32)> {
    let values: Vec<_> = descriptor.values().collect();
    let unspecified = values.first().map(|value| value.name().to_owned()).unwrap_or_default();
    let prefix = unspecified.trim_end_matches("UNSPECIFIED").to_owned();
    values.into_iter().skip(1).map(move |value| {
        let full = value.name().to_owned();
        let short = full.strip_prefix(&prefix).unwrap_or(&full).to_ascii_lowercase();
        (full, short, value.number())
    })
}

pub(super) fn is_timestamp(kind: &Kind) -> bool {
    kind.as_message().is_some_and(|it| it.full_name() == Timestamp::full_name())
}

/// A field's value as people read it: enums by their short names, times to the second, lists with
/// commas, and a line for each member of a map or message.
pub(super) fn text(kind: &Kind, value: &Value) -> String {
    match (kind, value) {
        (Kind::Enum(descriptor), Value::EnumNumber(number)) => {
            let mut names = enum_names(descriptor);
            names.find_map(|(_, short, it)| (it == *number).then_some(short)).unwrap_or_default()
        }
        (_, Value::Message(message)) if is_timestamp(kind) => {
            time_text(message.transcode_to().ok().as_ref())
        }
        (_, Value::Message(message)) => {
            let line = |(field, value): (FieldDescriptor, &Value)| {
                format!("{}: {}", field.name(), text(&field.kind(), value))
            };
            message.fields().map(line).collect::<Vec<_>>().join("\n")
        }
        (_, Value::List(items)) => {
            items.iter().map(|item| text(kind, item)).collect::<Vec<_>>().join(", ")
        }
        (_, Value::Map(entries)) => {
            let line = |(name, value): (&MapKey, &Value)| {
                format!("{}: {}", name.as_str().unwrap_or_default(), text(&Kind::String, value))
            };
            let mut lines: Vec<_> = entries.iter().map(line).collect();
            lines.sort();
            lines.join("\n")
        }
        (_, Value::String(text)) => text.clone(),
        (_, Value::Bool(value)) => value.to_string(),
        (_, value) => value.as_u64().map(|value| value.to_string()).unwrap_or_default(),
    }
}

/// A time to the second; empty for none.
pub(super) fn time_text(time: Option<&Timestamp>) -> String {
    time.map(|time| Timestamp { nanos: 0, ..*time }.to_string()).unwrap_or_default()
}
