package jobwire

// Says what became of deliveries, in as few calls as the network makes of them. One call with statements is on its way at a time;
// what gathers meanwhile goes into the next. A settling statement stays here until it is answered, whatever breaks in between: the
// stream, the server, the session itself. Heartbeats are answered by calls of their own, which no slow statement can hold up. A
// statement on a job that somebody else has locked in the database is found among its neighbours, and repeated apart from them until
// the lock is gone.

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	jobwirev1 "jobwire/v1"
)

const (
	// A locked statement is said again after up to so much more than the server asks for.
	lockedPause = 3 * time.Second
	// The most bytes of a statement's tag and length in a call.
	itemFrame = 5
)

// answer has something once a statement is answered, or of no interest any more.
type answer chan struct{}

func newAnswer() answer { return make(answer, 1) }

// said is an answer that is there already.
func said() answer {
	there := newAnswer()
	there.give()
	return there
}

func (a answer) give() {
	select {
	case a <- struct{}{}:
	default:
	}
}

// statement is what is to be said of one delivery. What replaces it is another statement, so that an answer finds the one it is for.
type statement struct {
	item        *jobwirev1.AckItem
	answers     []answer // of those who wait for that of an extension
	lockedUntil time.Time
}

func (s *statement) handle() string { return s.item.GetHandle() }

func (s *statement) settles() bool { return s.item.GetExtend() == nil }

func (s *statement) answered() {
	for _, each := range s.answers {
		each.give()
	}
}

// acker has the statements of one session's deliveries. The session's lock guards all of it.
type acker struct {
	mu         *sync.Mutex
	connection *connection
	standing   *standing
	log        *slog.Logger
	// How many deliveries there may be at once.
	creditsWanted func() int
	// The server's answer tells the handler of a delivery to stop.
	onStop func(handle string, reason StopReason)
	// The server no longer knows this session.
	onLost func(session string)
	// The last statement that settles something has been answered.
	onAnswered func()

	statements map[string]*statement
	// Those of them, oldest first, among some that were answered or replaced.
	line         []*statement
	settling     int
	turnOfLocked bool
	work         bell
	retryNow     bell

	closed  bool
	calls   sync.WaitGroup // heartbeats under way
	receipt struct {
		event received
		told  <-chan struct{}
	}
}

// received names an event: each stream counts its own.
type received struct {
	session         string
	epoch, sequence int64
}

// settle reports how a delivery ended; said once, it is repeated until it is answered. With the lock, like all that follows.
func (a *acker) settle(handle string, item *jobwirev1.AckItem) {
	a.forget(handle)
	item.Handle = handle
	a.say(&statement{item: item})
}

// extend reports that a delivery still runs.
func (a *acker) extend(handle string, extend *jobwirev1.Extend) answer {
	before := a.statements[handle]
	if before != nil && before.settles() {
		return said()
	}
	now := &statement{answers: []answer{newAnswer()}}
	if before != nil {
		// The newer word on each matter counts. A checkpoint is a matter of its own.
		old := before.item.GetExtend()
		if extend.ExpireIn == nil {
			extend.ExpireIn = old.GetExpireIn()
		}
		if extend.Progress == nil {
			extend.Progress = old.GetProgress()
		} else if extend.Progress.Checkpoint == nil && old.Progress != nil {
			extend.Progress.Checkpoint = old.Progress.Checkpoint
		}
		now.answers = append(now.answers, before.answers...)
		now.lockedUntil = before.lockedUntil
	}
	now.item = &jobwirev1.AckItem{Handle: handle, Outcome: &jobwirev1.AckItem_Extend{Extend: extend}}
	a.say(now)
	return now.answers[0]
}

func (a *acker) say(now *statement) {
	handle := now.handle()
	if before := a.statements[handle]; before != nil && before.settles() {
		a.settling--
	}
	if now.settles() {
		a.settling++
	}
	a.statements[handle] = now
	a.line = append(a.line, now)
	a.work.ring()
}

// unsay takes away a statement that was answered, unless there is a newer one of its delivery.
func (a *acker) unsay(old *statement) {
	old.answered()
	if a.statements[old.handle()] != old {
		return
	}
	delete(a.statements, old.handle())
	if old.settles() {
		a.settling--
		delete(a.standing.held, old.handle())
		if a.settling == 0 {
			a.onAnswered()
		}
	}
}

// forget says no more of a delivery than how it ended.
func (a *acker) forget(handle string) {
	if before := a.statements[handle]; before != nil && !before.settles() {
		a.unsay(before)
	}
}

