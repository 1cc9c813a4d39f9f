//! The runs of one handler: each delivery in hand, from its start to its end.
//!
//! A delivery that is dropped (its lease is gone) is no longer reported on, but its handler may need time to end; until then its place is not free,
//! and the server is asked for fewer jobs.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;

use indexmap::IndexMap;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::job::{Handle, Job, Word};
use crate::outcome::{Outcome, StopReason, panicked};
use crate::v1::Delivery;

/// A handler whose types are forgotten.
pub(crate) type Handler = Arc<dyn Fn(Job) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync>;

/// One delivery in the hands of a handler.
pub(crate) struct Run {
    pub(crate) job: Job,
    /// Its lease is gone, or it was given back: nothing is said of it any more.
    pub(crate) dropped: bool,
    /// Whether it has said something of its progress that is to be sent, which is not before `next_report`.
    pub(crate) reported: bool,
    pub(crate) next_report: Instant,
}

/// At most `size` runs at once.
pub(crate) struct Crew {
    pub(crate) runs: IndexMap<Handle, Run>,
    size: usize,
    handler: Handler,
    words: mpsc::UnboundedSender<Word>,
    tasks: JoinSet<Outcome>,
    handles: HashMap<Id, Handle>,
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crew({} of {})", self.runs.len(), self.size)
    }
}

impl Crew {
    pub(crate) fn new(size: usize, handler: Handler, words: mpsc::UnboundedSender<Word>) -> Self {
        let (runs, tasks, handles) = Default::default();
        Self { runs, size, handler, words, tasks, handles }
    }

    /// How many deliveries there may be at once, now: the size less what runs on without a lease.
    pub(crate) fn places(&self) -> usize {
        self.size - self.runs.values().filter(|run| run.dropped).count().min(self.size)
    }

    /// Whether no further delivery may be started.
    pub(crate) fn is_full(&self) -> bool {
        self.runs.len() >= self.size
    }

    /// Runs the handler on a delivery, as soon as `receipt` is cancelled, if there is one.
    pub(crate) fn start(&mut self, handle: Handle, delivery: Delivery, receipt: Option<CancellationToken>) {
        let job = Job::new(delivery, handle.clone(), self.words.clone());
        let (handler, given) = (self.handler.clone(), job.clone());
        let task = self.tasks.spawn(async move {
            if let Some(receipt) = receipt {
                tokio::select! {
                    () = receipt.cancelled() => {}
                    () = given.cancelled().cancelled() => {}
                }
            }
            if given.stop_reason().is_some() { Outcome::Stopped } else { handler(given).await }
        });
        self.handles.insert(task.id(), handle.clone());
        self.runs.insert(handle, Run { job, dropped: false, reported: false, next_report: Instant::now() });
    }

    /// Tells a handler to stop. How it ends is reported as ever.
    pub(crate) fn stop(&self, handle: &str, reason: StopReason) {
        if let Some(run) = self.runs.get(handle)
            && run.job.stop(reason)
        {
            tracing::info!("job {}: told to stop ({reason:?})", run.job.id());
        }
    }

    /// Tells all handlers to stop.
    pub(crate) fn stop_all(&self, reason: StopReason) {
        for handle in self.runs.keys() {
            self.stop(handle, reason);
        }
    }

    /// Stops a handler whose delivery is gone. Returns whether it had not been dropped before.
    pub(crate) fn drop_one(&mut self, handle: &str) -> bool {
        let Some(run) = self.runs.get_mut(handle) else {
            return false;
        };
        if std::mem::replace(&mut run.dropped, true) {
            return false;
        }
        self.stop(handle, StopReason::LeaseLost);
        true
    }

    /// Waits no longer for handlers that did not stop in time: they are dropped together with this crew. Returns what is to be given back.
    pub(crate) fn abandon(&mut self) -> Vec<Handle> {
        let mut given_back = Vec::new();
        for (handle, run) in &mut self.runs {
            tracing::warn!("job {}: its handler did not stop in time; the job is given back", run.job.id());
            if !std::mem::replace(&mut run.dropped, true) {
                given_back.push(handle.clone());
            }
        }
        given_back
    }

    /// The next run that ends, and how. Safe to cancel.
    pub(crate) async fn next_end(&mut self) -> (Handle, Run, Outcome) {
        let (id, outcome) = match self.tasks.join_next_with_id().await {
            Some(Ok(end)) => end,
            Some(Err(error)) => {
                let id = error.id();
                (id, error.try_into_panic().map_or(Outcome::Stopped, |payload| panicked(&*payload)))
            }
            None => pending().await,
        };
        let handle = self.handles.remove(&id).expect("each task was noted when it was spawned");
        let run = self.runs.shift_remove(&handle).expect("each run ends once");
        (handle, run, outcome)
    }
}
