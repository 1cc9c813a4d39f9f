package jobwire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	jobwirev1 "jobwire/v1"
)

func TestAnErrorIsFoundByItsCodeAndItsReason(t *testing.T) {
	full := fmt.Errorf("publishing: %w", &Error{Code: codes.ResourceExhausted, Reason: "QUEUE_FULL", Message: "full"})
	for target, same := range map[error]bool{
		ErrResourceExhausted: true, ErrQueueFull: true, ErrOverloaded: false, ErrUnavailable: false, context.DeadlineExceeded: false,
	} {
		if errors.Is(full, target) != same {
			t.Errorf("errors.Is(%v, %v) is not %v", full, target, same)
		}
	}
	late := &Error{Code: codes.DeadlineExceeded}
	if !errors.Is(late, context.DeadlineExceeded) || !errors.Is(late, ErrDeadlineExceeded) {
		t.Error("DEADLINE_EXCEEDED is not what the context package calls so")
	}
	var failure *Error
	if !errors.As(full, &failure) || failure.Reason != "QUEUE_FULL" {
		t.Errorf("errors.As finds %v", failure)
	}
}

func TestTheServersOwnWordsAndDetailsStand(t *testing.T) {
	client := client(t)
	_, err := client.Publish(patient(t), "no queue's name!", NewJob{Data: 1})
	var failure *Error
	if !errors.As(err, &failure) || !errors.Is(err, ErrInvalidArgument) || failure.Reason != "INVALID_ARGUMENT" {
		t.Fatalf("%#v", err)
	}
	if len(failure.FieldViolations) != 1 || failure.FieldViolations[0].Field != "queue" || failure.FieldViolations[0].Description == "" {
		t.Errorf("%+v", failure.FieldViolations)
	}
	if _, err = client.GetJob(patient(t), newQueue(), NewJobID()); !errors.Is(err, ErrNotFound) {
		t.Errorf("%#v", err)
	}
	if _, err = client.Wait(patient(t), newQueue(), NewJobID()); !errors.Is(err, ErrNotFound) {
		t.Errorf("%#v", err)
	}
}

func TestACallThatReachesNobodySaysSoInItsTime(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	client, err := NewClient(address, Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = client.Publish(t.Context(), "work", NewJob{})
	if !errors.Is(err, ErrUnavailable) {
		t.Fatalf("%#v", err)
	}
	said := fmt.Sprintf("cannot reach Jobwire at %s (dial tcp %s: connect: connection refused): is it running there", address, address)
	if !strings.HasPrefix(err.Error(), said) {
		t.Errorf("%v", err)
	}
	// The caller's own word is another matter.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = client.Publish(ctx, "work", NewJob{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%#v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err = client.Wait(ctx, "work", NewJobID()); !errors.Is(err, ErrDeadlineExceeded) || !strings.Contains(err.Error(), "never seen") {
		t.Errorf("%#v", err)
	}
}

func TestWhoCallsAfterTheEndIsToldSo(t *testing.T) {
	client, queue := client(t), newQueue()
	id := publish(t, client, queue, NewJob{})
	waited := make(chan error)
	go func() { _, err := client.Wait(patient(t), queue, id); waited <- err }()
	client.Close()
	client.Close()
	_, err := client.Publish(patient(t), queue, NewJob{})
	_, admin := client.Admin().GetQueue(patient(t), &jobwirev1.GetQueueRequest{Name: queue})
	for _, err := range []error{err, admin, receive(t, waited)} {
		var failure *Error
		if !errors.As(err, &failure) || !errors.Is(err, ErrFailedPrecondition) || failure.Reason != "CLOSED" {
			t.Errorf("%#v", err)
		}
	}
}

func TestWhatIsNoAddressIsRefusedAtOnce(t *testing.T) {
	for _, target := range []string{"", "http://127.0.0.1:50051", "HTTPS://jobwire", "dns://\x00"} {
		worker := NewWorker(target, WorkerOptions{})
		worker.Handle("work", 1, func(context.Context, *Job) (any, error) { return nil, nil })
		_, err := NewClient(target, Options{})
		for _, err := range []error{err, worker.Run(patient(t))} {
			if !errors.Is(err, ErrInvalidArgument) || !strings.HasPrefix(err.Error(), "target: host and port, such as 127.0.0.1:50051") {
				t.Errorf("%q: %v", target, err)
			}
		}
	}
}

func TestANameWithoutAnAddressIsCalledSo(t *testing.T) {
	err := errorFrom(status.Error(codes.Unavailable, "no children to pick from"), "jobs.invalid:50051")
	if !strings.Contains(err.Error(), "(no address was found for this name)") {
		t.Error(err)
	}
}

func TestACallIsRepeatedWhereThatMayHelp(t *testing.T) {
	server := scriptedServer(t)
	client, err := NewClient(server.address, Options{Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	asked, err := status.New(codes.ResourceExhausted, "too much at once").WithDetails(&errdetails.RetryInfo{})
	if err != nil {
		t.Fatal(err)
	}
	// CANCELLED is how gRPC ends calls that reach a server as it stops.
	for _, trouble := range []error{refusal(codes.Canceled), refusal(codes.Unavailable), refusal(codes.Aborted), asked.Err(), nil} {
		server.gets <- trouble
	}
	if _, err := client.GetJob(t.Context(), "work", NewJobID()); err != nil || len(server.gets) > 0 {
		t.Errorf("%v, with %d answers to come", err, len(server.gets))
	}
	for code, said := range map[codes.Code]string{
		codes.ResourceExhausted: "as the test wants it (from " + server.address + ")",
		codes.Unimplemented:     "the server at " + server.address + " does not know this call (as the test wants it): is it Jobwire, and as new as this client?",
		codes.Unauthenticated:   "as the test wants it",
	} {
		server.gets <- refusal(code)
		_, err := client.GetJob(t.Context(), "work", NewJobID())
		var failure *Error
		if !errors.As(err, &failure) || failure.Code != code || !strings.HasPrefix(failure.Message, said) {
			t.Errorf("%v: %v", code, err)
		}
	}
}

func TestPausesGrowToABoundAndBeginAnew(t *testing.T) {
	var pauses backoff
	longest := time.Duration(0)
	for range 1000 {
		longest = max(longest, pauses.pause(0))
	}
	if longest > longestPause || longest < longestPause/2 {
		t.Errorf("the longest of many is %v", longest)
	}
	pauses.reset()
	if pause := pauses.pause(time.Minute); pause < time.Minute || pause > time.Minute+firstPause {
		t.Errorf("asked to wait a minute, it waits %v", pause)
	}
}
