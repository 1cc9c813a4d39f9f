//! The driver of a client on the bare stubs, as in examples/publish.rs and examples/thin_worker.rs: it answers heartbeats, and does not
//! resume: when its stream ends it opens another session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jobwire::v1::queue_service_client::QueueServiceClient;
use jobwire::v1::subscribe_response::Event;
use jobwire::v1::{
    AckItem, AckRequest, CancelReason, Complete, Extend, Fail, GetJobRequest, JobOptions, JobSpec, Progress,
    PublishRequest, Release, SubscribeRequest, ack_item::Outcome, job_spec::Start,
};
use jobwire::{Code, Error, v1};
use prost_types::Duration as Span;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::lines::{confused, said, say, seconds, shown_job, shown_results, started, text};

const CLAIMS: &str = "publish republish oversize deliver ack fail retry progress extend cancel slow-reader \
    bad-token tls no-tls wrong-port older-server newer-server draining-server gone-server";

/// Where to connect to, as the last `connect` said.
#[derive(Clone)]
struct Connection {
    target: String,
    stub: QueueServiceClient<Channel>,
    token: Option<String>,
    timeout: Duration,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    session_id: String,
    last_sequence: i64,
    /// Of the deliveries in hand, by job.
    handles: HashMap<String, String>,
}

pub struct Driver {
    state: Arc<Mutex<State>>,
    stop: CancellationToken,
    worker_ended: CancellationToken,
}

impl Driver {
    pub fn new() -> Self {
        Self { state: Arc::default(), stop: CancellationToken::new(), worker_ended: CancellationToken::new() }
    }

    pub async fn answer(&self, request: &Value) -> Result<Value, Error> {
        match text(request, "do") {
            "about" => {
                return Ok(
                    json!({"client": "rust", "form": "thin", "claims": CLAIMS.split_whitespace().collect::<Vec<_>>()}),
                );
            }
            "connect" => self.connect(request)?,
            "publish" => return self.publish(request).await,
            "get" => return Ok(shown_job(&self.get(request, Duration::ZERO).await?)),
            "wait" => {
                let wait = seconds(request, "timeout").unwrap_or_default().min(Duration::from_secs(60));
                return Ok(shown_job(&self.get(request, wait).await?));
            }
            "work" => self.work(request).await?,
            "end" => {
                let outcome = match text(request, "as") {
                    "complete" => Outcome::Complete(Complete { output: request["output"].to_string() }),
                    "release" => Outcome::Release(Release { delay: span(request, "delay") }),
                    _ => Outcome::Fail(Fail {
                        r#type: text(request, "type").into(),
                        message: text(request, "message").into(),
                        permanent: request["permanent"] == true,
                        retry_in: span(request, "retry_in"),
                        ..Default::default()
                    }),
                };
                self.ack(request, outcome).await?;
            }
            "progress" => {
                let checkpoint = &request["checkpoint"];
                let progress = Progress {
                    fraction: request["fraction"].as_f64(),
                    note: text(request, "note").into(),
                    checkpoint: (!checkpoint.is_null()).then(|| checkpoint.to_string()),
                };
                self.ack(request, Outcome::Extend(Extend { progress: Some(progress), expire_in: None })).await?;
            }
            "extend" => {
                let extend = Extend { expire_in: span(request, "seconds"), progress: None };
                self.ack(request, Outcome::Extend(extend)).await?;
            }
            "stop" => {
                self.stop.cancel();
                self.worker_ended.cancelled().await;
            }
            other => return Err(confused(format!("{other} is nothing to do"))),
        }
        Ok(json!({}))
    }

    fn connect(&self, request: &Value) -> Result<(), Error> {
        let target = text(request, "target").to_owned();
        let timeout = seconds(request, "timeout").unwrap_or_default();
        let confused = |error: &dyn std::error::Error| confused(error.to_string());
        let endpoint = match request["ca_file"].as_str() {
            None => Endpoint::from_shared(format!("http://{target}")),
            Some(ca_file) => {
                let pem = std::fs::read(ca_file).map_err(|error| confused(&error))?;
                let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
                Endpoint::from_shared(format!("https://{target}")).and_then(|endpoint| endpoint.tls_config(tls))
            }
        };
        let endpoint = endpoint.map_err(|error| confused(&error))?;
        let stub = QueueServiceClient::new(endpoint.connect_lazy());
        let token = request["token"].as_str().map(|token| format!("Bearer {token}"));
        self.state.lock().unwrap().connection = Some(Connection { target, stub, token, timeout });
        Ok(())
    }

