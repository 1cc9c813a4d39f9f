package jobwire

// What the tests share: the server, a queue of one's own, patience. The server is a real one, at the address in JOBWIRE_SERVER.

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	jobwirev1 "jobwire/v1"
)

// Generous: nothing here depends on speed.
const patience = 60 * time.Second

func target(t *testing.T) string {
	t.Helper()
	address := os.Getenv("JOBWIRE_SERVER")
	if address == "" {
		t.Skip("JOBWIRE_SERVER names no server to test against, such as 127.0.0.1:50051")
	}
	return address
}

func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func client(t *testing.T) *Client {
	t.Helper()
	client, err := NewClient(target(t), Options{Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func newQueue() string { return "go-" + NewJobID() }

func publish(t *testing.T, client *Client, queue string, job NewJob) string {
	t.Helper()
	published, err := client.Publish(patient(t), queue, job)
	if err != nil {
		t.Fatal(err)
	}
	return published.GetJobId()
}

func ended(t *testing.T, client *Client, queue, id string) *jobwirev1.Job {
	t.Helper()
	job, err := client.Wait(patient(t), queue, id)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(patience):
		t.Fatalf("nothing came within %v", patience)
		panic("unreachable")
	}
}

// working runs a worker of one handler, and returns what stops it and waits for its end.
func working(t *testing.T, queue string, concurrency int, options WorkerOptions, handler Handler) (stop func() error) {
	t.Helper()
	worker := NewWorker(target(t), options)
	worker.Handle(queue, concurrency, handler)
	ctx, cancel := context.WithCancel(context.Background())
	end := make(chan error, 1)
	go func() { end <- worker.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return receive(t, end)
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

// logged keeps what a logger is told.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logged) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
