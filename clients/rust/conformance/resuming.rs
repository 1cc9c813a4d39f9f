//! The driver of the library: its Client and its Worker.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use jobwire::{Client, Error, Job, JobError, NewJob, StopReason, Stopper, Target, Worker};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::lines::{confused, said, say, seconds, shown_job, shown_results, started, text};

const CLAIMS: &str = "publish republish oversize deliver ack fail retry progress sigterm stale-lease extend cancel \
    slow-reader resume-after-cut resume-elsewhere peer-vanishes drain server-restart storm bad-token tls no-tls \
    wrong-port older-server newer-server draining-server gone-server refused-progress checkpoint-first \
    unanswered-stop lost-lease unsure-credits receipt";

/// How a handler is to end.
type End = Result<Value, JobError>;

#[derive(Default)]
struct State {
    target: Option<Target>,
    client: Option<Client>,
    stopper: Option<Stopper>,
    stop_asked: bool,
    /// The handlers that run and have not been told how to end, by job.
    runs: HashMap<String, (Job, oneshot::Sender<End>)>,
}

/// Answers requests; keeps one connection, one worker, and the handlers that run.
pub struct Driver {
    state: std::sync::Arc<Mutex<State>>,
    worker_ended: CancellationToken,
    /// Cancelled when the worker has ended in order though nobody asked for that by a line, as after SIGTERM.
    ended: CancellationToken,
}

impl Driver {
    pub fn new(ended: CancellationToken) -> Self {
        Self { state: Default::default(), worker_ended: CancellationToken::new(), ended }
    }

    pub async fn answer(&self, request: &Value) -> Result<Value, Error> {
        match text(request, "do") {
            "about" => Ok(
                json!({"client": "rust", "form": "resuming", "claims": CLAIMS.split_whitespace().collect::<Vec<_>>()}),
            ),
            "connect" => self.connect(request),
            "publish" => self.publish(request).await,
            "get" => {
                let job = self.client()?.get_job(text(request, "queue"), text(request, "job_id")).await?;
                Ok(shown_job(&job))
            }
            "wait" => {
                let (queue, job_id) = (text(request, "queue"), text(request, "job_id"));
                Ok(shown_job(&self.client()?.wait(queue, job_id, seconds(request, "timeout")).await?))
            }
            "work" => self.work(request),
            "end" => self.end(request),
            "progress" => self.progress(request),
            "extend" => {
                let job = self.run(request)?;
                job.extend(seconds(request, "seconds").unwrap_or_default()).await?;
                Ok(json!({}))
            }
            "stop" => {
                self.stop(request["now"] == true).await;
                Ok(json!({}))
            }
            other => Err(confused(format!("{other} is nothing to do"))),
        }
    }

