package jobwire

// How a run of a handler ended, and what is said of it in an Ack. Whatever a handler returns, or panics with, becomes one of the
// statements of the contract; nothing of it goes further than this.

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	jobwirev1 "jobwire/v1"
)

const maxTraceBytes = 8 << 10

// StopReason says why a handler was told to stop; it is the cause of its context's end:
//
//	if context.Cause(ctx) == jobwire.StopExpired { … }
type StopReason string

// The reasons.
const (
	// Somebody cancelled the job.
	StopRequested StopReason = "requested"
	// Its time limit is over.
	StopExpired StopReason = "expired"
	// The server gave the job to somebody else, or to nobody.
	StopLeaseLost StopReason = "lease_lost"
	// Nothing was heard from the server for so long that it may have done so.
	StopSilence StopReason = "silence"
	// The worker stops.
	StopStopping StopReason = "stopping"
)

// Error makes a reason the cause of a context's end.
func (r StopReason) Error() string { return "the job is to stop: " + string(r) }

// Is makes a reason an end of a context like any other.
func (r StopReason) Is(target error) bool { return target == context.Canceled }

func stopReasonOf(reason jobwirev1.CancelReason) StopReason {
	switch reason {
	case jobwirev1.CancelReason_CANCEL_REASON_EXPIRED:
		return StopExpired
	case jobwirev1.CancelReason_CANCEL_REASON_LEASE_LOST:
		return StopLeaseLost
	default:
		return StopRequested
	}
}

// verdict is an error that says what is to become of the job.
type verdict struct {
	err       error
	permanent bool
	retryIn   *time.Duration
	release   bool
	delay     time.Duration
}

func (v *verdict) Error() string {
	if v.err != nil {
		return v.err.Error()
	}
	if v.release {
		return "given back"
	}
	return "failed"
}

func (v *verdict) Unwrap() error { return v.err }

// FailForGood makes a handler's error one that fails the job without further retries.
func FailForGood(err error) error { return &verdict{err: err, permanent: true} }

// RetryIn makes a handler's error one that fails this run, and asks for the next one after exactly this pause (0 s to 7 days; what
// is outside is moved to the nearer end). It uses up a retry.
func RetryIn(pause time.Duration, err error) error {
	pause = bounded(pause)
	return &verdict{err: err, retryIn: &pause}
}

// Release is what a handler returns as its error to give the job back untouched: no retry is used up. The pause before the next
// delivery is delay (at most 7 days), or if that is 0 the server's: none the first time, then growing to 60 s.
func Release(delay time.Duration) error { return &verdict{release: true, delay: bounded(delay)} }

func bounded(span time.Duration) time.Duration { return max(0, min(span, longestSpan)) }

// completed is the statement on a handler that returned a result.
func completed(result any) *jobwirev1.AckItem {
	output, err := toJSON(result, maxDataBytes)
	if err != nil {
		return badResult(err.Message)
	}
	return &jobwirev1.AckItem{Outcome: &jobwirev1.AckItem_Complete{Complete: &jobwirev1.Complete{Output: output}}}
}

// badResult is the statement on a handler whose result nobody takes; running it again would not help.
func badResult(why string) *jobwirev1.AckItem {
	return failed(&jobwirev1.Fail{Type: "BadResult", Message: "the handler's result cannot be stored: " + why, Permanent: true})
}

func failed(fail *jobwirev1.Fail) *jobwirev1.AckItem {
	fail.Type = cleanText(fail.Type, 200)
	fail.Message = cleanText(fail.Message, 2000)
	fail.Trace = endOf(fail.Trace, maxTraceBytes)
	return &jobwirev1.AckItem{Outcome: &jobwirev1.AckItem_Fail{Fail: fail}}
}

func released(delay time.Duration) *jobwirev1.AckItem {
	release := &jobwirev1.Release{}
	if delay > 0 {
		release.Delay = durationpb.New(delay)
	}
	return &jobwirev1.AckItem{Outcome: &jobwirev1.AckItem_Release{Release: release}}
}

// returned is the statement on a handler that returned an error, having been told to stop for reason if that is not empty.
func returned(err error, reason StopReason) *jobwirev1.AckItem {
	var said *verdict
	if errors.As(err, &said) {
		if said.release {
			return released(said.delay)
		}
		fail := &jobwirev1.Fail{Type: typeOf(err), Message: textOf(err), Permanent: said.permanent}
		if said.retryIn != nil {
			fail.RetryIn = durationpb.New(*said.retryIn)
		}
		return failed(fail)
	}
	if reason != "" && errors.Is(err, context.Canceled) {
		return stopped(reason)
	}
	return broke(&jobwirev1.Fail{Type: typeOf(err), Message: textOf(err)}, reason)
}

// panicked is the statement on a handler that panicked.
func panicked(value any, trace []byte, reason StopReason) *jobwirev1.AckItem {
	message := fmt.Sprint(value)
	if err, ok := value.(error); ok {
		message = textOf(err)
	}
	return broke(&jobwirev1.Fail{Type: "panic", Message: message, Trace: string(trace)}, reason)
}

// broke is the statement on a failure that may be the interruption's fault.
func broke(fail *jobwirev1.Fail, reason StopReason) *jobwirev1.AckItem {
	switch reason {
	case StopStopping, StopSilence, StopLeaseLost:
		// It was interrupted for a reason that is not the job's: that uses up no retry.
		return released(0)
	}
	return failed(fail)
}

// stopped is the statement on a handler that ended because it was told to.
func stopped(reason StopReason) *jobwirev1.AckItem {
	if reason == StopExpired {
		return failed(&jobwirev1.Fail{
			Type:    "EXPIRED",
			Message: "the run took longer than its time limit; expire_in sets it, Job.Extend moves it",
		})
	}
	return released(0)
}

// typeOf names an error for people and for those who count them: by its method ErrorType, or by its Go type, looking through what
// only wraps another error.
func typeOf(err error) string {
	for ; err != nil; err = errors.Unwrap(err) {
		if named, ok := err.(interface{ ErrorType() string }); ok {
			return named.ErrorType()
		}
		if _, only := err.(*verdict); only {
			continue
		}
		kind := reflect.TypeOf(err)
		for kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		if path := kind.PkgPath(); path != "fmt" && path != "errors" {
			return kind.String()
		}
	}
	return "error"
}

// textOf survives an Error method that panics.
func textOf(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = fmt.Sprintf("%T (its text cannot be shown)", err)
		}
	}()
	if text = strings.TrimSpace(err.Error()); text == "" {
		text = typeOf(err)
	}
	return text
}
