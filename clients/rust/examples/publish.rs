//! A publisher on the bare stubs: `cargo run --example publish -- http://127.0.0.1:50051 hello '{"file_key": "a.xlsx"}'`

use jobwire::v1::queue_service_client::QueueServiceClient;
use jobwire::v1::{JobSpec, PublishRequest};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [_, server, queue, data] = <[String; 4]>::try_from(std::env::args().collect::<Vec<_>>())
        .map_err(|_| "give the server's URL, a queue and a job's data")?;
    // An id that is made here makes the call safe to repeat.
    let job = JobSpec { id: uuid::Uuid::now_v7().to_string(), data, ..Default::default() };
    let mut client = QueueServiceClient::connect(server).await?;
    let answer = client.publish(PublishRequest { queue, jobs: vec![job] }).await?.into_inner();
    println!("{}", answer.results[0].job_id);
    Ok(())
}
