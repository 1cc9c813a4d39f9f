package jobwire;

import static java.lang.System.Logger.Level.DEBUG;
import static java.lang.System.Logger.Level.INFO;
import static java.lang.System.Logger.Level.WARNING;

import io.grpc.Status;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.time.Duration;
import java.util.Comparator;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.ThreadLocalRandom;
import jobwire.v1.Delivery;
import jobwire.v1.Draining;
import jobwire.v1.Resume;
import jobwire.v1.SessionOpened;
import jobwire.v1.SubscribeRequest;
import jobwire.v1.SubscribeResponse;

/**
 * The session of one handler: its streams one after the other, and what the server says on them. Within the loop.
 *
 * <p>The state machine is that of docs/protocol.md, "the life of a worker". Opening and Resuming are one here: a
 * session that has an id is resumed under a higher epoch, one that has none is opened.
 */
final class Session {
    private static final System.Logger LOG = System.getLogger("jobwire");

    /** How long handlers may take to end after they were told to because the worker stops. */
    private static final Duration TIME_TO_END = Duration.ofSeconds(2);

    /** How long after the grace the worker may take in all, for the ends of handlers and the last Acks. */
    private static final Duration TIME_TO_LEAVE = Duration.ofSeconds(4);

    /** How often it is looked whether the stream, or all of the server, has been silent for too long. */
    private static final Duration WATCH_INTERVAL = Duration.ofMillis(250);

    private static final Set<String> OVER = Set.of("SESSION_LOST", "SESSION_TAKEN_OVER");

    private static final Set<Status.Code> USELESS_TO_REPEAT = EnumSet.of(
            Status.Code.INVALID_ARGUMENT,
            Status.Code.PERMISSION_DENIED,
            Status.Code.UNAUTHENTICATED,
            Status.Code.UNIMPLEMENTED);

    private final Loop loop;
    private final Connection connection;
    private final SubscribeRequest template;
    private final String queue;
    private final Runnable onQuiet;
    private final Standing standing = new Standing();
    private final Acker acker;
    private final Crew crew;
    private final Waits waits = new Waits();
    private final Retrying.Backoff backoff = new Retrying.Backoff();
    private final CompletableFuture<Void> refused = new CompletableFuture<>();

    /** The stream; null between two. */
    private EventStream stream;

    /** Whether a Subscribe waits for its first event. */
    private boolean asking;

    private boolean quiet;

    /** Whether the last word has been said; that the session is over is no news then. */
    private boolean leaving;

    private boolean everOpened;
    private boolean closed;
    private String trouble = "";

    /**
     * @param connection shared by all sessions of the worker
     * @param template names queue, worker and the terms asked for in every Subscribe
     * @param concurrency how many jobs may run at once
     * @param threads gives each run of the handler a thread of its own
     * @param onQuiet called when the server asks the worker to leave
     */
    Session(
            Loop loop,
            Connection connection,
            SubscribeRequest template,
            int concurrency,
            Handler handler,
            Executor threads,
            Runnable onQuiet) {
        this.loop = loop;
        this.connection = connection;
        this.template = template;
        this.queue = String.join(", ", template.getQueuesList());
        this.onQuiet = onQuiet;
        acker = new Acker(loop, connection, standing, this::creditsWanted, this::toldByAck, this::lostByAck);
        crew = new Crew(loop, concurrency, handler, threads, acker);
    }

    /** Works until closed. The future fails if the server refuses the queue, the terms or the credentials. */
    CompletableFuture<Void> start() {
        watch();
        next();
        return refused;
    }

    /**
     * Takes no more jobs, finishes or gives back those in hand, reports their ends, and leaves.
     *
     * @param grace how long handlers may take to finish
     * @param hurry ends the grace early
     */
    CompletableFuture<Void> stop(Duration grace, CompletableFuture<Void> hurry) {
        long deadline = System.nanoTime() + grace.toNanos();
        goQuiet();
        // A session that is just being opened could not be closed otherwise, and would keep its first jobs for a grace.
        return loop.firstOf(Duration.ofSeconds(1), waits.until(() -> !asking), hurry)
                .thenCompose(asked -> loop.firstOf(grace, crew.idle(), hurry))
                .thenCompose(finished -> {
                    crew.stopAll(StopReason.STOPPING);
                    long end = TIME_TO_LEAVE.toNanos() + (hurry.isDone() ? System.nanoTime() : deadline);
                    return loop.firstOf(TIME_TO_END, crew.idle()).thenCompose(told -> leave(end, hurry));
                });
    }

