//! The proto's own JSON mapping for the commands' JSON and YAML, by the descriptors of `proto/`, so
//! that the command line has no model of a message of its own. Field names are the proto's.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, Kind, MapKey, MessageDescriptor,
    SerializeOptions, Value,
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

/// The values of an enum that can be set: their full names, and the short ones that people read and
/// write (`client_secret_basic`).
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

/// A field's value as people read it: short enum names, times to the second, lists with commas, and a
/// line for each member of a map or message.
pub(super) fn text(kind: &Kind, value: &Value) -> String {
    let lines = |mut lines: Vec<String>| {
        lines.sort();
        lines.join("\n")
    };
    match (value, kind) {
        (Value::String(text), _) => text.clone(),
        (Value::EnumNumber(number), Kind::Enum(descriptor)) => enum_names(descriptor)
            .find_map(|(_, short, value)| (value == *number).then_some(short))
            .unwrap_or_else(|| number.to_string()),
        (Value::List(items), _) => {
            let separator = if matches!(kind, Kind::Message(_)) { "\n" } else { ", " };
            items.iter().map(|item| text(kind, item)).collect::<Vec<_>>().join(separator)
        }
        (Value::Map(entries), Kind::Message(entry)) => {
            let kind = entry.map_entry_value_field().kind();
            let line = |(key, value): (&MapKey, &Value)| match key {
                MapKey::String(key) => format!("{key}: {}", text(&kind, value)),
                key => format!("{key:?}: {}", text(&kind, value)),
            };
            lines(entries.iter().map(line).collect())
        }
        (Value::Message(message), Kind::Message(descriptor)) => {
            if let ("google.protobuf.Timestamp", Ok(time)) =
                (descriptor.full_name(), message.transcode_to::<Timestamp>())
            {
                return time_text(Some(&time));
            }
            let fields = message.fields();
            let line = fields
                .map(|(field, value)| format!("{}: {}", field.name(), text(&field.kind(), value)));
            line.collect::<Vec<_>>().join("\n")
        }
        (Value::Bool(value), _) => value.to_string(),
        (Value::U64(value), _) => value.to_string(),
        (other, _) => format!("{other:?}"),
    }
}

/// A time to the second; empty for none.
pub(super) fn time_text(time: Option<&Timestamp>) -> String {
    time.map(|time| Timestamp { nanos: 0, ..*time }.to_string()).unwrap_or_default()
}
