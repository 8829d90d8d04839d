//! Compiles the protocol buffers, without a system `protoc`, and keeps the descriptors for server reflection.

use std::path::PathBuf;

#[expect(clippy::disallowed_methods, reason = "cargo tells build scripts by the environment")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = [
        "peerpanda/sso/v1/login.proto",
        "peerpanda/sso/v1/connection.proto",
        "peerpanda/sso/v1/identity.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");
    let descriptors = protox::compile(protos, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost_bytes(&descriptors))?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

fn prost_bytes(descriptors: &impl protox::prost::Message) -> Vec<u8> {
    descriptors.encode_to_vec()
}
