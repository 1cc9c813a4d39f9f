package jobwire

// What a session is to the server, as far as the worker knows. No I/O; all times are the monotonic clock's.

import (
	"time"

	jobwirev1 "jobwire/v1"
)

// How long the first event of a stream may take.
const openingTime = 10 * time.Second

// Credits that nobody names.
const unsure = -1

// standing is the identity, the terms and the signs of life of one session, guarded by its lock.
type standing struct {
	// The session; empty if there is none.
	id string
	// The number of the last Subscribe that was made for it.
	epoch int64
	// The last event received on the present stream.
	lastSequence int64
	// The job ids of the deliveries that the session holds, by handle: those whose settling Ack has not been answered. Nothing else
	// may be named in a resume.
	held map[string]string
	// The credits that the server was told of last; unsure if it may have heard others since.
	toldCredits int
	// Told when the terms change, so that whoever sleeps until a time reckoned from them looks again.
	changed notice

	grace time.Duration
	open  bool
	// Whether the stream before this one was silent, and this one has brought nothing yet.
	patient   bool
	lastEvent time.Time
	lastSign  time.Time
}

// subscribing: a new Subscribe is about to be made.
func (s *standing) subscribing(credits int) {
	s.lastSequence = 0
	s.toldCredits = credits
	s.open = false
	s.lastEvent = time.Now()
	if s.id != "" {
		s.epoch++
	}
	s.changed.tell()
}

// opened: the stream is open under these terms.
func (s *standing) opened(opened *jobwirev1.SessionOpened) {
	s.id = opened.GetSessionId()
	s.epoch = max(s.epoch, opened.GetEpoch())
	s.grace = max(opened.GetResumeGrace().AsDuration(), 3*opened.GetHeartbeatInterval().AsDuration())
	s.open = true
	s.changed.tell()
}

// told: an Ack of that session and epoch has named credits. It may have counted though it was not answered; and one that a resume has
// overtaken may have counted before or after that.
func (s *standing) told(session string, epoch int64, credits int, answered bool) {
	switch {
	case session != s.id:
	case answered && epoch == s.epoch:
		s.toldCredits = credits
	default:
		s.toldCredits = unsure
	}
}

// opens says whether the last Subscribe has been answered: until then it may overrule what is said of credits.
func (s *standing) opens() bool { return s.id != "" && s.open }

// draining: the server goes away, and waits so long for a resume.
func (s *standing) draining(resumeWithin time.Duration) {
	s.grace = resumeWithin
	s.changed.tell()
}

// event: an event arrived.
func (s *standing) event(sequence int64) {
	s.lastSequence = sequence
	s.lastEvent = time.Now()
	if s.open {
		s.patient = false
	}
	s.sign()
}

// sign: the server gave a sign of life.
func (s *standing) sign() { s.lastSign = time.Now() }

// fellSilent: the stream was given up since it brought nothing.
func (s *standing) fellSilent() { s.patient = true }

// lost: the session is over.
func (s *standing) lost() {
	s.id, s.epoch, s.lastSequence, s.open = "", 0, 0, false
	clear(s.held)
}

// eventDue is when a stream that brought no event until then is given up, and its connection with it: after half of the grace that
// holds. What is left of the time until signDue is for the resume, of which handlers then notice nothing. A stream that follows a
// silent one has all that time, or a delivery that takes so long on a slow line would never arrive.
func (s *standing) eventDue() time.Time {
	switch {
	case !s.open:
		return s.lastEvent.Add(openingTime)
	case s.patient:
		return s.lastEvent.Add(s.silence())
	}
	return s.lastEvent.Add(s.grace / 2)
}

// signDue is when handlers are cancelled if nothing was heard of the server until then.
func (s *standing) signDue() time.Time { return s.lastSign.Add(s.silence()) }

func (s *standing) silence() time.Duration { return s.grace * 2 / 3 }
