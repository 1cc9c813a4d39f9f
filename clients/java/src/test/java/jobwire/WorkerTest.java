package jobwire;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.time.Duration;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

class WorkerTest extends RealServer {
    record Addition(int a, int b) {}

    /** An exception that cannot even be told of. */
    private static final class Unspeakable extends RuntimeException {
        private static final long serialVersionUID = 1;

        @Override
        public String getMessage() {
            return getMessage() + ", and so on";
        }
    }

    /** What a test does while a worker works. */
    private interface Play {
        void play() throws Exception;
    }

    private void whileWorking(int concurrency, Handler handler, Play play) throws Exception {
        Worker worker = working(concurrency, handler);
        try {
            play.play();
        } finally {
            worker.close();
        }
    }

    private Worker working(int concurrency, Handler handler) {
        Worker worker = new Worker(endpoint).stopGrace(Duration.ofSeconds(1)).handle(queue, concurrency, handler);
        worker.start();
        return worker;
    }

    @Test
    void hundredsOfJobsEndOnceEach() throws Exception {
        List<NewJob> jobs =
                IntStream.range(0, 300).mapToObj(n -> new NewJob(new Addition(n, 1))).toList();
        AtomicInteger runs = new AtomicInteger();
        whileWorking(50, job -> {
            runs.incrementAndGet();
            Addition addition = job.data(Addition.class);
            return Map.of("sum", addition.a() + addition.b());
        }, () -> {
            List<Published> published = client.publishMany(queue, jobs);
            for (int n = 0; n < 300; n++) {
                assertEquals(n + 1, finished(published.get(n)).output().get("sum").asInt());
            }
        });
        assertEquals(300, runs.get());
    }

    @Test
    void whateverAHandlerThrowsItsJobGetsAnEnd() throws Exception {
        Map<String, Handler> handlers = Map.of(
                "IOException", job -> {
                    throw new IOException("the disk is gone", new IllegalStateException("deeper"));
                },
                "StackOverflowError", job -> {
                    throw new StackOverflowError();
                },
                "BadResult", job -> new Object(),
                "FailForGood", job -> {
                    throw new FailForGood("hopeless");
                },
                "Unspeakable", job -> {
                    throw new Unspeakable();
                });
        whileWorking(4, job -> handlers.get(job.data().asText()).handle(job), () -> {
            handlers.keySet().forEach(type -> {
                NewJob job = new NewJob(type).options(JobOptions.DEFAULTS.withRetryLimit(0));
                JobInfo info = finished(client.publish(queue, job));
                assertEquals(JobState.FAILED, info.state());
                assertEquals(type, info.errors().get(0).type());
                assertFalse(info.errors().get(0).message().isEmpty());
                assertEquals(type.equals("IOException"), info.errors().get(0).trace().contains("deeper"));
            });
        });
    }

    @Test
    void aRunLeavesACheckpointForTheNextOne() throws Exception {
        whileWorking(1, job -> {
            if (job.checkpoint().isNull()) {
                job.progress(0.4, "sent at once", List.of(1));
                Thread.sleep(50);
                job.progress(0.5, "half way", List.of(1, 2)); // this one would have its turn later
                throw new RetryIn(Duration.ZERO);
            }
            return job.checkpoint();
        }, () -> {
            JobInfo info = finished(client.publish(queue, "long"));
            assertEquals("[1,2]", info.output().toString());
            assertEquals(Optional.of("half way"), info.progress().map(Progress::note));
        });
    }

    @Test
    void aStoppedWorkerInterruptsAndGivesBackWhatDoesNotEnd() throws Exception {
        CountDownLatch started = new CountDownLatch(1);
        ConcurrentLinkedQueue<StopReason> reasons = new ConcurrentLinkedQueue<>();
        Worker worker = working(1, job -> {
            started.countDown();
            try {
                Thread.sleep(600_000);
            } catch (InterruptedException told) {
                reasons.addAll(job.stopReason().stream().toList());
                throw new IllegalStateException("in the middle of something");
            }
            return null;
        });
        Published published = client.publish(queue, "long");
        started.await();
        worker.close();
        assertEquals(List.of(StopReason.STOPPING), List.copyOf(reasons));
        JobInfo info = client.getJob(queue, published.jobId());
        assertEquals(List.of(JobState.RETRY, 0, 1), List.of(info.state(), info.retryCount(), info.releaseCount()));
        assertTrue(worker.ended().isDone());
    }

    @Test
    void spansWithoutEndAreWaited() throws Exception {
        Duration forever = ChronoUnit.FOREVER.getDuration();
        CountDownLatch started = new CountDownLatch(1);
        CountDownLatch goOn = new CountDownLatch(1);
        Worker worker = new Worker(endpoint).stopGrace(forever).handle(queue, 1, job -> {
            started.countDown();
            goOn.await();
            return 7;
        });
        worker.start();
        try (Client patient = new Client(endpoint, forever)) {
            Published published = patient.publish(queue, "long");
            started.await();
            worker.stop();
            goOn.countDown();
            assertEquals(7, patient.waitFor(queue, published.jobId(), forever).output().asInt());
        }
        worker.close();
        worker.ended().get();
    }

    @Test
    void aWorkerThatIsRefusedEndsWithTheServersWord() {
        Worker worker = new Worker(endpoint).handle("no such name!", 1, job -> null);
        JobwireException.InvalidArgument error =
                assertThrows(JobwireException.InvalidArgument.class, worker::run);
        assertEquals("queues[0]", error.fieldViolations().get(0).field());
        worker.close();
        assertThrows(ExecutionException.class, () -> worker.ended().get());
    }

    @Test
    void aSignalIsForAllWorkersOfTheProgram() throws Exception {
        List<Worker> workers = new ArrayList<>();
        List<Thread> runs = new ArrayList<>();
        for (int n = 0; n < 2; n++) {
            CountDownLatch begun = new CountDownLatch(1);
            Worker worker = new Worker(endpoint).handle(queue + n, 1, job -> {
                begun.countDown();
                return null;
            });
            Thread run = new Thread(worker::run);
            run.start();
            workers.add(worker);
            runs.add(run);
            client.publish(queue + n, 1);
            begun.await();
            until(() -> run.getState() == Thread.State.WAITING);
        }
        try {
            Class<?> signal = Class.forName("sun.misc.Signal");
            signal.getMethod("raise", signal).invoke(null, signal.getConstructor(String.class).newInstance("TERM"));
            for (Thread run : runs) {
                run.join(PATIENCE.toMillis());
                assertFalse(run.isAlive());
            }
        } finally {
            workers.forEach(Worker::close);
        }
    }

    @Test
    void aHandlerIsTriedOutByHand() throws Exception {
        Handler handler = job -> {
            job.progress(2, "more than all");
            job.extend(Duration.ofMinutes(1));
            job.check();
            return job.data(Addition.class).a();
        };
        assertEquals(1, handler.handle(Job.of(new Addition(1, 2))));
    }
}
