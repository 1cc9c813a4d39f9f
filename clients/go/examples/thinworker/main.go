// Works on jobs on the bare stubs: go run ./examples/thinworker 127.0.0.1:50051 mail
//
// It runs one job at a time, and gives up what the library does: when the connection breaks, what it holds is given back after 15 s,
// and it ends. Heartbeats are not answered while a job runs, so it asks for so few that three of them cover its longest job.
package main

import (
	"context"
	"log"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	jobwirev1 "jobwire/v1"
)

func work(data string) (output string) {
	log.Print("working on ", data)
	return `{"sent": true}`
}

func main() {
	target, queue := os.Args[1], os.Args[2]
	channel, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	jobwire, ctx := jobwirev1.NewQueueServiceClient(channel), context.Background()
	stream, err := jobwire.Subscribe(ctx, &jobwirev1.SubscribeRequest{Queues: []string{queue}, HeartbeatInterval: durationpb.New(60e9)})
	if err != nil {
		log.Fatal(err)
	}
	session := ""
	for {
		event, err := stream.Recv()
		if err != nil {
			log.Fatal(err)
		}
		if opened := event.GetOpened(); opened != nil {
			session = opened.SessionId
		}
		ack := &jobwirev1.AckRequest{SessionId: session, LastSequence: event.Sequence}
		for _, delivery := range event.GetDeliveries().GetDeliveries() {
			complete := &jobwirev1.AckItem_Complete{Complete: &jobwirev1.Complete{Output: work(delivery.Data)}}
			ack.Items = append(ack.Items, &jobwirev1.AckItem{Handle: delivery.Handle, Outcome: complete})
		}
		// An Ack without items answers a heartbeat.
		if _, err := jobwire.Ack(ctx, ack); err != nil {
			log.Print(err)
		}
	}
}
