package jobwire;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Status;
import java.time.Duration;
import java.time.temporal.ChronoUnit;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;

class ClientTest extends RealServer {
    record Upload(String fileKey, int rows) {}

    @Test
    void manyJobsTravelInSeveralCallsAndKeepTheirOrder() {
        List<NewJob> jobs = IntStream.range(0, 2500)
                .mapToObj(n -> new NewJob(Map.of("n", n)).startIn(Duration.ofHours(1)))
                .toList();
        List<Published> published = client.publishMany(queue, jobs);
        assertEquals(jobs.stream().map(NewJob::id).toList(), published.stream().map(Published::jobId).toList());
        assertTrue(published.stream().allMatch(Published::created));
        assertEquals(2499, client.getJob(queue, jobs.get(2499).id()).data().get("n").asInt());
        List<Published> again = client.publishMany(queue, jobs);
        assertTrue(again.stream().allMatch(one -> one.reason() == NotCreatedReason.DUPLICATE_ID));
    }

    @Test
    void largeJobsAreSplitBySize() {
        // 80 of 60 KB are more than one call may carry.
        List<NewJob> jobs =
                IntStream.range(0, 80).mapToObj(n -> new NewJob("x".repeat(60_000))).toList();
        assertEquals(80, client.publishMany(queue, jobs).size());
    }

    @Test
    void aJobCarriesAllThatWasSaidOfIt() {
        NewJob job = new NewJob(new Upload("uploads/a.xlsx", 3339))
                .priority(7)
                .startIn(Duration.ofHours(1))
                .headers(Map.of("traceparent", "00-1"))
                .key("order-1")
                .options(JobOptions.DEFAULTS.withRetryLimit(5).withExpireIn(Duration.ofSeconds(90)));
        client.publish(queue, job);
        JobInfo info = client.getJob("", job.id());
        assertEquals("uploads/a.xlsx", info.data().get("fileKey").asText());
        assertEquals(List.of(7, 5), List.of(info.priority(), info.options().retryLimit()));
        assertEquals(Duration.ofSeconds(90), info.options().expireIn());
        assertEquals(Map.of("traceparent", "00-1"), info.headers());
        assertEquals(List.of("order-1", JobState.CREATED), List.of(info.key(), info.state()));
    }

    @Test
    void whatIsNoJsonIsRefusedWithTheJobNamed() {
        for (Object bad : List.of(new Object(), "\ud83d", Double.NaN)) {
            JobwireException.InvalidArgument error =
                    assertThrows(JobwireException.InvalidArgument.class, () -> client.publish(queue, bad));
            assertTrue(error.getMessage().contains("data"), error.getMessage());
        }
        assertTrue(client.publish(queue, null).created());
    }

    @Test
    void theServersRulesNameTheField() {
        JobwireException.InvalidArgument error = assertThrows(
                JobwireException.InvalidArgument.class,
                () -> client.publishMany(queue, List.of(new NewJob(1), new NewJob(2).priority(40_000))));
        assertEquals("INVALID_ARGUMENT", error.reason());
        assertEquals("jobs[1].priority", error.fieldViolations().get(0).field());
    }

    @Test
    void aTokenThatCanBeNoneIsTriedNowhere() {
        assertThrows(IllegalArgumentException.class, () -> endpoint.withToken("two words"));
        try (Client tokenless = new Client(endpoint.withToken(() -> "two words"), PATIENCE)) {
            JobwireException.Unauthenticated error =
                    assertThrows(JobwireException.Unauthenticated.class, () -> tokenless.publish(queue, 1));
            assertTrue(error.getMessage().contains("there is no token to call with"), error.getMessage());
            assertFalse(error.getMessage().contains("two words"), error.getMessage());
        }
    }

    @Test
    void whoWaitsForTooLongIsToldWhereTheJobStands() {
        Published published = client.publish(queue, 1);
        JobwireException.DeadlineExceeded error = assertThrows(
                JobwireException.DeadlineExceeded.class,
                () -> client.waitFor(queue, published.jobId(), Duration.ofSeconds(1)));
        assertTrue(error.getMessage().contains("it was CREATED when last seen"), error.getMessage());
        String unknown = new NewJob(1).id();
        assertThrows(JobwireException.NotFound.class, () -> client.waitFor(queue, unknown, PATIENCE));
    }

    @Test
    void whoCallsAfterTheEndIsToldSo() {
        Published published = client.publish(queue, 1);
        client.close();
        client.close();
        for (Executable late : List.<Executable>of(
                () -> client.publish(queue, 2), () -> client.waitFor(queue, published.jobId(), PATIENCE))) {
            JobwireException error = assertThrows(JobwireException.class, late);
            assertEquals("FAILED_PRECONDITION CLOSED", error.code() + " " + error.reason());
        }
    }

    @Test
    void whoClosesWaitsForCallsThatAreUnderWay() throws Exception {
        Connection connection = Connection.forCallers(endpoint);
        List<String> ends = new CopyOnWriteArrayList<>();
        Thread closer = new Thread(() -> {
            connection.close(PATIENCE);
            ends.add("connection");
        });
        connection.attempt(stub -> {
            closer.start();
            try {
                until(() -> Set.of(Thread.State.TIMED_WAITING, Thread.State.TERMINATED).contains(closer.getState()));
            } catch (Exception error) {
                throw new AssertionError(error);
            }
            return ends.add("call");
        }, PATIENCE);
        closer.join();
        assertEquals(List.of("call", "connection"), ends);
    }

    @Test
    void aTimeMayBeForEver() {
        Duration forEver = ChronoUnit.FOREVER.getDuration();
        try (Client patient = new Client(endpoint, forEver)) {
            Published published = patient.publish(queue, 1);
            Worker worker = new Worker(endpoint).stopGrace(forEver).handle(queue, 1, job -> {
                job.progress(0.5, null);
                return "done";
            });
            worker.start();
            assertEquals("done", patient.waitFor(queue, published.jobId(), forEver).output().asText());
            worker.close();
            assertFalse(worker.ended().isCompletedExceptionally());
        }
    }

    @Test
    void anInterruptedCallEndsAndTheThreadStaysInterrupted() {
        Published published = client.publish(queue, 1);
        Thread caller = Thread.currentThread();
        new Thread(() -> {
                    try {
                        until(() -> caller.getState() != Thread.State.RUNNABLE);
                    } catch (Exception error) {
                        error.printStackTrace();
                    }
                    caller.interrupt();
                })
                .start();
        JobwireException error =
                assertThrows(JobwireException.class, () -> client.waitFor(queue, published.jobId(), PATIENCE));
        assertEquals(Status.Code.CANCELLED, error.code());
        assertTrue(Thread.interrupted());
        assertFalse(client.getJob(queue, published.jobId()).finished());
    }
}
