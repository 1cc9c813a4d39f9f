//! Generates the stubs from the contract, without protoc; and what `Client::admin` has to know of each call of AdminService.

use std::fmt::Write;
use std::path::Path;

const PROTOS: &str = "../../protos";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={PROTOS}");
    let files = ["jobwire/v1/queue_service.proto", "jobwire/v1/admin_service.proto"];
    let descriptors = protox::compile(files.map(|file| Path::new(PROTOS).join(file)), [PROTOS])?;
    let mut operations = String::new();
    for file in &descriptors.file {
        for service in file.service.iter().filter(|service| service.name() == "AdminService") {
            let path = format!("/{}.{}", file.package(), service.name());
            for method in &service.method {
                let kind = |name: &str| format!("crate::v1::{}", name.rsplit('.').next().unwrap_or_default());
                let level = method.options.as_ref().and_then(|options| options.idempotency_level);
                writeln!(
                    operations,
                    "impl Operation for {} {{ type Answer = {}; \
                     const PATH: &'static str = \"{path}/{}\"; const REPEATABLE: bool = {}; }}",
                    kind(method.input_type()),
                    kind(method.output_type()),
                    method.name(),
                    level.unwrap_or_default() != 0,
                )?;
            }
        }
    }
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("operations.rs"), operations)?;
    // The comments are the reference of the API; an empty server would only cost time.
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    Ok(())
}
