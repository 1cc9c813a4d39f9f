package jobwire;

import static java.lang.System.Logger.Level.ERROR;

import java.time.Duration;
import java.util.Arrays;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

/**
 * The one thread in which everything of a worker happens but its handlers: what gRPC calls back, timers, ends of runs.
 *
 * <p>So nothing of a session is ever seen half changed, and nothing needs a lock. What runs here must not wait. The
 * thread is no daemon: a worker that was started keeps its program alive until it is stopped.
 */
final class Loop implements Executor {
    private static final System.Logger LOG = System.getLogger("jobwire");

    private final ScheduledThreadPoolExecutor thread;

    Loop(String name) {
        thread = new ScheduledThreadPoolExecutor(1, task -> new Thread(task, name));
        thread.setRemoveOnCancelPolicy(true);
        // What comes too late, from a handler that outlived its worker, is of no interest.
        thread.setRejectedExecutionHandler((task, executor) -> {});
    }

    /** Runs a task after those that wait already; from any thread. */
    @Override
    public void execute(Runnable task) {
        thread.execute(guarded(task));
    }

    /** Runs a task after so long, unless the returned timer is cancelled. */
    Future<?> after(Duration pause, Runnable task) {
        return thread.schedule(guarded(task), Math.max(0, pause.toNanos()), TimeUnit.NANOSECONDS);
    }

    /** A future that is done when one of the others is, but at the latest after so long. */
    CompletableFuture<Void> firstOf(Duration within, CompletableFuture<?>... others) {
        CompletableFuture<Void> first = new CompletableFuture<>();
        Future<?> timer = after(within, () -> first.complete(null));
        Arrays.stream(others).forEach(other -> other.whenComplete((done, error) -> first.complete(null)));
        first.whenComplete((done, error) -> timer.cancel(false));
        return first;
    }

    /** Whether it has ended. */
    boolean closed() {
        return thread.isShutdown();
    }

    /** Ends the thread; what waits is dropped. */
    void close() {
        thread.shutdownNow();
    }

    private static Runnable guarded(Runnable task) {
        return () -> {
            try {
                task.run();
            } catch (RuntimeException | Error fault) { // the executor would keep it to itself
                LOG.log(ERROR, "a fault of the client", fault);
            }
        };
    }
}
