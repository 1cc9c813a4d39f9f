package jobwire;

import static java.lang.System.Logger.Level.ERROR;
import static java.lang.System.Logger.Level.INFO;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import jobwire.v1.SubscribeRequest;

/** One life of a worker: its sessions from the start to an orderly end. */
final class Lifetime {
    private static final System.Logger LOG = System.getLogger("jobwire");

    /** What a worker does for one queue. */
    record Post(String queue, int concurrency, Handler handler) {}

    private final Loop loop = new Loop("jobwire worker");
    private final ExecutorService threads = threads();
    private final Connection connection;
    private final List<Session> sessions = new ArrayList<>();
    private final Duration stopGrace;
    private final CompletableFuture<Void> stopAsked = new CompletableFuture<>();
    private final CompletableFuture<Void> hurry = new CompletableFuture<>();
    private final CompletableFuture<Void> ended = new CompletableFuture<>();
    private boolean leaving;

    /** Begins to work. */
    Lifetime(Endpoint endpoint, SubscribeRequest terms, List<Post> posts, Duration stopGrace) {
        this.stopGrace = stopGrace;
        connection = Connection.forWorker(endpoint, loop);
        for (Post post : posts) {
            SubscribeRequest template = terms.toBuilder().addQueues(post.queue()).build();
            sessions.add(new Session(
                    loop, connection, template, post.concurrency(), post.handler(), threads, this::leave));
        }
        loop.execute(this::live);
    }

    /** A thread for each run, kept for further ones. Daemons: a handler that never ends keeps no program alive. */
    private static ExecutorService threads() {
        return new ThreadPoolExecutor(0, Integer.MAX_VALUE, 60, TimeUnit.SECONDS, new SynchronousQueue<>(), task -> {
            Thread thread = new Thread(task, "jobwire handler");
            thread.setDaemon(true);
            return thread;
        });
    }

    /** Asks for the end, from any thread. */
    void stop(boolean now) {
        loop.execute(() -> {
            stopAsked.complete(null);
            if (now) {
                hurry.complete(null);
            }
        });
    }

    /** Whether the end has begun. */
    boolean stopping() {
        return stopAsked.isDone();
    }

    /** Done when all is put away; fails with the JobwireException for which the worker could not go on. */
    CompletableFuture<Void> ended() {
        return ended;
    }

    private void live() {
        List<CompletableFuture<Void>> refusals =
                sessions.stream().map(Session::start).toList();
        // If a session cannot go on, the worker does not go on as half a worker.
        refusals.forEach(refusal -> refusal.whenComplete((done, error) -> stopAsked.complete(null)));
        stopAsked
                .thenCompose(asked -> CompletableFuture.allOf(sessions.stream()
                        .map(session -> session.stop(stopGrace, hurry))
                        .toArray(CompletableFuture<?>[]::new)))
                .whenComplete((done, fault) -> {
                    sessions.forEach(Session::close);
                    // In another thread, since what gRPC does last it does in the loop.
                    new Thread(() -> putAway(refusals, fault), "jobwire end").start();
                });
    }

    /** If the server asks for it, takes no more jobs, and finishes those in hand, however long that takes. */
    private void leave() {
        if (leaving) {
            return;
        }
        leaving = true;
        LOG.log(INFO, "the worker was asked to leave: finishing what runs");
        CompletableFuture.allOf(sessions.stream().map(Session::finish).toArray(CompletableFuture<?>[]::new))
                .thenRun(() -> stopAsked.complete(null));
    }

    private void putAway(List<CompletableFuture<Void>> refusals, Throwable fault) {
        connection.close(Duration.ZERO);
        loop.close();
        threads.shutdown();
        Throwable failure = fault;
        for (CompletableFuture<Void> refusal : refusals) {
            try {
                refusal.getNow(null);
            } catch (CompletionException error) {
                failure = error.getCause();
            }
        }
        if (failure == null) {
            ended.complete(null);
        } else {
            LOG.log(ERROR, "the worker has ended: {0}", failure.getMessage());
            ended.completeExceptionally(failure);
        }
    }
}
