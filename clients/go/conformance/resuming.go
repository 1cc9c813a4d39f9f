package main

// The library, as its users have it.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"jobwire"
	jobwirev1 "jobwire/v1"
)

type resuming struct {
	lines  *lines
	runs   *runs
	client *jobwire.Client
	target string
	tls    *tls.Config
	token  string
}

func (r *resuming) about() any {
	return map[string]any{"client": "go", "form": "resuming", "claims": []string{
		"publish", "republish", "deliver", "ack", "fail", "retry", "stale-lease", "extend", "cancel", "resume-after-cut", "resume-elsewhere",
		"peer-vanishes", "drain", "slow-reader", "server-restart", "storm", "oversize", "bad-token", "tls", "progress", "sigterm",
		"wrong-port", "no-tls",
		"older-server", "newer-server", "draining-server", "gone-server",
		"refused-progress", "checkpoint-first", "unanswered-stop", "lost-lease", "unsure-credits", "receipt",
	}}
}

func (r *resuming) connect(request *request) (err error) {
	if r.client != nil {
		r.client.Close()
	}
	r.target, r.token = request.Target, request.Token
	if r.tls, err = trust(request.CAFile); err != nil {
		return err
	}
	r.client, err = jobwire.NewClient(r.target, jobwire.Options{TLS: r.tls, Token: r.token, Timeout: seconds(request.Timeout)})
	return err
}

// trust returns a configuration that trusts a file's certificates; nil without a file.
func trust(file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificates", file)
	}
	return &tls.Config{RootCAs: roots}, nil
}

func (r *resuming) publish(ctx context.Context, request *request) ([]*jobwirev1.PublishResult, error) {
	jobs := make([]jobwire.NewJob, len(request.Jobs))
	for place, job := range request.Jobs {
		jobs[place] = jobwire.NewJob{Data: job.Data, ID: job.ID, Priority: job.Priority, Options: options(job)}
		if job.StartIn != nil {
			jobs[place].StartIn = seconds(*job.StartIn)
		}
	}
	return r.client.PublishMany(ctx, request.Queue, jobs)
}

func (r *resuming) get(ctx context.Context, request *request) (*jobwirev1.Job, error) {
	return r.client.GetJob(ctx, request.Queue, request.JobID)
}

func (r *resuming) wait(ctx context.Context, request *request) (*jobwirev1.Job, error) {
	return r.client.Wait(ctx, request.Queue, request.JobID)
}

func (r *resuming) work(request *request) (func(context.Context) error, func()) {
	worker := jobwire.NewWorker(r.target, jobwire.WorkerOptions{
		TLS:               r.tls,
		Token:             r.token,
		Name:              request.Name,
		StopGrace:         orNone(request.StopGrace),
		HeartbeatInterval: orNone(request.HeartbeatInterval),
		ResumeGrace:       orNone(request.ResumeGrace),
		Logger:            slog.New(&warnings{slog.NewTextHandler(os.Stderr, nil), r.lines}),
	})
	r.runs.deaf = request.Deaf
	worker.Handle(request.Queue, request.Concurrency, r.handle)
	return worker.Run, worker.StopNow
}

// orNone: what the suite does not name is the default, and what it names as 0 is none.
func orNone(span *float64) time.Duration {
	if span == nil {
		return 0
	}
	if *span == 0 {
		return -1
	}
	return seconds(*span)
}

func (r *resuming) handle(ctx context.Context, job *jobwire.Job) (any, error) {
	each := &running{
		progress: func(request *request) error {
			if request.Checkpoint != nil {
				return job.Checkpoint(*request.Fraction, request.Note, request.Checkpoint)
			}
			job.Progress(*request.Fraction, request.Note)
			return nil
		},
		extend: func(limit time.Duration) error { return job.Extend(ctx, limit) },
	}
	end, told := r.runs.see(ctx, each, job.ID, job.Attempt, job.Data, job.LastCheckpoint)
	if !told {
		return nil, context.Cause(ctx)
	}
	switch end.As {
	case "complete":
		if string(orNull(string(end.Output))) == "null" {
			return nil, nil
		}
		return end.Output, nil
	case "release":
		if end.Delay == nil {
			return nil, jobwire.Release(0)
		}
		return nil, jobwire.Release(seconds(*end.Delay))
	}
	var err error = asTold{end}
	if end.RetryIn != nil {
		err = jobwire.RetryIn(seconds(*end.RetryIn), err)
	}
	if end.Permanent {
		err = jobwire.FailForGood(err)
	}
	return nil, err
}

// asTold is an error of the type that the suite asks for.
type asTold struct{ ending }

func (a asTold) Error() string     { return a.Message }
func (a asTold) ErrorType() string { return a.Type }

func reasonOf(ctx context.Context) string {
	var reason jobwire.StopReason
	errors.As(context.Cause(ctx), &reason)
	return string(reason)
}

func (r *resuming) told(err error) failure {
	var known *jobwire.Error
	if errors.As(err, &known) {
		return failure{codeName(known.Code), known.Reason, known.Message}
	}
	return failure{"UNKNOWN", "", err.Error()}
}

// warnings says what the library logs at the level of warning or above, besides writing it.
type warnings struct {
	slog.Handler
	lines *lines
}

func (w *warnings) Handle(ctx context.Context, record slog.Record) error {
	if record.Level >= slog.LevelWarn {
		message := strings.Builder{}
		message.WriteString(record.Message)
		record.Attrs(func(each slog.Attr) bool {
			fmt.Fprintf(&message, " %s", each)
			return true
		})
		w.lines.warn(message.String())
	}
	return w.Handler.Handle(ctx, record)
}

func (w *warnings) WithAttrs(attributes []slog.Attr) slog.Handler {
	return &warnings{w.Handler.WithAttrs(attributes), w.lines}
}

func (w *warnings) WithGroup(name string) slog.Handler {
	return &warnings{w.Handler.WithGroup(name), w.lines}
}
