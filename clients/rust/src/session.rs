//! The session of one handler: its streams one after the other, and what the server says on them.
//!
//! The state machine is that of docs/protocol.md, "the life of a worker". Opening and Resuming are one here: a session that has an id is resumed
//! under a higher epoch, one that has none is opened. One task owns all of it and does one thing at a time; what takes long (calls, handlers) runs
//! beside it and is taken in when it has ended.

use std::collections::HashSet;
use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use crate::acking::{Acker, Ended, Order, ack, stop_reason};
use crate::connection::Connection;
use crate::crew::{Crew, Handler, Run};
use crate::errors::Error;
use crate::job::{Handle, Word};
use crate::outcome::{Outcome, StopReason, settling};
use crate::retrying::{Backoff, end_of};
use crate::standing::Standing;
use crate::v1::subscribe_response::Event;
use crate::v1::{AckRequest, Delivery, Draining, Resume, SessionOpened, SubscribeRequest, SubscribeResponse};
use crate::wire::{MAX_CALL_ITEMS, from_duration};

/// How long handlers may take to end after they were told to because the worker stops.
const TIME_TO_END: Duration = Duration::from_secs(2);

/// How long after the grace the worker may take in all, for the ends of handlers and the last Acks.
const TIME_TO_LEAVE: Duration = Duration::from_secs(4);

/// The shortest time between two reports of one job's progress.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// So many different messages of trouble are remembered; some carry an id and never come again.
const MOST_TROUBLES: usize = 20;

/// What a worker's sessions are told, and tell each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    /// Stop: handlers may finish for the grace.
    pub(crate) stop: CancellationToken,
    /// The grace is over.
    pub(crate) hurry: CancellationToken,
    /// The server asked to leave: finish what runs, however long that takes.
    pub(crate) leave: CancellationToken,
}

impl Signals {
    fn told(&self) -> [bool; 3] {
        [&self.stop, &self.hurry, &self.leave].map(CancellationToken::is_cancelled)
    }
}

/// One Subscribe call.
enum Stream {
    None,
    Opening(Pin<Box<dyn Future<Output = Result<Streaming<SubscribeResponse>, Status>> + Send>>),
    Open(Box<Streaming<SubscribeResponse>>),
}

/// What a session waits for.
enum Happening {
    Event(SubscribeResponse),
    StreamEnded(Result<(), Status>),
    Acked(Ended),
    RunEnded(Handle, Box<Run>, Outcome),
    Said(Word),
    Woken,
}

/// Takes jobs of a handler's queues and has them run, until it is told to stop.
pub(crate) struct Session {
    connection: Connection,
    /// Names queues, worker and the terms asked for; the template of every Subscribe.
    request: SubscribeRequest,
    queue: String,
    signals: Signals,
    standing: Standing,
    acker: Acker,
    crew: Crew,
    words: mpsc::UnboundedReceiver<Word>,
    stream: Stream,
    /// No Subscribe before this.
    not_before: Instant,
    backoff: Backoff,
    quiet: bool,
    ever_opened: bool,
    /// What was said of why there is no stream: each is said once, not at each attempt. Emptied when there is one, or too many are known.
    troubles: HashSet<String>,
    /// Why the server will never let this session in.
    refusal: Option<Error>,
}

impl Session {
    pub(crate) fn new(
        connection: Connection,
        request: SubscribeRequest,
        concurrency: usize,
        handler: Handler,
        signals: Signals,
    ) -> Self {
        let (sender, words) = mpsc::unbounded_channel();
        Self {
            connection: connection.apart(),
            queue: request.queues.join(", "),
            request,
            signals,
            standing: Standing::new(),
            acker: Acker::new(),
            crew: Crew::new(concurrency, handler, sender),
            words,
            stream: Stream::None,
            not_before: Instant::now(),
            backoff: Backoff::new(),
            quiet: false,
            ever_opened: false,
            troubles: HashSet::new(),
            refusal: None,
        }
    }

    /// Works until it is told to stop or to leave, then ends in order. Fails if the server refuses the queue, the terms or the credentials.
    pub(crate) async fn run(mut self, stop_grace: Duration) -> Result<(), Error> {
        let Signals { stop, leave, .. } = self.signals.clone();
        self.goes_on(None, |session| {
            let leaves = leave.is_cancelled() && session.crew.runs.is_empty();
            stop.is_cancelled() || session.refusal.is_some() || leaves
        })
        .await;
        if self.refusal.is_some() {
            // The worker does not go on as half a worker.
            stop.cancel();
        }
        self.end(stop_grace).await;
        self.refusal.map_or(Ok(()), Err)
    }

