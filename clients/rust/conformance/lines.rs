//! Lines out: answers, events, and what the client warns of.

use std::fmt::Debug;
use std::time::Duration;

use jobwire::{Code, Error, v1};
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Writes a line.
pub fn say(line: &Value) {
    println!("{line}");
}

/// An error as a user of the client sees it.
pub fn said(error: &Error) -> Value {
    json!({"code": name(error.code), "reason": error.reason, "message": error.message})
}

/// `INVALID_ARGUMENT` for `InvalidArgument`.
fn name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// A request that this driver cannot follow.
pub fn confused(message: String) -> Error {
    let field_violations = Vec::new();
    Error { code: Code::FailedPrecondition, reason: String::new(), message, field_violations, retry_after: None }
}

pub fn text<'a>(request: &'a Value, field: &str) -> &'a str {
    request[field].as_str().unwrap_or_default()
}

pub fn seconds(request: &Value, field: &str) -> Option<Duration> {
    request[field].as_f64().map(Duration::from_secs_f64)
}

/// JSON text as a value; the empty text is null.
pub fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

pub fn shown_results(results: &[v1::PublishResult]) -> Value {
    let shown = results.iter().map(|result| {
        json!({
            "job_id": result.job_id,
            "created": result.created,
            "reason": result.reason_name(),
            "data_differs": result.data_differs,
        })
    });
    json!({"results": shown.collect::<Vec<_>>()})
}

pub fn shown_job(job: &v1::Job) -> Value {
    let errors = job.errors.iter().map(|error| json!({"type": error.r#type, "message": error.message}));
    json!({"job": {
        "state": job.state_name(),
        "attempt": job.attempt,
        "retry_count": job.retry_count,
        "output": value(&job.output),
        "errors": errors.collect::<Vec<_>>(),
    }})
}

pub fn started(delivery: &v1::Delivery) {
    say(&json!({
        "event": "started",
        "job_id": delivery.job_id,
        "attempt": delivery.attempt,
        "data": value(&delivery.data),
        "checkpoint": value(&delivery.checkpoint),
    }));
}

/// What the client tells its user: warnings as events, all of it on standard error.
pub struct Warnings;

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("jobwire") && *metadata.level() <= Level::INFO
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let level = *event.metadata().level();
        eprintln!("{level} {}", message.0);
        if level <= Level::WARN {
            say(&json!({"event": "warning", "message": message.0}));
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
