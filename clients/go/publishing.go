package jobwire

// Jobs to be published, and how many of them go into a call.

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	jobwirev1 "jobwire/v1"
)

// NewJob is a job to be published. Only Data is needed; the rules of each field are those of jobwirev1.JobSpec.
type NewJob struct {
	// Data is the payload: what json.Marshal takes, json.RawMessage too. Keys of what is stored elsewhere rather than content.
	Data any
	// ID is a UUID; empty makes one. Publishing an id that is there stores nothing, so a call that carries ids may be repeated.
	ID string
	// Priority is higher for what is to be delivered first, -32768 to 32767.
	Priority int
	// StartAfter is when it may start; zero is now.
	StartAfter time.Time
	// StartIn is the pause until then, free of this machine's clock. At most one of the two.
	StartIn time.Duration
	// Headers are carried unread, for example `traceparent`.
	Headers map[string]string
	// Key is what the job is about; the queue's policy and the three fields below mind it.
	Key string
	// Group is whom it is done for, where the queue has limits for groups: &jobwirev1.JobGroup{Id: "acme"}.
	Group *jobwirev1.JobGroup
	// Throttle stores it only if none of its key was stored within the same slot of time. At most one of the three.
	Throttle time.Duration
	// Debounce is the same, but a second one is stored for the next slot.
	Debounce time.Duration
	// UniqueFor stores it only if none of its key was stored within this time before.
	UniqueFor time.Duration
	// Options are what differs from the queue's: &jobwirev1.JobOptions{RetryLimit: proto.Int32(5)}.
	Options *jobwirev1.JobOptions
}

// spec returns a job as it travels, or an *Error if it cannot.
func (j *NewJob) spec() (*jobwirev1.JobSpec, *Error) {
	data, err := toJSON(j.Data, maxDataBytes)
	if err != nil {
		err.FieldViolations = []FieldViolation{{"data", err.Message}}
		return nil, err
	}
	if j.Priority != int(int32(j.Priority)) {
		return nil, invalid("priority", "a priority is -32768 to 32767")
	}
	spec := &jobwirev1.JobSpec{
		Id: j.ID, Data: data, Priority: int32(j.Priority), Headers: j.Headers, Key: j.Key, Group: j.Group, Options: j.Options,
	}
	switch {
	case !j.StartAfter.IsZero() && j.StartIn != 0:
		return nil, invalid("start", "give StartAfter or StartIn, not both")
	case !j.StartAfter.IsZero():
		spec.Start = &jobwirev1.JobSpec_StartAfter{StartAfter: timestamppb.New(j.StartAfter)}
	case j.StartIn != 0:
		spec.Start = &jobwirev1.JobSpec_StartIn{StartIn: durationpb.New(j.StartIn)}
	}
	uniques := 0
	if j.Throttle != 0 {
		uniques++
		spec.Unique = &jobwirev1.JobSpec_Throttle{Throttle: durationpb.New(j.Throttle)}
	}
	if j.Debounce != 0 {
		uniques++
		spec.Unique = &jobwirev1.JobSpec_Debounce{Debounce: durationpb.New(j.Debounce)}
	}
	if j.UniqueFor != 0 {
		uniques++
		spec.Unique = &jobwirev1.JobSpec_UniqueFor{UniqueFor: durationpb.New(j.UniqueFor)}
	}
	if uniques > 1 {
		return nil, invalid("unique", "give one of Throttle, Debounce and UniqueFor")
	}
	return spec, nil
}

func invalid(field, rule string) *Error {
	return &Error{Code: codes.InvalidArgument, Reason: "INVALID_ARGUMENT", Message: rule, FieldViolations: []FieldViolation{{field, rule}}}
}

// publishCalls returns the calls that publish jobs in their order, each as full as it may be. It gives ids to jobs that have none.
func publishCalls(queue string, jobs []NewJob) ([]*jobwirev1.PublishRequest, *Error) {
	var calls []*jobwirev1.PublishRequest
	var last *jobwirev1.PublishRequest
	size := 0
	for place := range jobs {
		job := &jobs[place]
		if job.ID == "" {
			job.ID = NewJobID()
		}
		spec, err := job.spec()
		if err != nil {
			at := fmt.Sprintf("jobs[%d].", place)
			for violation := range err.FieldViolations {
				err.FieldViolations[violation].Field = at + err.FieldViolations[violation].Field
			}
			err.Message = fmt.Sprintf("%s: %s", err.FieldViolations[0].Field, err.Message)
			return nil, err
		}
		// Its tag and length take up to five bytes.
		own := proto.Size(spec) + 5
		if last == nil || len(last.Jobs) == maxCallItems || size+own > maxCallBytes {
			last = &jobwirev1.PublishRequest{Queue: queue}
			calls = append(calls, last)
			size = 0
		}
		last.Jobs = append(last.Jobs, spec)
		size += own
	}
	return calls, nil
}
