//! The contract's messages and services, generated from `proto/` by `build.rs`. Only
//! [`server::grpc`](crate::server::grpc) and clients of the service use them; no other module sees
//! a wire format.

#![expect(clippy::allow_attributes, reason = "the generated code has `allow` attributes")]

tonic::include_proto!("peerpanda.sso.v1");

/// The encoded `FileDescriptorSet` of `proto/` and of its imports.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
