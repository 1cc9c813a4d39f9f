// The Go client's driver for the conformance suite: does what a line of standard input says, with the library or, as `conformance thin`,
// with the bare stubs. tests/conformance/README.md describes the lines. Always holds: an answer for each request, whatever it asked;
// nothing but lines of JSON on standard output.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	jobwirev1 "jobwire/v1"
)

// form is a kind of client.
type form interface {
	about() any
	connect(request *request) error
	publish(ctx context.Context, request *request) ([]*jobwirev1.PublishResult, error)
	get(ctx context.Context, request *request) (*jobwirev1.Job, error)
	wait(ctx context.Context, request *request) (*jobwirev1.Job, error)
	// work returns a function that works until ctx ends, then stops in order, and one that makes it hurry.
	work(request *request) (run func(ctx context.Context) error, hurry func())
	told(err error) failure
}

type driver struct {
	form  form
	lines *lines
	runs  *runs

	mu    sync.Mutex
	stop  context.CancelFunc
	hurry func()
	ended chan struct{}
	err   error
}

func main() {
	log.SetFlags(log.Lmicroseconds)
	out := &lines{out: os.Stdout}
	driver := &driver{lines: out, runs: newRuns(out)}
	if len(os.Args) > 1 && os.Args[1] == "thin" {
		driver.form = &thin{runs: driver.runs}
	} else {
		driver.form = &resuming{runs: driver.runs, lines: out}
	}
	done := make(chan struct{})
	go func() {
		driver.read(os.Stdin)
		close(done)
	}()
	terminated, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	select {
	case <-done:
	case <-terminated.Done():
		if ended := driver.askToStop(false); ended != nil {
			<-ended
		}
	}
}

func (d *driver) read(input io.Reader) {
	scanner := bufio.NewScanner(input)
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		request := &request{}
		if err := json.Unmarshal(scanner.Bytes(), request); err != nil {
			log.Printf("not a request: %v", err)
			continue
		}
		answer := func() {
			result, err := d.answer(request)
			if err != nil {
				d.lines.write(map[string]any{"id": request.ID, "error": d.told(err)})
			} else {
				d.lines.write(map[string]any{"id": request.ID, "result": result})
			}
		}
		// What follows a connect is to use it.
		if request.Do == "connect" || request.Do == "work" {
			answer()
		} else {
			go answer()
		}
	}
}

func (d *driver) answer(request *request) (any, error) {
	ctx := context.Background()
	nothing := struct{}{}
	switch request.Do {
	case "about":
		return d.form.about(), nil
	case "connect":
		return nothing, d.form.connect(request)
	case "publish":
		results, err := d.form.publish(ctx, request)
		return map[string]any{"results": shownResults(results)}, err
	case "get":
		job, err := d.form.get(ctx, request)
		return map[string]any{"job": shownJob(job)}, err
	case "wait":
		ctx, cancel := context.WithTimeout(ctx, seconds(request.Timeout))
		defer cancel()
		job, err := d.form.wait(ctx, request)
		return map[string]any{"job": shownJob(job)}, err
	case "work":
		return nothing, d.work(request)
	case "stop":
		ended := d.askToStop(request.Now)
		if ended == nil {
			return nothing, nil
		}
		<-ended
		return nothing, d.err
	case "end":
		return nothing, d.runs.end(request)
	case "progress":
		return nothing, d.runs.progress(request)
	case "extend":
		return nothing, d.runs.extend(request)
	default:
		return nil, fmt.Errorf("what is %q?", request.Do)
	}
}

func (d *driver) work(request *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stop != nil {
		return errors.New("there is a worker already")
	}
	var ctx context.Context
	ctx, d.stop = context.WithCancel(context.Background())
	run, hurry := d.form.work(request)
	d.hurry = hurry
	d.ended = make(chan struct{})
	go func() {
		d.err = run(ctx)
		var said any
		if d.err != nil {
			said = d.told(d.err)
		}
		d.lines.write(map[string]any{"event": "worker_ended", "error": said})
		close(d.ended)
	}()
	return nil
}

func (d *driver) told(err error) failure {
	var none noSuchRun
	if errors.As(err, &none) {
		return failure{codeName(codes.NotFound), "", none.Error()}
	}
	return d.form.told(err)
}

// askToStop returns what tells that the worker has ended; nil if there is none.
func (d *driver) askToStop(now bool) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stop == nil {
		return nil
	}
	if now {
		d.hurry()
	}
	d.stop()
	return d.ended
}

func spec(job *newJob) *jobwirev1.JobSpec {
	spec := &jobwirev1.JobSpec{Id: job.ID, Data: string(job.Data), Priority: int32(job.Priority), Options: options(job)}
	if job.StartIn != nil {
		spec.Start = &jobwirev1.JobSpec_StartIn{StartIn: durationpb.New(seconds(*job.StartIn))}
	}
	return spec
}

func options(job *newJob) *jobwirev1.JobOptions {
	options := &jobwirev1.JobOptions{}
	if job.RetryLimit != nil {
		options.RetryLimit = proto.Int32(int32(*job.RetryLimit))
	}
	if job.RetryDelay != nil {
		options.RetryDelay = durationpb.New(seconds(*job.RetryDelay))
	}
	if job.ExpireIn != nil {
		options.ExpireIn = durationpb.New(seconds(*job.ExpireIn))
	}
	return options
}

func seconds(count float64) time.Duration { return time.Duration(count * float64(time.Second)) }
