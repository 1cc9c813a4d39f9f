package jobwire

// The rules of docs/protocol.md that a session keeps, each against a server that does what the rule is about.

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	jobwirev1 "jobwire/v1"
)

// stage is a worker of one handler with three places, before a scripted server.
type stage struct {
	*scripted
	t       *testing.T
	log     *logged
	started chan string // the handles whose handlers begin
	ended   chan error  // what Run returned
	stop    context.CancelFunc

	mu     sync.Mutex
	finish map[string]chan any // by handle; what it is to do with its job, or an error or an output to end with
	stops  map[string]chan StopReason
}

func onStage(t *testing.T) *stage {
	t.Helper()
	t.Parallel()
	server := scriptedServer(t)
	return stageAt(t, server, server.address, "work")
}

// stageAt is a worker with a handler for each of these queues, that finds the server at this address.
func stageAt(t *testing.T, server *scripted, address string, queues ...string) *stage {
	t.Helper()
	s := &stage{
		scripted: server, t: t, log: &logged{}, started: make(chan string, 100), ended: make(chan error, 1),
		finish: map[string]chan any{}, stops: map[string]chan StopReason{},
	}
	worker := NewWorker(address, WorkerOptions{Logger: s.log.logger(), StopGrace: -1})
	for _, queue := range queues {
		worker.Handle(queue, 3, s.handle)
	}
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	go func() { s.ended <- worker.Run(ctx) }()
	t.Cleanup(func() {
		s.stop()
		worker.StopNow()
		if t.Failed() {
			t.Logf("%s", &s.log.text)
		}
	})
	return s
}

func (s *stage) handle(ctx context.Context, job *Job) (any, error) {
	finish, stops := s.of(job.ID)
	s.started <- job.ID
	for {
		select {
		case end := <-finish:
			switch end := end.(type) {
			case func(context.Context, *Job):
				end(ctx, job)
			case error:
				return nil, end
			default:
				return end, nil
			}
		case <-ctx.Done():
			stops <- context.Cause(ctx).(StopReason)
			return nil, ctx.Err()
		}
	}
}

func (s *stage) of(handle string) (chan any, chan StopReason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finish[handle] == nil {
		s.finish[handle], s.stops[handle] = make(chan any, 5), make(chan StopReason, 1)
	}
	return s.finish[handle], s.stops[handle]
}

func (s *stage) end(handle string, how any) {
	finish, _ := s.of(handle)
	finish <- how
}

// stoppedFor waits until a handler is told to stop.
func (s *stage) stoppedFor(handle string) StopReason {
	s.t.Helper()
	_, stops := s.of(handle)
	return receive(s.t, stops)
}

// opened is the stream of a new session that has these jobs.
func (s *stage) opened(session string, handles ...string) *scriptedStream {
	s.t.Helper()
	stream := receive(s.t, s.streams)
	if stream.request.Resume != nil {
		s.t.Fatalf("it resumes: %v", stream.request)
	}
	stream.open(s.t, session)
	if len(handles) > 0 {
		stream.deliver(s.t, 1, handles...)
	}
	for range handles {
		receive(s.t, s.started)
	}
	return stream
}

func TestAJobThatWasDeliveredBeforeBeginsWhenItsReceiptIsKnown(t *testing.T) {
	stage := onStage(t)
	release := make(chan struct{})
	stage.answers(func(request *jobwirev1.AckRequest) (*jobwirev1.AckResponse, error) {
		if request.LastSequence == 2 {
			<-release
		}
		return applied(request)
	})
	stream := stage.opened("s")
	stream.deliver(t, 2, "again")
	stage.heard(t, "its receipt", func(ack *jobwirev1.AckRequest) bool { return ack.LastSequence == 2 && ack.SessionId == "s" })
	stream.deliver(t, 1, "first")
	if handle := receive(t, stage.started); handle != "first" {
		t.Errorf("%s begins before its receipt is answered", handle)
	}
	close(release)
	if handle := receive(t, stage.started); handle != "again" {
		t.Errorf("%s begins", handle)
	}
}

