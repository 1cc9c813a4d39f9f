package jobwire

// The session of one handler: its streams one after the other, and what the server says on them. The state machine is that of
// docs/protocol.md, "the life of a worker". Opening and Resuming are one loop here: a session that has an id is resumed under a higher
// epoch, one that has none is opened.

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	jobwirev1 "jobwire/v1"
)

const (
	// How long handlers may take to end after they were cancelled because the worker stops.
	timeToEnd = 2 * time.Second
	// How long after the grace the worker may take in all, for the ends of handlers and the last Acks.
	timeToLeave = 4 * time.Second
)

// session takes jobs of a handler's queue and has them run, until it is told to stop.
type session struct {
	connection *connection
	// Names queue, worker and the terms asked for: the template of every Subscribe.
	request *jobwirev1.SubscribeRequest
	log     *slog.Logger
	// The server asks the worker to leave.
	onQuiet func()

	// Guards all that follows, and all of acker and crew. Nobody waits or calls the server with it.
	mu       sync.Mutex
	standing standing
	acker    *acker
	crew     *crew
	// Ends the stream under way; nil if there is none.
	hangUp context.CancelFunc
	// Over which of the connection's channels it goes.
	channel    *grpc.ClientConn
	quiet      bool
	everOpened bool
	// A Subscribe waits for its first event.
	asking  bool
	trouble string
	backoff backoff
	changed notice
}

// newSession prepares the session of a post; the contexts of its handlers have the values of base, and do not end with it.
func newSession(
	base context.Context, connection *connection, request *jobwirev1.SubscribeRequest, post post, onQuiet func(), log *slog.Logger,
) *session {
	log = log.With("queue", post.queue)
	s := &session{connection: connection, request: request, log: log, onQuiet: onQuiet}
	s.standing.held = map[string]string{}
	s.acker = &acker{
		mu:            &s.mu,
		connection:    connection,
		standing:      &s.standing,
		log:           log,
		creditsWanted: s.creditsWanted,
		onStop:        func(handle string, reason StopReason) { s.crew.stop(handle, reason) },
		onLost:        s.lostByAck,
		onAnswered:    s.changed.tell,
		statements:    map[string]*statement{},
		work:          newBell(),
		retryNow:      newBell(),
	}
	s.crew = &crew{
		size:    post.concurrency,
		handler: post.handler,
		acker:   s.acker,
		log:     log,
		base:    context.WithoutCancel(base),
		onEnded: s.changed.tell,
		runs:    map[string]*run{},
	}
	return s
}

// run works until ctx ends. It returns an *Error if the server refuses the queue, the terms or the credentials.
func (s *session) run(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	var tasks sync.WaitGroup
	tasks.Go(func() { s.acker.run(ctx) })
	tasks.Go(func() { s.watch(ctx) })
	refused := s.keepOpen(ctx)
	if refused == nil {
		<-ctx.Done()
	}
	end()
	tasks.Wait()
	s.acker.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	// Nothing is left after an orderly stop.
	s.crew.dropAll()
	return refused
}

// stop takes no more jobs, finishes or gives back those in hand, reports their ends, and leaves. Then the session's run is to end.
// Handlers may take grace to finish; the end of hurry cuts that short.
func (s *session) stop(hurry context.Context, grace time.Duration) {
	deadline := time.Now().Add(grace)
	s.goQuiet()
	// A session that is just being opened could not be closed otherwise, and would keep its first jobs for a grace.
	s.until(hurry, time.Second, func() bool { return !s.asking })
	s.until(hurry, time.Until(deadline), s.idle)
	s.mu.Lock()
	s.crew.stopAll(StopStopping)
	s.mu.Unlock()
	end := deadline
	if hurry.Err() != nil {
		end = time.Now()
	}
	end = end.Add(timeToLeave)
	patient := context.Background()
	s.until(patient, timeToEnd, s.idle)
	s.mu.Lock()
	s.crew.abandon()
	s.mu.Unlock()
	answered := func() bool { return s.acker.settling == 0 }
	s.until(hurry, time.Until(end)-2*time.Second, answered)
	s.until(patient, time.Second, answered)
	s.acker.closeSession(patient, max(time.Second, time.Until(end)))
}

// finish takes no more jobs, and waits until those in hand have ended; to be followed by stop.
func (s *session) finish(ctx context.Context) {
	s.goQuiet()
	s.await(ctx, s.idle)
}

