//! A job to be published.

use std::time::Duration;

use serde::Serialize;

use crate::errors::Error;
use crate::v1::{JobOptions, JobSpec, job_spec};
use crate::wire::{MAX_DATA_BYTES, to_duration, to_json};

/// A job to be published. It has its id from the start, so publishing it again is safe, and stores it once.
///
/// What has no method here (keys, groups, headers, throttling) is said in a [`JobSpec`], which turns into a `NewJob`.
#[derive(Clone, Debug)]
pub struct NewJob {
    pub(crate) spec: JobSpec,
}

impl NewJob {
    /// A job with this payload, which carries keys rather than content: at most 64 KiB of JSON, or what the queue allows.
    ///
    /// Errors: INVALID_ARGUMENT for what is not JSON, or is larger than any queue allows (512 KiB).
    pub fn new(data: &impl Serialize) -> Result<Self, Error> {
        Ok(JobSpec { data: to_json(data, MAX_DATA_BYTES)?, ..Default::default() }.into())
    }

    /// A UUID of your own instead of the one that was made, for a caller who must not publish twice across restarts.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.spec.id = id.into();
        self
    }

    /// Higher is delivered first. Default 0.
    pub fn priority(mut self, priority: i32) -> Self {
        self.spec.priority = priority;
        self
    }

    /// Not before this pause is over, at most 3650 days.
    pub fn start_in(mut self, pause: Duration) -> Self {
        self.spec.start = Some(job_spec::Start::StartIn(to_duration(pause)));
        self
    }

    /// How often a failed run is tried again. Default: as the queue says, which is 2 if it says nothing.
    pub fn retry_limit(mut self, retries: i32) -> Self {
        self.options().retry_limit = Some(retries);
        self
    }

    /// The pause before the first retry. Default: as the queue says, which is 1 s if it says nothing.
    pub fn retry_delay(mut self, pause: Duration) -> Self {
        self.options().retry_delay = Some(to_duration(pause));
        self
    }

    /// How long one run may take. Default: as the queue says, which is 15 minutes if it says nothing.
    pub fn expire_in(mut self, limit: Duration) -> Self {
        self.options().expire_in = Some(to_duration(limit));
        self
    }

    fn options(&mut self) -> &mut JobOptions {
        self.spec.options.get_or_insert_default()
    }
}

impl From<JobSpec> for NewJob {
    /// Gives it an id if it has none.
    fn from(mut spec: JobSpec) -> Self {
        if spec.id.is_empty() {
            // Version 7 sorts by time, as the index of the jobs likes it.
            spec.id = uuid::Uuid::now_v7().to_string();
        }
        Self { spec }
    }
}
