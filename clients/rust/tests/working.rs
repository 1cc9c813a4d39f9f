//! A worker and its handlers, against a running server.

mod common;

use std::collections::HashMap;
use std::time::Duration;

use common::{Gate, Running, becomes, client, finished, queue, server, soon};
use jobwire::v1::admin_service_client::AdminServiceClient;
use jobwire::v1::queue_service_client::QueueServiceClient;
use jobwire::v1::{CancelJobsRequest, DrainSessionRequest, JobState, Resume, SubscribeRequest};
use jobwire::{Code, Job, JobError, NewJob, StopReason, Worker};
use serde_json::{Value, json};
use tokio::sync::mpsc;

async fn published(queue: &str, data: Value) -> String {
    let job = NewJob::new(&data).unwrap().retry_delay(Duration::ZERO);
    client().publish(queue, job).await.unwrap().job_id
}

/// Says that it has begun, and ends when it is told to stop, saying why.
async fn until_stopped(job: Job, begun: Gate, said: mpsc::UnboundedSender<StopReason>) -> Result<(), JobError> {
    begun.open();
    soon(job.cancelled().cancelled()).await;
    said.send(job.stop_reason().unwrap())?;
    Err(JobError::stopped())
}

#[tokio::test]
async fn what_a_handler_returns_is_the_jobs_output() {
    let queue = queue();
    let worker = Running::handling(&queue, async |job: Job| Ok(job.data::<Value>()?["n"].clone()));
    let (number, none) = (published(&queue, json!({"n": 7})).await, published(&queue, json!({})).await);
    assert_eq!(finished(&queue, &number).await.output_as::<i32>().unwrap(), Some(7));
    let job = finished(&queue, &none).await;
    assert_eq!((job.state(), job.output.as_str()), (JobState::Completed, ""));
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_pause_that_is_too_long_is_the_longest() {
    let queue = queue();
    let worker = Running::handling(&queue, async |job: Job| match job.data::<String>()?.as_str() {
        "retry" => Err::<(), _>(JobError::new("Later", "").retry_in(Duration::MAX)),
        _ => Err(JobError::release(Some(Duration::MAX))),
    });
    let (retried, released) = (published(&queue, json!("retry")).await, published(&queue, json!("release")).await);
    becomes(&queue, &retried, |job| (job.state(), job.retry_count) == (JobState::Retry, 1)).await;
    becomes(&queue, &released, |job| (job.state(), job.release_count) == (JobState::Retry, 1)).await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_queue_has_one_handler() {
    let twice = Worker::new(server()).handler("mail", 1, async |_| Ok(())).handler("mail", 1, async |_| Ok(()));
    let error = soon(twice.run_without_signals()).await.unwrap_err();
    assert!(error.message.contains("\"mail\" has a handler already"), "{error}");
}

#[tokio::test]
async fn an_error_fails_the_run_by_its_kind_and_is_tried_again() {
    let queue = queue();
    let worker = Running::handling(&queue, async |job: Job| {
        if job.attempt() == 1 {
            "x".parse::<i32>()?;
        }
        match job.data::<String>()?.as_str() {
            "hopeless" => Err(JobError::new("BadWorkbook", "no sheet").for_good()),
            _ => Ok(job.attempt()),
        }
    });
    let (flaky, hopeless) = (published(&queue, json!("flaky")).await, published(&queue, json!("hopeless")).await);
    let job = finished(&queue, &flaky).await;
    assert_eq!((job.state(), job.output.as_str(), job.retry_count), (JobState::Completed, "2", 1));
    let error = &job.errors[0];
    assert_eq!((error.r#type.as_str(), error.message.as_str()), ("ParseIntError", "invalid digit found in string"));
    let job = finished(&queue, &hopeless).await;
    assert_eq!((job.state(), job.attempt, job.errors[1].r#type.as_str()), (JobState::Failed, 2, "BadWorkbook"));
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_panic_fails_the_job_and_nothing_else() {
    let queue = queue();
    // The first panics before there is a future, the second one inside it.
    let worker = Running::handling(&queue, |job: Job| {
        assert_ne!(job.data::<Value>().unwrap(), json!("at once"), "at once");
        async move {
            assert_ne!(job.data::<Value>().unwrap(), json!("later"), "later");
            Ok(())
        }
    });
    for data in ["at once", "later"] {
        let job = client().publish(&queue, NewJob::new(&data).unwrap().retry_limit(0)).await.unwrap();
        let job = finished(&queue, &job.job_id).await;
        assert_eq!((job.state(), job.errors[0].r#type.as_str()), (JobState::Failed, "Panic"));
        assert!(job.errors[0].message.contains(data), "{:?}", job.errors);
    }
    let well = published(&queue, json!("well")).await;
    assert_eq!(finished(&queue, &well).await.state(), JobState::Completed);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_result_that_cannot_be_stored_fails_its_job_and_no_other() {
    let queue = queue();
    let gate = Gate::new();
    let both = gate.clone();
    let worker = Running::handling(&queue, move |job: Job| {
        let gate = both.clone();
        async move {
            gate.pass().await;
            Ok(match job.data::<Value>()?.as_str() {
                Some("no JSON") => Err(HashMap::from([([1, 2], 3)])),
                Some("too large for the queue") => Ok("x".repeat(100_000)),
                _ => Ok("well".to_owned()),
            })
        }
    });
    let mut ids = Vec::new();
    for data in ["no JSON", "too large for the queue", "well"] {
        ids.push(published(&queue, json!(data)).await);
    }
    // Their ends go out together.
    (0..3).for_each(|_| gate.open());
    for id in &ids[..2] {
        let job = finished(&queue, id).await;
        assert_eq!((job.state(), job.attempt, job.errors[0].r#type.as_str()), (JobState::Failed, 1, "BadResult"));
    }
    assert_eq!(finished(&queue, &ids[2]).await.output, r#"{"Ok":"well"}"#);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_run_leaves_as_it_fails_is_there_for_the_next() {
    let queue = queue();
    let worker = Running::handling(&queue, async |job: Job| {
        let page = job.checkpoint::<i32>()?.unwrap_or_default();
        if page == 3 {
            return Ok(page);
        }
        job.progress(f64::from(page) / 3.0, &format!("page {page}"));
        // The second word comes too soon after the first to be sent with it.
        job.save_checkpoint(&(page + 1))?;
        Err(if page == 2 { JobError::release(Some(Duration::ZERO)) } else { JobError::new("Interrupted", "") })
    });
    let id = published(&queue, json!(null)).await;
    let job = finished(&queue, &id).await;
    assert_eq!((job.state(), job.output.as_str(), job.attempt), (JobState::Completed, "3", 4));
    assert_eq!((job.retry_count, job.release_count), (2, 1));
    assert_eq!(job.progress.unwrap().note, "page 2");
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_time_limit_is_moved_by_what_it_may_be() {
    let queue = queue();
    let worker = Running::handling(&queue, async |job: Job| {
        assert_eq!(job.extend(Duration::from_millis(10)).await.unwrap_err().code, Code::InvalidArgument);
        job.extend(Duration::from_secs(3600)).await?;
        // It was answered: the limit of one second is moved already.
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(job.stop_reason().is_none())
    });
    let job = NewJob::new(&()).unwrap().expire_in(Duration::from_secs(1)).retry_limit(0);
    let job = client().publish(&queue, job).await.unwrap();
    assert_eq!(finished(&queue, &job.job_id).await.output, "true");
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_handler_is_told_why_it_is_to_stop() {
    let (queue, begun, (said, mut reasons)) = (queue(), Gate::new(), mpsc::unbounded_channel());
    let given = begun.clone();
    let worker = Running::handling(&queue, move |job| until_stopped(job, given.clone(), said.clone()));
    let cancelled = published(&queue, json!(null)).await;
    begun.pass().await;
    let mut admin = AdminServiceClient::connect(format!("http://{}", server())).await.unwrap();
    let request = CancelJobsRequest { queue: queue.clone(), job_ids: vec![cancelled.clone()] };
    admin.cancel_jobs(request).await.unwrap();
    assert_eq!(soon(reasons.recv()).await, Some(StopReason::Requested));
    assert_eq!(finished(&queue, &cancelled).await.state(), JobState::Cancelled);

    let limit = NewJob::new(&()).unwrap().expire_in(Duration::from_secs(1)).retry_limit(0);
    let expired = client().publish(&queue, limit).await.unwrap().job_id;
    begun.pass().await;
    assert_eq!(soon(reasons.recv()).await, Some(StopReason::Expired));
    assert_eq!(finished(&queue, &expired).await.errors[0].r#type, "EXPIRED");

    let given_back = published(&queue, json!(null)).await;
    begun.pass().await;
    worker.stopper.stop_now();
    assert_eq!(soon(reasons.recv()).await, Some(StopReason::Stopping));
    worker.ends().await.unwrap();
    let job = client().get_job(&queue, &given_back).await.unwrap();
    assert_eq!((job.is_finished(), job.release_count, job.retry_count), (false, 1, 0));
}

#[tokio::test]
async fn a_stop_lets_handlers_finish_and_reports_it_before_it_ends() {
    let (queue, begun, end) = (queue(), Gate::new(), Gate::new());
    let given = (begun.clone(), end.clone());
    let worker = Running::handling(&queue, move |_| {
        let (begun, end) = given.clone();
        async move {
            begun.open();
            end.pass().await;
            Ok("in the grace")
        }
    });
    let id = published(&queue, json!(null)).await;
    begun.pass().await;
    worker.stopper.stop();
    let later = published(&queue, json!("later")).await;
    end.open();
    worker.ends().await.unwrap();
    let job = client().get_job(&queue, &id).await.unwrap();
    assert_eq!((job.state(), job.output.as_str()), (JobState::Completed, r#""in the grace""#));
    assert!(!client().get_job(&queue, &later).await.unwrap().is_finished());
}

#[tokio::test]
async fn a_grace_without_end_lets_handlers_finish() {
    let (queue, begun, go_on) = (queue(), Gate::new(), Gate::new());
    let (starts, goes_on) = (begun.clone(), go_on.clone());
    let worker = Worker::new(server()).stop_grace(Duration::MAX).handler(&queue, 1, move |_| {
        let (starts, goes_on) = (starts.clone(), goes_on.clone());
        async move {
            starts.open();
            goes_on.pass().await;
            Ok(7)
        }
    });
    let worker = Running::start(worker);
    let job = client().with_timeout(Duration::MAX).publish(&queue, NewJob::new(&1).unwrap()).await.unwrap().job_id;
    begun.pass().await;
    worker.stopper.stop();
    go_on.open();
    worker.ends().await.unwrap();
    assert_eq!(finished(&queue, &job).await.output, "7");
}

#[tokio::test]
async fn a_handler_that_does_not_stop_is_dropped_and_its_job_given_back() {
    let (queue, begun) = (queue(), Gate::new());
    let given = begun.clone();
    let deaf = move |_| {
        let begun = given.clone();
        async move {
            begun.open();
            std::future::pending::<Result<(), JobError>>().await
        }
    };
    let worker = Running::start(Worker::new(server()).stop_grace(Duration::ZERO).handler(&queue, 1, deaf));
    let id = published(&queue, json!(null)).await;
    begun.pass().await;
    worker.stop().await.unwrap();
    let job = client().get_job(&queue, &id).await.unwrap();
    assert_eq!((job.is_finished(), job.release_count), (false, 1));
}

#[tokio::test]
async fn a_worker_that_is_asked_to_leave_finishes_what_runs_and_ends() {
    let (queue, begun, end) = (queue(), Gate::new(), Gate::new());
    let given = (begun.clone(), end.clone());
    let worker = Running::start(Worker::new(server()).stop_grace(Duration::ZERO).handler(&queue, 2, move |_| {
        let (begun, end) = given.clone();
        async move {
            begun.open();
            end.pass().await;
            Ok(())
        }
    }));
    let id = published(&queue, json!(null)).await;
    begun.pass().await;
    let session_id = client().get_job(&queue, &id).await.unwrap().session_id;
    let mut admin = AdminServiceClient::connect(format!("http://{}", server())).await.unwrap();
    admin.drain_session(DrainSessionRequest { session_id }).await.unwrap();
    // Longer than a stop would let it be.
    tokio::time::sleep(Duration::from_secs(4)).await;
    end.open();
    worker.ends().await.unwrap();
    let job = client().get_job(&queue, &id).await.unwrap();
    assert_eq!((job.state(), job.attempt), (JobState::Completed, 1));
}

#[tokio::test]
async fn a_worker_whose_session_is_taken_over_stops_its_handlers_and_opens_another_one() {
    let (queue, begun, (said, mut reasons)) = (queue(), Gate::new(), mpsc::unbounded_channel());
    let given = begun.clone();
    let worker = Running::handling(&queue, move |job: Job| {
        let (begun, said) = (given.clone(), said.clone());
        async move { if job.attempt() == 1 { until_stopped(job, begun, said).await } else { Ok(()) } }
    });
    let id = published(&queue, json!(null)).await;
    begun.pass().await;
    let session_id = becomes(&queue, &id, |job| job.state() == JobState::Active).await.session_id;
    // Whoever resumes without naming a higher epoch gets the next one; what it does not hold is given back.
    let resume = Some(Resume { session_id: session_id.clone(), ..Default::default() });
    let request = SubscribeRequest { queues: vec![self::queue()], resume, ..Default::default() };
    let mut thief = QueueServiceClient::connect(format!("http://{}", server())).await.unwrap();
    let stream = thief.subscribe(request).await.unwrap();
    assert_eq!(soon(reasons.recv()).await, Some(StopReason::LeaseLost));
    let job = finished(&queue, &id).await;
    assert_eq!((job.state(), job.attempt, job.retry_count), (JobState::Completed, 2, 0));
    drop(stream);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_worker_that_can_never_work_says_why() {
    let nothing = async |_| Ok(());
    let cases = [
        (Worker::new(server()), "has no handlers"),
        (Worker::new(server()).handler(queue(), 0, nothing), "between 1 and 1000"),
        (Worker::new(server()).handler("no queue's name", 1, nothing), "queues[0]"),
        (Worker::new("nowhere").handler(queue(), 1, nothing), "give host:port"),
    ];
    for (worker, says) in cases {
        let error = soon(worker.run_without_signals()).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.contains(says), "{error}");
    }
}
