//! A worker on the bare stubs: `cargo run --example thin_worker -- http://127.0.0.1:50051 hello`
//!
//! One job at a time, and no resume: when its stream ends, it opens another session, and the job that it had in hand is given back after
//! `resume_grace`. Three unanswered heartbeats end a session, so with an interval of a minute a job may take two.

use std::time::Duration;

use jobwire::v1::queue_service_client::QueueServiceClient;
use jobwire::v1::{AckItem, AckRequest, Complete, SubscribeRequest, ack_item::Outcome, subscribe_response::Event};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [_, server, queue] = <[String; 3]>::try_from(std::env::args().collect::<Vec<_>>())
        .map_err(|_| "give the server's URL and a queue")?;
    let heartbeat_interval = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let request = SubscribeRequest { queues: vec![queue], heartbeat_interval, ..Default::default() };
    loop {
        let end = work(server.clone(), request.clone()).await;
        eprintln!("the stream ended, and the next one begins: {end:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn work(server: String, request: SubscribeRequest) -> Result<(), Box<dyn std::error::Error>> {
    let mut client = QueueServiceClient::connect(server).await?;
    let mut stream = client.subscribe(request).await?.into_inner();
    let mut session_id = String::new();
    while let Some(message) = stream.message().await? {
        let mut items = Vec::new();
        match message.event {
            Some(Event::Opened(opened)) => session_id = opened.session_id,
            Some(Event::Heartbeat(_)) => {} // the answer is the Ack below
            Some(Event::Deliveries(jobs)) => {
                for job in jobs.deliveries {
                    println!("{} {}", job.job_id, job.data); // the work
                    let outcome = Some(Outcome::Complete(Complete { output: "\"done\"".into() }));
                    items.push(AckItem { handle: job.handle, outcome });
                }
            }
            _ => continue,
        }
        let session_id = session_id.clone();
        let ack = AckRequest { session_id, items, last_sequence: message.sequence, ..Default::default() };
        client.ack(ack).await?;
    }
    Ok(())
}
