package jobwire

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	jobwirev1 "jobwire/v1"
)

func TestAListIsSplitIntoCallsThatMayTravel(t *testing.T) {
	jobs := make([]NewJob, 2500)
	calls, err := publishCalls("work", jobs)
	if err != nil || len(calls) != 3 || len(calls[0].Jobs) != 1000 || len(calls[2].Jobs) != 500 {
		t.Fatalf("%d calls, %v", len(calls), err)
	}
	if calls[2].Jobs[499].Id != jobs[2499].ID || jobs[0].ID == "" || jobs[0].ID == jobs[1].ID {
		t.Error("the ids are not in the caller's slice")
	}
	large := make([]NewJob, 20)
	for place := range large {
		large[place].Data = strings.Repeat("x", 500<<10)
	}
	calls, err = publishCalls("work", large)
	if err != nil || len(calls) != 4 {
		t.Fatalf("%d calls, %v", len(calls), err)
	}
	for _, call := range calls {
		if size := proto.Size(call); size > 3<<20 {
			t.Errorf("a call of %d bytes", size)
		}
	}
}

func TestWhatCannotTravelIsNamedBeforeAnythingIsSent(t *testing.T) {
	now := time.Now()
	for field, job := range map[string]NewJob{
		"jobs[1].data":     {Data: math.NaN()},
		"jobs[1].priority": {Priority: 1 << 40},
		"jobs[1].start":    {StartIn: time.Second, StartAfter: now},
		"jobs[1].unique":   {Throttle: time.Second, UniqueFor: time.Second},
	} {
		_, err := publishCalls("work", []NewJob{{}, job})
		if !errors.Is(err, ErrInvalidArgument) || err.FieldViolations[0].Field != field || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	_, err := publishCalls("work", []NewJob{{Data: strings.Repeat("x", 600<<10)}})
	if err == nil || err.Reason != "DATA_TOO_LARGE" || !strings.Contains(err.Error(), "store the content elsewhere") {
		t.Errorf("%v", err)
	}
}

func TestManyJobsAreStoredInOrderAndOnce(t *testing.T) {
	client, queue := client(t), newQueue()
	jobs := make([]NewJob, 1200)
	for place := range jobs {
		jobs[place].Data = place
	}
	first, err := client.PublishMany(patient(t), queue, jobs)
	if err != nil || len(first) != len(jobs) {
		t.Fatalf("%d results, %v", len(first), err)
	}
	again, err := client.PublishMany(patient(t), queue, jobs)
	if err != nil {
		t.Fatal(err)
	}
	for place := range jobs {
		if !first[place].GetCreated() || again[place].GetCreated() || first[place].GetJobId() != jobs[place].ID {
			t.Fatalf("job %d: %v, then %v", place, first[place], again[place])
		}
	}
}

func TestEveryFieldOfAJobArrives(t *testing.T) {
	client, queue := client(t), newQueue()
	start := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	job := NewJob{
		Data:       map[string]any{"text": "<&> ünï \u2028", "list": []int{1, 2}},
		Priority:   -7,
		StartAfter: start,
		Headers:    map[string]string{"traceparent": "00-1"},
		Key:        "order 1",
		Group:      &jobwirev1.JobGroup{Id: "acme", Tier: "gold"},
		UniqueFor:  time.Hour,
		Options:    &jobwirev1.JobOptions{RetryLimit: proto.Int32(5)},
	}
	stored, err := client.GetJob(patient(t), queue, publish(t, client, queue, job))
	if err != nil {
		t.Fatal(err)
	}
	if stored.Data != `{"list":[1,2],"text":"<&> ünï \u2028"}` || !json.Valid([]byte(stored.Data)) {
		t.Errorf("data %s", stored.Data)
	}
	if stored.Priority != -7 || !stored.StartAfter.AsTime().Equal(start) || stored.Headers["traceparent"] != "00-1" ||
		stored.Key != "order 1" || stored.Group.GetId() != "acme" || stored.Options.GetRetryLimit() != 5 {
		t.Errorf("%v", stored)
	}
	job.ID = ""
	refused, err := client.Publish(patient(t), queue, job)
	if err != nil || refused.GetCreated() || refused.GetReason() != jobwirev1.NotCreatedReason_NOT_CREATED_REASON_NOT_UNIQUE {
		t.Errorf("%v, %v", refused, err)
	}
}
