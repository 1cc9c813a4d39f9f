package jobwire

// A server that says what a test tells it to, over real gRPC: for what the real one does too seldom to wait for.

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	jobwirev1 "jobwire/v1"
)

type scripted struct {
	jobwirev1.UnimplementedQueueServiceServer
	address string
	// Each Subscribe, as it comes.
	streams chan *scriptedStream

	// What GetJob is answered, one after the other; nil is a job without anything.
	gets chan error

	mu     sync.Mutex
	acks   []*jobwirev1.AckRequest
	answer func(*jobwirev1.AckRequest) (*jobwirev1.AckResponse, error)
}

type scriptedStream struct {
	grpc.ServerStreamingServer[jobwirev1.SubscribeResponse]
	request  *jobwirev1.SubscribeRequest
	sequence int64
	end      chan error
}

func scriptedServer(t *testing.T) *scripted {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &scripted{address: listener.Addr().String(), streams: make(chan *scriptedStream, 10), gets: make(chan error, 10), answer: applied}
	on := grpc.NewServer()
	jobwirev1.RegisterQueueServiceServer(on, server)
	go func() { _ = on.Serve(listener) }()
	t.Cleanup(on.Stop)
	return server
}

func (s *scripted) Subscribe(request *jobwirev1.SubscribeRequest, stream grpc.ServerStreamingServer[jobwirev1.SubscribeResponse]) error {
	own := &scriptedStream{stream, request, 0, make(chan error, 1)}
	s.streams <- own
	select {
	case err := <-own.end:
		return err
	case <-stream.Context().Done():
		return nil
	}
}

func (s *scripted) GetJob(context.Context, *jobwirev1.GetJobRequest) (*jobwirev1.GetJobResponse, error) {
	return &jobwirev1.GetJobResponse{Job: &jobwirev1.Job{}}, <-s.gets
}

func (s *scripted) Ack(_ context.Context, request *jobwirev1.AckRequest) (*jobwirev1.AckResponse, error) {
	s.mu.Lock()
	s.acks = append(s.acks, request)
	answer := s.answer
	s.mu.Unlock()
	return answer(request)
}

// applied answers as a server that agrees to all.
func applied(request *jobwirev1.AckRequest) (*jobwirev1.AckResponse, error) {
	response := &jobwirev1.AckResponse{SessionAlive: true}
	for range request.GetItems() {
		response.Results = append(response.Results, &jobwirev1.AckResult{Status: jobwirev1.AckStatus_ACK_STATUS_APPLIED})
	}
	return response, nil
}

func (s *scripted) answers(answer func(*jobwirev1.AckRequest) (*jobwirev1.AckResponse, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// heard waits for an Ack.
func (s *scripted) heard(t *testing.T, what string, wanted func(*jobwirev1.AckRequest) bool) (found *jobwirev1.AckRequest) {
	t.Helper()
	until(t, what, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		at := slices.IndexFunc(s.acks, wanted)
		if at >= 0 {
			found = s.acks[at]
		}
		return at >= 0
	})
	return found
}

// settled waits for what is said last of a delivery's end.
func (s *scripted) settled(t *testing.T, handle string) (last *jobwirev1.AckItem) {
	t.Helper()
	s.heard(t, "the end of "+handle, func(ack *jobwirev1.AckRequest) bool {
		at := slices.IndexFunc(ack.Items, func(item *jobwirev1.AckItem) bool { return item.Handle == handle && item.GetExtend() == nil })
		if at >= 0 {
			last = ack.Items[at]
		}
		return at >= 0
	})
	return last
}

// said counts the statements of a delivery's end.
func (s *scripted) said(handle string) (count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ack := range s.acks {
		for _, item := range ack.Items {
			if item.Handle == handle && item.GetExtend() == nil {
				count++
			}
		}
	}
	return count
}

func refusal(code codes.Code) error { return status.Error(code, "as the test wants it") }

func (s *scriptedStream) send(t *testing.T, event *jobwirev1.SubscribeResponse) {
	t.Helper()
	s.sequence++
	event.Sequence = s.sequence
	if err := s.Send(event); err != nil {
		t.Fatal(err)
	}
}

// open sends the first event, under terms with which nothing falls silent.
func (s *scriptedStream) open(t *testing.T, session string, lost ...string) {
	t.Helper()
	s.openWith(t, session, 5*time.Minute, lost)
}

// openWith sends it under terms with which silence is two of these intervals.
func (s *scriptedStream) openWith(t *testing.T, session string, heartbeat time.Duration, lost []string) {
	t.Helper()
	epoch := max(1, s.request.GetResume().GetEpoch())
	s.send(t, &jobwirev1.SubscribeResponse{Event: &jobwirev1.SubscribeResponse_Opened{Opened: &jobwirev1.SessionOpened{
		SessionId:         session,
		Epoch:             epoch,
		Resumed:           epoch > 1,
		Lost:              lost,
		MaxInFlight:       s.request.GetMaxInFlight(),
		HeartbeatInterval: durationpb.New(heartbeat),
	}}})
}

// deliver sends jobs; handle and job have one name.
func (s *scriptedStream) deliver(t *testing.T, attempt int32, handles ...string) {
	t.Helper()
	deliveries := &jobwirev1.Deliveries{}
	for _, handle := range handles {
		deliveries.Deliveries = append(deliveries.Deliveries, &jobwirev1.Delivery{Handle: handle, JobId: handle, Data: "1", Attempt: attempt})
	}
	s.send(t, &jobwirev1.SubscribeResponse{Event: &jobwirev1.SubscribeResponse_Deliveries{Deliveries: deliveries}})
}

func (s *scriptedStream) beat(t *testing.T) {
	t.Helper()
	s.send(t, &jobwirev1.SubscribeResponse{Event: &jobwirev1.SubscribeResponse_Heartbeat{Heartbeat: &jobwirev1.Heartbeat{}}})
}
