//! A worker that resumes, and its client: `cargo run --example letters` works, `cargo run --example letters -- a@example.org` publishes and waits.

use std::time::Duration;

use jobwire::{Client, NewJob, Worker};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::var("JOBWIRE_SERVER").unwrap_or("127.0.0.1:50051".into());
    // With TLS and a token: jobwire::Target::new(server).tls().token(token)
    let Some(to) = std::env::args().nth(1) else {
        let worker = Worker::new(server).handler("letters", 4, |job| async move {
            let letter: Value = job.data()?;
            job.progress(0.5, &format!("half way to {}", letter["to"]));
            Ok(json!({"sent": true}))
        });
        return Ok(worker.run().await?); // until SIGTERM or Ctrl-C; what it runs is finished or given back
    };
    let client = Client::new(server)?;
    let published = client.publish("letters", NewJob::new(&json!({"to": to}))?).await?;
    let job = client.wait("letters", &published.job_id, Some(Duration::from_secs(60))).await?;
    println!("{} {}", job.state().as_str_name(), job.output);
    Ok(())
}