// lookAgain: the wanted credits may have changed, or the server may be back.
func (a *acker) lookAgain() {
	a.work.ring()
	a.retryNow.ring()
}

// beat answers a heartbeat. The channel it returns is closed when that is answered, or has failed.
func (a *acker) beat(ctx context.Context) <-chan struct{} {
	told := make(chan struct{})
	if a.closed {
		close(told)
		return told
	}
	session := a.standing.id
	request := &jobwirev1.AckRequest{SessionId: session, LastSequence: a.standing.lastSequence}
	a.calls.Go(func() {
		defer close(told)
		response, err := attempt(ctx, a.connection, attemptTimeout, a.connection.queue.Ack, request)
		if err != nil {
			a.log.Debug("heartbeat not answered", "error", err)
			return
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.takeSign(session, response)
	})
	return told
}

// received lets the server know of all that has arrived so far. The channel is closed when it does, or when it could not be told.
func (a *acker) received(ctx context.Context) <-chan struct{} {
	event := received{a.standing.id, a.standing.epoch, a.standing.lastSequence}
	if under := a.receipt.told; under != nil && a.receipt.event == event {
		select {
		case <-under:
		default:
			return under // one call for all that came in one event
		}
	}
	a.receipt.event, a.receipt.told = event, a.beat(ctx)
	return a.receipt.told
}

// close waits for the heartbeats under way, after which no further one is answered. Without the lock.
func (a *acker) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.calls.Wait()
}

// closeSession leaves: the session ends at once, and what it still holds is given back. Without the lock.
func (a *acker) closeSession(ctx context.Context, within time.Duration) {
	a.mu.Lock()
	request := &jobwirev1.AckRequest{SessionId: a.standing.id, LastSequence: a.standing.lastSequence, CloseSession: true}
	a.mu.Unlock()
	if request.SessionId == "" {
		return
	}
	if _, err := call(ctx, a.connection, within, a.connection.queue.Ack, request); err != nil {
		a.log.Warn("could not close the session, it ends by itself", "session", request.SessionId, "error", err)
	}
}

// run sends until ctx ends. Without the lock.
func (a *acker) run(ctx context.Context) {
	var pauses backoff
	for ctx.Err() == nil {
		a.mu.Lock()
		group, next := a.gather()
		due := len(group) > 0 || a.creditsDue()
		a.mu.Unlock()
		if !due {
			a.waitForWork(ctx, next)
			continue
		}
		err := a.send(ctx, group)
		if err == nil {
			pauses.reset()
			continue
		}
		a.retryNow.silence()
		pause := pauses.pause(err.RetryAfter)
		a.log.Debug("Ack not answered", "again_in", pause, "error", err)
		ring(ctx, a.retryNow, pause)
	}
}

func (a *acker) waitForWork(ctx context.Context, next time.Time) {
	if next.IsZero() {
		select {
		case <-a.work:
		case <-ctx.Done():
		}
		return
	}
	ring(ctx, a.work, time.Until(next))
}

// gather returns what goes into the next call, oldest first, and when the next locked statement is due. Nothing is taken away here:
// only an answer does that. Locked statements go alone, and in turn with what the others have to say.
func (a *acker) gather() (group []*statement, next time.Time) {
	now := time.Now()
	size := 0
	full := false
	var locked *statement
	line := a.line[:0]
	for _, each := range a.line {
		if a.statements[each.handle()] != each {
			continue
		}
		line = append(line, each)
		switch {
		case !each.lockedUntil.IsZero():
			if next.IsZero() || each.lockedUntil.Before(next) {
				next = each.lockedUntil
			}
			if locked == nil && !each.lockedUntil.After(now) {
				locked = each
			}
		case !full:
			size += proto.Size(each.item) + itemFrame
			if full = len(group) == maxCallItems || len(group) > 0 && size > maxCallBytes; !full {
				group = append(group, each)
			}
		}
	}
	clear(a.line[len(line):])
	a.line = line
	if locked != nil && (a.turnOfLocked || len(group) == 0) {
		a.turnOfLocked = false
		return []*statement{locked}, next
	}
	a.turnOfLocked = true
	return group, next
}

func (a *acker) creditsDue() bool {
	return a.standing.opens() && a.standing.toldCredits != a.creditsWanted()
}

