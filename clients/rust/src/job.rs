//! The job that a handler gets, and over which it speaks to the worker while it runs.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::errors::Error;
use crate::outcome::StopReason;
use crate::v1::{Delivery, Progress};
use crate::wire::{LONGEST_SPAN, MAX_CHECKPOINT_BYTES, clean_text, to_json};

/// A delivery's handle.
pub(crate) type Handle = Arc<str>;

/// What a running handler says to its worker.
#[derive(Debug)]
pub(crate) enum Word {
    /// There is something in the job's `Report`, where there was nothing.
    Reported(Handle),
    /// The time limit is to be moved; whoever waits is told when that is answered.
    Extended(Handle, Duration, oneshot::Sender<()>),
}

/// One delivery of a job. Clones are the same one.
#[derive(Clone)]
pub struct Job {
    inner: Arc<Inner>,
}

struct Inner {
    delivery: Delivery,
    handle: Handle,
    cancelled: CancellationToken,
    stop_reason: OnceLock<StopReason>,
    report: Mutex<Report>,
    words: mpsc::UnboundedSender<Word>,
}

/// What a handler said of its progress; the latest word counts.
#[derive(Debug, Default)]
struct Report {
    latest: Progress,
    waits: bool,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id())
            .field("queue", &self.queue())
            .field("attempt", &self.attempt())
            .finish()
    }
}

impl Job {
    /// Its id, unique in its queue.
    pub fn id(&self) -> &str {
        &self.inner.delivery.job_id
    }

    /// The queue it came from.
    pub fn queue(&self) -> &str {
        &self.inner.delivery.queue
    }

    /// Which delivery of the job this is, counted from 1. It only grows, so it may fence writes to other systems.
    pub fn attempt(&self) -> i32 {
        self.inner.delivery.attempt
    }

    /// The payload, decoded.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        decoded(&self.inner.delivery.data)
    }

    /// What earlier attempts left for this one, decoded; None if nothing.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, serde_json::Error> {
        decoded(&self.inner.delivery.checkpoint)
    }

    /// All that was delivered: headers, priority, retries, origin.
    pub fn delivery(&self) -> &Delivery {
        &self.inner.delivery
    }

    /// Done when the run is to stop: the job was cancelled, its time is over, its lease lost, or the worker stops.
    ///
    /// A handler that looks at it ends early, by [`JobError::stopped`](crate::JobError::stopped) or with its result, which still counts if the
    /// lease holds. One that does not runs on in its place; when the worker stops, it is dropped at its next `await`.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.inner.cancelled
    }

    /// Why the run is to stop; None if it is not.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.inner.stop_reason.get().copied()
    }

    /// Says how far the job is: the share of the work that is done, 0 to 1 (None if it cannot be told), and a line for people.
    ///
    /// Cheap: call it as often as you like, the latest word is sent a few times a second.
    pub fn progress(&self, fraction: impl Into<Option<f64>>, note: &str) {
        let fraction = fraction.into().filter(|share| !share.is_nan()).map(|share| share.clamp(0.0, 1.0));
        let note = clean_text(note, 1000);
        self.report(|latest| (latest.fraction, latest.note) = (fraction, note));
    }

    /// Leaves what the next attempt is to know should this one not finish: it replaces what was left before. What is said before the run fails or
    /// is given back is there when that is.
    ///
    /// Errors: INVALID_ARGUMENT for what is not JSON, or is larger than 64 KiB.
    pub fn save_checkpoint(&self, checkpoint: &impl Serialize) -> Result<(), Error> {
        let text = to_json(checkpoint, MAX_CHECKPOINT_BYTES)?;
        self.report(|latest| latest.checkpoint = Some(text));
        Ok(())
    }

    /// Moves the run's time limit to `span` from now, 1 s to 7 days. Returns when the server has answered; if the lease is over, the job is
    /// told to stop.
    ///
    /// Errors: INVALID_ARGUMENT for another span.
    pub async fn extend(&self, span: Duration) -> Result<(), Error> {
        if !(Duration::from_secs(1)..=LONGEST_SPAN).contains(&span) {
            return Err(Error::invalid(format!("extend({span:?}): a time limit is 1 s to 7 days from now")));
        }
        let (answered, answer) = oneshot::channel();
        let _ = self.inner.words.send(Word::Extended(self.inner.handle.clone(), span, answered));
        // Also when nobody will answer any more: the run is over, and so is what was asked.
        let _ = answer.await;
        Ok(())
    }

    pub(crate) fn new(delivery: Delivery, handle: Handle, words: mpsc::UnboundedSender<Word>) -> Self {
        let inner = Inner {
            delivery,
            handle,
            cancelled: CancellationToken::new(),
            stop_reason: OnceLock::new(),
            report: Mutex::default(),
            words,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Tells the handler to stop. Returns whether it had not been told before.
    pub(crate) fn stop(&self, reason: StopReason) -> bool {
        let first = self.inner.stop_reason.set(reason).is_ok();
        self.inner.cancelled.cancel();
        first
    }

    /// What there is to say of the progress since the last time.
    pub(crate) fn take_report(&self) -> Option<Progress> {
        let mut report = self.inner.report.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::take(&mut report.waits) {
            return None;
        }
        let said = report.latest.clone();
        // Said once, it stays; what was said of the progress is said again with the next checkpoint.
        report.latest.checkpoint = None;
        Some(said)
    }

    fn report(&self, change: impl FnOnce(&mut Progress)) {
        let mut report = self.inner.report.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut report.latest);
        if !std::mem::replace(&mut report.waits, true) {
            let _ = self.inner.words.send(Word::Reported(self.inner.handle.clone()));
        }
    }
}

/// JSON text, decoded; the empty text, which means that nothing was given, is null.
fn decoded<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(if text.is_empty() { "null" } else { text })
}
