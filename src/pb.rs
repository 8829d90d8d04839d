//! The contract's messages and services, generated from `proto/`. Only the door ([`server::grpc`](crate::server::grpc)) and clients of the
//! service use them.

#![expect(clippy::allow_attributes, reason = "generated code has its own")]

tonic::include_proto!("peerpanda.sso.v1");

/// The protocol buffers' descriptors, for server reflection and for tools.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