func TestAnEndIsSaidUntilItIsAnswered(t *testing.T) {
	stage := onStage(t)
	trouble := []codes.Code{codes.Unavailable, codes.Canceled, codes.DeadlineExceeded, codes.Internal, codes.Unknown}
	stream := stage.opened("s", "job")
	stage.answers(func(request *jobwirev1.AckRequest) (*jobwirev1.AckResponse, error) {
		if tries := stage.said("job"); tries > 0 && tries <= len(trouble) {
			return nil, refusal(trouble[tries-1])
		}
		return applied(request)
	})
	stage.end("job", "done")
	until(t, "all repetitions", func() bool { return stage.said("job") == len(trouble)+1 })
	// Now that it is answered, it is not held any more.
	stream.end <- refusal(codes.Unavailable)
	if resumed := receive(t, stage.streams); len(resumed.request.Resume.Held) != 0 {
		t.Errorf("it still holds %v", resumed.request.Resume.Held)
	}
	if stage.said("job") != len(trouble)+1 {
		t.Error("it is said again after it was answered")
	}
}

func TestAStatementThatIsRefusedHarmsNoOther(t *testing.T) {
	stage := onStage(t)
	stream := stage.opened("s", "slow")
	hold := make(chan struct{})
	stage.answers(func(request *jobwirev1.AckRequest) (*jobwirev1.AckResponse, error) {
		for _, item := range request.Items {
			switch {
			case item.Handle == "slow":
				<-hold // meanwhile the others gather
			case item.Handle == "bad" && item.GetRelease() == nil:
				return nil, refusal(codes.InvalidArgument)
			}
		}
		return applied(request)
	})
	stage.end("slow", 0)
	stage.settled(t, "slow")
	stream.deliver(t, 1, "good", "bad")
	for range 2 {
		receive(t, stage.started)
	}
	stage.end("good", 1)
	stage.end("bad", 2)
	// No more than three places: the next is given back only when both have ended.
	until(t, "the ends of both", func() bool { return stage.log.count("job completed") == 3 })
	close(hold)
	until(t, "the plainest word on the bad one", func() bool { return stage.said("bad") >= 3 })
	stage.heard(t, "both in one call", func(ack *jobwirev1.AckRequest) bool { return len(ack.Items) == 2 })
	stage.heard(t, "the good one alone", func(ack *jobwirev1.AckRequest) bool { return len(ack.Items) == 1 && ack.Items[0].Handle == "good" })
	stage.heard(t, "the bad one failed for good", func(ack *jobwirev1.AckRequest) bool {
		return len(ack.Items) == 1 && ack.Items[0].Handle == "bad" && ack.Items[0].GetFail().GetType() == "BadResult" && ack.Items[0].GetFail().Permanent
	})
	stage.heard(t, "the bad one given back", func(ack *jobwirev1.AckRequest) bool {
		return len(ack.Items) == 1 && ack.Items[0].Handle == "bad" && ack.Items[0].GetRelease() != nil
	})
}

func TestALockedJobIsSaidApartFromTheOthers(t *testing.T) {
	stage := onStage(t)
	stage.opened("s", "locked", "free")
	var mu sync.Mutex
	tries, unlocked := 0, false
	stage.answers(func(request *jobwirev1.AckRequest) (*jobwirev1.AckResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		if !unlocked && slices.ContainsFunc(request.Items, func(item *jobwirev1.AckItem) bool { return item.Handle == "locked" }) {
			tries++
			said, _ := status.New(codes.Aborted, "locked").WithDetails(
				&errdetails.ErrorInfo{Reason: "LOCK_TIMEOUT"}, &errdetails.RetryInfo{RetryDelay: durationpb.New(10 * time.Millisecond)})
			return nil, said.Err()
		}
		return applied(request)
	})
	stage.end("locked", 1)
	until(t, "a second attempt", func() bool { mu.Lock(); defer mu.Unlock(); return tries >= 2 })
	stage.end("free", 2)
	stage.heard(t, "the free one alone", func(ack *jobwirev1.AckRequest) bool { return len(ack.Items) == 1 && ack.Items[0].Handle == "free" })
	stage.scripted.mu.Lock()
	if slices.ContainsFunc(stage.acks, func(ack *jobwirev1.AckRequest) bool { return len(ack.Items) > 1 }) {
		t.Error("the free one had to be taken apart from the locked one")
	}
	stage.scripted.mu.Unlock()
	mu.Lock()
	unlocked = true
	mu.Unlock()
	before := stage.said("locked")
	until(t, "another attempt", func() bool { return stage.said("locked") > before })
}