    /// Takes no more jobs, finishes or gives back those in hand, reports their ends, and leaves.
    async fn end(&mut self, grace: Duration) {
        let hurry = self.signals.hurry.clone();
        let deadline = end_of(grace);
        self.quiet = true;
        // A session that is just being opened could not be closed otherwise, and would keep its first jobs for a grace.
        let answered = |session: &Self| hurry.is_cancelled() || !matches!(session.stream, Stream::Opening(_));
        self.goes_on(Some(Instant::now() + Duration::from_secs(1)), answered).await;
        self.goes_on(Some(deadline), |session| hurry.is_cancelled() || session.crew.runs.is_empty()).await;
        self.crew.stop_all(StopReason::Stopping);
        let end = if hurry.is_cancelled() { Instant::now() } else { deadline } + TIME_TO_LEAVE;
        self.goes_on(Some(Instant::now() + TIME_TO_END), |session| session.crew.runs.is_empty()).await;
        for handle in self.crew.abandon() {
            self.acker.settle(handle, Outcome::Released(None));
        }
        let answered = |session: &Self| hurry.is_cancelled() || session.acker.all_answered();
        self.goes_on(Some(end - Duration::from_secs(2)), answered).await;
        self.goes_on(Some(Instant::now() + Duration::from_secs(1)), |session| session.acker.all_answered()).await;
        self.close(end).await;
    }

    async fn close(&mut self, end: Instant) {
        if !self.standing.exists() {
            return;
        }
        let request = AckRequest {
            session_id: self.standing.id.clone(),
            last_sequence: self.standing.last_sequence,
            close_session: true,
            ..Default::default()
        };
        let within = end.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        if let Err(error) = self.connection.call(ack, request, within).await {
            tracing::warn!("could not close session {}, it ends by itself: {error}", self.standing.id);
        }
    }

    /// Does all that comes up until `done` says so, but at most until then.
    async fn goes_on(&mut self, until: Option<Instant>, done: impl Fn(&Self) -> bool) {
        loop {
            let told = self.signals.told();
            self.act();
            if done(self) || until.is_some_and(|when| when <= Instant::now()) {
                return;
            }
            match self.next(until, told).await {
                Happening::Event(event) => self.take(event),
                Happening::StreamEnded(end) => self.ended(end),
                Happening::Acked(ended) => {
                    for order in self.acker.take(ended, &mut self.standing) {
                        self.obey(order);
                    }
                }
                Happening::RunEnded(handle, run, outcome) => self.run_ended(handle, &run, outcome),
                Happening::Said(word) => self.hear(word),
                Happening::Woken => {}
            }
        }
    }

    /// Does what is due: reports, statements, the next Subscribe, and what silence demands.
    fn act(&mut self) {
        let now = Instant::now();
        if self.signals.leave.is_cancelled() {
            self.quiet = true;
        }
        if !matches!(self.stream, Stream::None) && self.standing.event_due() <= now {
            tracing::warn!("queue {}: the stream is silent; resuming over another connection", self.queue);
            self.standing.fell_silent();
            self.connection.leave();
            self.end_stream();
        }
        if self.standing.exists() && self.standing.sign_due() <= now {
            self.crew.stop_all(StopReason::Silence);
        }
        for (handle, run) in &mut self.crew.runs {
            if run.reported && run.next_report <= now {
                run.reported = false;
                run.next_report = now + REPORT_INTERVAL;
                if !run.dropped {
                    self.acker.extend(handle.clone(), run.job.take_report(), None, None);
                }
            }
        }
        if self.wants_stream() && self.not_before <= now {
            self.subscribe();
        }
        self.acker.send(&self.connection, &self.standing, self.credits());
    }

    /// What happens next. Of the signals only those that had not been `told` when it was last looked: none is missed, and none wakes twice.
    async fn next(&mut self, until: Option<Instant>, told: [bool; 3]) -> Happening {
        let wake = self.due().chain(until).min();
        let Signals { stop, hurry, leave } = &self.signals;
        tokio::select! {
            happening = self.stream.next() => happening,
            ended = self.acker.next_end() => Happening::Acked(ended),
            (handle, run, outcome) = self.crew.next_end() => Happening::RunEnded(handle, Box::new(run), outcome),
            Some(word) = self.words.recv() => Happening::Said(word),
            () = async { if let Some(wake) = wake { sleep_until(wake).await } else { pending().await } } => Happening::Woken,
            () = stop.cancelled(), if !told[0] => Happening::Woken,
            () = hurry.cancelled(), if !told[1] => Happening::Woken,
            () = leave.cancelled(), if !told[2] => Happening::Woken,
        }
    }