    private CompletableFuture<Void> leave(long end, CompletableFuture<Void> hurry) {
        crew.abandon();
        Duration left = Duration.ofNanos(end - System.nanoTime()).minusSeconds(2);
        return loop.firstOf(left, acker.allAnswered(), hurry)
                .thenCompose(said -> loop.firstOf(Duration.ofSeconds(1), acker.allAnswered()))
                .thenCompose(said -> {
                    leaving = true;
                    long rest = Math.max(Duration.ofSeconds(1).toNanos(), end - System.nanoTime());
                    return acker.closeSession(Duration.ofNanos(rest));
                });
    }

    /** Takes no more jobs; the future is done when those in hand have ended. To be followed by {@link #stop}. */
    CompletableFuture<Void> finish() {
        goQuiet();
        return crew.idle();
    }

    /** Ends all that still goes on; after an orderly stop nothing does. */
    void close() {
        closed = true;
        crew.dropAll();
        acker.close();
        if (stream != null) {
            stream.cancel("the worker ends");
        }
    }

    private void goQuiet() {
        quiet = true;
        acker.lookAgain();
    }

    /** Makes the next stream, or none if there is nothing to come back for: Acks need no stream. */
    private void next() {
        if (closed || (quiet && standing.held.isEmpty())) {
            return;
        }
        if (standing.id.isEmpty() && crew.places() <= 0) {
            crew.hasPlace().thenRun(() -> loop.execute(this::next));
            return;
        }
        asking = true;
        stream = new EventStream(!standing.id.isEmpty());
        SubscribeRequest request = request();
        connection.async().subscribe(request, stream);
    }

    private SubscribeRequest request() {
        // One credit at least may be named here; an Ack corrects that as soon as the stream is open.
        standing.subscribing(Math.max(1, creditsWanted()));
        SubscribeRequest.Builder request = template.toBuilder().setMaxInFlight(standing.toldCredits);
        if (!standing.id.isEmpty()) {
            // Beyond what one call may name, what still runs counts for more than what only waits for an answer.
            List<String> held = standing.held.keySet().stream()
                    .sorted(Comparator.comparing(handle -> !crew.runs(handle)))
                    .limit(Wire.MAX_CALL_ITEMS)
                    .toList();
            request.setResume(Resume.newBuilder()
                    .setSessionId(standing.id)
                    .setEpoch(standing.epoch)
                    .addAllHeld(held));
        }
        return request.build();
    }

    /**
     * One Subscribe call. Once it is over or cancelled, nothing of it is heard any more.
     *
     * <p>gRPC calls it in the loop, and asks the connection for the next event when one has been taken here, so nothing
     * piles up: what the worker is slow to take, the server is slow to send.
     */
    private final class EventStream implements ClientResponseObserver<SubscribeRequest, SubscribeResponse> {
        private final boolean resuming;
        private final int line = connection.line();
        private ClientCallStreamObserver<SubscribeRequest> call;

        EventStream(boolean resuming) {
            this.resuming = resuming;
        }

        @Override
        public void beforeStart(ClientCallStreamObserver<SubscribeRequest> started) {
            call = started;
        }

        @Override
        public void onNext(SubscribeResponse event) {
            if (stream != this) {
                return;
            }
            standing.event(event.getSequence());
            if (event.hasDraining()) {
                over(drained(event.getDraining()));
            } else {
                take(event);
            }
        }

        @Override
        public void onError(Throwable failure) {
            if (stream == this) {
                boolean left = line != connection.line();
                over(left ? backoff.pause() : failed(Errors.from(failure, connection.target()), resuming));
            }
        }

        @Override
        public void onCompleted() {
            if (stream == this) {
                if (!quiet) {
                    LOG.log(INFO, "queue {0}: the server ended the stream; resuming", queue);
                }
                over(backoff.pause());
            }
        }

        /** Ends the stream, from this side too. */
        void cancel(String why) {
            over(backoff.pause());
            LOG.log(DEBUG, "queue {0}: stream cancelled: {1}", queue, why);
        }

        private void over(Duration pause) {
            stream = null;
            call.cancel("the client is done with it", null);
            answered();
            if (!closed && !refused.isDone()) {
                loop.after(pause, Session.this::next);
            }
        }
    }

    private void answered() {
        asking = false;
        waits.look();
    }

