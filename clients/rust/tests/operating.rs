//! What an operator does, against a running server, and against one that hangs up.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Gate, PATIENCE, Running, client, finished, queue, server};
use jobwire::{Client, Code, JobError, NewJob, StopReason, Target, v1};

#[tokio::test]
async fn a_running_job_is_cancelled_and_who_did_it_is_on_record() {
    let (queue, started, told) = (queue(), Gate::new(), Arc::new(std::sync::Mutex::new(None)));
    let (begun, reason) = (started.clone(), told.clone());
    let worker = Running::handling(&queue, move |job| {
        let (begun, reason) = (begun.clone(), reason.clone());
        async move {
            begun.open();
            job.cancelled().cancelled().await;
            *reason.lock().unwrap() = job.stop_reason();
            Err::<(), _>(JobError::stopped())
        }
    });
    let operator = Client::new(Target::new(server()).actor("Ada, support")).unwrap().with_timeout(PATIENCE);
    let job_id = operator.publish(&queue, NewJob::new(&1).unwrap()).await.unwrap().job_id;
    started.pass().await;
    let cancel = v1::CancelJobsRequest { queue: queue.clone(), job_ids: vec![job_id.clone()] };
    let cancelled = operator.admin(cancel.clone()).await.unwrap();
    assert_eq!(cancelled.results[0].status(), v1::CancelStatus::Requested);
    assert_eq!(finished(&queue, &job_id).await.state_name(), "cancelled");
    assert_eq!(*told.lock().unwrap(), Some(StopReason::Requested));
    assert_eq!(operator.admin(cancel).await.unwrap().results[0].status(), v1::CancelStatus::AlreadyFinished);
    let done = operator.admin(v1::ListActionsRequest { queue, ..Default::default() }).await.unwrap();
    assert_eq!((done.actions[0].what.as_str(), done.actions[0].actor.as_str()), ("job.cancel", "Ada, support"));
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_refusal_has_reason_and_advice() {
    let (client, queue) = (client(), queue());
    let cancel = v1::CancelJobsRequest { queue: queue.clone(), job_ids: vec![uuid::Uuid::now_v7().to_string()] };
    let error = client.admin(cancel).await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::NotFound, "QUEUE_NOT_FOUND"));
    assert!(error.message.contains("create it with AdminService.CreateQueue"), "{error}");
    // A call that is made once is refused in the same way.
    let error = client.admin(v1::DeleteQueueRequest { name: queue, ..Default::default() }).await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::NotFound, "QUEUE_NOT_FOUND"));
}

#[tokio::test]
async fn only_what_is_safe_to_repeat_is_repeated() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(connection);
        }
    });
    let away = Client::new(address.as_str()).unwrap().with_timeout(Duration::from_secs(3));
    let error = away.admin(v1::ChangeJobsRequest::default()).await.unwrap_err();
    assert_eq!((error.code, calls.swap(0, Ordering::SeqCst)), (Code::Unavailable, 1), "{error}");
    let error = away.admin(v1::CancelJobsRequest::default()).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable, "{error}");
    assert!(calls.load(Ordering::SeqCst) > 1);
}
