package jobwire

// Follows one job to its end by long polls, across server restarts.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	jobwirev1 "jobwire/v1"
)

const (
	// How long one GetJob waits; proxies rarely cut a call that is this short.
	longPoll = 30 * time.Second
	// How much longer than its wait a long poll may take.
	answerTime = 10 * time.Second
	// An unchanged job that comes back faster than this means that waits end early, as they do when the server drains.
	quick = time.Second
)

func follow(ctx context.Context, c *connection, queue, id string) (*jobwirev1.Job, error) {
	var known *jobwirev1.Job
	var trouble *Error
	var pauses backoff
	request := &jobwirev1.GetJobRequest{Queue: queue, JobId: id, UntilFinished: true}
	for ctx.Err() == nil {
		asked := time.Now()
		response, err := attempt(ctx, c, request.GetWait().AsDuration()+answerTime, c.queue.GetJob, request)
		switch {
		case ctx.Err() != nil:
		case err != nil && !worthRepeating(err):
			return nil, err
		case err != nil:
			trouble = err
			sleep(ctx, pauses.pause(err.RetryAfter))
		default:
			trouble = nil
			job := response.GetJob()
			if finished(job.GetState()) {
				return job, nil
			}
			if known.GetRevision() != job.GetRevision() || time.Since(asked) >= quick {
				pauses.reset()
			} else {
				sleep(ctx, pauses.pause(0))
			}
			// The first time for the job as it is, then for its end.
			known = job
			request.KnownRevision = job.GetRevision()
			request.Wait = durationpb.New(longPoll)
		}
	}
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, ctx.Err()
	}
	message := fmt.Sprintf("job %s did not finish in time, it was never seen", id)
	if known != nil {
		message = fmt.Sprintf("job %s did not finish in time, it was %s when last seen", id, stateName(known.GetState()))
	}
	if trouble != nil {
		message += fmt.Sprintf("; the last attempt failed: %v", trouble)
	}
	return nil, &Error{Code: codes.DeadlineExceeded, Message: message}
}

func finished(state jobwirev1.JobState) bool {
	switch state {
	case jobwirev1.JobState_JOB_STATE_COMPLETED, jobwirev1.JobState_JOB_STATE_CANCELLED, jobwirev1.JobState_JOB_STATE_FAILED:
		return true
	}
	return false
}

func stateName(state jobwirev1.JobState) string {
	return strings.ToLower(strings.TrimPrefix(state.String(), "JOB_STATE_"))
}