    private void take(SubscribeResponse event) {
        switch (event.getEventCase()) {
            case OPENED -> opened(event.getOpened());
            case DELIVERIES -> {
                backoff.reset();
                event.getDeliveries().getDeliveriesList().forEach(this::delivered);
            }
            case CANCELLATION -> crew.stop(
                    event.getCancellation().getHandle(),
                    Acker.stopReason(event.getCancellation().getReason()));
            case HEARTBEAT -> {
                backoff.reset();
                acker.beat();
            }
            case QUIET -> onQuiet.run();
            default -> {} // a sign of life; newer servers may say more
        }
    }

    private void opened(SessionOpened opened) {
        if (!standing.id.isEmpty() && !standing.id.equals(opened.getSessionId())) {
            lost("the server opened another one");
        }
        standing.opened(opened);
        everOpened = true;
        trouble = "";
        answered();
        String how = opened.getResumed() ? "resumed" : "opened";
        // Older servers do not tell their version.
        String server = opened.getServerVersion().isEmpty() ? "" : ", server " + opened.getServerVersion();
        LOG.log(
                INFO,
                "queue {0}: {1} session {2} (epoch {3}{4})",
                queue,
                how,
                opened.getSessionId(),
                Long.toString(opened.getEpoch()),
                server);
        for (String handle : opened.getLostList()) {
            String jobId = standing.held.remove(handle);
            if (jobId != null) {
                LOG.log(WARNING, "job {0}: its lease was lost while the worker was away", jobId);
            }
        }
        crew.drop(opened.getLostList());
        acker.lookAgain();
    }

    private void delivered(Delivery delivery) {
        String handle = delivery.getHandle();
        if (standing.held.putIfAbsent(handle, delivery.getJobId()) != null) {
            return;
        }
        if (quiet || crew.full()) {
            acker.settle(handle, new Outcome.Released(null));
        } else {
            crew.start(delivery);
        }
    }

    private Duration drained(Draining draining) {
        standing.draining(Wire.span(draining.getResumeWithin()));
        long delay = Wire.span(draining.getReconnectDelay()).toNanos();
        Duration pause = Duration.ofNanos((long) (delay * ThreadLocalRandom.current().nextDouble(0.5, 1.5)));
        LOG.log(INFO, "queue {0}: the server is going away; resuming in {1}", queue, pause);
        return pause;
    }

    /** Sorts out why a stream ended. Returns the pause before the next one. */
    private Duration failed(JobwireException error, boolean resuming) {
        if (OVER.contains(error.reason()) || (resuming && error.code() == Status.Code.INVALID_ARGUMENT)) {
            lost(error.getMessage());
        } else if (!everOpened && USELESS_TO_REPEAT.contains(error.code())) {
            refused.completeExceptionally(error);
        } else {
            // Said once, not at each attempt.
            boolean known = error.getMessage().equals(trouble);
            trouble = error.getMessage();
            LOG.log(known ? DEBUG : WARNING, "queue {0}: no stream, trying again: {1}", queue, trouble);
        }
        return backoff.pause(error);
    }

    private void toldByAck(String handle, StopReason reason) {
        crew.stop(handle, reason);
    }

    private void lostByAck(String session) {
        if (session.equals(standing.id) && !leaving) {
            lost("the server no longer knows it");
            if (stream != null) {
                stream.cancel("its session is over");
            }
        }
    }

    private void lost(String why) {
        if (!standing.id.isEmpty()) {
            LOG.log(
                    WARNING,
                    "queue {0}: session {1} is over, its jobs are stopped: {2}",
                    queue,
                    standing.id,
                    why);
        }
        standing.lost();
        crew.dropAll();
    }

    private int creditsWanted() {
        return quiet ? 0 : Math.max(0, crew.places());
    }

    /** Leaves a stream that brings nothing, and stops handlers when nothing at all is heard of the server. */
    private void watch() {
        if (closed) {
            return;
        }
        if (stream != null && standing.streamLeft() <= 0) {
            LOG.log(WARNING, "queue {0}: the stream is silent; resuming over another connection", queue);
            standing.fellSilent();
            int line = stream.line;
            stream.cancel("it is silent");
            connection.leave(line);
        }
        if (!standing.id.isEmpty() && standing.signLeft() <= 0) {
            crew.stopAll(StopReason.SILENCE);
        }
        loop.after(WATCH_INTERVAL, this::watch);
    }
}
