package jobwire

// The channel to Jobwire: its options, its stubs, and calls that are repeated where that helps.

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver/dns"

	jobwirev1 "jobwire/v1"
)

func init() {
	// A name is looked up again when a connection ends, at most this often. With gRPC's own 30 s a client would know no living
	// replica at the end of a rolling update that is quicker than that. gRPC has this setting only for the whole program.
	dns.SetMinResolutionInterval(time.Second)
}

const (
	// Calls of a publisher are spread over all replicas.
	forPublishers = "round_robin"
	// A worker's Acks go to the replica that serves its streams, over the same connection.
	forWorkers = "pick_first"
)

func dialOptions(balancing string, config *tls.Config, said *bearer) []grpc.DialOption {
	transport := insecure.NewCredentials()
	if config != nil {
		transport = credentials.NewTLS(config)
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithPerRPCCredentials(said),
		// A connection that died unnoticed is found within 40 s, also while nothing is called.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		// A restarted server is found within seconds; gRPC's own pause grows to two minutes. Connecting takes less than an
		// attempt may, so that the error says why it failed.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithDefaultServiceConfig(fmt.Sprintf(`{"loadBalancingConfig": [{%q: {}}]}`, balancing)),
		// Nobody keeps another one in DNS, and to look for it would cost a query each time.
		grpc.WithDisableServiceConfig(),
		// A page of ListJobs is the largest answer; requests stay below 4 MiB by the contract.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(4<<20)),
	}
}

// connection is one channel, until it is left for another one, and its stub, whose calls go over what is the channel then.
type connection struct {
	target  string
	dial    func() (*grpc.ClientConn, error)
	channel atomic.Pointer[grpc.ClientConn]
	queue   jobwirev1.QueueServiceClient
}

// connect prepares a connection; nothing is sent yet.
func connect(target, balancing string, config *tls.Config, said *bearer) (*connection, error) {
	c := &connection{target: target}
	c.dial = func() (*grpc.ClientConn, error) {
		return grpc.NewClient(target, dialOptions(balancing, config, said)...)
	}
	channel, err := c.dial()
	if err != nil {
		return nil, fmt.Errorf("%q is no address of a server, such as 127.0.0.1:50051: %w", target, err)
	}
	c.channel.Store(channel)
	c.queue = jobwirev1.NewQueueServiceClient(c)
	return c, nil
}

// Invoke makes a call for the stubs.
func (c *connection) Invoke(ctx context.Context, method string, request, response any, options ...grpc.CallOption) error {
	return c.channel.Load().Invoke(ctx, method, request, response, options...)
}

// NewStream makes a stream for the stubs.
func (c *connection) NewStream(
	ctx context.Context, stream *grpc.StreamDesc, method string, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return c.channel.Load().NewStream(ctx, stream, method, options...)
}

// leave goes on over a new channel, since this one may be dead without anybody having said so. What is under way over it ends as
// cancelled. If it was left before, by somebody else who shares it, nothing happens.
func (c *connection) leave(channel *grpc.ClientConn) {
	useless, err := c.dial()
	if err != nil {
		return // there is no reason why it should fail now
	}
	if c.channel.CompareAndSwap(channel, useless) {
		useless = channel
	}
	// Before it closes it says farewell, which to a dead peer may take seconds.
	go func() { _ = useless.Close() }()
}

func (c *connection) close() { _ = c.channel.Load().Close() }

// method is one of a stub's.
type method[Request, Response any] func(context.Context, Request, ...grpc.CallOption) (Response, error)

// call makes a call, repeated with growing pauses until timeout or the end of ctx. It returns an *Error, or why ctx was cancelled.
func call[Request, Response any](
	ctx context.Context, c *connection, timeout time.Duration, method method[Request, Response], request Request,
) (Response, error) {
	tries := attempts{deadline: time.Now().Add(timeout)}
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(tries.deadline) {
		tries.deadline = deadline
	}
	var telling *Error
	for {
		response, err := attempt(ctx, c, tries.remaining(), method, request)
		if err == nil {
			return response, nil
		}
		if telling == nil || err.Code != codes.DeadlineExceeded {
			// What kept failing says more than that the time is up.
			telling = err
		}
		again := tries.after(ctx, err)
		if errors.Is(ctx.Err(), context.Canceled) {
			return response, ctx.Err()
		}
		if !again {
			return response, telling
		}
	}
}

// attempt makes a call once.
func attempt[Request, Response any](
	ctx context.Context, c *connection, timeout time.Duration, method method[Request, Response], request Request,
) (Response, *Error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	response, err := method(ctx, request)
	if err != nil {
		return response, errorFrom(err, c.target)
	}
	return response, nil
}