func (s *session) goQuiet() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = true
	s.acker.lookAgain()
}

func (s *session) idle() bool { return len(s.crew.runs) == 0 }

func (s *session) until(ctx context.Context, within time.Duration, holds func() bool) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	s.await(ctx, holds)
}

// await returns when something holds, which is looked at with the lock, or at the end of ctx.
func (s *session) await(ctx context.Context, holds func() bool) {
	for {
		s.mu.Lock()
		if holds() {
			s.mu.Unlock()
			return
		}
		changed := s.changed.wait()
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (s *session) keepOpen(ctx context.Context) error {
	for ctx.Err() == nil {
		s.mu.Lock()
		// Nothing to come back for; what is still unanswered the acker sends without a stream.
		done := s.quiet && len(s.standing.held) == 0
		resuming := s.standing.id != ""
		s.mu.Unlock()
		if done {
			return nil
		}
		if !resuming {
			s.await(ctx, func() bool { return s.crew.places() > 0 })
		}
		pause, err := s.oneStream(ctx)
		if err != nil {
			return err
		}
		sleep(ctx, pause)
	}
	return nil
}

// oneStream subscribes, and follows the stream to its end. It returns the pause before the next one.
func (s *session) oneStream(ctx context.Context) (time.Duration, error) {
	// The end of its context is what frees a stream, whatever state it is in.
	call, hangUp := context.WithCancel(ctx)
	defer hangUp()
	s.mu.Lock()
	resuming := s.standing.id != ""
	request := s.nextRequest()
	s.hangUp = hangUp
	channel := s.connection.channel.Load()
	s.channel = channel
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.hangUp = nil
		s.answered()
	}()
	stream, err := s.connection.queue.Subscribe(call, request)
	for err == nil {
		var event *jobwirev1.SubscribeResponse
		if event, err = stream.Recv(); err == nil {
			if pause, ended := s.take(ctx, event); ended {
				return pause, nil
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case call.Err() != nil, channel != s.connection.channel.Load():
		// By the watch for silence, also that of another session, or since the session is over, or the worker ends.
	case err == io.EOF:
		if !s.quiet {
			s.log.Info("the server ended the stream; resuming")
		}
	default:
		return s.refused(errorFrom(err, s.connection.target), resuming)
	}
	return s.backoff.pause(0), nil
}

// take takes an event. If it is the stream's last, it returns the pause before the next stream.
func (s *session) take(ctx context.Context, event *jobwirev1.SubscribeResponse) (pause time.Duration, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.standing.event(event.GetSequence())
	switch event := event.GetEvent().(type) {
	case *jobwirev1.SubscribeResponse_Opened:
		s.opened(event.Opened)
	case *jobwirev1.SubscribeResponse_Deliveries:
		s.backoff.reset()
		s.delivered(ctx, event.Deliveries.GetDeliveries())
	case *jobwirev1.SubscribeResponse_Cancellation:
		s.crew.stop(event.Cancellation.GetHandle(), stopReasonOf(event.Cancellation.GetReason()))
	case *jobwirev1.SubscribeResponse_Heartbeat:
		s.backoff.reset()
		s.acker.beat(ctx)
	case *jobwirev1.SubscribeResponse_Quiet:
		s.onQuiet()
	case *jobwirev1.SubscribeResponse_Draining:
		return s.drained(event.Draining), true
	default:
		// A sign of life; newer servers may say more.
	}
	return 0, false
}

func (s *session) nextRequest() *jobwirev1.SubscribeRequest {
	s.asking = true
	standing := &s.standing
	// One credit at least may be named here; an Ack corrects that as soon as the stream is open.
	standing.subscribing(max(1, s.creditsWanted()))
	request := proto.CloneOf(s.request)
	request.MaxInFlight = proto.Int32(int32(standing.toldCredits))
	if standing.id != "" {
		held := make([]string, 0, len(standing.held))
		for handle := range standing.held {
			held = append(held, handle)
		}
		if len(held) > maxCallItems {
			// What still runs counts for more than what only waits for an answer.
			waits := func(handle string) int {
				if s.crew.runs[handle] != nil {
					return 0
				}
				return 1
			}
			slices.SortFunc(held, func(a, b string) int { return cmp.Compare(waits(a), waits(b)) })
			held = held[:maxCallItems]
		}
		request.Resume = &jobwirev1.Resume{SessionId: standing.id, Epoch: standing.epoch, Held: held}
	}
	return request
}

func (s *session) opened(opened *jobwirev1.SessionOpened) {
	if s.standing.id != "" && s.standing.id != opened.GetSessionId() {
		s.lost("the server opened another one")
	}
	s.standing.opened(opened)
	s.everOpened = true
	s.trouble = ""
	s.answered()
	what := "opened session"
	if opened.GetResumed() {
		what = "resumed session"
	}
	s.log.Info(what, "session", opened.GetSessionId(), "epoch", opened.GetEpoch(), "server", opened.GetServerVersion())
	for _, handle := range opened.GetLost() {
		if job, held := s.standing.held[handle]; held {
			delete(s.standing.held, handle)
			s.log.Warn("a job's lease was lost while the worker was away", "job", job)
		}
		s.crew.drop(handle)
	}
	s.acker.lookAgain()
}

// answered: no Subscribe waits for its first event any more.
func (s *session) answered() {
	s.asking = false
	s.changed.tell()
}

func (s *session) delivered(ctx context.Context, deliveries []*jobwirev1.Delivery) {
	for _, delivery := range deliveries {
		handle := delivery.GetHandle()
		if _, held := s.standing.held[handle]; held {
			continue
		}
		s.standing.held[handle] = delivery.GetJobId()
		if s.quiet || s.crew.full() {
			s.acker.settle(handle, released(0))
		} else {
			s.crew.start(ctx, delivery)
		}
	}
}

func (s *session) drained(draining *jobwirev1.Draining) time.Duration {
	s.standing.draining(draining.GetResumeWithin().AsDuration())
	delay := draining.GetReconnectDelay().AsDuration()
	delay = delay/2 + rand.N(delay+1)
	s.log.Info("the server is going away; resuming", "in", delay)
	return delay
}

// refused decides what the failure of a stream means: the end of the session, of the worker, or another attempt after the pause.
func (s *session) refused(err *Error, resuming bool) (time.Duration, error) {
	switch {
	case err.Reason == "SESSION_LOST", err.Reason == "SESSION_TAKEN_OVER", resuming && err.Code == codes.InvalidArgument:
		s.lost(err.Message)
	case !s.everOpened && uselessToRepeat(err):
		return 0, err
	default:
		// Said once, not at each attempt.
		level := slog.LevelWarn
		if err.Message == s.trouble {
			level = slog.LevelDebug
		}
		s.trouble = err.Message
		s.log.Log(context.Background(), level, "no stream, trying again", "error", err)
	}
	return s.backoff.pause(err.RetryAfter), nil
}

func uselessToRepeat(err *Error) bool {
	switch err.Code {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return true
	}
	return false
}

func (s *session) lostByAck(session string) {
	if session == s.standing.id {
		s.lost("the server no longer knows it")
		if s.hangUp != nil {
			s.hangUp()
		}
	}
}

func (s *session) lost(why string) {
	if s.standing.id != "" {
		s.log.Warn("the session is over, its jobs are stopped", "session", s.standing.id, "because", why)
	}
	s.standing.lost()
	s.crew.dropAll()
}

func (s *session) creditsWanted() int {
	if s.quiet {
		return 0
	}
	return s.crew.places()
}

// watch leaves a stream that brings nothing, and stops handlers when nothing at all is heard of the server.
func (s *session) watch(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		now := time.Now()
		var dues []time.Time
		var silent *grpc.ClientConn
		if s.hangUp != nil {
			if due := s.standing.eventDue(); due.After(now) {
				dues = append(dues, due)
			} else {
				s.log.Warn("the stream is silent; resuming over another connection")
				s.standing.fellSilent()
				s.hangUp()
				silent = s.channel
			}
		}
		if s.standing.id != "" {
			if due := s.standing.signDue(); due.After(now) {
				dues = append(dues, due)
			} else {
				s.crew.stopAll(StopSilence)
			}
		}
		changed := s.standing.changed.wait()
		s.mu.Unlock()
		if silent != nil {
			s.connection.leave(silent)
		}
		within := time.Hour
		if len(dues) > 0 {
			within = time.Until(slices.MinFunc(dues, time.Time.Compare))
		}
		timer := time.NewTimer(within)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}
