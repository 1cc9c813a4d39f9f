//! Generates the stubs from the contract, without protoc.

use std::path::Path;

const PROTOS: &str = "../../protos";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={PROTOS}");
    let files = ["jobwire/v1/queue_service.proto", "jobwire/v1/admin_service.proto"];
    let descriptors = protox::compile(files.map(|file| Path::new(PROTOS).join(file)), [PROTOS])?;
    // The comments are the reference of the API; an empty server would only cost time.
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    Ok(())
}
