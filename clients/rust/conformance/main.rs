//! The driver of tests/conformance for this client: does what a line of standard input says, and writes what happened to standard output.
//!
//! tests/conformance/README.md describes the lines. Run with `thin`, it is the driver of a client on the bare stubs.

mod lines;
mod resuming;
mod thin;

use std::sync::Arc;

use jobwire::Error;
use lines::{Warnings, said};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::sync::CancellationToken;

/// What both forms do.
#[derive(Clone)]
enum Driver {
    Resuming(Arc<resuming::Driver>),
    Thin(Arc<thin::Driver>),
}

#[tokio::main]
async fn main() {
    tracing::subscriber::set_global_default(Warnings).expect("it is the first one");
    let ended = CancellationToken::new();
    let driver = match std::env::args().nth(1).as_deref() {
        Some("thin") => Driver::Thin(Arc::new(thin::Driver::new())),
        _ => Driver::Resuming(Arc::new(resuming::Driver::new(ended.clone()))),
    };
    tokio::select! {
        () = read(driver.clone()) => driver.close().await,
        () = ended.cancelled() => {}
    }
    // Not by returning: that would wait for the thread that reads standard input.
    std::process::exit(0);
}

/// Answers each line beside those before it.
async fn read(driver: Driver) {
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = input.next_line().await {
        let driver = driver.clone();
        tokio::spawn(async move {
            let request: Value = serde_json::from_str(&line).expect("each line is JSON");
            lines::say(&match driver.answer(&request).await {
                Ok(result) => json!({"id": request["id"], "result": result}),
                Err(error) => json!({"id": request["id"], "error": said(&error)}),
            });
        });
    }
}

impl Driver {
    async fn answer(&self, request: &Value) -> Result<Value, Error> {
        match self {
            Self::Resuming(driver) => driver.answer(request).await,
            Self::Thin(driver) => driver.answer(request).await,
        }
    }

    async fn close(&self) {
        if let Self::Resuming(driver) = self {
            driver.close().await;
        }
    }
}
