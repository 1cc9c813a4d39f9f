package jobwire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	jobwirev1 "jobwire/v1"
)

var noRetry = &jobwirev1.JobOptions{RetryLimit: proto.Int32(0)}

type diskFull struct{}

func (diskFull) Error() string     { return "no room" }
func (diskFull) ErrorType() string { return "DiskFull" }

type unmarshalable struct{}

func (unmarshalable) MarshalJSON() ([]byte, error) { panic("cannot be shown") }

// Whatever a handler does, its job gets an end that says so, and the worker goes on.
func TestEveryEndOfAHandlerIsReported(t *testing.T) {
	client, queue := client(t), newQueue()
	ends := map[string]struct {
		do                   func() (any, error)
		state, kind, message string
	}{
		"result":  {func() (any, error) { return map[string]int{"rows": 3}, nil }, "completed", "", `{"rows":3}`},
		"nothing": {func() (any, error) { return nil, nil }, "completed", "", ""},
		"error":   {func() (any, error) { return nil, errors.New("broken") }, "failed", "error", "broken"},
		"wrapped": {
			func() (any, error) {
				return nil, fmt.Errorf("reading: %w", &fs.PathError{Op: "open", Path: "a", Err: fs.ErrNotExist})
			},
			"failed", "fs.PathError", "reading: open a: file does not exist",
		},
		"typed":    {func() (any, error) { return nil, diskFull{} }, "failed", "DiskFull", "no room"},
		"for good": {func() (any, error) { return nil, fmt.Errorf("x: %w", FailForGood(diskFull{})) }, "failed", "DiskFull", "x: no room"},
		"panic":    {func() (any, error) { panic("out of order") }, "failed", "panic", "out of order"},
		"nil":      {func() (any, error) { var job *Job; return job.Data, nil }, "failed", "panic", "runtime error: invalid memory address or nil pointer dereference"},
		"goexit":   {func() (any, error) { runtime.Goexit(); return nil, nil }, "failed", "panic", "the handler ended its goroutine by runtime.Goexit"},
		"no JSON":  {func() (any, error) { return func() {}, nil }, "failed", "BadResult", "the handler's result cannot be stored: not JSON: json: unsupported type: func()"},
		"bad JSON": {func() (any, error) { return unmarshalable{}, nil }, "failed", "panic", "cannot be shown"},
		// Only the server knows that PostgreSQL has no such text.
		"refused": {func() (any, error) { return "\x00", nil }, "failed", "BadResult", ""},
		"bytes":   {func() (any, error) { return nil, errors.New("\x00 \xff") }, "failed", "error", "\uFFFD \uFFFD"},
	}
	working(t, queue, 4, WorkerOptions{Logger: slog.New(slog.DiscardHandler)}, func(_ context.Context, job *Job) (any, error) {
		var name string
		if err := job.Decode(&name); err != nil {
			return nil, err
		}
		return ends[name].do()
	})
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			options := noRetry
			if name == "for good" {
				options = &jobwirev1.JobOptions{RetryLimit: proto.Int32(5)}
			}
			job := ended(t, client, queue, publish(t, client, queue, NewJob{Data: name, Options: options}))
			if stateName(job.State) != end.state || job.Attempt != 1 {
				t.Fatalf("%v", job)
			}
			if end.state == "completed" {
				if job.Output != end.message {
					t.Errorf("output %q", job.Output)
				}
				return
			}
			failed := job.Errors[0]
			if failed.Type != end.kind || end.message != "" && failed.Message != end.message {
				t.Errorf("%v", failed)
			}
			if (failed.Type == "panic") != strings.Contains(failed.Trace, "worker_test.go") {
				t.Errorf("trace %q", failed.Trace)
			}
		})
	}
}

func TestWhatBreaksWhenItIsInterruptedIsNotTheJobsFault(t *testing.T) {
	broken := errors.New("interrupted system call")
	for reason, fails := range map[StopReason]bool{
		"": true, StopRequested: true, StopExpired: true, StopLeaseLost: false, StopSilence: false, StopStopping: false,
	} {
		for _, item := range []*jobwirev1.AckItem{returned(broken, reason), panicked(broken, nil, reason)} {
			if (item.GetFail() != nil) != fails || (item.GetRelease() != nil) == fails {
				t.Errorf("told to stop (%s): %v", reason, item)
			}
		}
		if item := returned(FailForGood(broken), reason); !item.GetFail().GetPermanent() {
			t.Errorf("told to stop (%s), it gives up for good: %v", reason, item)
		}
	}
}