func TestAResumeNamesWhatIsHeldUnderAHigherEpoch(t *testing.T) {
	stage := onStage(t)
	stream := stage.opened("s", "goes on", "is lost", "unanswered")
	stage.end("is lost", func(ctx context.Context, job *Job) {
		<-ctx.Done()
		job.Progress(0.5, "late")
		if err := job.Extend(context.Background(), time.Minute); err != nil {
			t.Error(err)
		}
	})
	stage.answers(func(*jobwirev1.AckRequest) (*jobwirev1.AckResponse, error) { return nil, refusal(codes.Unavailable) })
	stage.end("unanswered", 1)
	stage.settled(t, "unanswered")
	for epoch := range int64(3) {
		stream.end <- refusal(codes.Unavailable)
		stream = receive(t, stage.streams)
		resume := stream.request.Resume
		held := slices.Sorted(slices.Values(resume.GetHeld()))
		if resume.GetSessionId() != "s" || resume.GetEpoch() != epoch+2 || !slices.Equal(held, []string{"goes on", "is lost", "unanswered"}) {
			t.Fatalf("%v", stream.request)
		}
	}
	stage.answers(applied)
	stream.open(t, "s", "is lost")
	if reason := stage.stoppedFor("is lost"); reason != StopLeaseLost {
		t.Errorf("stopped for %v", reason)
	}
	stage.end("goes on", 1)
	if item := stage.settled(t, "goes on"); item.GetComplete() == nil {
		t.Errorf("%v", item)
	}
	// What is delivered again although it is held is no second run.
	stream.deliver(t, 1, "new", "new")
	receive(t, stage.started)
	stream.deliver(t, 1, "another")
	if handle := receive(t, stage.started); handle != "another" {
		t.Errorf("%s begins", handle)
	}
	stage.end("another", 1)
	stage.settled(t, "another")
	stage.scripted.mu.Lock()
	defer stage.scripted.mu.Unlock()
	for _, ack := range stage.acks {
		for _, item := range ack.Items {
			if item.Handle == "is lost" {
				t.Errorf("of a lost delivery it says %v", item)
			}
		}
	}
}

func TestASessionThatIsLostStopsItsHandlersAndAnotherIsOpened(t *testing.T) {
	lost := map[string]func(*stage, *scriptedStream){
		"by an Ack": func(stage *stage, stream *scriptedStream) {
			stage.answers(func(*jobwirev1.AckRequest) (*jobwirev1.AckResponse, error) { return &jobwirev1.AckResponse{}, nil })
			stream.beat(stage.t)
		},
		"by the stream": func(stage *stage, stream *scriptedStream) {
			said, _ := status.New(codes.Aborted, "taken over").WithDetails(&errdetails.ErrorInfo{Reason: "SESSION_TAKEN_OVER"})
			stream.end <- said.Err()
		},
		"by the resume": func(stage *stage, stream *scriptedStream) {
			stream.end <- nil
			said, _ := status.New(codes.NotFound, "lost").WithDetails(&errdetails.ErrorInfo{Reason: "SESSION_LOST"})
			receive(stage.t, stage.streams).end <- said.Err()
		},
	}
	for how, lose := range lost {
		t.Run(how, func(t *testing.T) {
			stage := onStage(t)
			stream := stage.opened("s", "job")
			lose(stage, stream)
			if reason := stage.stoppedFor("job"); reason != StopLeaseLost {
				t.Errorf("stopped for %v", reason)
			}
			stage.answers(applied)
			stage.opened("another", "job of it")
			stage.end("job of it", 1)
			stage.settled(t, "job of it")
			if stage.said("job") > 0 {
				t.Error("something is said of a lost delivery")
			}
		})
	}
}

