/// The stubs, generated from `protos/jobwire/v1` when the crate is built.
pub mod v1 {
    tonic::include_proto!("jobwire.v1");
}
