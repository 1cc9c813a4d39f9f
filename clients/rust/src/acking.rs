//! Says what became of deliveries, in as few calls as the network makes of them.
//!
//! One call with statements is on its way at a time; what gathers meanwhile goes into the next. A settling statement stays here until it is
//! answered, whatever breaks in between: the stream, the server, the session itself. Heartbeats are answered by calls of their own, which no slow
//! statement can hold up. A statement on a job that somebody else has locked in the database is found among its neighbours, and repeated apart
//! from them until the lock is gone.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use indexmap::IndexMap;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::connection::{Connection, Stub};
use crate::errors::Error;
use crate::job::Handle;
use crate::outcome::{Outcome, StopReason, bad_result, statement};
use crate::retrying::{ATTEMPT_TIMEOUT, Backoff, jitter};
use crate::standing::Standing;
use crate::v1::{AckItem, AckRequest, AckResponse, AckResult, AckStatus, CancelReason, Extend, Progress, ack_item};
use crate::wire::{MAX_CALL_BYTES, MAX_CALL_ITEMS, size_in_call, to_duration};

/// A locked statement is said again after up to so much more than the server asks for.
const LOCKED_PAUSE: Duration = Duration::from_secs(3);

/// What the session is to do after an answer.
#[derive(Debug)]
pub(crate) enum Order {
    /// The handler of a delivery is to stop.
    Stop(Handle, StopReason),
    /// The server no longer knows the session of this id.
    Lost(String),
}

/// A call that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    request: AckRequest,
    epoch: i64,
    /// Of each item; empty for a heartbeat.
    handles: Vec<Handle>,
    /// Of each item: which of several extensions it was.
    versions: Vec<u64>,
    answer: Result<AckResponse, Error>,
}

/// What is to be said of a delivery that still runs.
#[derive(Debug, Default)]
struct Extension {
    item: Extend,
    /// Grows with each word that is added.
    version: u64,
    /// Who wants to know that it is answered.
    waiters: Vec<oneshot::Sender<()>>,
    /// How the run ended; said when what was left for the next one has arrived.
    end: Option<Outcome>,
}

/// The statements of one session's deliveries.
#[derive(Debug)]
pub(crate) struct Acker {
    settlings: IndexMap<Handle, Outcome>,
    extensions: IndexMap<Handle, Extension>,
    /// Handles whose jobs are locked, and from when on to try again.
    locked: HashMap<Handle, Instant>,
    turn_of_locked: bool,
    /// What is left of a group that is being taken apart, since one of its statements is bad or locked.
    parts: VecDeque<Vec<Handle>>,
    calls: JoinSet<Ended>,
    sending: bool,
    backoff: Backoff,
    not_before: Option<Instant>,
}

/// What the server means by telling a worker to stop.
pub(crate) fn stop_reason(reason: CancelReason) -> StopReason {
    match reason {
        CancelReason::Expired => StopReason::Expired,
        CancelReason::LeaseLost => StopReason::LeaseLost,
        _ => StopReason::Requested,
    }
}

impl Acker {
    pub(crate) fn new() -> Self {
        Self {
            settlings: IndexMap::new(),
            extensions: IndexMap::new(),
            locked: HashMap::new(),
            turn_of_locked: false,
            parts: VecDeque::new(),
            calls: JoinSet::new(),
            sending: false,
            backoff: Backoff::new(),
            not_before: None,
        }
    }

    /// Reports how a delivery ended; said once, it is repeated until it is answered. A checkpoint that the run left arrives before that.
    pub(crate) fn settle(&mut self, handle: Handle, outcome: Outcome) {
        if !matches!(outcome, Outcome::Completed(_))
            && let Some(extension) = self.extensions.get_mut(&handle)
            && extension.item.progress.as_ref().is_some_and(|said| said.checkpoint.is_some())
        {
            extension.end = Some(outcome);
            return;
        }
        self.forget(&handle);
        self.settlings.insert(handle, outcome);
    }

