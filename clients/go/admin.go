package jobwire

// What an operator does: the contract's own stub over the client's connection, with its token and its errors.
//
// The contract says which calls are safe to repeat (idempotency_level). These are repeated like a publish; any other is made once,
// and who made it decides what an answer that did not come means.

import (
	"context"
	"errors"
	"path"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	jobwirev1 "jobwire/v1"
)

// A call that is made once may work for a while before it answers: it has no less than this.
const workTime = 15 * time.Second

// operating is the connection as the stub of AdminService sees it.
type operating struct {
	*connection
	timeout time.Duration
}

// Invoke makes a unary call; it returns an *Error, or why ctx was cancelled.
func (o operating) Invoke(ctx context.Context, name string, request, response any, options ...grpc.CallOption) error {
	invoke := func(ctx context.Context, request any, _ ...grpc.CallOption) (any, error) {
		return response, o.connection.Invoke(ctx, name, request, response, options...)
	}
	if repeatable(name) {
		_, err := call(ctx, o.connection, o.timeout, invoke, request)
		return err
	}
	_, err := attempt(ctx, o.connection, max(o.timeout, workTime), invoke, request)
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	}
	err.Message = strings.Replace(err.Message, safe, "and ListActions says whether", 1)
	return err
}

// repeatable says whether the contract calls a method, by its path, idempotent.
func repeatable(name string) bool {
	service := jobwirev1.File_jobwire_v1_admin_service_proto.Services().ByName("AdminService")
	method := service.Methods().ByName(protoreflect.Name(path.Base(name)))
	if method == nil {
		return false
	}
	options, ok := method.Options().(*descriptorpb.MethodOptions)
	return ok && options.GetIdempotencyLevel() != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
}
