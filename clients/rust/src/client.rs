//! The client: publish jobs, look at them, wait for them; and what an operator does.

use std::time::Duration;

use crate::connection::{Connection, Target};
use crate::errors::Error;
use crate::following;
use crate::new_job::NewJob;
use crate::operating::{Operation, operate};
use crate::v1::{GetJobRequest, Job, JobSpec, PublishRequest, PublishResult};
use crate::wire::{MAX_CALL_BYTES, MAX_CALL_ITEMS, size_in_call};

/// Talks to Jobwire. Clones share one connection, which is made with the first call and again whenever it breaks.
#[derive(Clone, Debug)]
pub struct Client {
    connection: Connection,
    timeout: Duration,
}

impl Client {
    /// A client of the server there; nothing is sent yet. To be called within a Tokio runtime.
    ///
    /// Errors: INVALID_ARGUMENT for what is no address, no certificate or no token.
    pub fn new(target: impl Into<Target>) -> Result<Self, Error> {
        Ok(Self { connection: Connection::new(&target.into())?, timeout: Duration::from_secs(10) })
    }

    /// How long each call may take, repetitions and pauses included. Default 10 s.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Stores one job; when this returns it is on disk, or `created` is false and `reason` says why it is not.
    ///
    /// Errors: INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED (no room for it within the timeout): nothing was stored.
    /// UNAVAILABLE, DEADLINE_EXCEEDED: it may be stored, and publishing the same `NewJob` again is safe.
    pub async fn publish(&self, queue: &str, job: NewJob) -> Result<PublishResult, Error> {
        let mut results = self.publish_call(queue, vec![job.spec]).await?;
        results.pop().ok_or_else(|| Error::new(tonic::Code::Internal, "", "the server answered for no job".into()))
    }

    /// Stores many jobs of one queue in their order; the results are in that order too.
    ///
    /// Up to 1,000 jobs and 3 MiB travel in one call and are stored all or none. More are split, and atomic only per call: if this fails, the
    /// calls before are stored. Repeating it with the same jobs is safe, and completes the rest.
    ///
    /// Errors: as `publish`; the timeout is for each call.
    pub async fn publish_many(
        &self,
        queue: &str,
        jobs: impl IntoIterator<Item = NewJob>,
    ) -> Result<Vec<PublishResult>, Error> {
        let mut results = Vec::new();
        for jobs in calls(jobs) {
            results.extend(self.publish_call(queue, jobs).await?);
        }
        Ok(results)
    }

    /// A job as it is now, live or finished. With an empty `queue` all are searched, and the newest job counts.
    ///
    /// Errors: NOT_FOUND if there is no such job, or its retention is over.
    pub async fn get_job(&self, queue: &str, job_id: &str) -> Result<Job, Error> {
        let request = GetJobRequest { queue: queue.into(), job_id: job_id.into(), ..Default::default() };
        let answer =
            self.connection.call(|mut stub, request| async move { stub.get_job(request).await }, request, self.timeout);
        Ok(answer.await?.job.unwrap_or_default())
    }

    /// Waits until a job is finished, and returns it; how it finished is in its `state`. Restarts of the server are waited out.
    ///
    /// `within` limits the whole wait; None waits for ever.
    ///
    /// Errors: DEADLINE_EXCEEDED if it did not finish in that time, NOT_FOUND if there is no such job.
    pub async fn wait(&self, queue: &str, job_id: &str, within: Option<Duration>) -> Result<Job, Error> {
        following::to_the_end(&self.connection, queue, job_id, within).await
    }

    /// Makes a call of AdminService, what an operator does: the request says which, such as [`CancelJobsRequest`](crate::v1::CancelJobsRequest).
    ///
    /// What the contract calls idempotent is repeated as the other calls are. ChangeJobs, UpdateJobs, PurgeQueue, DeleteQueue, RedriveJobs and
    /// UnblockKeys are made once, with the client's timeout or 15 s, whichever is longer; if their answer does not come, ListActions says what
    /// was done.
    ///
    /// Errors: those that the contract names for the call.
    pub async fn admin<M: Operation>(&self, request: M) -> Result<M::Answer, Error> {
        operate(&self.connection, request, self.timeout).await
    }

    async fn publish_call(&self, queue: &str, jobs: Vec<JobSpec>) -> Result<Vec<PublishResult>, Error> {
        let request = PublishRequest { queue: queue.into(), jobs };
        let answer =
            self.connection.call(|mut stub, request| async move { stub.publish(request).await }, request, self.timeout);
        Ok(answer.await?.results)
    }
}

/// What goes into each call, as much as it may carry.
fn calls(jobs: impl IntoIterator<Item = NewJob>) -> Vec<Vec<JobSpec>> {
    let mut calls: Vec<Vec<JobSpec>> = Vec::new();
    let mut size = 0;
    for NewJob { spec } in jobs {
        let more = size_in_call(&spec);
        match calls.last_mut() {
            Some(call) if call.len() < MAX_CALL_ITEMS && size + more <= MAX_CALL_BYTES => {
                call.push(spec);
                size += more;
            }
            _ => {
                calls.push(vec![spec]);
                size = more;
            }
        }
    }
    calls
}
