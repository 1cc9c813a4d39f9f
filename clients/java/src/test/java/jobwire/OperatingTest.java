package jobwire;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import jobwire.v1.AdminServiceGrpc;
import jobwire.v1.CancelJobsRequest;
import jobwire.v1.CancelJobsResponse;
import jobwire.v1.CancelStatus;
import jobwire.v1.ChangeJobsRequest;
import jobwire.v1.ChangeJobsResponse;
import jobwire.v1.DeleteQueueRequest;
import jobwire.v1.JobFilter;
import jobwire.v1.ListActionsRequest;
import jobwire.v1.RetryChange;
import org.junit.jupiter.api.Test;

/** What an operator does: on the real server, and behind a relay that loses answers. */
class OperatingTest extends RealServer {
    private CancelJobsRequest cancel(String jobId) {
        return CancelJobsRequest.newBuilder().setQueue(queue).addJobIds(jobId).build();
    }

    @Test
    void aRunningJobIsCancelledAndWhoDidItIsOnRecord() throws Exception {
        CountDownLatch started = new CountDownLatch(1);
        ConcurrentLinkedQueue<StopReason> told = new ConcurrentLinkedQueue<>();
        Worker worker = new Worker(endpoint).handle(queue, 1, job -> {
            started.countDown();
            try {
                new CountDownLatch(1).await();
            } finally {
                told.addAll(job.stopReason().stream().toList());
            }
            return null;
        });
        worker.start();
        try (Client operator = new Client(endpoint.withActor("Ada, support"), PATIENCE)) {
            Published published = client.publish(queue, 1);
            started.await();
            CancelJobsResponse cancelled = operator.admin(admin -> admin.cancelJobs(cancel(published.jobId())));
            assertEquals(CancelStatus.CANCEL_STATUS_REQUESTED, cancelled.getResults(0).getStatus());
            assertEquals(JobState.CANCELLED, finished(published).state());
            assertEquals(List.of(StopReason.REQUESTED), List.copyOf(told));
            ListActionsRequest done = ListActionsRequest.newBuilder().setQueue(queue).build();
            assertEquals(
                    "Ada, support",
                    operator.admin(admin -> admin.listActions(done)).getActions(0).getActor());
        } finally {
            worker.close();
        }
    }

    @Test
    void aRefusalHasReasonAndAdvice() {
        JobwireException.NotFound error = assertThrows(
                JobwireException.NotFound.class,
                () -> client.admin(admin -> admin.cancelJobs(cancel(UUID.randomUUID().toString()))));
        assertEquals("QUEUE_NOT_FOUND", error.reason());
        assertTrue(error.getMessage().contains("create it with AdminService.CreateQueue"), error.getMessage());
        // A call that is made once is refused in the same way.
        DeleteQueueRequest delete = DeleteQueueRequest.newBuilder().setName(queue).build();
        assertEquals(
                "QUEUE_NOT_FOUND",
                assertThrows(JobwireException.NotFound.class, () -> client.admin(admin -> admin.deleteQueue(delete)))
                        .reason());
    }

    @Test
    void onlyWhatIsSafeToRepeatIsRepeated() throws Exception {
        Published published = client.publish(queue, 1);
        Relay relay = new Relay();
        Server server = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
                .addService(relay)
                .intercept(relay)
                .build()
                .start();
        Endpoint there = Endpoint.of("127.0.0.1:" + server.getPort()).withToken("secret");
        try (Client through = new Client(there, PATIENCE)) {
            relay.losses.set(1);
            CancelJobsResponse cancelled = through.admin(admin -> admin.cancelJobs(cancel(published.jobId())));
            assertEquals(
                    CancelStatus.CANCEL_STATUS_ALREADY_FINISHED,
                    cancelled.getResults(0).getStatus());
            assertEquals(List.of("CancelJobs Bearer secret", "CancelJobs Bearer secret"), List.copyOf(relay.calls));

            relay.calls.clear();
            relay.losses.set(1);
            ChangeJobsRequest retry = ChangeJobsRequest.newBuilder()
                    .setQueue(queue)
                    .setFilter(JobFilter.getDefaultInstance())
                    .setRetry(RetryChange.getDefaultInstance())
                    .setLimit(1)
                    .build();
            JobwireException error = assertThrows(
                    JobwireException.Unavailable.class, () -> through.admin(admin -> admin.changeJobs(retry)));
            assertTrue(
                    error.getMessage().endsWith("it may have taken effect, and listActions says whether"),
                    error.getMessage());
            assertEquals(List.of("ChangeJobs Bearer secret"), List.copyOf(relay.calls));
            assertEquals(JobState.CREATED, client.getJob(queue, published.jobId()).state(), "it was done, once");
        } finally {
            server.shutdownNow();
        }
    }

    /** Hands calls on to the real server, and loses as many answers as it is told to. */
    private final class Relay extends AdminServiceGrpc.AdminServiceImplBase implements ServerInterceptor {
        private final AtomicInteger losses = new AtomicInteger();
        private final ConcurrentLinkedQueue<String> calls = new ConcurrentLinkedQueue<>();

        @Override
        public <Q, R> ServerCall.Listener<Q> interceptCall(
                ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
            String token = headers.get(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER));
            calls.add(call.getMethodDescriptor().getBareMethodName() + " " + token);
            return next.startCall(call, headers);
        }

        @Override
        public void cancelJobs(CancelJobsRequest request, StreamObserver<CancelJobsResponse> answer) {
            handOn(() -> client.admin(admin -> admin.cancelJobs(request)), answer);
        }

        @Override
        public void changeJobs(ChangeJobsRequest request, StreamObserver<ChangeJobsResponse> answer) {
            handOn(() -> client.admin(admin -> admin.changeJobs(request)), answer);
        }

        private <R> void handOn(Supplier<R> call, StreamObserver<R> answer) {
            R answered = call.get();
            if (losses.getAndDecrement() > 0) {
                // As gRPC ends calls that reach a server as it stops.
                answer.onError(Status.CANCELLED.withDescription("lost").asRuntimeException());
                return;
            }
            answer.onNext(answered);
            answer.onCompleted();
        }
    }
}
