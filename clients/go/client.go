package jobwire

import (
	"context"
	"crypto/tls"
	"time"

	jobwirev1 "jobwire/v1"
)

// Options say how a Client connects. The zero value speaks plain text, without a token.
type Options struct {
	// TLS, if not nil, encrypts the connection: &tls.Config{} trusts what the system trusts.
	TLS *tls.Config
	// Token is the bearer token that the server wants, if it wants one. Without TLS whoever sees the network can read it.
	Token string
	// TokenSource takes the place of Token where tokens change.
	TokenSource TokenSource
	// Timeout is for each call, repetitions and pauses included; 0 is 10 s. A context that ends earlier counts.
	Timeout time.Duration
	// Actor is for whom calls are made: the name in the record of what operators do. Empty: this program's address.
	Actor string
}

// Client publishes jobs and looks at them. All of its methods may be called from any goroutine. Each call is repeated, with growing
// pauses, while that can help and time is left. Errors are *Error, or context.Canceled if the caller's context was cancelled.
type Client struct {
	connection *connection
	timeout    time.Duration
}

// NewClient prepares a client for the server at target, host and port; `dns:///host:50051` spreads calls over all addresses of the
// name. Nothing is sent yet: a server that cannot be reached is found with the first call.
func NewClient(target string, options Options) (*Client, error) {
	said, err := bearerOf(options.Token, options.TokenSource, options.Actor)
	if err != nil {
		return nil, err
	}
	connection, err := connect(target, forPublishers, options.TLS, said)
	if err != nil {
		return nil, err
	}
	return &Client{connection, orDefault(options.Timeout, 10*time.Second)}, nil
}

// Close closes the connection; calls under way fail.
func (c *Client) Close() { c.connection.close() }

// Publish stores one job. When it returns without an error, the job is on disk, or the result's Created is false and its Reason says
// why it is not. The result's JobId is the id under which the work is stored.
//
// Should it fail with ErrUnavailable or ErrDeadlineExceeded, the job may be stored; publishing it again with the same ID is safe.
func (c *Client) Publish(ctx context.Context, queue string, job NewJob) (*jobwirev1.PublishResult, error) {
	results, err := c.PublishMany(ctx, queue, []NewJob{job})
	if err != nil {
		return nil, err
	}
	return results[0], nil
}

// PublishMany stores many jobs of one queue in their order; the results are in that order too. All are checked for what cannot travel
// before the first is sent.
//
// Up to 1,000 jobs and 3 MiB travel in one call and are stored all or none. A longer list is split, and atomic only per call: with an
// error come the results of the calls before. Jobs without an ID are given one, in the slice itself, so that repeating the call with
// the same slice is safe, and completes the rest. The client's timeout is for each call.
func (c *Client) PublishMany(ctx context.Context, queue string, jobs []NewJob) ([]*jobwirev1.PublishResult, error) {
	requests, unfit := publishCalls(queue, jobs)
	if unfit != nil {
		return nil, unfit
	}
	results := make([]*jobwirev1.PublishResult, 0, len(jobs))
	for _, request := range requests {
		response, err := call(ctx, c.connection, c.timeout, c.connection.queue.Publish, request)
		if err != nil {
			return results, err
		}
		results = append(results, response.GetResults()...)
	}
	return results, nil
}

// GetJob returns a job as it is now, live or finished. An empty queue searches all, and the newest job counts. ErrNotFound: there is
// no such job, or its retention is over.
func (c *Client) GetJob(ctx context.Context, queue, id string) (*jobwirev1.Job, error) {
	response, err := call(ctx, c.connection, c.timeout, c.connection.queue.GetJob, &jobwirev1.GetJobRequest{Queue: queue, JobId: id})
	if err != nil {
		return nil, err
	}
	return response.GetJob(), nil
}

// Wait returns a job once it is finished; how is in its State. It waits by long polls until ctx ends, and goes on by itself after the
// server restarts or the network fails. ErrDeadlineExceeded: it was not finished by ctx's deadline. ErrNotFound: there is no such job.
func (c *Client) Wait(ctx context.Context, queue, id string) (*jobwirev1.Job, error) {
	return follow(ctx, c.connection, queue, id)
}

// Admin is what an operator may call: the contract's own stub on this client's connection, with its token and its Actor.
//
// Calls that the contract calls idempotent are repeated as PublishMany is. ChangeJobs, UpdateJobs, PurgeQueue, DeleteQueue, RedriveJobs
// and UnblockKeys are made once, with the client's timeout or 15 s, whichever is longer; if their answer does not come, ListActions says
// what was done. A context that ends earlier counts.
func (c *Client) Admin() jobwirev1.AdminServiceClient {
	return jobwirev1.NewAdminServiceClient(operating{c.connection, c.timeout})
}
