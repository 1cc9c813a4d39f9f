package jobwire

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Error is a call that failed. Its message says what is wrong, where, and what to do.
//
//	var failure *jobwire.Error
//	if errors.As(err, &failure) { log.Print(failure.Reason, failure.FieldViolations) }
//	if errors.Is(err, jobwire.ErrNotFound) { … }
type Error struct {
	// Code is gRPC's status code.
	Code codes.Code
	// Reason is the server's finer word, such as QUEUE_NOT_FOUND; empty if it gave none.
	Reason string
	// Message is the text of the error.
	Message string
	// FieldViolations say which fields of the request break which rules.
	FieldViolations []FieldViolation
	// RetryAfter is the pause after which the server asks to repeat the call; 0 if it names none.
	RetryAfter time.Duration

	// Whether the server asks to repeat the call, be it at once.
	askedToRepeat bool
}

// FieldViolation is a field of a request that breaks a rule.
type FieldViolation struct {
	// Field is its path, such as `jobs[3].data`.
	Field string
	// Description is the rule.
	Description string
}

// What errors.Is compares with: an Error is any of these whose code, or whose reason where one is named, is the same.
var (
	ErrInvalidArgument    = &Error{Code: codes.InvalidArgument, Message: "invalid argument"}
	ErrNotFound           = &Error{Code: codes.NotFound, Message: "not found"}
	ErrFailedPrecondition = &Error{Code: codes.FailedPrecondition, Message: "failed precondition"}
	ErrAborted            = &Error{Code: codes.Aborted, Message: "aborted"}
	ErrResourceExhausted  = &Error{Code: codes.ResourceExhausted, Message: "resource exhausted"}
	ErrOverloaded         = &Error{Code: codes.ResourceExhausted, Reason: "OVERLOADED", Message: "overloaded"}
	ErrQueueFull          = &Error{Code: codes.ResourceExhausted, Reason: "QUEUE_FULL", Message: "queue full"}
	ErrUnavailable        = &Error{Code: codes.Unavailable, Message: "unavailable"}
	ErrDeadlineExceeded   = &Error{Code: codes.DeadlineExceeded, Message: "deadline exceeded"}
	ErrPermissionDenied   = &Error{Code: codes.PermissionDenied, Message: "permission denied"}
	ErrUnauthenticated    = &Error{Code: codes.Unauthenticated, Message: "unauthenticated"}
	ErrUnimplemented      = &Error{Code: codes.Unimplemented, Message: "unimplemented"}
	ErrInternal           = &Error{Code: codes.Internal, Message: "internal error"}
)

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Is says whether target is of the same kind; DEADLINE_EXCEEDED is context.DeadlineExceeded too.
func (e *Error) Is(target error) bool {
	if kind, ok := target.(*Error); ok {
		return kind.Code == e.Code && (kind.Reason == "" || kind.Reason == e.Reason)
	}
	return target == context.DeadlineExceeded && e.Code == codes.DeadlineExceeded
}

// safe ends what is said of a call that may be repeated.
const safe = "and repeating it is safe"

// GRPCStatus lets gRPC's own functions read the error, as they do those of the bare stubs.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

// errorFrom turns the error of a call to target, which its caller did not cancel, into ours.
func errorFrom(err error, target string) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	// What the end of a context is to a stream that is not open yet, is a status too.
	said := status.FromContextError(err)
	if found, ok := status.FromError(err); ok {
		said = found
	}
	failure := &Error{Code: said.Code()}
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			failure.Reason = detail.GetReason()
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				failure.FieldViolations = append(failure.FieldViolations, FieldViolation{violation.GetField(), violation.GetDescription()})
			}
		case *errdetails.RetryInfo:
			failure.askedToRepeat = true
			failure.RetryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	failure.Message = messageOf(said, failure.Reason, target)
	if failure.Code == codes.Canceled {
		// Whoever cancels a call is told otherwise: this is how gRPC ends calls that reach a server as it stops.
		failure.Code = codes.Unavailable
	}
	return failure
}

// closedError is for who calls, or waits for an answer, after the end.
func closedError(target string) *Error {
	message := fmt.Sprintf("the connection to Jobwire at %s was closed by this program: make a new one", target)
	return &Error{Code: codes.FailedPrecondition, Reason: "CLOSED", Message: message}
}

// messageOf lets the server's own words stand, and turns what gRPC itself says into what to do.
func messageOf(said *status.Status, reason, target string) string {
	text := said.Message()
	if reason != "" {
		if text == "" {
			return reason
		}
		return text
	}
	switch said.Code() {
	case codes.Unavailable:
		return fmt.Sprintf("cannot reach Jobwire at %s (%s): is it running there, and are address and TLS right?", target, whyUnavailable(text))
	case codes.DeadlineExceeded:
		return fmt.Sprintf("no answer from Jobwire at %s in time; the call may have taken effect, %s", target, safe)
	case codes.Canceled:
		return fmt.Sprintf("the call to Jobwire at %s was ended (%s); it may have taken effect, %s", target, orElse(text, "CANCELLED"), safe)
	case codes.Unimplemented:
		return fmt.Sprintf("the server at %s does not know this call (%s): is it Jobwire, and as new as this client?", target, text)
	default:
		return fmt.Sprintf("%s (from %s)", orElse(text, said.Code().String()), target)
	}
}

// whyUnavailable takes the cause out of the layers in which gRPC wraps it.
func whyUnavailable(text string) string {
	const cause = `desc = "`
	if at := strings.LastIndex(text, cause); at >= 0 {
		text = strings.TrimSuffix(text[at+len(cause):], `"`)
		text = strings.ReplaceAll(text, `\"`, `"`)
	}
	text = strings.TrimPrefix(text, "transport: ")
	text = strings.TrimPrefix(text, "Error while dialing: ")
	if text == "no children to pick from" {
		// So round_robin puts it when a look-up of the name failed, and keeps to itself why.
		return "no address was found for this name"
	}
	return orElse(text, "no connection")
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}
