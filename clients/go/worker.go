package jobwire

// The worker: handlers by queue, one connection, and an orderly end.

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	jobwirev1 "jobwire/v1"
)

// WorkerOptions say how a Worker works. The zero value is what most want.
type WorkerOptions struct {
	// TLS, if not nil, encrypts the connection: &tls.Config{} trusts what the system trusts.
	TLS *tls.Config
	// Token is the bearer token that the server wants, if it wants one. Without TLS whoever sees the network can read it.
	Token string
	// TokenSource takes the place of Token where tokens change.
	TokenSource TokenSource
	// Name is for people and logs, at most 200 characters. Empty: host name and process id.
	Name string
	// StopGrace is how long handlers may finish when the worker stops: 0 is 25 s, less than 0 none. What still runs then is cancelled
	// and given back, which takes up to 4 s more; keep the sum below what your platform grants after SIGTERM.
	StopGrace time.Duration
	// HeartbeatInterval is how often the server asks for a sign of life, 1 s to 5 minutes; 0 is 5 s.
	HeartbeatInterval time.Duration
	// ResumeGrace is how long jobs stay with the worker when its connection breaks, at most 15 s: 0 is 15 s, less than 0 none.
	ResumeGrace time.Duration
	// Logger is told what the worker does; nil is slog.Default().
	Logger *slog.Logger
}

// Worker runs handlers on the jobs of their queues.
//
// Each handler has a session of its own, so its concurrency is exact. When the connection breaks or the server restarts, handlers
// go on, and the sessions are resumed. A handler that fails or panics fails its job; nothing it does in its own goroutine ends the
// worker.
type Worker struct {
	target  string
	options WorkerOptions
	log     *slog.Logger
	posts   []post
	ran     atomic.Bool
	hurry   context.Context
	stopNow context.CancelFunc
}

// post is what a worker does for one queue.
type post struct {
	queue       string
	concurrency int
	handler     Handler
}

// NewWorker prepares a worker for the server at target, host and port. Give it handlers, then Run it.
func NewWorker(target string, options WorkerOptions) *Worker {
	if options.Name == "" {
		host, _ := os.Hostname()
		options.Name = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	options.StopGrace = orDefault(options.StopGrace, 25*time.Second)
	options.HeartbeatInterval = orDefault(options.HeartbeatInterval, 5*time.Second)
	options.ResumeGrace = orDefault(options.ResumeGrace, 15*time.Second)
	worker := &Worker{target: target, options: options, log: orLogger(options.Logger)}
	worker.hurry, worker.stopNow = context.WithCancel(context.Background())
	return worker
}

// orDefault: a span of 0 means the default, and one below 0 means none.
func orDefault(span, usual time.Duration) time.Duration {
	if span == 0 {
		return usual
	}
	return max(0, span)
}

func orLogger(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.Default()
	}
	return log
}

// Handle registers the handler of a queue, before the worker runs: one for each queue. Up to concurrency jobs run at once, 1 to 1000,
// each in a goroutine of its own; that is also how many jobs the worker has in hand.
func (w *Worker) Handle(queue string, concurrency int, handler Handler) {
	w.posts = append(w.posts, post{queue, concurrency, handler})
}

// Run works until ctx ends, then stops in order: it takes no more jobs, lets handlers finish for StopGrace, reports their ends and
// leaves. Handlers' contexts have the values of ctx, but do not end with it. It returns nil after that, and as well when an operator has
// asked the worker to leave and what it ran is finished. For SIGTERM, ctx is one of signal.NotifyContext. A worker runs once.
//
// It returns an *Error if the server refuses the name of a queue, the worker's terms or its credentials, and another error for
// registrations that make no sense. A server that cannot be reached is waited for; the log says so.
//
// When it returns nothing of the worker is left, save for handlers that have not ended although their contexts have.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.sound(); err != nil {
		return err
	}
	if w.ran.Swap(true) {
		return errors.New("this worker has run already: make a new one")
	}
	defer w.stopNow()
	said, err := bearerOf(w.options.Token, w.options.TokenSource, "")
	if err != nil {
		return err
	}
	connection, err := connect(w.target, forWorkers, w.options.TLS, said)
	if err != nil {
		return err
	}
	defer connection.close()

	life, endOfLife := context.WithCancel(context.Background())
	defer endOfLife()
	leave, askToLeave := context.WithCancel(context.Background())
	defer askToLeave()
	sessions := make([]*session, len(w.posts))
	for place, post := range w.posts {
		sessions[place] = newSession(ctx, connection, w.terms(post.queue), post, askToLeave, w.log)
	}

	var runs sync.WaitGroup
	ends := make(chan error, len(sessions))
	for _, each := range sessions {
		runs.Go(func() { ends <- each.run(life) })
	}
	left := make(chan struct{})
	runs.Go(func() {
		select {
		case <-leave.Done():
			w.log.Info("the worker was asked to leave: finishing what runs")
			inParallel(sessions, func(each *session) { each.finish(life) })
			close(left)
		case <-life.Done():
		}
	})

	var refused error
	select {
	case <-ctx.Done():
	case <-w.hurry.Done():
	case <-left:
	case refused = <-ends:
		// If a session cannot go on, the worker does not go on as half a worker.
	}
	inParallel(sessions, func(each *session) { each.stop(w.hurry, w.options.StopGrace) })
	endOfLife()
	runs.Wait()
	return refused
}

// StopNow ends Run without the grace, or cuts a grace short that has begun: running handlers are cancelled at once, and their jobs
// given back. From any goroutine, as often as you like.
func (w *Worker) StopNow() { w.stopNow() }

func (w *Worker) sound() error {
	if len(w.posts) == 0 {
		return errors.New("this worker has no handlers: register one with Handle(queue, concurrency, handler)")
	}
	known := map[string]bool{}
	for _, post := range w.posts {
		switch {
		case known[post.queue]:
			return fmt.Errorf("queue %q has a handler already; to run more jobs at once, raise its concurrency", post.queue)
		case post.concurrency < 1 || post.concurrency > 1000:
			return fmt.Errorf("concurrency %d of queue %q must be between 1 and 1000", post.concurrency, post.queue)
		case post.handler == nil:
			return fmt.Errorf("the handler of queue %q is nil", post.queue)
		}
		known[post.queue] = true
	}
	return nil
}

func (w *Worker) terms(queue string) *jobwirev1.SubscribeRequest {
	return &jobwirev1.SubscribeRequest{
		Queues:            []string{queue},
		Worker:            w.options.Name,
		HeartbeatInterval: durationpb.New(w.options.HeartbeatInterval),
		ResumeGrace:       durationpb.New(w.options.ResumeGrace),
	}
}

func inParallel(sessions []*session, each func(*session)) {
	var all sync.WaitGroup
	for _, session := range sessions {
		all.Go(func() { each(session) })
	}
	all.Wait()
}
