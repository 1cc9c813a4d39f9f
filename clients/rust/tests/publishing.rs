//! Publishing, looking and waiting, against a running server.

mod common;

use std::time::Duration;

use common::{Running, client, queue, server};
use jobwire::{Client, Code, NewJob, Target, Worker, v1};
use serde_json::json;

#[tokio::test]
async fn a_job_is_stored_once_however_often_it_is_published() {
    let (client, queue) = (client(), queue());
    let job = NewJob::new(&json!({"n": 1})).unwrap();
    let first = client.publish(&queue, job.clone()).await.unwrap();
    let again = client.publish(&queue, job).await.unwrap();
    assert_eq!((first.created, first.reason_name()), (true, ""));
    assert_eq!((again.created, again.reason_name(), again.data_differs), (false, "DUPLICATE_ID", false));
    let stored = client.get_job(&queue, &first.job_id).await.unwrap();
    assert_eq!((stored.data.as_str(), stored.state_name()), (r#"{"n":1}"#, "created".into()));
    assert!(!stored.is_finished());
}

#[tokio::test]
async fn a_long_list_is_split_and_keeps_its_order() {
    let (client, queue) = (client(), queue());
    // Too many for two calls, and of a size that makes the second one end early.
    let padding = |n: usize| if (1000..1100).contains(&n) { "x".repeat(40_000) } else { String::new() };
    let jobs: Vec<_> = (0..2100).map(|n| NewJob::new(&json!([n, padding(n)])).unwrap().id(id(n))).collect();
    let results = client.publish_many(&queue, jobs).await.unwrap();
    assert_eq!(results.len(), 2100);
    assert!(results.iter().enumerate().all(|(n, result)| result.created && result.job_id == id(n)));
}

fn id(n: usize) -> String {
    format!("00000000-0000-7000-8000-{n:012}")
}

#[tokio::test]
async fn a_job_that_breaks_a_rule_is_refused_by_the_name_of_its_field() {
    let mut spec = v1::JobSpec { priority: 1_000_000, ..Default::default() };
    spec.headers.insert("traceparent".into(), "00".into());
    let error = client().publish(&queue(), spec.into()).await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::InvalidArgument, "INVALID_ARGUMENT"));
    assert_eq!(error.field_violations[0].field, "jobs[0].priority");
    assert!(!error.is_worth_repeating());
}

#[tokio::test]
async fn what_no_queue_takes_is_refused_without_a_call() {
    let error = NewJob::new(&"x".repeat(600_000)).unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::InvalidArgument, "DATA_TOO_LARGE"));
    assert!(error.message.contains("store the content elsewhere"));
}

#[tokio::test]
async fn a_wait_that_takes_too_long_says_what_was_seen() {
    let (client, queue) = (client(), queue());
    let job = client.publish(&queue, NewJob::new(&()).unwrap()).await.unwrap();
    let error = client.wait(&queue, &job.job_id, Some(Duration::from_secs(1))).await.unwrap_err();
    assert_eq!(error.code, Code::DeadlineExceeded);
    assert!(error.message.contains("did not finish within 1 s, it was created when last seen"), "{error}");
}

#[tokio::test]
async fn where_nobody_listens_the_error_says_where_and_why() {
    // Bound and not listened on: it is nobody else's either.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let client = Client::new(format!("127.0.0.1:{port}")).unwrap().with_timeout(Duration::from_secs(1));
    let error = client.get_job("", "").await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    let says = format!("cannot reach Jobwire at 127.0.0.1:{port} (Connection refused");
    assert!(error.message.starts_with(&says), "{error}");
}

#[tokio::test]
async fn a_token_is_a_word_that_is_shown_to_nobody() {
    let target = Target::new(server()).token("SECRET");
    assert!(!format!("{target:?} {:?}", Client::new(target.clone()).unwrap()).contains("SECRET"));
    for token in ["", "two words", "tökén", "a\n"] {
        let error = Client::new(Target::new(server()).token(token)).unwrap_err();
        assert_eq!(error.message, "a token must be a word of plain ASCII, without blanks or ends of lines");
    }
}

#[tokio::test]
async fn a_time_may_be_for_ever() {
    let (client, queue) = (client().with_timeout(Duration::MAX), queue());
    let job = client.publish(&queue, NewJob::new(&()).unwrap()).await.unwrap();
    let worker =
        Running::start(Worker::new(server()).stop_grace(Duration::MAX).handler(&queue, 1, async |_| Ok("done")));
    let job = client.wait(&queue, &job.job_id, Some(Duration::MAX)).await.unwrap();
    assert_eq!(job.output_as::<String>().unwrap().as_deref(), Some("done"));
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_no_address_is_refused() {
    for address in ["", "localhost", "http://127.0.0.1:50051", "127.0.0.1:port"] {
        let error = Client::new(address).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{address}");
        assert!(error.message.contains("give host:port"), "{error}");
    }
    Client::new(format!("dns:///{}", server())).unwrap().publish(&queue(), NewJob::new(&1).unwrap()).await.unwrap();
}
