package main

// The thin client: the bare stubs, as in examples/publish and examples/thinworker, and what gRPC itself does about calls that fail. Its
// worker runs several jobs at once and is told to stop them, but does not resume: when its stream ends, it ends.

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	jobwirev1 "jobwire/v1"
)

// gRPC repeats calls that a broken connection ended. They carry ids and handles, so that is safe.
const policy = `{"methodConfig": [{
	"name": [{"service": "jobwire.v1.QueueService"}],
	"retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.2s", "maxBackoff": "3s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}
}]}`

type thin struct {
	runs    *runs
	channel *grpc.ClientConn
	queue   jobwirev1.QueueServiceClient
	token   string
	timeout time.Duration
}

func (t *thin) about() any {
	return map[string]any{"client": "go", "form": "thin", "claims": []string{
		"publish", "republish", "deliver", "ack", "fail", "retry", "extend", "cancel", "progress", "slow-reader", "sigterm", "oversize",
		"bad-token", "newer-server",
	}}
}

func (t *thin) connect(request *request) error {
	transport := insecure.NewCredentials()
	if trusted, err := trust(request.CAFile); err != nil {
		return err
	} else if trusted != nil {
		transport = credentials.NewTLS(trusted)
	}
	channel, err := grpc.NewClient(request.Target, grpc.WithTransportCredentials(transport), grpc.WithDefaultServiceConfig(policy))
	if err != nil {
		return err
	}
	if t.channel != nil {
		t.channel.Close()
	}
	t.channel, t.queue = channel, jobwirev1.NewQueueServiceClient(channel)
	t.token, t.timeout = request.Token, seconds(request.Timeout)
	return nil
}

func (t *thin) authorized(ctx context.Context) context.Context {
	if t.token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+t.token)
}

func (t *thin) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.authorized(ctx), t.timeout)
}

func (t *thin) publish(ctx context.Context, request *request) ([]*jobwirev1.PublishResult, error) {
	ctx, cancel := t.within(ctx)
	defer cancel()
	publish := &jobwirev1.PublishRequest{Queue: request.Queue}
	for _, job := range request.Jobs {
		if job.ID == "" {
			job.ID = uuid.Must(uuid.NewV7()).String()
		}
		publish.Jobs = append(publish.Jobs, spec(job))
	}
	response, err := t.queue.Publish(ctx, publish)
	return response.GetResults(), err
}

func (t *thin) get(ctx context.Context, request *request) (*jobwirev1.Job, error) {
	ctx, cancel := t.within(ctx)
	defer cancel()
	response, err := t.queue.GetJob(ctx, &jobwirev1.GetJobRequest{Queue: request.Queue, JobId: request.JobID})
	return response.GetJob(), err
}

func (t *thin) wait(ctx context.Context, request *request) (*jobwirev1.Job, error) {
	wait := durationpb.New(min(seconds(request.Timeout), time.Minute))
	response, err := t.queue.GetJob(t.authorized(ctx), &jobwirev1.GetJobRequest{
		Queue: request.Queue, JobId: request.JobID, Wait: wait, UntilFinished: true,
	})
	return response.GetJob(), err
}

func (t *thin) work(request *request) (func(context.Context) error, func()) {
	worker := &thinWorker{queue: t.queue, runs: t.runs, stops: map[string]context.CancelCauseFunc{}, ready: make(chan struct{})}
	var ctx context.Context
	ctx, worker.cancelAll = context.WithCancel(t.authorized(context.Background()))
	subscribe := &jobwirev1.SubscribeRequest{
		Queues:      []string{request.Queue},
		MaxInFlight: proto.Int32(int32(request.Concurrency)),
		Worker:      request.Name,
	}
	if request.HeartbeatInterval != nil {
		subscribe.HeartbeatInterval = durationpb.New(seconds(*request.HeartbeatInterval))
	}
	return func(stop context.Context) error { return worker.run(ctx, stop, subscribe) }, worker.cancelAll
}

// cancelled is why the server told a handler to stop.
type cancelled jobwirev1.CancelReason

func (c cancelled) Error() string { return jobwirev1.CancelReason(c).String() }

type thinWorker struct {
	queue     jobwirev1.QueueServiceClient
	runs      *runs
	cancelAll context.CancelFunc
	session   string
	ready     chan struct{} // closed when the session is open

	mu    sync.Mutex
	stops map[string]context.CancelCauseFunc
	works sync.WaitGroup
}

