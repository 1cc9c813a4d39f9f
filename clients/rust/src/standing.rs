//! What a session is to the server, as far as the worker knows. No I/O.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::job::Handle;
use crate::v1::SessionOpened;
use crate::wire::from_duration;

/// How long the first event of a stream may take.
const OPENING_TIME: Duration = Duration::from_secs(10);

/// The identity, terms and signs of life of one session.
#[derive(Debug)]
pub(crate) struct Standing {
    /// The session; empty if there is none.
    pub(crate) id: String,
    /// The number of the last Subscribe that was made for it.
    pub(crate) epoch: i64,
    /// The last event received on the present stream.
    pub(crate) last_sequence: i64,
    /// The job ids of the deliveries whose settling Ack has not been answered. Nothing else may be named in a resume.
    pub(crate) held: HashMap<Handle, String>,
    /// The credits that the server was told of last; None if it may have heard others since.
    pub(crate) told_credits: Option<i32>,
    grace: Duration,
    opened: bool,
    patient: bool,
    last_event: Instant,
    last_sign: Instant,
}

impl Standing {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            id: String::new(),
            epoch: 0,
            last_sequence: 0,
            held: HashMap::new(),
            told_credits: None,
            grace: Duration::ZERO,
            opened: false,
            patient: false,
            last_event: now,
            last_sign: now,
        }
    }

    /// Whether there is a session to resume.
    pub(crate) fn exists(&self) -> bool {
        !self.id.is_empty()
    }

    /// A new Subscribe is about to be made.
    pub(crate) fn subscribing(&mut self, credits_told: i32) {
        self.last_sequence = 0;
        self.told_credits = Some(credits_told);
        self.opened = false;
        self.last_event = Instant::now();
        if self.exists() {
            self.epoch += 1;
        }
    }

    /// The stream is open under these terms.
    pub(crate) fn opened(&mut self, opened: &SessionOpened) {
        self.id.clone_from(&opened.session_id);
        self.epoch = self.epoch.max(opened.epoch);
        self.grace = from_duration(opened.resume_grace).max(3 * from_duration(opened.heartbeat_interval));
        self.opened = true;
    }

    /// An Ack of that session and epoch has named credits. It may have counted though it was not answered; and one that a resume has overtaken
    /// may have counted before or after that.
    pub(crate) fn told(&mut self, session: &str, epoch: i64, credits: i32, answered: bool) {
        if session == self.id {
            self.told_credits = (answered && epoch == self.epoch).then_some(credits);
        }
    }

    /// Whether the last Subscribe has been answered: until then it may overrule what is said of credits.
    pub(crate) fn is_open(&self) -> bool {
        self.exists() && self.opened
    }

    /// The server goes away, and waits so long for a resume.
    pub(crate) fn draining(&mut self, resume_within: Duration) {
        self.grace = resume_within;
    }

    /// An event arrived.
    pub(crate) fn event(&mut self, sequence: i64) {
        self.last_sequence = sequence;
        self.last_event = Instant::now();
        if self.opened {
            self.patient = false;
        }
        self.sign();
    }

    /// The server gave a sign of life.
    pub(crate) fn sign(&mut self) {
        self.last_sign = Instant::now();
    }

    /// The stream was given up since it brought nothing.
    pub(crate) fn fell_silent(&mut self) {
        self.patient = true;
    }

    /// The session is over.
    pub(crate) fn lost(&mut self) {
        self.id.clear();
        self.epoch = 0;
        self.last_sequence = 0;
        self.held.clear();
    }

    /// When a stream that brought no event until then is given up, and its connection with it.
    ///
    /// After half of the grace that holds: what is left of the time until `sign_due` is for the resume, of which handlers then notice nothing.
    /// A stream that follows a silent one has all that time, or a delivery that takes so long on a slow line would never arrive.
    pub(crate) fn event_due(&self) -> Instant {
        self.last_event
            + match (self.opened, self.patient) {
                (false, _) => OPENING_TIME,
                (true, true) => self.silence(),
                (true, false) => self.grace / 2,
            }
    }

    /// When handlers are told to stop if nothing was heard of the server until then.
    pub(crate) fn sign_due(&self) -> Instant {
        self.last_sign + self.silence()
    }

    /// For people: which job a handle stands for.
    pub(crate) fn name<'a>(&'a self, handle: &'a str) -> &'a str {
        self.held.get(handle).map_or(handle, String::as_str)
    }

    fn silence(&self) -> Duration {
        self.grace * 2 / 3
    }
}
