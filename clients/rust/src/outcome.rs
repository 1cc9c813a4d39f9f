//! How a run of a handler ended, and what is said of it in an Ack.

use std::any::type_name;
use std::error::Error as StdError;
use std::time::Duration;

use serde::Serialize;

use crate::v1::{Complete, Fail, Release, ack_item};
use crate::wire::{LONGEST_SPAN, MAX_DATA_BYTES, clean_text, to_duration, to_json};

const TRACE_BYTES: usize = 8 * 1024;

/// Why a handler is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody cancelled the job.
    Requested,
    /// Its time limit is over.
    Expired,
    /// The server gave the job to somebody else, or to nobody.
    LeaseLost,
    /// Nothing was heard from the server for so long that it may have done so.
    Silence,
    /// The worker stops.
    Stopping,
}

/// What a handler returns instead of its result: that the run failed, or that the job goes back.
///
/// `?` turns any error into one that is tried again as the job's options say.
#[derive(Clone, Debug)]
pub struct JobError(Outcome);

impl JobError {
    /// The run failed, for a reason of this kind and with a message for people; it is tried again as the job's options say.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Outcome::Failed(Failure { kind: kind.into(), message: message.into(), ..Default::default() }))
    }

    /// Do not try again. Says nothing of a job that goes back.
    pub fn for_good(mut self) -> Self {
        if let Outcome::Failed(failure) = &mut self.0 {
            failure.permanent = true;
        }
        self
    }

    /// Try again after exactly this pause, at most 7 days; uses up a retry. Says nothing of a job that goes back.
    pub fn retry_in(mut self, pause: Duration) -> Self {
        if let Outcome::Failed(failure) = &mut self.0 {
            failure.retry_in = Some(pause.min(LONGEST_SPAN));
        }
        self
    }

    /// The job goes back untouched, and no retry is used up. `delay`, at most 7 days, is the pause before the next delivery; None: at once the
    /// first time, then growing to 60 s.
    pub fn release(delay: Option<Duration>) -> Self {
        Self(Outcome::Released(delay.map(|delay| delay.min(LONGEST_SPAN))))
    }

    /// The handler ended because it was told to.
    pub fn stopped() -> Self {
        Self(Outcome::Stopped)
    }
}

impl<E: StdError> From<E> for JobError {
    fn from(error: E) -> Self {
        let name = type_name::<E>();
        let kind = name.split('<').next().and_then(|path| path.rsplit("::").next()).unwrap_or(name);
        let mut trace = String::new();
        let mut cause = error.source();
        while let Some(inner) = cause {
            trace += &format!("caused by: {inner}\n");
            cause = inner.source();
        }
        let failure = Failure { kind: kind.into(), message: error.to_string(), trace, ..Default::default() };
        Self(Outcome::Failed(failure))
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Failure {
    pub(crate) kind: String,
    pub(crate) message: String,
    pub(crate) trace: String,
    pub(crate) permanent: bool,
    pub(crate) retry_in: Option<Duration>,
}

/// How a run ended. All but `Stopped` can be said to the server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// With this JSON text; empty for none.
    Completed(String),
    Failed(Failure),
    Released(Option<Duration>),
    /// Because the handler was told to stop.
    Stopped,
}

/// The outcome of a handler that returned.
pub(crate) fn returned<T: Serialize>(result: Result<T, JobError>) -> Outcome {
    match result {
        Err(JobError(outcome)) => outcome,
        Ok(output) => match to_json(&output, MAX_DATA_BYTES) {
            // As `()` is written: no output.
            Ok(text) if text == "null" => Outcome::Completed(String::new()),
            Ok(text) => Outcome::Completed(text),
            Err(error) => bad_result(&error.message),
        },
    }
}

/// The outcome of a handler whose result nobody takes; running it again would not help.
pub(crate) fn bad_result(why: &str) -> Outcome {
    Outcome::Failed(Failure {
        kind: "BadResult".into(),
        message: format!("the handler's result cannot be stored: {why}"),
        permanent: true,
        ..Default::default()
    })
}

/// The outcome of a handler that panicked.
pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> Outcome {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    let message = text.or_else(|| payload.downcast_ref::<String>().cloned());
    Outcome::Failed(Failure {
        kind: "Panic".into(),
        message: message.unwrap_or_else(|| "the handler panicked, without a text".into()),
        ..Default::default()
    })
}

/// What to report of a run that was told to stop for `reason`, if it was. Never `Stopped`.
pub(crate) fn settling(outcome: Outcome, reason: Option<StopReason>) -> Outcome {
    match (outcome, reason) {
        (Outcome::Stopped, Some(StopReason::Expired)) => Outcome::Failed(Failure {
            kind: "EXPIRED".into(),
            message: "the run took longer than its time limit; expire_in sets it, Job::extend moves it".into(),
            ..Default::default()
        }),
        (Outcome::Stopped, _) => Outcome::Released(None),
        // It broke because it was interrupted, for a reason that is not the job's: that uses up no retry.
        (Outcome::Failed(failure), Some(StopReason::Stopping | StopReason::Silence | StopReason::LeaseLost))
            if !failure.permanent && failure.retry_in.is_none() =>
        {
            Outcome::Released(None)
        }
        (outcome, _) => outcome,
    }
}

/// The statement that settles a delivery.
pub(crate) fn statement(outcome: &Outcome) -> ack_item::Outcome {
    match outcome {
        Outcome::Completed(output) => ack_item::Outcome::Complete(Complete { output: output.clone() }),
        Outcome::Failed(failure) => ack_item::Outcome::Fail(Fail {
            r#type: clean_text(&failure.kind, 200),
            message: clean_text(&failure.message, 2000),
            trace: cut_to_bytes(clean_text(&failure.trace, TRACE_BYTES)),
            permanent: failure.permanent,
            retry_in: failure.retry_in.map(to_duration),
        }),
        Outcome::Released(delay) => ack_item::Outcome::Release(Release { delay: delay.map(to_duration) }),
        Outcome::Stopped => ack_item::Outcome::Release(Release::default()),
    }
}

fn cut_to_bytes(mut text: String) -> String {
    while text.len() > TRACE_BYTES {
        text.pop();
    }
    text
}
