//! What the tests share: a running server, and a queue of its own for each test.

#![allow(dead_code)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jobwire::{Client, Error, Job, JobError, Stopper, Worker, v1};
use serde::Serialize;
use tokio::task::JoinHandle;

/// After so long a wait has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The server under test.
pub fn server() -> String {
    std::env::var("JOBWIRE_SERVER").expect("JOBWIRE_SERVER is to say where a server runs, such as 127.0.0.1:50051")
}

pub fn client() -> Client {
    Client::new(server()).unwrap().with_timeout(PATIENCE)
}

/// The name of a queue that nobody else uses.
pub fn queue() -> String {
    format!("rust-{}", uuid::Uuid::now_v7())
}

/// A worker that runs beside the test.
pub struct Running {
    pub stopper: Stopper,
    end: JoinHandle<Result<(), Error>>,
}

impl Running {
    pub fn start(worker: Worker) -> Self {
        Self { stopper: worker.stopper(), end: tokio::spawn(worker.run_without_signals()) }
    }

    /// One with this handler, four jobs at once.
    pub fn handling<F, Fut, T>(queue: &str, handler: F) -> Self
    where
        F: Fn(Job) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, JobError>> + Send + 'static,
        T: Serialize + 'static,
    {
        Self::start(Worker::new(server()).handler(queue, 4, handler))
    }

    pub async fn stop(self) -> Result<(), Error> {
        self.stopper.stop();
        self.ends().await
    }

    pub async fn ends(self) -> Result<(), Error> {
        soon(self.end).await.unwrap()
    }
}

/// What comes, if it comes in time.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it did not come in time")
}

pub async fn finished(queue: &str, job_id: &str) -> v1::Job {
    client().wait(queue, job_id, Some(PATIENCE)).await.unwrap()
}

/// A job that has come to hold.
pub async fn becomes(queue: &str, job_id: &str, holds: impl Fn(&v1::Job) -> bool) -> v1::Job {
    let client = client();
    soon(async {
        loop {
            let job = client.get_job(queue, job_id).await.unwrap();
            if holds(&job) {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

/// Says that something has begun, or may go on.
#[derive(Clone, Debug)]
pub struct Gate(Arc<tokio::sync::Semaphore>);

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(tokio::sync::Semaphore::new(0)))
    }

    pub fn open(&self) {
        self.0.add_permits(1);
    }

    /// Waits until it has been opened once more than it was passed.
    pub async fn pass(&self) {
        soon(self.0.acquire()).await.unwrap().forget();
    }
}