    /// When there will be something to do, if nothing happens before.
    fn due(&self) -> impl Iterator<Item = Instant> {
        let now = Instant::now();
        let silent = (!matches!(self.stream, Stream::None)).then(|| self.standing.event_due());
        // Once it is over, there is nothing more to do about it.
        let unsigned = self.standing.exists().then(|| self.standing.sign_due()).filter(|when| *when > now);
        let reports = self.crew.runs.values().filter(|run| run.reported).map(|run| run.next_report).min();
        let subscribe = self.wants_stream().then_some(self.not_before);
        silent.into_iter().chain(unsigned).chain(reports).chain(subscribe).chain(self.acker.due())
    }

    /// Whether there is to be a Subscribe. When quiet with nothing in hand there is nothing to come back for: what is still unanswered is sent
    /// without a stream.
    fn wants_stream(&self) -> bool {
        matches!(self.stream, Stream::None)
            && self.refusal.is_none()
            && !(self.quiet && self.standing.held.is_empty())
            && (self.standing.exists() || self.crew.places() > 0)
    }

    fn subscribe(&mut self) {
        // One credit at least may be named here; an Ack corrects that as soon as the stream is open.
        let credits = self.credits().max(1);
        self.standing.subscribing(credits);
        let mut request = self.request.clone();
        request.max_in_flight = Some(credits);
        if self.standing.exists() {
            // Beyond what one call may name, what still runs counts for more than what only waits for an answer.
            let mut held: Vec<&Handle> = self.standing.held.keys().collect();
            held.sort_by_key(|handle| !self.crew.runs.contains_key(*handle));
            request.resume = Some(Resume {
                session_id: self.standing.id.clone(),
                epoch: self.standing.epoch,
                held: held.into_iter().take(MAX_CALL_ITEMS).map(ToString::to_string).collect(),
            });
        }
        let request = self.connection.request(request);
        let mut stub = self.connection.stub();
        self.stream = Stream::Opening(Box::pin(async move { Ok(stub.subscribe(request).await?.into_inner()) }));
    }

    fn take(&mut self, message: SubscribeResponse) {
        self.standing.event(message.sequence);
        match message.event {
            Some(Event::Opened(opened)) => self.opened(&opened),
            Some(Event::Deliveries(deliveries)) => {
                self.backoff.reset();
                self.delivered(deliveries.deliveries);
            }
            Some(Event::Cancellation(cancellation)) => {
                self.crew.stop(&cancellation.handle, stop_reason(cancellation.reason()));
            }
            Some(Event::Heartbeat(_)) => {
                self.backoff.reset();
                self.acker.beat(&self.connection, &self.standing);
            }
            Some(Event::Quiet(_)) => {
                tracing::info!("queue {}: the worker was asked to leave: finishing what runs", self.queue);
                self.signals.leave.cancel();
            }
            Some(Event::Draining(draining)) => self.drained(&draining),
            // A sign of life; newer servers may say more.
            None => {}
        }
    }

    fn opened(&mut self, opened: &SessionOpened) {
        if self.standing.exists() && self.standing.id != opened.session_id {
            self.lost("the server opened another one");
        }
        self.standing.opened(opened);
        self.ever_opened = true;
        self.troubles.clear();
        let how = if opened.resumed { "resumed" } else { "opened" };
        tracing::info!("queue {}: {how} session {} (epoch {})", self.queue, opened.session_id, opened.epoch);
        for handle in &opened.lost {
            if let Some(job) = self.standing.held.remove(handle.as_str()) {
                tracing::warn!("job {job}: its lease was lost while the worker was away");
            }
            self.drop_run(handle);
        }
        self.acker.hurry();
    }

    fn delivered(&mut self, deliveries: Vec<Delivery>) {
        // It may be the job that kills its worker, at once: that is counted only when its receipt is known.
        let delivered_before = deliveries.iter().any(|delivery| delivery.attempt > 1);
        let receipt = delivered_before.then(|| self.acker.beat(&self.connection, &self.standing));
        for delivery in deliveries {
            let handle: Handle = delivery.handle.as_str().into();
            if self.standing.held.contains_key(&handle) {
                continue;
            }
            self.standing.held.insert(handle.clone(), delivery.job_id.clone());
            if self.quiet || self.crew.is_full() {
                self.acker.settle(handle, Outcome::Released(None));
            } else {
                let receipt = receipt.clone().filter(|_| delivery.attempt > 1);
                self.crew.start(handle, delivery, receipt);
            }
        }
    }