    /// Reports that a delivery still runs.
    pub(crate) fn extend(
        &mut self,
        handle: Handle,
        progress: Option<Progress>,
        expire_in: Option<Duration>,
        waiter: Option<oneshot::Sender<()>>,
    ) {
        if self.settlings.contains_key(&handle) {
            return;
        }
        let extension = self.extensions.entry(handle).or_default();
        extension.version += 1;
        if let Some(mut progress) = progress {
            let before = extension.item.progress.take().and_then(|said| said.checkpoint);
            progress.checkpoint = progress.checkpoint.or(before);
            extension.item.progress = Some(progress);
        }
        if let Some(span) = expire_in {
            extension.item.expire_in = Some(to_duration(span));
        }
        extension.waiters.extend(waiter);
    }

    /// Says no more of a delivery than how it ended.
    pub(crate) fn forget(&mut self, handle: &str) {
        if let Some(extension) = self.extensions.shift_remove(handle) {
            self.locked.remove(handle);
            self.tell(handle, extension);
        }
    }

    /// Tries again at once: the server may be back.
    pub(crate) fn hurry(&mut self) {
        self.not_before = None;
    }

    /// Whether every settling statement is answered.
    pub(crate) fn all_answered(&self) -> bool {
        self.settlings.is_empty() && self.extensions.values().all(|extension| extension.end.is_none())
    }

    /// Answers a heartbeat, or lets the server know of all that has arrived so far. The token is cancelled when it does, or could not be told.
    pub(crate) fn beat(&mut self, connection: &Connection, standing: &Standing) -> CancellationToken {
        let told = CancellationToken::new();
        self.call(connection, standing, Vec::new(), Vec::new(), Vec::new(), None, Some(told.clone()));
        told
    }

    /// Sends what there is to say, if it is time to.
    pub(crate) fn send(&mut self, connection: &Connection, standing: &Standing, credits: i32) {
        let now = Instant::now();
        if self.sending || self.not_before.is_some_and(|when| when > now) {
            return;
        }
        self.not_before = None;
        let handles = self.gathered(now);
        let credits_due = standing.is_open() && standing.told_credits != Some(credits);
        if handles.is_empty() && !credits_due {
            return;
        }
        let items = handles.iter().map(|handle| self.item(handle)).collect();
        let versions =
            handles.iter().map(|handle| self.extensions.get(handle).map_or(0, |each| each.version)).collect();
        self.sending = true;
        self.call(connection, standing, handles, items, versions, credits_due.then_some(credits), None);
    }