func TestAHandlerSaysWhenToTryAgain(t *testing.T) {
	client, queue := client(t), newQueue()
	stop := working(t, queue, 1, WorkerOptions{}, func(_ context.Context, job *Job) (any, error) {
		switch job.Attempt {
		case 1:
			return nil, RetryIn(0, errors.New("busy"))
		case 2:
			return nil, Release(0)
		}
		return []int{job.Attempt, job.RetryCount}, nil
	})
	options := &jobwirev1.JobOptions{RetryLimit: proto.Int32(1)}
	job := ended(t, client, queue, publish(t, client, queue, NewJob{Options: options}))
	if job.Output != "[3,1]" || job.ReleaseCount != 1 || job.Errors[0].Message != "busy" {
		t.Errorf("%v", job)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestACheckpointIsThereForTheNextAttempt(t *testing.T) {
	client, queue := client(t), newQueue()
	working(t, queue, 1, WorkerOptions{}, func(ctx context.Context, job *Job) (any, error) {
		if job.Attempt > 1 {
			return job.LastCheckpoint, job.Extend(ctx, time.Minute)
		}
		for row := range 100 {
			if err := job.Checkpoint(float64(row)/100, "rows", map[string]int{"row": row}); err != nil {
				return nil, err
			}
		}
		job.Progress(0.5, "half")
		return nil, RetryIn(0, errors.New("interrupted"))
	})
	job := ended(t, client, queue, publish(t, client, queue, NewJob{}))
	if job.Output != `{"row":99}` || job.Progress.GetFraction() != 0.5 || job.Progress.Note != "half" {
		t.Errorf("%v", job)
	}
}

func TestAJobMadeByHandTriesOutAHandler(t *testing.T) {
	job := &Job{Data: json.RawMessage(`{"rows": 3}`)}
	var data struct{ Rows int }
	if err := job.Decode(&data); err != nil || data.Rows != 3 {
		t.Errorf("%+v, %v", data, err)
	}
	job.Progress(2, "")
	if err := errors.Join(job.Checkpoint(0, "", 1), job.Extend(t.Context(), time.Minute)); err != nil {
		t.Error(err)
	}
	if job.Checkpoint(0, "", strings.Repeat("x", 65<<10)) == nil || job.Extend(t.Context(), 0) == nil {
		t.Error("what the server would refuse is taken")
	}
}

// A stop lets handlers finish, then cancels them and gives their jobs back; one that does not listen is left behind.
func TestAStopWaitsForItsGraceAndGivesBackTheRest(t *testing.T) {
	client, queue := client(t), newQueue()
	started, finish, deaf := make(chan string, 3), make(chan struct{}), make(chan struct{})
	var causes atomic.Value
	log := &logged{}
	options := WorkerOptions{StopGrace: 3 * time.Second, Logger: log.logger()}
	stop := working(t, queue, 3, options, func(ctx context.Context, job *Job) (any, error) {
		var name string
		if err := job.Decode(&name); err != nil {
			return nil, err
		}
		started <- name
		switch name {
		case "finishes":
			<-finish
			return "finished", ctx.Err()
		case "listens":
			<-ctx.Done()
			causes.Store(context.Cause(ctx))
			return nil, ctx.Err()
		default:
			<-deaf
			return nil, nil
		}
	})
	ids := map[string]string{}
	for _, name := range []string{"finishes", "listens", "is deaf"} {
		ids[name] = publish(t, client, queue, NewJob{Data: name})
		receive(t, started)
	}
	stopped := make(chan error)
	go func() { stopped <- stop() }()
	close(finish)
	if job := ended(t, client, queue, ids["finishes"]); job.Output != `"finished"` {
		t.Errorf("%v", job)
	}
	if err := receive(t, stopped); err != nil {
		t.Error(err)
	}
	if causes.Load() != StopStopping {
		t.Errorf("the handler was stopped for %v", causes.Load())
	}
	for _, name := range []string{"listens", "is deaf"} {
		job, err := client.GetJob(patient(t), queue, ids[name])
		if err != nil || stateName(job.State) != "retry" || job.ReleaseCount != 1 || job.RetryCount != 0 {
			t.Errorf("%s: %v, %v", name, job, err)
		}
	}
	if log.count("a handler did not stop in time") != 1 {
		t.Error("the deaf handler is not warned of")
	}
	close(deaf)
}

func TestNoGoroutineIsLeftWhenRunReturns(t *testing.T) {
	client, queue, other := client(t), newQueue(), newQueue()
	publish(t, client, queue, NewJob{})
	before := ofTheLibrary()
	worker := NewWorker(target(t), WorkerOptions{HeartbeatInterval: time.Second})
	for _, name := range []string{queue, other} {
		worker.Handle(name, 100, func(_ context.Context, job *Job) (any, error) {
			job.Progress(0.5, "half")
			return nil, nil
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error)
	go func() { end <- worker.Run(ctx) }()
	for range 200 {
		publish(t, client, queue, NewJob{})
	}
	ended(t, client, queue, publish(t, client, queue, NewJob{}))
	if now := ofTheLibrary(); now <= before {
		t.Fatalf("%d goroutines while it works, %d before: they are not counted right", now, before)
	}
	cancel()
	err := receive(t, end)
	if now := running("jobwire.(*session)", "jobwire.(*acker)"); err != nil || now > 0 {
		t.Fatalf("%d goroutines still work, %v", now, err)
	}
	// Those of a closed channel end a moment later.
	until(t, fmt.Sprintf("as few goroutines as before (%d)", before), func() bool { return ofTheLibrary() <= before })
}

// ofTheLibrary counts goroutines that run this package or gRPC, the tests' own aside.
func ofTheLibrary() int {
	return running("google.golang.org/grpc", "jobwire.(*session)", "jobwire.(*acker)", "jobwire.(*crew)")
}

// running counts goroutines that are in one of these functions.
func running(functions ...string) (count int) {
	stacks := make([]byte, 16<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		if slices.ContainsFunc(functions, func(function string) bool { return strings.Contains(stack, function) }) {
			count++
		}
	}
	return count
}

func TestAWorkerWithoutAServerTriesOnAndWarnsOnce(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	log := &logged{}
	worker := NewWorker(address, WorkerOptions{Logger: log.logger()})
	worker.Handle("work", 1, func(context.Context, *Job) (any, error) { return nil, nil })
	end := make(chan error)
	go func() { end <- worker.Run(t.Context()) }()
	until(t, "several attempts", func() bool { return log.count("no stream, trying again") >= 4 })
	if log.count("level=WARN") != 1 || log.count("cannot reach Jobwire at "+address) < 4 {
		t.Errorf("%s", &log.text)
	}
	worker.StopNow()
	if err := receive(t, end); err != nil {
		t.Error(err)
	}
}

func TestAWorkerThatIsRefusedEndsWithTheError(t *testing.T) {
	none := func(context.Context, *Job) (any, error) { return nil, nil }
	worker := NewWorker(target(t), WorkerOptions{})
	worker.Handle(newQueue(), 1, none)
	worker.Handle("no queue's name!", 1, none)
	if err := worker.Run(patient(t)); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("%v", err)
	}
	for _, register := range []func(*Worker){
		func(*Worker) {},
		func(w *Worker) { w.Handle("work", 0, none) },
		func(w *Worker) { w.Handle("work", 1, nil) },
		func(w *Worker) { w.Handle("work", 1, none); w.Handle("work", 1, none) },
	} {
		worker := NewWorker("127.0.0.1:1", WorkerOptions{})
		register(worker)
		if err := worker.Run(patient(t)); err == nil {
			t.Error("a registration that makes no sense is taken")
		}
	}
}

func TestAWorkerRunsOnce(t *testing.T) {
	worker := NewWorker(target(t), WorkerOptions{})
	worker.Handle(newQueue(), 1, func(context.Context, *Job) (any, error) { return nil, nil })
	worker.StopNow()
	if err := worker.Run(patient(t)); err != nil {
		t.Error(err)
	}
	if err := worker.Run(patient(t)); err == nil || !strings.Contains(err.Error(), "has run already") {
		t.Errorf("%v", err)
	}
}

func TestHandlersSeeTheValuesOfRunsContextButNotItsEnd(t *testing.T) {
	type key struct{}
	client, queue := client(t), newQueue()
	worker := NewWorker(target(t), WorkerOptions{})
	started := make(chan struct{})
	worker.Handle(queue, 1, func(ctx context.Context, _ *Job) (any, error) {
		close(started)
		time.Sleep(200 * time.Millisecond) // the stop comes meanwhile
		return ctx.Value(key{}), ctx.Err()
	})
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	id := publish(t, client, queue, NewJob{})
	end := make(chan error)
	go func() { end <- worker.Run(ctx) }()
	receive(t, started)
	cancel()
	if err := receive(t, end); err != nil {
		t.Error(err)
	}
	if job := ended(t, client, queue, id); job.Output != `"value"` {
		t.Errorf("%v", job)
	}
}
