package main

// The lines of the suite, and what a handler does until it is told how to end.

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"

	jobwirev1 "jobwire/v1"
)

// request is any of the suite's; each has some of the fields.
type request struct {
	ID                json.RawMessage
	Do                string
	Target            string
	Timeout           float64
	CAFile            string `json:"ca_file"`
	Token             string
	Queue             string
	Jobs              []*newJob
	JobID             string `json:"job_id"`
	Concurrency       int
	Name              string
	StopGrace         *float64 `json:"stop_grace"`
	HeartbeatInterval *float64 `json:"heartbeat_interval"`
	ResumeGrace       *float64 `json:"resume_grace"`
	Deaf              bool
	Now               bool
	ending
	Fraction   *float64
	Note       string
	Checkpoint json.RawMessage
	Seconds    float64
}

type newJob struct {
	Data       json.RawMessage
	ID         string
	Priority   int
	StartIn    *float64 `json:"start_in"`
	RetryLimit *int     `json:"retry_limit"`
	RetryDelay *float64 `json:"retry_delay"`
	ExpireIn   *float64 `json:"expire_in"`
}

// ending is how a handler is to end.
type ending struct {
	As        string
	Output    json.RawMessage
	Type      string
	Message   string
	Permanent bool
	RetryIn   *float64 `json:"retry_in"`
	Delay     *float64
}

// failure is an error as the suite reads it.
type failure struct {
	Code    string `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// noSuchRun is the error of a request about a job whose handler does not run here.
type noSuchRun string

func (n noSuchRun) Error() string { return "no handler of job " + string(n) + " runs" }

func codeName(of codes.Code) string { return code.Code(of).String() }

type lines struct {
	mu  sync.Mutex
	out io.Writer
}

func (l *lines) write(line map[string]any) {
	text, err := json.Marshal(line)
	if err != nil {
		log.Fatalf("cannot say %v: %v", line, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err = l.out.Write(append(text, '\n')); err != nil {
		log.Fatal(err)
	}
}

func (l *lines) warn(message string) {
	l.write(map[string]any{"event": "warning", "message": message})
}

// running is a handler that has started and waits to be told how to end.
type running struct {
	end      chan ending
	progress func(*request) error
	extend   func(time.Duration) error
}

type runs struct {
	lines *lines
	mu    sync.Mutex
	byJob map[string]*running
	// A handler that is told to stop says so, and goes on.
	deaf bool
}

func newRuns(lines *lines) *runs { return &runs{lines: lines, byJob: map[string]*running{}} }

// see is what a handler does: it returns how it is to end, or false if ctx ended first and the handler is not deaf.
func (r *runs) see(ctx context.Context, each *running, id string, attempt int, data, checkpoint json.RawMessage) (ending, bool) {
	each.end = make(chan ending, 1)
	r.mu.Lock()
	r.byJob[id] = each
	r.mu.Unlock()
	r.lines.write(map[string]any{"event": "started", "job_id": id, "attempt": attempt, "data": data, "checkpoint": checkpoint})
	select {
	case end := <-each.end:
		return end, true
	case <-ctx.Done():
	}
	r.lines.write(map[string]any{"event": "stopping", "job_id": id, "reason": reasonOf(ctx)})
	if r.deaf {
		return <-each.end, true
	}
	r.take(id, each)
	return ending{}, false
}

// take returns the handler of a job and forgets it; only, if that is not nil, must it be.
func (r *runs) take(id string, only *running) *running {
	r.mu.Lock()
	defer r.mu.Unlock()
	each := r.byJob[id]
	if only == nil || only == each {
		delete(r.byJob, id)
	}
	return each
}

func (r *runs) find(id string) (*running, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if each := r.byJob[id]; each != nil {
		return each, nil
	}
	return nil, noSuchRun(id)
}

func (r *runs) end(request *request) error {
	each, err := r.find(request.JobID)
	if err != nil {
		return err
	}
	r.take(request.JobID, each)
	each.end <- request.ending
	return nil
}

func (r *runs) progress(request *request) error {
	each, err := r.find(request.JobID)
	if err != nil {
		return err
	}
	return each.progress(request)
}

func (r *runs) extend(request *request) error {
	each, err := r.find(request.JobID)
	if err != nil {
		return err
	}
	return each.extend(seconds(request.Seconds))
}

func shownResults(results []*jobwirev1.PublishResult) []any {
	shown := []any{}
	for _, result := range results {
		reason := ""
		if result.GetReason() != 0 {
			reason = strings.TrimPrefix(result.GetReason().String(), "NOT_CREATED_REASON_")
		}
		shown = append(shown, map[string]any{
			"job_id": result.GetJobId(), "created": result.GetCreated(), "reason": reason, "data_differs": result.GetDataDiffers(),
		})
	}
	return shown
}

func shownJob(job *jobwirev1.Job) any {
	errors := []any{}
	for _, each := range job.GetErrors() {
		errors = append(errors, map[string]any{"type": each.GetType(), "message": each.GetMessage()})
	}
	return map[string]any{
		"state":       strings.ToLower(strings.TrimPrefix(job.GetState().String(), "JOB_STATE_")),
		"attempt":     job.GetAttempt(),
		"retry_count": job.GetRetryCount(),
		"output":      orNull(job.GetOutput()),
		"errors":      errors,
	}
}

// orNull returns JSON text as such; the empty text means nothing.
func orNull(text string) json.RawMessage {
	if text == "" {
		return json.RawMessage("null")
	}
	return json.RawMessage(text)
}