    async fn publish(&self, request: &Value) -> Result<Value, Error> {
        let jobs = request["jobs"].as_array().into_iter().flatten().map(spec).collect();
        let call = PublishRequest { queue: text(request, "queue").into(), jobs };
        let connection = self.connection()?;
        let deadline = tokio::time::Instant::now() + connection.timeout;
        loop {
            // The ids were made here, so the call is safe to repeat.
            match connection.stub.clone().publish(connection.with(call.clone())).await {
                Ok(answer) => return Ok(shown_results(&answer.into_inner().results)),
                Err(status) => {
                    let error = connection.error(&status);
                    if !error.is_worth_repeating() || tokio::time::Instant::now() > deadline {
                        return Err(error);
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    async fn get(&self, request: &Value, wait: Duration) -> Result<v1::Job, Error> {
        let mut connection = self.connection()?;
        let call = GetJobRequest {
            queue: text(request, "queue").into(),
            job_id: text(request, "job_id").into(),
            wait: Span::try_from(wait).ok(),
            until_finished: true,
            ..Default::default()
        };
        let answer = connection.stub.get_job(connection.with(call)).await;
        Ok(answer.map_err(|status| connection.error(&status))?.into_inner().job.unwrap_or_default())
    }

    async fn work(&self, request: &Value) -> Result<(), Error> {
        let mut connection = self.connection()?;
        let call = SubscribeRequest {
            queues: vec![text(request, "queue").into()],
            max_in_flight: request["concurrency"].as_i64().map(|places| places as i32),
            worker: text(request, "name").into(),
            heartbeat_interval: span(request, "heartbeat_interval"),
            resume_grace: span(request, "resume_grace"),
            ..Default::default()
        };
        let (state, stop, worker_ended) = (self.state.clone(), self.stop.clone(), self.worker_ended.clone());
        tokio::spawn(async move {
            let end = tokio::select! {
                error = work(&state, &mut connection, call) => Err(error),
                () = stop.cancelled() => leave(&state, &connection).await,
            };
            say(&json!({"event": "worker_ended", "error": end.err().as_ref().map(said)}));
            worker_ended.cancel();
        });
        Ok(())
    }

    async fn ack(&self, request: &Value, outcome: Outcome) -> Result<(), Error> {
        let mut connection = self.connection()?;
        let call = {
            let mut state = self.state.lock().unwrap();
            let job_id = text(request, "job_id");
            // Once it is settled the job may come again, sooner than the answer.
            let last_word = !matches!(outcome, Outcome::Extend(_));
            let handle = if last_word { state.handles.remove(job_id) } else { state.handles.get(job_id).cloned() };
            let handle = handle.ok_or_else(|| confused("no handler of that job runs".into()))?;
            let items = vec![AckItem { handle, outcome: Some(outcome) }];
            AckRequest { items, ..sign(&state) }
        };
        let answer = connection.stub.ack(connection.with(call)).await;
        answer.map_err(|status| connection.error(&status)).map(drop)
    }

    fn connection(&self) -> Result<Connection, Error> {
        self.state.lock().unwrap().connection.clone().ok_or_else(|| confused("connect first".into()))
    }
}

impl Connection {
    fn with<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.parse().expect("tokens are ASCII"));
        }
        request
    }

    fn error(&self, status: &Status) -> Error {
        Error::from_status(status, &self.target)
    }
}

/// Opens one session after the other, until it is refused for good.
async fn work(state: &Mutex<State>, connection: &mut Connection, call: SubscribeRequest) -> Error {
    let mut trouble = String::new();
    loop {
        let end = match connection.stub.subscribe(connection.with(call.clone())).await {
            Ok(stream) => follow(state, connection, stream.into_inner()).await,
            Err(status) => Err(status),
        };
        if let Err(status) = end {
            let error = connection.error(&status);
            if matches!(error.code, Code::InvalidArgument | Code::Unauthenticated | Code::Unimplemented) {
                return error;
            }
            if error.message != trouble {
                say(&json!({"event": "warning", "message": error.message}));
                trouble = error.message;
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Reads the stream to its end.
async fn follow(
    state: &Mutex<State>,
    connection: &Connection,
    mut stream: Streaming<v1::SubscribeResponse>,
) -> Result<(), Status> {
    let mut stub = connection.stub.clone();
    while let Some(message) = stream.message().await? {
        state.lock().unwrap().last_sequence = message.sequence;
        match message.event {
            Some(Event::Opened(opened)) => state.lock().unwrap().session_id = opened.session_id,
            Some(Event::Deliveries(jobs)) => {
                for job in jobs.deliveries {
                    state.lock().unwrap().handles.insert(job.job_id.clone(), job.handle.clone());
                    started(&job);
                }
            }
            Some(Event::Cancellation(told)) => {
                say(&json!({"event": "stopping", "job_id": told.job_id, "reason": ""}));
                state.lock().unwrap().handles.remove(&told.job_id);
                let outcome = match told.reason() {
                    CancelReason::Expired => Outcome::Fail(Fail { r#type: "EXPIRED".into(), ..Default::default() }),
                    _ => Outcome::Release(Release::default()),
                };
                let items = vec![AckItem { handle: told.handle, outcome: Some(outcome) }];
                let call = AckRequest { items, ..sign(&state.lock().unwrap()) };
                stub.ack(connection.with(call)).await?;
            }
            Some(Event::Heartbeat(_)) => {
                let call = sign(&state.lock().unwrap());
                stub.ack(connection.with(call)).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// What it still holds is given back at once.
async fn leave(state: &Mutex<State>, connection: &Connection) -> Result<(), Error> {
    let call = AckRequest { close_session: true, ..sign(&state.lock().unwrap()) };
    let answer = connection.stub.clone().ack(connection.with(call)).await;
    answer.map_err(|status| connection.error(&status)).map(drop)
}

/// A sign of life, to be filled.
fn sign(state: &State) -> AckRequest {
    AckRequest { session_id: state.session_id.clone(), last_sequence: state.last_sequence, ..Default::default() }
}

fn spec(job: &Value) -> JobSpec {
    JobSpec {
        id: job["id"].as_str().map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned),
        data: job["data"].to_string(),
        priority: job["priority"].as_i64().unwrap_or_default() as i32,
        start: span(job, "start_in").map(Start::StartIn),
        options: Some(JobOptions {
            retry_limit: job["retry_limit"].as_i64().map(|retries| retries as i32),
            retry_delay: span(job, "retry_delay"),
            expire_in: span(job, "expire_in"),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn span(request: &Value, field: &str) -> Option<Span> {
    seconds(request, field).and_then(|span| Span::try_from(span).ok())
}