// run works until its stream ends, or stop does: then it takes no more jobs, waits for those in hand, and leaves.
func (w *thinWorker) run(ctx, stop context.Context, subscribe *jobwirev1.SubscribeRequest) error {
	defer w.cancelAll()
	broken := make(chan error, 1)
	go func() { broken <- w.follow(ctx, subscribe) }()
	select {
	case err := <-broken:
		return err
	case <-stop.Done():
	}
	select {
	case err := <-broken:
		return err
	case <-w.ready:
	}
	if _, err := w.queue.Ack(ctx, &jobwirev1.AckRequest{SessionId: w.session, MaxInFlight: proto.Int32(0)}); err != nil {
		return err
	}
	w.works.Wait()
	_, err := w.queue.Ack(ctx, &jobwirev1.AckRequest{SessionId: w.session, CloseSession: true})
	return err
}

func (w *thinWorker) follow(ctx context.Context, subscribe *jobwirev1.SubscribeRequest) error {
	stream, err := w.queue.Subscribe(ctx, subscribe)
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			return err
		}
		switch said := event.Event.(type) {
		case *jobwirev1.SubscribeResponse_Opened:
			w.session = said.Opened.SessionId
			close(w.ready)
		case *jobwirev1.SubscribeResponse_Deliveries:
			for _, delivery := range said.Deliveries.Deliveries {
				w.start(ctx, delivery)
			}
		case *jobwirev1.SubscribeResponse_Cancellation:
			w.mu.Lock()
			if stop := w.stops[said.Cancellation.Handle]; stop != nil {
				stop(cancelled(said.Cancellation.Reason))
			}
			w.mu.Unlock()
		case *jobwirev1.SubscribeResponse_Heartbeat:
			go w.queue.Ack(ctx, &jobwirev1.AckRequest{SessionId: w.session, LastSequence: event.Sequence})
		}
	}
}

func (w *thinWorker) start(ctx context.Context, delivery *jobwirev1.Delivery) {
	working, cancel := context.WithCancelCause(ctx)
	w.mu.Lock()
	w.stops[delivery.Handle] = cancel
	w.mu.Unlock()
	w.works.Go(func() {
		defer cancel(nil)
		item := w.handle(working, delivery)
		item.Handle = delivery.Handle
		// What is not answered is given back.
		_, _ = w.queue.Ack(ctx, &jobwirev1.AckRequest{SessionId: w.session, Items: []*jobwirev1.AckItem{item}})
		w.mu.Lock()
		delete(w.stops, delivery.Handle)
		w.mu.Unlock()
	})
}

func (w *thinWorker) handle(ctx context.Context, delivery *jobwirev1.Delivery) *jobwirev1.AckItem {
	say := func(extend *jobwirev1.Extend) error {
		item := &jobwirev1.AckItem{Handle: delivery.Handle, Outcome: &jobwirev1.AckItem_Extend{Extend: extend}}
		_, err := w.queue.Ack(ctx, &jobwirev1.AckRequest{SessionId: w.session, Items: []*jobwirev1.AckItem{item}})
		return err
	}
	each := &running{
		progress: func(request *request) error {
			progress := &jobwirev1.Progress{Fraction: request.Fraction, Note: request.Note}
			if request.Checkpoint != nil {
				progress.Checkpoint = proto.String(string(request.Checkpoint))
			}
			return say(&jobwirev1.Extend{Progress: progress})
		},
		extend: func(limit time.Duration) error { return say(&jobwirev1.Extend{ExpireIn: durationpb.New(limit)}) },
	}
	end, told := w.runs.see(ctx, each, delivery.JobId, int(delivery.Attempt), orNull(delivery.Data), orNull(delivery.Checkpoint))
	switch {
	case !told && context.Cause(ctx) == cancelled(jobwirev1.CancelReason_CANCEL_REASON_EXPIRED):
		return &jobwirev1.AckItem{Outcome: &jobwirev1.AckItem_Fail{Fail: &jobwirev1.Fail{Type: "EXPIRED", Message: "it took too long"}}}
	case !told:
		return &jobwirev1.AckItem{Outcome: &jobwirev1.AckItem_Release{Release: &jobwirev1.Release{}}}
	case end.As == "complete":
		return &jobwirev1.AckItem{Outcome: &jobwirev1.AckItem_Complete{Complete: &jobwirev1.Complete{Output: string(end.Output)}}}
	case end.As == "release":
		return &jobwirev1.AckItem{Outcome: &jobwirev1.AckItem_Release{Release: &jobwirev1.Release{Delay: durationOf(end.Delay)}}}
	}
	fail := &jobwirev1.Fail{Type: end.Type, Message: end.Message, Permanent: end.Permanent, RetryIn: durationOf(end.RetryIn)}
	return &jobwirev1.AckItem{Outcome: &jobwirev1.AckItem_Fail{Fail: fail}}
}

func durationOf(span *float64) *durationpb.Duration {
	if span == nil {
		return nil
	}
	return durationpb.New(seconds(*span))
}

func (t *thin) told(err error) failure {
	said := status.Convert(err)
	told := failure{codeName(said.Code()), "", said.Message()}
	for _, detail := range said.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			told.Reason = info.GetReason()
		}
	}
	return told
}
