//! Compiles the protocol buffers without a system `protoc`, and writes their descriptors for server
//! reflection and for the command line's JSON and YAML.

use std::path::PathBuf;

use protox::prost::Message;

#[expect(clippy::disallowed_methods, reason = "cargo passes OUT_DIR in the environment")]
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
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // The command line finds a message's descriptor by its name.
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
