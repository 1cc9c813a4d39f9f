//! Follows one job to its end by long polls, across restarts of the server.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use crate::connection::Connection;
use crate::errors::Error;
use crate::retrying::Backoff;
use crate::v1::{GetJobRequest, Job};
use crate::wire::to_duration;

/// How long one GetJob waits; proxies rarely cut a call that is this short.
const LONG_POLL: Duration = Duration::from_secs(30);

/// How much longer than its wait a long poll may take.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// An unchanged job that comes back faster than this means that waits end early, as they do when the server drains.
const QUICK: Duration = Duration::from_secs(1);

pub(crate) async fn to_the_end(
    connection: &Connection,
    queue: &str,
    job_id: &str,
    within: Option<Duration>,
) -> Result<Job, Error> {
    let mut following = Following { connection, queue, job_id, known: None, last_error: None };
    match within {
        None => following.finished().await,
        Some(within) => match tokio::time::timeout(within, following.finished()).await {
            Ok(end) => end,
            Err(_) => Err(following.out_of_time(within)),
        },
    }
}

struct Following<'a> {
    connection: &'a Connection,
    queue: &'a str,
    job_id: &'a str,
    known: Option<Job>,
    last_error: Option<Error>,
}

impl Following<'_> {
    async fn finished(&mut self) -> Result<Job, Error> {
        let mut backoff = Backoff::new();
        loop {
            let asked = Instant::now();
            let job = match self.poll().await {
                Ok(job) => job,
                Err(error) if error.is_worth_repeating() => {
                    let pause = backoff.pause(error.retry_after);
                    self.last_error = Some(error);
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.last_error = None;
            if job.is_finished() {
                return Ok(job);
            }
            let changed = self.known.as_ref().is_none_or(|known| known.revision != job.revision);
            self.known = Some(job);
            if changed || asked.elapsed() >= QUICK {
                backoff.reset();
            } else {
                tokio::time::sleep(backoff.pause(None)).await;
            }
        }
    }

    /// Asks once: the first time for the job as it is, then for its end.
    async fn poll(&self) -> Result<Job, Error> {
        let wait = if self.known.is_some() { LONG_POLL } else { Duration::ZERO };
        let request = GetJobRequest {
            queue: self.queue.into(),
            job_id: self.job_id.into(),
            wait: Some(to_duration(wait)),
            known_revision: self.known.as_ref().map(|known| known.revision.clone()).unwrap_or_default(),
            until_finished: true,
        };
        let method = |mut stub: crate::connection::Stub, request| async move { stub.get_job(request).await };
        Ok(self.connection.attempt(method, request, wait + ANSWER_TIME).await?.job.unwrap_or_default())
    }

    fn out_of_time(&self, within: Duration) -> Error {
        let seen = match &self.known {
            Some(job) => format!("it was {} when last seen", job.state_name()),
            None => "it was never seen".to_owned(),
        };
        let trouble = self.last_error.as_ref().map(|error| format!("; the last attempt failed: {error}"));
        let message = format!(
            "job {} did not finish within {} s, {seen}{}",
            self.job_id,
            within.as_secs_f64(),
            trouble.unwrap_or_default()
        );
        Error::new(Code::DeadlineExceeded, "", message)
    }
}
