//! The proto's own JSON mapping for the commands' JSON and YAML, by the descriptors of `proto/`, so
//! that the command line has no model of its own of a message. Field names are the proto's.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, Kind, MessageDescriptor, SerializeOptions,
};
use prost_types::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use super::{Failure, Output, print_data};
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

pub(super) fn print_message<T: Message + Name>(output: Output, message: &T) -> Result<(), Failure> {
    print_data(output, &Mapped(reflect(message)))
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

/// A field's JSON value as people read it: enums by their short names, times to the second, lists
/// with commas, and a line for each member of a map or message.
pub(super) fn text(kind: &Kind, value: &Json) -> String {
    let items = |separator: &str, items: &mut dyn Iterator<Item = String>| {
        items.collect::<Vec<_>>().join(separator)
    };
    match (value, kind) {
        (Json::String(name), Kind::Enum(descriptor)) => {
            let mut names = enum_names(descriptor);
            names.find_map(|(full, short, _)| (full == *name).then_some(short)).unwrap_or_default()
        }
        (Json::String(time), _) if is_timestamp(kind) => {
            time.split_once('.').map_or_else(|| time.clone(), |(time, _)| format!("{time}Z"))
        }
        (Json::String(text), _) => text.clone(),
        (Json::Array(values), _) => items(", ", &mut values.iter().map(|it| text(kind, it))),
        (Json::Object(members), _) => {
            let line =
                |(name, it): (&String, &Json)| format!("{name}: {}", text(&Kind::String, it));
            items("\n", &mut members.iter().map(line))
        }
        (other, _) => other.to_string(),
    }
}

/// A time to the second; empty for none.
pub(super) fn time_text(time: Option<&Timestamp>) -> String {
    time.map(|time| Timestamp { nanos: 0, ..*time }.to_string()).unwrap_or_default()
}