func TestSilenceStopsHandlersAndTheirJobsAreGivenBack(t *testing.T) {
	stage := onStage(t)
	stream := receive(t, stage.streams)
	stream.openWith(t, "s", time.Second, nil)
	stream.deliver(t, 1, "job")
	receive(t, stage.started)
	stage.answers(func(*jobwirev1.AckRequest) (*jobwirev1.AckResponse, error) {
		return nil, refusal(codes.Unavailable)
	})
	if reason := stage.stoppedFor("job"); reason != StopSilence {
		t.Errorf("stopped for %v", reason)
	}
	// The silent stream is given up too.
	resumed := receive(t, stage.streams)
	if <-stream.Context().Done(); resumed.request.Resume.GetSessionId() != "s" {
		t.Errorf("%v", resumed.request)
	}
	if item := stage.settled(t, "job"); item.GetRelease() == nil {
		t.Errorf("%v", item)
	}
}

func TestHeartbeatsAreAnsweredThoughAnotherAckHangs(t *testing.T) {
	stage := onStage(t)
	stream := stage.opened("s", "job")
	hang := make(chan struct{})
	defer close(hang)
	stage.answers(func(request *jobwirev1.AckRequest) (*jobwirev1.AckResponse, error) {
		if len(request.Items) > 0 {
			<-hang
		}
		return applied(request)
	})
	stage.end("job", 1)
	stage.settled(t, "job")
	for range 3 {
		stream.beat(t)
		stage.heard(t, "an answer to the heartbeat", func(ack *jobwirev1.AckRequest) bool {
			return ack.LastSequence == stream.sequence && ack.SessionId == "s" && len(ack.Items) == 0
		})
	}
}

func TestAStreamThatHasOnlyHeartbeatsIsKept(t *testing.T) {
	stage := onStage(t)
	stream := receive(t, stage.streams)
	stream.openWith(t, "s", 2*time.Second, nil)
	for range 90 { // more than twice as long as silence would be borne
		stream.beat(t)
		time.Sleep(100 * time.Millisecond)
	}
	if len(stage.streams) > 0 {
		t.Error("it was given up")
	}
}

func TestAnsweredAcksAreSignsThoughTheStreamIsSilent(t *testing.T) {
	stage := onStage(t)
	stream := receive(t, stage.streams)
	stream.openWith(t, "s", 2*time.Second, nil)
	stream.deliver(t, 1, "job")
	receive(t, stage.started)
	for range 90 { // more than twice as long as silence would be borne
		stage.end("job", func(_ context.Context, job *Job) { job.Progress(0.5, "still here") })
		time.Sleep(100 * time.Millisecond)
	}
	receive(t, stage.streams) // which waits for its first event
	if _, stops := stage.of("job"); len(stops) > 0 {
		t.Error("the handler was stopped")
	}
	// Now the server says nothing at all.
	if reason := stage.stoppedFor("job"); reason != StopSilence {
		t.Errorf("stopped for %v", reason)
	}
}

func TestAnUnansweredCheckpointIsSaidWithTheProgressThatFollows(t *testing.T) {
	stage := onStage(t)
	stage.opened("s", "job")
	answers := make(chan struct{})
	stage.answers(func(request *jobwirev1.AckRequest) (*jobwirev1.AckResponse, error) {
		select {
		case <-answers:
			return applied(request)
		default:
			return nil, refusal(codes.Unavailable)
		}
	})
	noted := func(note string) func(*jobwirev1.AckRequest) bool {
		return func(ack *jobwirev1.AckRequest) bool {
			return len(ack.Items) == 1 && ack.Items[0].GetExtend().GetProgress().GetNote() == note
		}
	}
	stage.end("job", func(_ context.Context, job *Job) {
		if err := job.Checkpoint(0.1, "first", 7); err != nil {
			t.Error(err)
		}
	})
	stage.heard(t, "the checkpoint", noted("first"))
	stage.end("job", func(_ context.Context, job *Job) { job.Progress(0.2, "second") })
	said := stage.heard(t, "the progress", noted("second")).Items[0].GetExtend().Progress
	if said.GetCheckpoint() != "7" || said.GetFraction() != 0.2 {
		t.Errorf("%v", said)
	}
	// Nor is the end said before the checkpoint has arrived.
	stage.end("job", context.DeadlineExceeded)
	before := stage.said("job")
	close(answers)
	if item := stage.settled(t, "job"); item.GetFail() == nil || before > 0 {
		t.Errorf("%v, said %d times before", item, before)
	}
}

