//! A worker on the bare stubs: `cargo run --example thin_worker -- http://127.0.0.1:50051 hello`
//!
//! One job at a time, and no resume: when its stream ends, so does the program, and whoever started it starts it again. The job that it had in
//! hand is given back after `resume_grace`. Three unanswered heartbeats end a session, so with an interval of a minute a job may take two.

use jobwire::v1::queue_service_client::QueueServiceClient;
use jobwire::v1::{AckItem, AckRequest, Complete, SubscribeRequest, ack_item::Outcome, subscribe_response::Event};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [_, server, queue] = <[String; 3]>::try_from(std::env::args().collect::<Vec<_>>())
        .map_err(|_| "give the server's URL and a queue")?;
    let heartbeat_interval = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let mut client = QueueServiceClient::connect(server).await?;
    let request = SubscribeRequest { queues: vec![queue], heartbeat_interval, ..Default::default() };
    let mut stream = client.subscribe(request).await?.into_inner();
    let mut session_id = String::new();
    while let Some(message) = stream.message().await? {
        let mut items = Vec::new();
        match message.event {
            Some(Event::Opened(opened)) => session_id = opened.session_id,
            Some(Event::Deliveries(jobs)) => items.extend(jobs.deliveries.into_iter().map(|job| {
                println!("{} {}", job.job_id, job.data); // the work
                AckItem {
                    handle: job.handle,
                    outcome: Some(Outcome::Complete(Complete { output: r#""done""#.into() })),
                }
            })),
            Some(Event::Heartbeat(_)) => {}
            _ => continue,
        }
        let ack =
            AckRequest { session_id: session_id.clone(), items, last_sequence: message.sequence, ..Default::default() };
        client.ack(ack).await?;
    }
    Ok(())
}
