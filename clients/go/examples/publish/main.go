// Publishes a job on the bare stubs, and waits for its end: go run ./examples/publish 127.0.0.1:50051 mail '{"to": "a@example.org"}'
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	jobwirev1 "jobwire/v1"
)

func main() {
	target, queue, data := os.Args[1], os.Args[2], os.Args[3]
	channel, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer channel.Close()
	jobwire, ctx := jobwirev1.NewQueueServiceClient(channel), context.Background()
	// With an id of our own the call may be repeated: the job is stored once.
	job := &jobwirev1.JobSpec{Id: uuid.Must(uuid.NewV7()).String(), Data: data}
	published, err := jobwire.Publish(ctx, &jobwirev1.PublishRequest{Queue: queue, Jobs: []*jobwirev1.JobSpec{job}})
	if err != nil {
		log.Fatal(err)
	}
	wait := &jobwirev1.GetJobRequest{Queue: queue, JobId: published.Results[0].JobId, Wait: durationpb.New(60e9), UntilFinished: true}
	found, err := jobwire.GetJob(ctx, wait)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(found.Job.State, found.Job.Output)
}