func TestADrainIsNoReasonToStopAHandler(t *testing.T) {
	stage := onStage(t)
	stream := stage.opened("s", "job")
	stream.send(t, &jobwirev1.SubscribeResponse{Event: &jobwirev1.SubscribeResponse_Draining{Draining: &jobwirev1.Draining{
		ResumeWithin: durationpb.New(time.Minute), ReconnectDelay: durationpb.New(100 * time.Millisecond),
	}}})
	resumed := receive(t, stage.streams)
	resumed.open(t, "s")
	stage.end("job", 1)
	if item := stage.settled(t, "job"); item.GetComplete() == nil || !slices.Equal(resumed.request.Resume.Held, []string{"job"}) {
		t.Errorf("%v after %v", item, resumed.request)
	}
}

// Credits that are told before a resume is answered may be forgotten by it.
func TestThatNothingMoreIsTakenIsSaidWhenTheResumeIsAnswered(t *testing.T) {
	stage := onStage(t)
	stream := stage.opened("s", "job", "other")
	stream.send(t, &jobwirev1.SubscribeResponse{Event: &jobwirev1.SubscribeResponse_Quiet{Quiet: &jobwirev1.Quiet{}}})
	quiet := func(ack *jobwirev1.AckRequest) bool { return ack.MaxInFlight != nil && *ack.MaxInFlight == 0 }
	stage.heard(t, "no more credits", quiet)
	stream.end <- refusal(codes.Unavailable)
	resumed := receive(t, stage.streams)
	stage.end("other", 1)
	stage.settled(t, "other")
	resumed.open(t, "s")
	stage.heard(t, "no more credits", func(ack *jobwirev1.AckRequest) bool { return quiet(ack) && ack.LastSequence == 1 })
	stage.end("job", 1)
	if err := receive(t, stage.ended); err != nil {
		t.Error(err)
	}
}

func TestAskedToLeaveTheWorkerFinishesWhatRunsAndEnds(t *testing.T) {
	stage := onStage(t)
	stream := stage.opened("s", "job")
	stream.send(t, &jobwirev1.SubscribeResponse{Event: &jobwirev1.SubscribeResponse_Quiet{Quiet: &jobwirev1.Quiet{}}})
	stage.heard(t, "no more credits", func(ack *jobwirev1.AckRequest) bool { return ack.MaxInFlight != nil && *ack.MaxInFlight == 0 })
	stream.deliver(t, 1, "late")
	if item := stage.settled(t, "late"); item.GetRelease() == nil {
		t.Errorf("%v", item)
	}
	stage.end("job", 1)
	stage.heard(t, "the last word", func(ack *jobwirev1.AckRequest) bool { return ack.CloseSession && ack.SessionId == "s" })
	if err := receive(t, stage.ended); err != nil {
		t.Error(err)
	}
	if item := stage.settled(t, "job"); item.GetComplete() == nil {
		t.Errorf("%v", item)
	}
}

func TestAStopEndsThoughNothingIsAnswered(t *testing.T) {
	stage := onStage(t)
	stage.opened("s", "runs", "waits for its checkpoint", "has ended")
	stage.answers(func(*jobwirev1.AckRequest) (*jobwirev1.AckResponse, error) { return nil, refusal(codes.Unavailable) })
	stage.end("waits for its checkpoint", func(_ context.Context, job *Job) {
		if err := job.Checkpoint(0.1, "", 7); err != nil {
			t.Error(err)
		}
	})
	stage.end("waits for its checkpoint", context.DeadlineExceeded)
	stage.end("has ended", 1)
	stage.settled(t, "has ended")
	stage.stop()
	if err := receive(t, stage.ended); err != nil {
		t.Error(err)
	}
	if reason := stage.stoppedFor("runs"); reason != StopStopping {
		t.Errorf("stopped for %v", reason)
	}
	stage.heard(t, "the last word", func(ack *jobwirev1.AckRequest) bool { return ack.CloseSession })
}

