//! What a worker does when its peer is gone without a word: no FIN, no RST, and nothing that answers any more.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Gate, Running, client, finished, queue, server};
use jobwire::v1::JobState;
use jobwire::{Job, NewJob, Worker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Stands between the worker and the server.
struct Network {
    address: String,
    connections: Arc<AtomicUsize>,
    /// So many connections, the first ones, are forgotten.
    forgotten: watch::Sender<usize>,
}

impl Network {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let (forgotten, told) = watch::channel(0);
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (worker, _) = listener.accept().await.unwrap();
                let upstream = TcpStream::connect(server()).await.unwrap();
                let number = count.fetch_add(1, Ordering::SeqCst);
                let ((from_worker, to_worker), (from_server, to_server)) = (worker.into_split(), upstream.into_split());
                tokio::spawn(pass(from_worker, to_server, number, told.clone()));
                tokio::spawn(pass(from_server, to_worker, number, told.clone()));
            }
        });
        Self { address, connections, forgotten }
    }

    /// Present connections stay as they are, to both ends; new ones are not touched.
    fn forget(&self) {
        self.forgotten.send_replace(self.connections.load(Ordering::SeqCst));
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, number: usize, forgotten: watch::Receiver<usize>) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(size @ 1..) = from.read(&mut piece).await {
        if *forgotten.borrow() <= number && to.write_all(&piece[..size]).await.is_err() {
            return;
        }
    }
    if *forgotten.borrow() > number {
        // Neither is the end told.
        to.forget();
    }
}

#[tokio::test]
async fn handlers_notice_nothing_and_what_was_on_its_way_comes_again() {
    let (queue, network) = (queue(), Network::new().await);
    let (begun, finish) = (Gate::new(), Gate::new());
    let gates = (begun.clone(), finish.clone());
    let worker = Worker::new(network.address.as_str())
        .heartbeat_interval(Duration::from_secs(4))
        .resume_grace(Duration::from_secs(12))
        .handler(&queue, 2, move |job: Job| {
            let (begun, finish) = gates.clone();
            async move {
                begun.open();
                finish.pass().await;
                Ok(job.stop_reason().is_none())
            }
        });
    let worker = Running::start(worker);
    let mut held = Vec::new();
    for n in 0..2 {
        held.push(client().publish(&queue, NewJob::new(&n).unwrap()).await.unwrap().job_id);
        begun.pass().await;
    }
    network.forget();
    // One ends while nothing arrives, the other when there is a new connection.
    finish.open();
    common::soon(async {
        while network.connections.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    finish.open();
    for job_id in &held {
        let job = finished(&queue, job_id).await;
        assert_eq!((job.state(), job.output.as_str(), job.attempt), (JobState::Completed, "true", 1));
    }
    worker.stop().await.unwrap();
}