    /// Stops the worker, without a grace.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(10), self.stop(true)).await;
    }

    fn connect(&self, request: &Value) -> Result<Value, Error> {
        let mut target = Target::new(text(request, "target"));
        if let Some(ca_file) = request["ca_file"].as_str() {
            target = target.tls_with_ca(ca_file).map_err(|error| confused(error.to_string()))?;
        }
        if let Some(token) = request["token"].as_str() {
            target = target.token(token);
        }
        let client = Client::new(target.clone())?.with_timeout(seconds(request, "timeout").unwrap_or_default());
        let mut state = self.state.lock().unwrap();
        (state.client, state.target) = (Some(client), Some(target));
        Ok(json!({}))
    }

    async fn publish(&self, request: &Value) -> Result<Value, Error> {
        let jobs = request["jobs"].as_array().into_iter().flatten().map(new_job).collect::<Result<Vec<_>, _>>()?;
        Ok(shown_results(&self.client()?.publish_many(text(request, "queue"), jobs).await?))
    }

    fn work(&self, request: &Value) -> Result<Value, Error> {
        let mut state = self.state.lock().unwrap();
        let target = state.target.clone().ok_or_else(|| confused("connect first".into()))?;
        let concurrency = request["concurrency"].as_u64().unwrap_or(1) as usize;
        let (runs, deaf) = (self.state.clone(), request["deaf"] == true);
        let mut worker =
            Worker::new(target)
                .name(text(request, "name"))
                .handler(text(request, "queue"), concurrency, move |job| handle(runs.clone(), job, deaf));
        if let Some(grace) = seconds(request, "stop_grace") {
            worker = worker.stop_grace(grace);
        }
        if let Some(interval) = seconds(request, "heartbeat_interval") {
            worker = worker.heartbeat_interval(interval);
        }
        if let Some(grace) = seconds(request, "resume_grace") {
            worker = worker.resume_grace(grace);
        }
        state.stopper = Some(worker.stopper());
        let (shared, worker_ended, ended) = (self.state.clone(), self.worker_ended.clone(), self.ended.clone());
        tokio::spawn(async move {
            let end = worker.run().await;
            say(&json!({"event": "worker_ended", "error": end.as_ref().err().map(said)}));
            worker_ended.cancel();
            if end.is_ok() && !shared.lock().unwrap().stop_asked {
                ended.cancel();
            }
        });
        Ok(json!({}))
    }

    fn end(&self, request: &Value) -> Result<Value, Error> {
        let run = self.state.lock().unwrap().runs.remove(text(request, "job_id"));
        let (_, end) = run.ok_or_else(|| confused("no handler of that job runs".into()))?;
        // A handler that has just been told to stop listens no more.
        let _ = end.send(match text(request, "as") {
            "complete" => Ok(request["output"].clone()),
            "release" => Err(JobError::release(seconds(request, "delay"))),
            _ => Err(failure(request)),
        });
        Ok(json!({}))
    }

    fn progress(&self, request: &Value) -> Result<Value, Error> {
        let job = self.run(request)?;
        job.progress(request["fraction"].as_f64(), text(request, "note"));
        if !request["checkpoint"].is_null() {
            job.save_checkpoint(&request["checkpoint"])?;
        }
        Ok(json!({}))
    }

    async fn stop(&self, now: bool) {
        let stopper = {
            let mut state = self.state.lock().unwrap();
            state.stop_asked = true;
            state.stopper.clone()
        };
        if let Some(stopper) = stopper {
            if now {
                stopper.stop_now()
            } else {
                stopper.stop()
            }
            self.worker_ended.cancelled().await;
        }
    }

    fn client(&self) -> Result<Client, Error> {
        self.state.lock().unwrap().client.clone().ok_or_else(|| confused("connect first".into()))
    }

    fn run(&self, request: &Value) -> Result<Job, Error> {
        let state = self.state.lock().unwrap();
        let run = state.runs.get(text(request, "job_id"));
        run.map(|(job, _)| job.clone()).ok_or_else(|| confused("no handler of that job runs".into()))
    }
}

/// Says that it has started, and waits to be told how to end; a deaf one goes on when it is told to stop.
async fn handle(state: std::sync::Arc<Mutex<State>>, job: Job, deaf: bool) -> End {
    let (end, mut told) = oneshot::channel();
    state.lock().unwrap().runs.insert(job.id().to_owned(), (job.clone(), end));
    started(job.delivery());
    tokio::select! {
        end = &mut told => end.unwrap_or_else(|_| Err(JobError::stopped())),
        () = job.cancelled().cancelled() => {
            let reason = match job.stop_reason() {
                Some(StopReason::Requested) => "requested",
                Some(StopReason::Expired) => "expired",
                Some(StopReason::LeaseLost) => "lease_lost",
                Some(StopReason::Silence) => "silence",
                Some(StopReason::Stopping) => "stopping",
                None => "",
            };
            say(&json!({"event": "stopping", "job_id": job.id(), "reason": reason}));
            if deaf { told.await.unwrap_or_else(|_| Err(JobError::stopped())) } else { Err(JobError::stopped()) }
        }
    }
}

fn new_job(job: &Value) -> Result<NewJob, Error> {
    let mut new = NewJob::new(&job["data"])?;
    if let Some(id) = job["id"].as_str() {
        new = new.id(id);
    }
    if let Some(priority) = job["priority"].as_i64() {
        new = new.priority(priority as i32);
    }
    if let Some(pause) = seconds(job, "start_in") {
        new = new.start_in(pause);
    }
    if let Some(retries) = job["retry_limit"].as_i64() {
        new = new.retry_limit(retries as i32);
    }
    if let Some(pause) = seconds(job, "retry_delay") {
        new = new.retry_delay(pause);
    }
    if let Some(limit) = seconds(job, "expire_in") {
        new = new.expire_in(limit);
    }
    Ok(new)
}

fn failure(request: &Value) -> JobError {
    let error = JobError::new(text(request, "type"), text(request, "message"));
    match (request["permanent"] == true, seconds(request, "retry_in")) {
        (true, _) => error.for_good(),
        (false, Some(pause)) => error.retry_in(pause),
        (false, None) => error,
    }
}
