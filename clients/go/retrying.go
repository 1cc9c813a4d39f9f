package jobwire

// When a failed call is repeated, and after what pause. Only what may be repeated safely comes here, so what decides is only
// whether repeating can help.

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
)

// How long one attempt may take, so that a connection that died unnoticed leaves time for another attempt.
const attemptTimeout = 5 * time.Second

func worthRepeating(err *Error) bool {
	switch err.Code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted:
		return true
	}
	return err.askedToRepeat
}

// backoff makes pauses that grow, with full jitter: each is uniform between 0 and a bound that doubles, which spreads a thousand
// clients of one restarted server best.
type backoff struct {
	bound time.Duration
}

const (
	firstPause   = 100 * time.Millisecond
	longestPause = 3 * time.Second
)

// pause returns the next one; atLeast is what the server asked for.
func (b *backoff) pause(atLeast time.Duration) time.Duration {
	b.bound = max(b.bound, firstPause)
	pause := rand.N(b.bound) + atLeast
	b.bound = min(2*b.bound, longestPause)
	return pause
}

// reset begins anew, after a success.
func (b *backoff) reset() { b.bound = 0 }

// attempts are those of one call until its deadline.
type attempts struct {
	deadline time.Time
	backoff  backoff
}

// remaining returns how long the next attempt may take.
func (a *attempts) remaining() time.Duration {
	return max(time.Millisecond, min(attemptTimeout, time.Until(a.deadline)))
}

// after waits before the next attempt; it returns false if there should be none.
func (a *attempts) after(ctx context.Context, err *Error) bool {
	if !worthRepeating(err) {
		return false
	}
	pause := a.backoff.pause(err.RetryAfter)
	return time.Now().Add(pause).Before(a.deadline) && sleep(ctx, pause)
}

// sleep returns whether ctx lasted.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
