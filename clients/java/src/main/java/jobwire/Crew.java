package jobwire;

import static java.lang.System.Logger.Level.DEBUG;
import static java.lang.System.Logger.Level.INFO;
import static java.lang.System.Logger.Level.WARNING;

import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import jobwire.Outcome.Settling;
import jobwire.v1.Delivery;

/**
 * The runs of one queue's handler: each delivery in hand, from its start to the report of its end. Within the loop, but
 * for the handlers themselves, which have threads of their own.
 *
 * <p>A delivery that is dropped (its lease is gone) is no longer reported on, but its handler may need time to end;
 * until then its place is not free, and the server is asked for fewer jobs.
 */
final class Crew {
    private static final System.Logger LOG = System.getLogger("jobwire");

    /** One delivery in the hands of a handler. */
    private final class Run {
        final Delivery delivery;
        final Reporter reporter;
        StopReason reason;
        boolean dropped;

        /**
         * The handler's thread while it is in the handler; guarded by this object, so that no other run is interrupted.
         * (An interrupt that the handler left unseen the pool itself clears before the next run.)
         */
        private Thread thread;

        private boolean interrupted;

        Run(Delivery delivery) {
            this.delivery = delivery;
            reporter = new Reporter(loop, acker, delivery.getHandle());
        }

        /** Runs the handler in the present thread. */
        Outcome handle() {
            String name = Thread.currentThread().getName();
            Thread.currentThread().setName("jobwire " + delivery.getQueue() + " " + delivery.getJobId());
            enter();
            Outcome outcome;
            try {
                outcome = Outcome.completed(handler.handle(new Job(delivery, reporter)));
            } catch (Throwable error) { // whatever broke, the job gets an end
                outcome = Outcome.thrown(error, reporter.stopReason().isPresent());
            }
            leave();
            Thread.currentThread().setName(name);
            return outcome;
        }

        private synchronized void enter() {
            thread = Thread.currentThread();
            if (interrupted) {
                thread.interrupt();
            }
        }

        private synchronized void leave() {
            thread = null;
        }

        synchronized void interrupt() {
            interrupted = true;
            if (thread != null) {
                thread.interrupt();
            }
        }
    }

    private final Loop loop;
    private final int size;
    private final Handler handler;
    private final Executor threads;
    private final Acker acker;
    private final Map<String, Run> runs = new LinkedHashMap<>();
    private final Waits waits = new Waits();
    private int dropped;

    /**
     * @param size how many runs there may be at once
     * @param threads gives each run a thread of its own
     */
    Crew(Loop loop, int size, Handler handler, Executor threads, Acker acker) {
        this.loop = loop;
        this.size = size;
        this.handler = handler;
        this.threads = threads;
        this.acker = acker;
    }

    /** How many deliveries there may be at once, now: the size less what runs on without a lease. */
    int places() {
        return size - dropped;
    }

    /** Whether no further delivery may be started. */
    boolean full() {
        return runs.size() >= size;
    }

    /** Whether the handler of a delivery still runs. */
    boolean runs(String handle) {
        return runs.containsKey(handle);
    }

    /** Runs the handler on a delivery. */
    void start(Delivery delivery) {
        Run run = new Run(delivery);
        runs.put(delivery.getHandle(), run);
        if (delivery.getAttempt() > 1) {
            // It may be the job that kills its worker, at once: that is counted only when its receipt is known.
            acker.receipt().thenRun(() -> begin(run));
        } else {
            begin(run);
        }
    }

    private void begin(Run run) {
        if (run.reason != null) {
            ended(run, new Outcome.Stopped());
            return;
        }
        try {
            threads.execute(() -> {
                Outcome outcome = run.handle();
                loop.execute(() -> ended(run, outcome));
            });
        } catch (OutOfMemoryError error) { // no thread to be had
            ended(run, Outcome.thrown(error, false));
        }
    }

    /** Tells a handler to stop. How it ends is reported as ever. */
    void stop(String handle, StopReason reason) {
        Run run = runs.get(handle);
        if (run == null || run.reason != null) {
            return;
        }
        LOG.log(INFO, "job {0}: told to stop ({1})", run.delivery.getJobId(), reason);
        run.reason = reason;
        run.reporter.stop(reason);
        run.interrupt();
    }

    /** Tells all handlers to stop. */
    void stopAll(StopReason reason) {
        List.copyOf(runs.keySet()).forEach(handle -> stop(handle, reason));
    }

    /** Stops handlers whose deliveries are gone. */
    void drop(Collection<String> handles) {
        for (String handle : List.copyOf(handles)) {
            Run run = runs.get(handle);
            if (run != null && !run.dropped) {
                leaveOut(run);
                acker.forget(handle);
                stop(handle, StopReason.LEASE_LOST);
            }
        }
    }

    /** Stops all handlers: their session is gone. */
    void dropAll() {
        drop(runs.keySet());
    }

    /** Gives back what did not stop in time, though its handler may still run, and waits no longer. */
    void abandon() {
        // A copy: what waits for its checkpoint ends with that.
        for (Run run : List.copyOf(runs.values())) {
            LOG.log(
                    WARNING,
                    "job {0}: its handler did not stop in time; the job is given back",
                    run.delivery.getJobId());
            if (!run.dropped) {
                leaveOut(run);
                acker.settle(run.delivery.getHandle(), new Outcome.Released(null));
            }
            run.interrupt();
        }
    }

    /** A future that is done when nothing runs. */
    CompletableFuture<Void> idle() {
        return waits.until(runs::isEmpty);
    }

    /** A future that is done when at least one delivery may come. */
    CompletableFuture<Void> hasPlace() {
        return waits.until(() -> places() > 0);
    }

    private void leaveOut(Run run) {
        run.dropped = true;
        run.reporter.close();
        dropped++;
    }

    private void ended(Run run, Outcome outcome) {
        if (outcome instanceof Outcome.Completed || run.dropped) {
            report(run, outcome);
        } else {
            run.reporter.left().thenRun(() -> report(run, outcome));
        }
    }

    private void report(Run run, Outcome outcome) {
        String handle = run.delivery.getHandle();
        runs.remove(handle);
        run.reporter.close();
        if (run.dropped) {
            dropped--;
            acker.lookAgain();
        } else {
            Settling said = Outcome.settling(outcome, run.reason);
            tell(run.delivery.getJobId(), said);
            acker.settle(handle, said);
        }
        waits.look();
    }

    private static void tell(String jobId, Settling outcome) {
        if (outcome instanceof Outcome.Failed failed) {
            String how = failed.permanent() ? "failed for good" : "failed";
            String trace = failed.trace().isEmpty() ? "" : "\n" + failed.trace().stripTrailing();
            LOG.log(
                    WARNING,
                    "job {0}: {1}: {2}: {3}{4}",
                    jobId,
                    how,
                    failed.type(),
                    failed.message(),
                    trace);
        } else {
            String how = outcome instanceof Outcome.Completed ? "completed" : "given back";
            LOG.log(outcome instanceof Outcome.Completed ? DEBUG : INFO, "job {0}: {1}", jobId, how);
        }
    }
}