    fn drained(&mut self, draining: &Draining) {
        self.standing.draining(from_duration(draining.resume_within));
        let delay = from_duration(draining.reconnect_delay).mul_f64(0.5 + fastrand::f64());
        tracing::info!("queue {}: the server is going away; resuming in {delay:.1?}", self.queue);
        self.stream = Stream::None;
        self.not_before = Instant::now() + delay;
    }

    fn ended(&mut self, end: Result<(), Status>) {
        let resuming = self.standing.exists();
        self.stream = Stream::None;
        let mut asked_for = None;
        match end {
            Ok(()) if self.quiet => {}
            Ok(()) => tracing::info!("queue {}: the server ended the stream; resuming", self.queue),
            Err(status) => {
                let error = Error::from_status(&status, &self.connection.target);
                asked_for = error.retry_after;
                let over = matches!(error.reason.as_str(), "SESSION_LOST" | "SESSION_TAKEN_OVER");
                if over || (resuming && error.code == Code::InvalidArgument) {
                    self.lost(&error.message);
                } else if !self.ever_opened && error.is_for_good() {
                    self.refusal = Some(error);
                } else if self.troubles.contains(&error.message) {
                    tracing::debug!("queue {}: no stream, trying again: {error}", self.queue);
                } else {
                    tracing::warn!("queue {}: no stream, trying again: {error}", self.queue);
                    if self.troubles.len() >= MOST_TROUBLES {
                        self.troubles.clear();
                    }
                    self.troubles.insert(error.message);
                }
            }
        }
        self.not_before = Instant::now() + self.backoff.pause(asked_for);
    }

    /// Cancels the call, and reads it no further.
    fn end_stream(&mut self) {
        self.stream = Stream::None;
        self.not_before = Instant::now() + self.backoff.pause(None);
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Stop(handle, reason) => self.crew.stop(&handle, reason),
            Order::Lost(session) if session == self.standing.id => {
                self.lost("the server no longer knows it");
                self.end_stream();
            }
            Order::Lost(_) => {}
        }
    }

    fn lost(&mut self, why: &str) {
        if self.standing.exists() {
            tracing::warn!("queue {}: session {} is over, its jobs are stopped: {why}", self.queue, self.standing.id);
        }
        self.standing.lost();
        let handles: Vec<Handle> = self.crew.runs.keys().cloned().collect();
        for handle in handles {
            self.drop_run(&handle);
        }
    }

    fn drop_run(&mut self, handle: &str) {
        if self.crew.drop_one(handle) {
            self.acker.forget(handle);
        }
    }

    fn run_ended(&mut self, handle: Handle, run: &Run, outcome: Outcome) {
        if run.dropped {
            return;
        }
        let said = settling(outcome, run.job.stop_reason());
        match &said {
            Outcome::Completed(_) => tracing::debug!("job {}: completed", run.job.id()),
            Outcome::Failed(failure) => {
                let how = if failure.permanent { "failed for good" } else { "failed" };
                tracing::warn!("job {}: {how}: {}: {}", run.job.id(), failure.kind, failure.message);
            }
            Outcome::Released(_) | Outcome::Stopped => tracing::info!("job {}: given back", run.job.id()),
        }
        if let Some(report) = run.job.take_report()
            && report.checkpoint.is_some()
        {
            self.acker.extend(handle.clone(), Some(report), None, None);
        }
        self.acker.settle(handle, said);
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::Reported(handle) => {
                if let Some(run) = self.crew.runs.get_mut(&handle) {
                    run.reported = true;
                }
            }
            Word::Extended(handle, span, waiter) => {
                if self.crew.runs.get(&handle).is_some_and(|run| !run.dropped) {
                    self.acker.extend(handle, None, Some(span), Some(waiter));
                }
            }
        }
    }

    fn credits(&self) -> i32 {
        if self.quiet { 0 } else { i32::try_from(self.crew.places()).unwrap_or(i32::MAX) }
    }
}

impl Stream {
    /// The next event, or the end. Safe to cancel.
    async fn next(&mut self) -> Happening {
        loop {
            match self {
                Self::None => return pending().await,
                Self::Opening(opening) => match opening.await {
                    Ok(stream) => *self = Self::Open(Box::new(stream)),
                    Err(status) => return Happening::StreamEnded(Err(status)),
                },
                Self::Open(stream) => {
                    return match stream.message().await {
                        Ok(Some(message)) => Happening::Event(message),
                        Ok(None) => Happening::StreamEnded(Ok(())),
                        Err(status) => Happening::StreamEnded(Err(status)),
                    };
                }
            }
        }
    }
}