    /// When there is something to send that waits for a time; None if nothing does.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.sending { None } else { self.not_before.or_else(|| self.locked.values().min().copied()) }
    }

    /// The next call that ends. Safe to cancel.
    pub(crate) async fn next_end(&mut self) -> Ended {
        loop {
            match self.calls.join_next().await {
                Some(Ok(ended)) => return ended,
                Some(Err(error)) => tracing::error!("a call ended in a fault of this client: {error}"),
                None => std::future::pending().await,
            }
        }
    }

    /// Takes the end of a call.
    pub(crate) fn take(&mut self, ended: Ended, standing: &mut Standing) -> Vec<Order> {
        let mut orders = Vec::new();
        let with_statements = !ended.handles.is_empty() || ended.request.max_in_flight.is_some();
        if with_statements {
            self.sending = false;
        }
        if let Some(credits) = ended.request.max_in_flight {
            standing.told(&ended.request.session_id, ended.epoch, credits, ended.answer.is_ok());
        }
        let answer = match ended.answer {
            Ok(answer) => answer,
            Err(error) if with_statements => {
                self.sort_out(ended.handles, &ended.request.items, error, standing);
                return orders;
            }
            Err(error) => {
                tracing::debug!("heartbeat not answered: {error}");
                return orders;
            }
        };
        if with_statements {
            self.backoff.reset();
            self.not_before = None;
        }
        let said = ended.handles.into_iter().zip(ended.request.items).zip(ended.versions);
        for (((handle, item), version), result) in said.zip(answer.results) {
            match item.outcome {
                Some(ack_item::Outcome::Extend(_)) => orders.extend(self.extended(handle, version, &result)),
                outcome => {
                    if !matches!(result.status(), AckStatus::Applied | AckStatus::AlreadyApplied) {
                        in_vain(standing.name(&handle), outcome.as_ref(), &result);
                    }
                    self.settled(&handle, standing);
                }
            }
        }
        standing.sign();
        if !ended.request.session_id.is_empty() && !answer.session_alive {
            orders.push(Order::Lost(ended.request.session_id));
        }
        orders
    }

    #[allow(clippy::too_many_arguments)]
    fn call(
        &mut self,
        connection: &Connection,
        standing: &Standing,
        handles: Vec<Handle>,
        items: Vec<AckItem>,
        versions: Vec<u64>,
        credits: Option<i32>,
        told: Option<CancellationToken>,
    ) {
        let connection = connection.clone();
        let epoch = standing.epoch;
        let request = AckRequest {
            session_id: standing.id.clone(),
            items,
            last_sequence: standing.last_sequence,
            max_in_flight: credits,
            close_session: false,
        };
        self.calls.spawn(async move {
            // Also if this call comes to a bad end.
            let _told = told.map(CancellationToken::drop_guard);
            let answer = connection.attempt(ack, request.clone(), ATTEMPT_TIMEOUT).await;
            Ended { request, epoch, handles, versions, answer }
        });
    }

    /// What goes into the next call. It is not taken away here: only an answer does that.
    ///
    /// Locked statements go alone, and in turn with what the others have to say.
    fn gathered(&mut self, now: Instant) -> Vec<Handle> {
        while let Some(mut part) = self.parts.pop_front() {
            part.retain(|handle| self.settlings.contains_key(handle) || self.extensions.contains_key(handle));
            if !part.is_empty() {
                return part;
            }
        }
        let due = self.locked.iter().find(|(_, when)| **when <= now).map(|(handle, _)| handle.clone());
        let group = self.group();
        match due {
            Some(handle) if self.turn_of_locked || group.is_empty() => {
                self.turn_of_locked = false;
                vec![handle]
            }
            _ => {
                self.turn_of_locked = true;
                group
            }
        }
    }

    fn group(&self) -> Vec<Handle> {
        let mut group = Vec::new();
        let mut size = 0;
        for handle in self.settlings.keys().chain(self.extensions.keys()) {
            if self.locked.contains_key(handle) {
                continue;
            }
            size += size_in_call(&self.item(handle));
            if !group.is_empty() && (group.len() == MAX_CALL_ITEMS || size > MAX_CALL_BYTES) {
                break;
            }
            group.push(handle.clone());
        }
        group
    }

    fn item(&self, handle: &Handle) -> AckItem {
        let outcome = match self.settlings.get(handle) {
            Some(outcome) => statement(outcome),
            None => ack_item::Outcome::Extend(self.extensions[handle].item.clone()),
        };
        AckItem { handle: handle.to_string(), outcome: Some(outcome) }
    }

    /// Finds what a call failed for.
    fn sort_out(&mut self, mut handles: Vec<Handle>, said: &[AckItem], error: Error, standing: &mut Standing) {
        let may_be_one =
            matches!(error.code, Code::Aborted | Code::InvalidArgument | Code::ResourceExhausted | Code::Internal);
        if may_be_one && handles.len() > 1 {
            // One of them may be bad, or locked: none may suffer for it.
            let second = handles.split_off(handles.len() / 2);
            self.parts.push_front(second);
            self.parts.push_front(handles);
            return;
        }
        if let (true, Some(handle)) = (may_be_one, handles.pop()) {
            match error.code {
                Code::Aborted => {
                    return self.locked_for(handle, jitter(LOCKED_PAUSE) + error.retry_after.unwrap_or_default());
                }
                Code::InvalidArgument => return self.refused(&handle, &said[0], &error, standing),
                // Let the others pass.
                _ => {
                    if let Some(outcome) = self.settlings.shift_remove(&handle) {
                        self.settlings.insert(handle, outcome);
                    }
                }
            }
        }
        self.parts.clear();
        let pause = self.backoff.pause(error.retry_after);
        tracing::debug!("Ack not answered, again in {pause:?}: {error}");
        self.not_before = Some(Instant::now() + pause);
    }

    /// Leaves a statement out of the next calls; it may have been withdrawn meanwhile.
    fn locked_for(&mut self, handle: Handle, pause: Duration) {
        self.locked.remove(&handle);
        if self.settlings.contains_key(&handle) || self.extensions.contains_key(&handle) {
            self.locked.insert(handle, Instant::now() + pause);
        }
    }

    /// Takes the answer to an extension. What was added to it meanwhile is said by the next call.
    fn extended(&mut self, handle: Handle, version: u64, result: &AckResult) -> Option<Order> {
        if self.extensions.get(&handle).is_some_and(|extension| extension.version == version) {
            self.forget(&handle);
        }
        match result.status() {
            AckStatus::LeaseLost | AckStatus::NotFound => Some(Order::Stop(handle, StopReason::LeaseLost)),
            AckStatus::Cancelled => Some(Order::Stop(handle, StopReason::Requested)),
            // Also for a reason that is newer than this client.
            _ if result.cancel != 0 => Some(Order::Stop(handle, stop_reason(result.cancel()))),
            _ => None,
        }
    }

    /// Replaces a statement that the server does not take by the next plainer one, so that the job gets an end.
    fn refused(&mut self, handle: &Handle, said: &AckItem, error: &Error, standing: &mut Standing) {
        let job = standing.name(handle);
        let extended = matches!(said.outcome, Some(ack_item::Outcome::Extend(_)));
        // The run may have ended meanwhile: nothing is said against its end.
        let Some(outcome) = self.settlings.get_mut(handle).filter(|_| !extended) else {
            tracing::error!("job {job}: the server refused to extend it: {error}");
            return self.forget(handle);
        };
        tracing::error!("job {job}: the server refused its end: {error}");
        match outcome {
            Outcome::Completed(_) => *outcome = bad_result(&error.message),
            Outcome::Failed(_) => *outcome = Outcome::Released(None),
            Outcome::Released(_) | Outcome::Stopped => self.settled(handle, standing),
        }
    }

    fn settled(&mut self, handle: &Handle, standing: &mut Standing) {
        self.settlings.shift_remove(handle);
        self.locked.remove(handle);
        standing.held.remove(handle);
    }

    /// An extension is answered, or of no interest any more: whoever waited for that goes on.
    fn tell(&mut self, handle: &str, extension: Extension) {
        for waiter in extension.waiters {
            let _ = waiter.send(());
        }
        if let Some(outcome) = extension.end {
            self.settlings.insert(handle.into(), outcome);
        }
    }
}

/// The method of all these calls.
pub(crate) async fn ack(
    mut stub: Stub,
    request: tonic::Request<AckRequest>,
) -> Result<tonic::Response<AckResponse>, tonic::Status> {
    stub.ack(request).await
}

fn in_vain(job: &str, said: Option<&ack_item::Outcome>, result: &AckResult) {
    let status = result.status().as_str_name().trim_start_matches("ACK_STATUS_");
    match said {
        Some(ack_item::Outcome::Release(_)) => {
            tracing::debug!("job {job}: that it was given back does not count: {status}")
        }
        _ => tracing::warn!("job {job}: its end does not count: {status}"),
    }
}
