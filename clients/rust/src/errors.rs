//! What can go wrong: one type with fields, whose message says what to do.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt;

/// A field of a request that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// Its path, such as `jobs[3].data`.
    pub field: String,
    /// The rule.
    pub description: String,
}

/// A call that failed.
#[derive(Clone, Debug)]
pub struct Error {
    /// gRPC's status code. That the server cannot be reached, or ended the call as it stopped, is [`Code::Unavailable`].
    pub code: Code,
    /// The server's finer word, such as `QUEUE_NOT_FOUND`; the contract lists them. Empty if it gave none.
    pub reason: String,
    /// What is wrong, where, and what to do.
    pub message: String,
    /// Which fields of the request break which rules.
    pub field_violations: Vec<FieldViolation>,
    /// After how long the server asks to repeat the call, if it does.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {}

impl Error {
    pub(crate) fn new(code: Code, reason: &str, message: String) -> Self {
        Self { code, reason: reason.into(), message, field_violations: Vec::new(), retry_after: None }
    }

    /// What cannot travel, said without asking the server.
    pub(crate) fn invalid(message: String) -> Self {
        Self::new(Code::InvalidArgument, "INVALID_ARGUMENT", message)
    }

    pub(crate) fn too_large(size: usize, limit: usize) -> Self {
        let message = format!(
            "{size} bytes of JSON, but at most {limit} are taken: store the content elsewhere (object storage, a \
             table) and send its key"
        );
        Self::new(Code::InvalidArgument, "DATA_TOO_LARGE", message)
    }

    /// No answer within the time of a call.
    pub(crate) fn no_answer(target: &str) -> Self {
        let message = format!("no answer from Jobwire at {target} in time; the call may have taken effect, {SAFE}");
        Self::new(Code::DeadlineExceeded, "", message)
    }

    /// Of a call that is made once, with other advice than that of the calls that may be repeated.
    pub(crate) fn made_once(mut self) -> Self {
        self.message = self.message.replace(SAFE, "and ListActions says whether");
        self
    }

    /// Turns gRPC's error into ours; `target` is the address that was called. For those who use the stubs themselves.
    pub fn from_status(status: &Status, target: &str) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
        let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        let (code, message) = meaning(status, &reason, target);
        Self {
            code,
            reason,
            message,
            field_violations: violations
                .iter()
                .map(|each| FieldViolation { field: each.field.clone(), description: each.description.clone() })
                .collect(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }

    /// Whether the same call may succeed later. That it may be repeated safely holds for all but what [`Client::admin`](crate::Client::admin)
    /// makes once.
    pub fn is_worth_repeating(&self) -> bool {
        self.retry_after.is_some() || matches!(self.code, Code::Unavailable | Code::DeadlineExceeded | Code::Aborted)
    }

    /// Whether no worker that was refused so will ever be let in.
    pub(crate) fn is_for_good(&self) -> bool {
        matches!(
            self.code,
            Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
        )
    }
}

const SAFE: &str = "and repeating it is safe";

/// The server's own words stand; what tonic says is turned into what to do.
fn meaning(status: &Status, reason: &str, target: &str) -> (Code, String) {
    let (code, text) = (status.code(), status.message());
    if !reason.is_empty() {
        return (code, if text.is_empty() { reason } else { text }.to_owned());
    }
    if caused_by::<TimeoutExpired>(status) {
        let error = Error::no_answer(target);
        return (error.code, error.message);
    }
    // A status that has a source was made here, of a connection that broke; tonic calls most of those UNKNOWN.
    if code == Code::Unavailable || status.source().is_some() {
        let message = format!(
            "cannot reach Jobwire at {target} ({}): is it running there, and are address and TLS right?",
            why(status)
        );
        return (Code::Unavailable, message);
    }
    match code {
        Code::DeadlineExceeded => (code, Error::no_answer(target).message),
        // Whoever cancels a call is told otherwise: this is how gRPC ends calls that reach a server as it stops.
        Code::Cancelled => {
            let message =
                format!("the call to Jobwire at {target} was ended ({text}); it may have taken effect, {SAFE}");
            (Code::Unavailable, message)
        }
        Code::Unimplemented => {
            let message = format!(
                "the server at {target} does not know this call ({text}): is it Jobwire, and as new as this client?"
            );
            (code, message)
        }
        _ => (code, format!("{} (from {target})", if text.is_empty() { code.description() } else { text })),
    }
}

/// What lies deepest says why; the layers above only say that something failed.
fn why(status: &Status) -> String {
    let mut deepest: Option<&dyn StdError> = status.source();
    while let Some(inner) = deepest.and_then(StdError::source) {
        deepest = Some(inner);
    }
    let text = deepest.map_or_else(|| status.message().to_owned(), ToString::to_string);
    if text.is_empty() { "no connection".to_owned() } else { text }
}

fn caused_by<E: StdError + 'static>(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<E>() {
            return true;
        }
        cause = error.source();
    }
    false
}
