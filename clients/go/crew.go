package jobwire

// The runs of one queue's handler: each delivery in hand, from its start to the report of its end. A delivery that is dropped (its
// lease is gone) is no longer reported on, but its handler may need time to end; until then its place is not free, and the server is
// asked for fewer jobs.

import (
	"context"
	"log/slog"
	"runtime/debug"

	jobwirev1 "jobwire/v1"
)

// run is one delivery in the hands of a handler.
type run struct {
	delivery *jobwirev1.Delivery
	reporter *reporter
	cancel   context.CancelCauseFunc
	end      *jobwirev1.AckItem
	reason   StopReason
	dropped  bool
}

// crew has at most size runs at once. The session's lock guards all of it.
type crew struct {
	size    int
	handler Handler
	acker   *acker
	log     *slog.Logger
	// Handlers' contexts have the values of this one. It does not end.
	base context.Context
	// A run has ended, or its place has become free.
	onEnded func()

	runs    map[string]*run
	dropped int
}

// places is how many deliveries there may be at once, now: the size less what runs on without a lease.
func (c *crew) places() int { return max(0, c.size-c.dropped) }

// full says whether no further delivery may be started.
func (c *crew) full() bool { return len(c.runs) >= c.size }

// start runs the handler on a delivery; life is that of the session.
func (c *crew) start(life context.Context, delivery *jobwirev1.Delivery) {
	handle := delivery.GetHandle()
	ctx, cancel := context.WithCancelCause(c.base)
	each := &run{delivery: delivery, reporter: &reporter{acker: c.acker, handle: handle}, cancel: cancel}
	c.runs[handle] = each
	var received <-chan struct{}
	if delivery.GetAttempt() > 1 {
		// It may be the job that kills its worker, at once: that is counted only when its receipt is known.
		received = c.acker.received(life)
	}
	go c.seeThrough(ctx, handle, each, received)
}

// seeThrough runs in a goroutine of its own, without the lock.
func (c *crew) seeThrough(ctx context.Context, handle string, each *run, received <-chan struct{}) {
	defer each.cancel(nil)
	defer c.report(handle, each)
	if received != nil {
		select {
		case <-received:
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		each.end = stopped(c.reasonOf(each))
		return
	}
	c.call(ctx, each)
}

// call calls the handler, and makes whatever it does the run's end.
func (c *crew) call(ctx context.Context, each *run) {
	defer func() {
		if each.end != nil {
			return
		}
		value := recover()
		if value == nil {
			value = "the handler ended its goroutine by runtime.Goexit"
		}
		each.end = panicked(value, debug.Stack(), c.reasonOf(each))
	}()
	output, err := c.handler(ctx, jobOf(each.delivery, each.reporter))
	if err != nil {
		each.end = returned(err, c.reasonOf(each))
	} else {
		each.end = completed(output)
	}
}

// report says how a run ended.
func (c *crew) report(handle string, each *run) {
	mu := c.acker.mu
	mu.Lock()
	defer mu.Unlock()
	if !each.dropped && each.end.GetComplete() == nil {
		// The next attempt begins where the checkpoint says, so that has to be there first. Whoever drops the run ends the wait.
		if leaving := each.reporter.leaves(); leaving != nil {
			mu.Unlock()
			<-leaving
			mu.Lock()
		}
	}
	delete(c.runs, handle)
	each.reporter.close()
	if each.dropped {
		c.dropped--
		c.acker.lookAgain()
	} else {
		c.tell(each)
		c.acker.settle(handle, each.end)
	}
	c.onEnded()
}

func (c *crew) tell(each *run) {
	job := each.delivery.GetJobId()
	switch outcome := each.end.GetOutcome().(type) {
	case *jobwirev1.AckItem_Complete:
		c.log.Debug("job completed", "job", job)
	case *jobwirev1.AckItem_Release:
		c.log.Info("job given back", "job", job)
	case *jobwirev1.AckItem_Fail:
		fail := outcome.Fail
		said := []any{"job", job, "type", fail.GetType(), "message", fail.GetMessage(), "for_good", fail.GetPermanent()}
		if fail.GetTrace() != "" {
			said = append(said, "trace", fail.GetTrace())
		}
		c.log.Warn("job failed", said...)
	}
}

func (c *crew) reasonOf(each *run) StopReason {
	c.acker.mu.Lock()
	defer c.acker.mu.Unlock()
	return each.reason
}

// stop tells a handler to stop. How it ends is reported as ever. With the lock, like all that follows.
func (c *crew) stop(handle string, reason StopReason) {
	each := c.runs[handle]
	if each == nil || each.reason != "" {
		return
	}
	c.log.Info("job told to stop", "job", each.delivery.GetJobId(), "reason", string(reason))
	each.reason = reason
	each.cancel(reason)
}

// stopAll tells all handlers to stop.
func (c *crew) stopAll(reason StopReason) {
	for handle := range c.runs {
		c.stop(handle, reason)
	}
}

// drop stops a handler whose delivery is gone.
func (c *crew) drop(handle string) {
	each := c.runs[handle]
	if each == nil || each.dropped {
		return
	}
	each.dropped = true
	c.dropped++
	each.reporter.close()
	c.acker.forget(handle)
	c.stop(handle, StopLeaseLost)
}

// dropAll stops all handlers: their session is gone.
func (c *crew) dropAll() {
	for handle := range c.runs {
		c.drop(handle)
	}
}

// abandon gives back what did not stop in time, though its handler may still run.
func (c *crew) abandon() {
	for handle, each := range c.runs {
		c.log.Warn("a handler did not stop in time; its job is given back", "job", each.delivery.GetJobId())
		if !each.dropped {
			each.dropped = true
			c.dropped++
			each.reporter.close()
			c.acker.settle(handle, released(0))
		}
	}
}
