package jobwire

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	jobwirev1 "jobwire/v1"
)

// Handler runs a job. What it returns, if json.Marshal takes it, is the job's output; nil is none. An error fails the run, which is
// tried again as the job's options say, unless it was made by [FailForGood], [RetryIn] or [Release]; a panic fails it too. The error's
// method `ErrorType() string`, if it has one, names its kind for people.
//
// ctx ends when the job is to stop, and context.Cause(ctx) is the [StopReason]. A handler that then returns an error that is
// context.Canceled is reported as stopped; one that completes nevertheless is reported as completed, which counts while the lease
// lasts. A handler must be idempotent, since a job may run again after a lost connection.
type Handler func(ctx context.Context, job *Job) (any, error)

// Job is one delivery of a job. To try out a handler, make one by hand: &Job{Data: json.RawMessage(`{"file_key": "a.xlsx"}`)}.
type Job struct {
	// Data is the payload: JSON text, exactly as published.
	Data json.RawMessage
	// Queue is where it came from.
	Queue string
	// ID is a UUID.
	ID string
	// Headers are those it was published with.
	Headers map[string]string
	// Priority is higher for what was to be delivered first.
	Priority int
	// Attempt says which delivery of the job this is, counted from 1. It only grows, so it may fence writes to other systems.
	Attempt int
	// RetryCount is how many retries are used up so far.
	RetryCount int
	// RetryLimit is how many are allowed.
	RetryLimit int
	// CreatedAt is when it was stored.
	CreatedAt time.Time
	// ExpireIn is how long this run may take from its delivery, unless Extend moves the limit.
	ExpireIn time.Duration
	// LastCheckpoint is what the last attempt left for this one: JSON text, nil if nothing.
	LastCheckpoint json.RawMessage
	// Origin says where it comes from, if it is a dead letter or was redriven.
	Origin *jobwirev1.JobOrigin

	reporter *reporter
}

func jobOf(delivery *jobwirev1.Delivery, reporter *reporter) *Job {
	return &Job{
		Data:           fromJSON(delivery.GetData()),
		Queue:          delivery.GetQueue(),
		ID:             delivery.GetJobId(),
		Headers:        delivery.GetHeaders(),
		Priority:       int(delivery.GetPriority()),
		Attempt:        int(delivery.GetAttempt()),
		RetryCount:     int(delivery.GetRetryCount()),
		RetryLimit:     int(delivery.GetRetryLimit()),
		CreatedAt:      delivery.GetCreateTime().AsTime(),
		ExpireIn:       delivery.GetExpireIn().AsDuration(),
		LastCheckpoint: fromJSON(delivery.GetCheckpoint()),
		Origin:         delivery.GetOrigin(),
		reporter:       reporter,
	}
}

// Decode reads the payload into what value points to, as json.Unmarshal does.
func (j *Job) Decode(value any) error {
	if err := json.Unmarshal(j.Data, value); err != nil {
		return fmt.Errorf("the payload of job %s does not fit: %w", j.ID, err)
	}
	return nil
}

// Progress says how far the job is: the share of the work that is done, 0 to 1 (what is outside is moved to the nearer end, NaN is
// unknown), and a line for people, of which 1,000 characters are kept. Cheap: call it as often as you like, from any goroutine; the
// latest word is sent a few times a second.
func (j *Job) Progress(fraction float64, note string) {
	j.report(progressOf(fraction, note))
}

// Checkpoint is Progress that also says what the next attempt is to know should this one not finish: what json.Marshal takes, at most
// 64 KiB as JSON. It is kept until another one replaces it; nil takes it away. What is said before the run fails or is given back is
// there when that is.
func (j *Job) Checkpoint(fraction float64, note string, value any) error {
	text, err := toJSON(value, maxCheckpointBytes)
	if err != nil {
		return fmt.Errorf("checkpoint of job %s: %w", j.ID, err)
	}
	progress := progressOf(fraction, note)
	progress.Checkpoint = &text
	j.report(progress)
	return nil
}

func (j *Job) report(progress *jobwirev1.Progress) {
	if j.reporter != nil {
		j.reporter.report(progress)
	}
}

func progressOf(fraction float64, note string) *jobwirev1.Progress {
	progress := &jobwirev1.Progress{Note: cleanText(note, 1000)}
	if !math.IsNaN(fraction) {
		fraction = min(1, max(0, fraction))
		progress.Fraction = &fraction
	}
	return progress
}

// Extend moves the run's time limit to limit from now, 1 s to 7 days, and returns when the server has answered, or with an error when
// ctx has ended. If the lease turns out to be over, the handler's own context ends.
func (j *Job) Extend(ctx context.Context, limit time.Duration) error {
	if limit < time.Second || limit > longestSpan {
		return fmt.Errorf("Extend(%v): a time limit is 1 s to 7 days from now", limit)
	}
	if j.reporter == nil {
		return nil
	}
	select {
	case <-j.reporter.extend(limit):
	case <-ctx.Done():
	}
	return context.Cause(ctx)
}