// send sends statements and takes their answers. It returns the error if some of them have to be sent again. Without the lock.
func (a *acker) send(ctx context.Context, group []*statement) *Error {
	a.mu.Lock()
	standing := a.standing
	session, epoch := standing.id, standing.epoch
	request := &jobwirev1.AckRequest{SessionId: session, LastSequence: standing.lastSequence}
	for _, each := range group {
		request.Items = append(request.Items, each.item)
	}
	if a.creditsDue() {
		request.MaxInFlight = proto.Int32(int32(a.creditsWanted()))
	}
	a.mu.Unlock()
	response, err := attempt(ctx, a.connection, attemptTimeout, a.connection.queue.Ack, request)
	a.mu.Lock()
	if request.MaxInFlight != nil {
		standing.told(session, epoch, int(request.GetMaxInFlight()), err == nil)
	}
	if err != nil {
		a.mu.Unlock()
		return a.sortOut(ctx, group, err)
	}
	defer a.mu.Unlock()
	for place, result := range response.GetResults() {
		if place < len(group) {
			a.take(group[place], result)
		}
	}
	a.takeSign(session, response)
	return nil
}

// take takes one statement's answer. Whatever it is, the statement is not said again.
func (a *acker) take(told *statement, result *jobwirev1.AckResult) {
	status := result.GetStatus()
	if told.settles() {
		if status != jobwirev1.AckStatus_ACK_STATUS_APPLIED && status != jobwirev1.AckStatus_ACK_STATUS_ALREADY_APPLIED {
			a.inVain(told, status)
		}
		a.unsay(told)
		return
	}
	a.unsay(told)
	switch {
	case status == jobwirev1.AckStatus_ACK_STATUS_LEASE_LOST, status == jobwirev1.AckStatus_ACK_STATUS_NOT_FOUND:
		a.onStop(told.handle(), StopLeaseLost)
	case status == jobwirev1.AckStatus_ACK_STATUS_CANCELLED:
		a.onStop(told.handle(), StopRequested)
	case result.GetCancel() != jobwirev1.CancelReason_CANCEL_REASON_UNSPECIFIED:
		a.onStop(told.handle(), stopReasonOf(result.GetCancel()))
	}
}

// inVain tells that an end does not count.
func (a *acker) inVain(told *statement, status jobwirev1.AckStatus) {
	level := slog.LevelWarn
	if told.item.GetRelease() != nil {
		level = slog.LevelDebug
	}
	because := strings.TrimPrefix(status.String(), "ACK_STATUS_")
	a.log.Log(context.Background(), level, "a job's end does not count", "job", a.jobOf(told.handle()), "because", because)
}

// sortOut finds what a call failed for. It returns the error if all of it has to be sent again. Without the lock.
func (a *acker) sortOut(ctx context.Context, group []*statement, err *Error) *Error {
	switch err.Code {
	case codes.Aborted, codes.InvalidArgument, codes.ResourceExhausted, codes.Internal:
	default:
		return err
	}
	if len(group) > 1 {
		// One of them may be bad, or locked: none may suffer for it.
		middle := len(group) / 2
		if err := a.send(ctx, group[:middle]); err != nil {
			return err
		}
		return a.send(ctx, group[middle:])
	}
	if len(group) == 0 {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	only := group[0]
	if a.statements[only.handle()] != only {
		return nil // something newer is to be said meanwhile
	}
	switch err.Code {
	case codes.Aborted:
		pauses := backoff{bound: lockedPause}
		only.lockedUntil = time.Now().Add(pauses.pause(err.RetryAfter))
		return nil
	case codes.InvalidArgument:
		a.refused(only, err)
		return nil
	}
	// Let the others pass.
	again := *only
	a.say(&again)
	return err
}

// refused replaces a statement that the server does not take by the next plainer one, so that the job gets an end.
func (a *acker) refused(told *statement, err *Error) {
	handle := told.handle()
	a.log.Error("the server refused what was said of a job", "job", a.jobOf(handle), "error", err)
	switch told.item.GetOutcome().(type) {
	case *jobwirev1.AckItem_Complete:
		a.settle(handle, badResult(err.Message))
	case *jobwirev1.AckItem_Fail:
		a.settle(handle, released(0))
	default:
		a.unsay(told)
	}
}

func (a *acker) takeSign(session string, response *jobwirev1.AckResponse) {
	a.standing.sign()
	if session != "" && !response.GetSessionAlive() {
		a.onLost(session)
	}
}

func (a *acker) jobOf(handle string) string {
	if job, ok := a.standing.held[handle]; ok {
		return job
	}
	return handle
}

// ring waits for a bell, but at most so long.
func ring(ctx context.Context, heard bell, within time.Duration) {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-heard:
	case <-timer.C:
	case <-ctx.Done():
	}
}
