//! The worker: handlers by queue, one connection, and an orderly end.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;

use crate::connection::{Connection, Target};
use crate::crew::Handler;
use crate::errors::Error;
use crate::job::Job;
use crate::outcome::{JobError, returned};
use crate::session::{Session, Signals};
use crate::v1::SubscribeRequest;
use crate::wire::to_duration;

/// Runs handlers on the jobs of their queues.
///
/// Each handler has a session of its own, so its concurrency is exact. When the connection breaks or the server restarts, handlers go on, and the
/// sessions are resumed. A handler that fails or panics fails its job; nothing it does ends the worker.
pub struct Worker {
    target: Target,
    terms: SubscribeRequest,
    stop_grace: Duration,
    posts: Vec<Post>,
    signals: Signals,
}

/// What a worker does for one queue.
struct Post {
    queue: String,
    concurrency: usize,
    handler: Handler,
}

/// Stops a worker from elsewhere.
#[derive(Clone, Debug)]
pub struct Stopper {
    signals: Signals,
}

impl Stopper {
    /// Takes no more jobs; handlers may finish for the grace. Calling it twice, or when nothing runs, is fine.
    pub fn stop(&self) {
        self.signals.stop.cancel();
    }

    /// The same without the grace: handlers are told to stop, and their jobs given back.
    pub fn stop_now(&self) {
        self.signals.hurry.cancel();
        self.signals.stop.cancel();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("name", &self.terms.worker).finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker of the server there, called by host name and process id. Nothing is sent yet.
    pub fn new(target: impl Into<Target>) -> Self {
        let host = hostname::get().unwrap_or_default();
        Self {
            target: target.into(),
            terms: SubscribeRequest {
                worker: format!("{}:{}", host.to_string_lossy(), std::process::id()),
                ..Default::default()
            },
            stop_grace: Duration::from_secs(25),
            posts: Vec::new(),
            signals: Signals::default(),
        }
    }

    /// Its name, for people and logs, at most 200 characters.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.terms.worker = name.into();
        self
    }

    /// How long handlers may finish when the worker stops, default 25 s. What still runs then is told to stop and given back, which takes up to
    /// 4 s more; keep the sum below what your platform grants after SIGTERM.
    pub fn stop_grace(mut self, grace: Duration) -> Self {
        self.stop_grace = grace;
        self
    }

    /// How often the server asks for a sign of life, 1 s to 5 minutes, default 5 s.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.terms.heartbeat_interval = Some(to_duration(interval));
        self
    }

    /// How long jobs stay with the worker when its connection breaks, 0 s to 15 s, default 15 s.
    pub fn resume_grace(mut self, grace: Duration) -> Self {
        self.terms.resume_grace = Some(to_duration(grace));
        self
    }

    /// Has the jobs of a queue, which has one handler, run by this function, at most `concurrency` (1 to 1000) at once. What it returns is the job's output; `()` is none.
    ///
    /// A job may run again after a lost connection, so the function must be idempotent. It must not block: what computes for long belongs into
    /// `tokio::task::spawn_blocking`.
    pub fn handler<F, Fut, T>(mut self, queue: impl Into<String>, concurrency: usize, function: F) -> Self
    where
        F: Fn(Job) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, JobError>> + Send + 'static,
        T: Serialize + 'static,
    {
        let function = Arc::new(function);
        let handler: Handler = Arc::new(move |job| {
            let function = function.clone();
            // Called inside the future, so that a panic before its first step is the job's too.
            Box::pin(async move { returned(function(job).await) })
        });
        self.posts.push(Post { queue: queue.into(), concurrency, handler });
        self
    }

    /// What stops this worker while it runs.
    pub fn stopper(&self) -> Stopper {
        Stopper { signals: self.signals.clone() }
    }

    /// Works until SIGTERM, Ctrl-C or a [`Stopper`], then ends in order; a second signal cuts the grace short. It returns as well when an operator
    /// has asked the worker to leave, and what it ran is finished.
    ///
    /// Errors: the server refuses the name of a queue, the worker's terms or its credentials, or is no Jobwire: INVALID_ARGUMENT,
    /// UNAUTHENTICATED, PERMISSION_DENIED, UNIMPLEMENTED. One that cannot be reached is waited for, and the log says why.
    pub async fn run(self) -> Result<(), Error> {
        let signals = tokio::spawn(obey_signals(self.stopper()));
        let end = self.run_without_signals().await;
        signals.abort();
        end
    }

    /// The same for a program that takes its signals itself.
    pub async fn run_without_signals(self) -> Result<(), Error> {
        if let Some(post) = self.posts.iter().find(|post| !(1..=1000).contains(&post.concurrency)) {
            let message =
                format!("concurrency {} of queue {:?} must be between 1 and 1000", post.concurrency, post.queue);
            return Err(Error::invalid(message));
        }
        let mut queues = HashSet::new();
        if let Some(post) = self.posts.iter().find(|post| !queues.insert(&post.queue)) {
            let message = format!(
                "queue {:?} has a handler already; to run more jobs at once, raise its concurrency",
                post.queue
            );
            return Err(Error::invalid(message));
        }
        if self.posts.is_empty() {
            return Err(Error::invalid("this worker has no handlers: give it one with Worker::handler".into()));
        }
        let connection = Connection::new(&self.target)?;
        let mut sessions = JoinSet::new();
        for Post { queue, concurrency, handler } in self.posts {
            let request = SubscribeRequest { queues: vec![queue], ..self.terms.clone() };
            let session = Session::new(connection.clone(), request, concurrency, handler, self.signals.clone());
            sessions.spawn(session.run(self.stop_grace));
        }
        let mut end = Ok(());
        while let Some(one) = sessions.join_next().await {
            let one = one.unwrap_or_else(|fault| {
                // Never half a worker, whatever broke.
                self.signals.stop.cancel();
                Err(Error::new(tonic::Code::Internal, "", format!("a fault of this client: {fault}")))
            });
            end = end.and(one);
        }
        end
    }
}

/// The first signal stops, the second one hurries.
async fn obey_signals(stopper: Stopper) {
    let mut told = match Told::listening() {
        Ok(told) => told,
        Err(error) => return tracing::warn!("signals cannot be listened for: {error}"),
    };
    told.next().await;
    tracing::info!("told to stop: finishing what runs");
    stopper.stop();
    told.next().await;
    tracing::info!("told to stop again: giving back what runs");
    stopper.stop_now();
}

#[cfg(unix)]
struct Told {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Told {
    fn listening() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Told;

#[cfg(not(unix))]
impl Told {
    fn listening() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
