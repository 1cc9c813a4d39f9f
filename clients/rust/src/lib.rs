//! Publishes jobs to Jobwire, a job queue as a service, waits for them, and works on them.
//!
//! [`Client`] publishes and operates, [`Worker`] works and resumes when its connection breaks, [`v1`] has the generated stubs for all else. Jobs run at least
//! once: after a lost connection a job may run again, so handlers are idempotent. What there is to tell goes to `tracing` under `jobwire`.
//!
//! Everything runs on Tokio.

mod acking;
mod client;
mod connection;
mod crew;
mod errors;
mod following;
mod job;
mod new_job;
mod operating;
mod outcome;
mod reading;
mod retrying;
mod session;
mod standing;
mod wire;
mod worker;

pub use client::Client;
pub use connection::Target;
pub use errors::{Error, FieldViolation};
pub use job::Job;
pub use new_job::NewJob;
pub use operating::Operation;
pub use outcome::{JobError, StopReason};
pub use tokio_util::sync::CancellationToken;
pub use tonic::Code;
pub use worker::{Stopper, Worker};

// What the stubs speak in, in the versions that fit.
pub use {prost_types, tonic};

/// The stubs, generated from `protos/jobwire/v1` when the crate is built.
#[allow(clippy::all)]
pub mod v1 {
    tonic::include_proto!("jobwire.v1");
}

/// What the README shows is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
