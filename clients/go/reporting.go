package jobwire

// The link between a running handler and the Acks: progress at a bearable pace, extensions at once. However often a handler reports,
// from whatever goroutine, only the latest word is sent.

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	jobwirev1 "jobwire/v1"
)

// The shortest time between two reports of one job.
const reportInterval = 200 * time.Millisecond

// reporter is one run's. Its methods take the session's lock, except for those that say that they want it held.
type reporter struct {
	acker  *acker
	handle string

	latest  *jobwirev1.Progress // not sent yet
	leaving answer              // of the last checkpoint sent
	timer   *time.Timer
	nextAt  time.Time
	closed  bool
}

// report takes the latest word.
func (r *reporter) report(progress *jobwirev1.Progress) {
	r.acker.mu.Lock()
	defer r.acker.mu.Unlock()
	if r.closed {
		return
	}
	before := r.latest
	r.latest = progress
	if before != nil {
		// It will be sent in time. A checkpoint stays until there is another one.
		if progress.Checkpoint == nil {
			progress.Checkpoint = before.Checkpoint
		}
		return
	}
	pause := time.Until(r.nextAt)
	if pause <= 0 {
		r.send()
		return
	}
	r.timer = time.AfterFunc(pause, func() {
		r.acker.mu.Lock()
		defer r.acker.mu.Unlock()
		r.send()
	})
}

// extend returns a channel that has something when the server has answered, or is of no interest any more.
func (r *reporter) extend(limit time.Duration) <-chan struct{} {
	r.acker.mu.Lock()
	defer r.acker.mu.Unlock()
	if r.closed {
		return said()
	}
	return r.acker.extend(r.handle, &jobwirev1.Extend{ExpireIn: durationpb.New(limit)})
}

// leaves returns what tells that the last checkpoint has arrived; nil if there was none. To be called with the lock.
func (r *reporter) leaves() <-chan struct{} {
	if r.latest != nil && r.latest.Checkpoint != nil {
		r.send()
	}
	return r.leaving
}

// close: what is said from now on is of no interest. To be called with the lock.
func (r *reporter) close() {
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
}

// send says the latest word, if it has not been said. To be called with the lock.
func (r *reporter) send() {
	progress := r.latest
	if r.latest = nil; progress == nil || r.closed {
		return
	}
	r.nextAt = time.Now().Add(reportInterval)
	answered := r.acker.extend(r.handle, &jobwirev1.Extend{Progress: progress})
	if progress.Checkpoint != nil {
		r.leaving = answered
	}
}