// The suite of all languages sees the server's side of a cancellation; this is what the handler is told, and what is said for it.
func TestACancellationSaysWhyAndItsEndIsReported(t *testing.T) {
	stage := onStage(t)
	stream := stage.opened("s", "cancelled", "expired", "unknown")
	for handle, reason := range map[string]jobwirev1.CancelReason{
		"cancelled": jobwirev1.CancelReason_CANCEL_REASON_REQUESTED, "expired": jobwirev1.CancelReason_CANCEL_REASON_EXPIRED, "unknown": 77,
	} {
		stream.send(t, &jobwirev1.SubscribeResponse{Event: &jobwirev1.SubscribeResponse_Cancellation{
			Cancellation: &jobwirev1.Cancellation{Handle: handle, Reason: reason},
		}})
	}
	if item := stage.settled(t, "cancelled"); item.GetRelease() == nil || stage.stoppedFor("cancelled") != StopRequested {
		t.Errorf("%v", item)
	}
	if item := stage.settled(t, "expired"); item.GetFail().GetType() != "EXPIRED" || stage.stoppedFor("expired") != StopExpired {
		t.Errorf("%v", item)
	}
	if item := stage.settled(t, "unknown"); item.GetRelease() == nil || stage.stoppedFor("unknown") != StopRequested {
		t.Errorf("%v", item)
	}
}

func TestAnExtensionIsAnsweredAndTellsToStop(t *testing.T) {
	server := scriptedServer(t)
	worker := NewWorker(server.address, WorkerOptions{})
	extended := make(chan error, 1)
	worker.Handle("work", 1, func(ctx context.Context, job *Job) (any, error) {
		extended <- job.Extend(ctx, time.Minute)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	server.answers(func(request *jobwirev1.AckRequest) (*jobwirev1.AckResponse, error) {
		response, err := applied(request)
		for place, item := range request.Items {
			if item.GetExtend().GetExpireIn().AsDuration() == time.Minute {
				response.Results[place].Status = jobwirev1.AckStatus_ACK_STATUS_CANCELLED
			}
		}
		return response, err
	})
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- worker.Run(ctx) }()
	stream := receive(t, server.streams)
	stream.open(t, "s")
	stream.deliver(t, 1, "job")
	if err := receive(t, extended); err != nil && err != StopRequested {
		t.Errorf("%v", err)
	}
	if item := server.settled(t, "job"); item.GetRelease() == nil {
		t.Errorf("%v", item)
	}
	cancel()
	if err := receive(t, end); err != nil {
		t.Error(err)
	}
}

func TestTokensAreAskedForBeforeEachCallAndNeverTold(t *testing.T) {
	asked := 0
	source := func(context.Context) (string, error) {
		if asked++; asked == 1 {
			return "secret\n", nil
		}
		return "", context.DeadlineExceeded
	}
	client, err := NewClient(scriptedServer(t).address, Options{TokenSource: source, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, why := range []string{"a word of plain ASCII", "context deadline exceeded"} {
		_, err := client.GetJob(t.Context(), "work", NewJobID())
		said := err.Error()
		if asked == 0 || !strings.Contains(said, "there is no token to call with") || !strings.Contains(said, why) || strings.Contains(said, "secret") {
			t.Errorf("%v", err)
		}
	}
	if _, err := NewClient("127.0.0.1:1", Options{Token: "two words"}); err == nil || strings.Contains(err.Error(), "two words") {
		t.Errorf("%v", err)
	}
}

func TestAResultThatCannotTravelFailsItsJobAndHoldsUpNothing(t *testing.T) {
	stage := onStage(t)
	stage.opened("s", "bad", "good")
	notUTF8 := json.RawMessage("\"\xff\"")
	stage.end("bad", func(_ context.Context, job *Job) {
		if err := job.Checkpoint(0.5, "", notUTF8); err == nil {
			t.Error("it is taken for a checkpoint")
		}
	})
	stage.end("bad", notUTF8)
	if item := stage.settled(t, "bad"); item.GetFail().GetType() != "BadResult" || !item.GetFail().GetPermanent() {
		t.Errorf("%v", item)
	}
	stage.end("good", 1)
	stage.settled(t, "good")
}
