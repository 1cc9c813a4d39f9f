package jobwire

// What an operator does through the client: on the real server, and behind a relay that loses answers.

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	jobwirev1 "jobwire/v1"
)

func TestAnOperatorCancelsARunningJob(t *testing.T) {
	ctx, queue := patient(t), newQueue()
	client, err := NewClient(target(t), Options{Timeout: patience, Actor: "Ada, support"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	started, told := make(chan string, 1), make(chan error, 1)
	working(t, queue, 1, WorkerOptions{}, func(ctx context.Context, job *Job) (any, error) {
		started <- job.ID
		<-ctx.Done()
		told <- context.Cause(ctx)
		return nil, ctx.Err()
	})
	id := publish(t, client, queue, NewJob{})
	receive(t, started)
	cancelled, err := client.Admin().CancelJobs(ctx, &jobwirev1.CancelJobsRequest{Queue: queue, JobIds: []string{id}})
	if err != nil || cancelled.GetResults()[0].GetStatus() != jobwirev1.CancelStatus_CANCEL_STATUS_REQUESTED {
		t.Fatalf("%v, %v", cancelled, err)
	}
	if why := receive(t, told); !errors.Is(why, StopRequested) {
		t.Errorf("the handler was told: %v", why)
	}
	if job := ended(t, client, queue, id); job.GetState() != jobwirev1.JobState_JOB_STATE_CANCELLED {
		t.Errorf("it is %v", job.GetState())
	}
	done, err := client.Admin().ListActions(ctx, &jobwirev1.ListActionsRequest{Queue: queue})
	if err != nil || done.GetActions()[0].GetActor() != "Ada, support" || done.GetActions()[0].GetWhat() != "job.cancel" {
		t.Errorf("on record is %v, %v", done, err)
	}
}

func TestWhatAnOperatorIsRefusedHasReasonAndAdvice(t *testing.T) {
	ctx, admin, queue := patient(t), client(t).Admin(), newQueue()
	_, err := admin.CancelJobs(ctx, &jobwirev1.CancelJobsRequest{Queue: queue, JobIds: []string{NewJobID()}})
	var failure *Error
	if !errors.Is(err, ErrNotFound) || !errors.As(err, &failure) || failure.Reason != "QUEUE_NOT_FOUND" ||
		!strings.Contains(err.Error(), "create it with AdminService.CreateQueue") {
		t.Errorf("%v", err)
	}
	// A call that is made once is refused in the same way.
	_, err = admin.DeleteQueue(ctx, &jobwirev1.DeleteQueueRequest{Name: queue})
	if !errors.As(err, &failure) || failure.Code != codes.NotFound || failure.Reason != "QUEUE_NOT_FOUND" {
		t.Errorf("%v", err)
	}
	if status.Code(err) != codes.NotFound {
		t.Errorf("for gRPC it is %v", status.Code(err))
	}
}

// relay hands calls of an operator on to the real server, and loses as many answers as it is told to.
type relay struct {
	jobwirev1.UnimplementedAdminServiceServer
	server jobwirev1.AdminServiceClient

	mu     sync.Mutex
	losses int
	calls  []string
	tokens []string
}

func relayed(t *testing.T) (*relay, *Client) {
	t.Helper()
	channel, err := grpc.NewClient(target(t), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	relay := &relay{server: jobwirev1.NewAdminServiceClient(channel)}
	on := grpc.NewServer(grpc.UnaryInterceptor(relay.lose))
	jobwirev1.RegisterAdminServiceServer(on, relay)
	go func() { _ = on.Serve(listener) }()
	client, err := NewClient(listener.Addr().String(), Options{Token: "secret", Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		on.Stop()
		_ = channel.Close()
	})
	return relay, client
}

func (r *relay) lose(ctx context.Context, request any, call *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	answer, err := handle(ctx, request)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, call.FullMethod)
	said, _ := metadata.FromIncomingContext(ctx)
	r.tokens = append(r.tokens, said.Get("authorization")...)
	if r.losses--; r.losses >= 0 {
		return nil, status.Error(codes.Unavailable, "lost")
	}
	return answer, err
}

func (r *relay) expect(t *testing.T, losses int, calls ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for place, name := range calls {
		calls[place] = "/jobwire.v1.AdminService/" + name
	}
	if !slices.Equal(r.calls, calls) {
		t.Errorf("it was called %v", r.calls)
	}
	r.losses, r.calls = losses, nil
}

func (r *relay) CancelJobs(ctx context.Context, request *jobwirev1.CancelJobsRequest) (*jobwirev1.CancelJobsResponse, error) {
	return r.server.CancelJobs(ctx, request)
}

func (r *relay) ChangeJobs(ctx context.Context, request *jobwirev1.ChangeJobsRequest) (*jobwirev1.ChangeJobsResponse, error) {
	return r.server.ChangeJobs(ctx, request)
}

func (r *relay) RedriveJobs(ctx context.Context, _ *jobwirev1.RedriveJobsRequest) (*jobwirev1.RedriveJobsResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (r *relay) ListSessions(ctx context.Context, _ *jobwirev1.ListSessionsRequest) (*jobwirev1.ListSessionsResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestOnlyWhatIsSafeToRepeatIsRepeated(t *testing.T) {
	relay, through := relayed(t)
	ctx, queue := patient(t), newQueue()
	id := publish(t, client(t), queue, NewJob{})

	relay.expect(t, 1)
	cancelled, err := through.Admin().CancelJobs(ctx, &jobwirev1.CancelJobsRequest{Queue: queue, JobIds: []string{id}})
	if err != nil || cancelled.GetResults()[0].GetStatus() != jobwirev1.CancelStatus_CANCEL_STATUS_ALREADY_FINISHED {
		t.Fatalf("%v, %v", cancelled, err)
	}
	relay.expect(t, 1, "CancelJobs", "CancelJobs")
	if relay.tokens[0] != "Bearer secret" {
		t.Errorf("it brought %q", relay.tokens)
	}

	_, err = through.Admin().ChangeJobs(ctx, &jobwirev1.ChangeJobsRequest{
		Queue:     queue,
		Selection: &jobwirev1.ChangeJobsRequest_Filter{Filter: &jobwirev1.JobFilter{}},
		Change:    &jobwirev1.ChangeJobsRequest_Retry{Retry: &jobwirev1.RetryChange{}},
		Limit:     1,
	})
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	relay.expect(t, 0, "ChangeJobs")
	if job, err := client(t).GetJob(ctx, queue, id); err != nil || job.GetState() != jobwirev1.JobState_JOB_STATE_CREATED {
		t.Errorf("it was not done: %v, %v", job.GetState(), err)
	}
}

func TestAnOperatorsContextEndsTheCall(t *testing.T) {
	_, through := relayed(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := through.Admin().ListSessions(ctx, &jobwirev1.ListSessionsRequest{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := through.Admin().RedriveJobs(ctx, &jobwirev1.RedriveJobsRequest{})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.HasSuffix(err.Error(), "may have taken effect, and ListActions says whether") {
		t.Errorf("%v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	if _, err := through.Admin().ListSessions(ctx, &jobwirev1.ListSessionsRequest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
