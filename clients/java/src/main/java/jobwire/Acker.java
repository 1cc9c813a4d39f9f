package jobwire;

import static java.lang.System.Logger.Level.DEBUG;
import static java.lang.System.Logger.Level.ERROR;
import static java.lang.System.Logger.Level.WARNING;

import com.google.protobuf.ByteString;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.function.BiConsumer;
import java.util.function.Consumer;
import java.util.function.IntSupplier;
import java.util.stream.Stream;
import jobwire.Outcome.Settling;
import jobwire.v1.AckItem;
import jobwire.v1.AckRequest;
import jobwire.v1.AckResponse;
import jobwire.v1.AckResult;
import jobwire.v1.AckStatus;
import jobwire.v1.CancelReason;
import jobwire.v1.Extend;

/**
 * Says what became of deliveries, in as few calls as the network makes of them. Within the loop.
 *
 * <p>One call with statements is on its way at a time; what gathers meanwhile goes into the next. A settling statement
 * stays here until it is answered, whatever breaks in between: the stream, the server, the session itself. Heartbeats
 * are answered by calls of their own, which no slow statement can hold up. A statement on a job that somebody else has
 * locked in the database is found among its neighbours, and repeated apart from them until the lock is gone.
 */
final class Acker {
    private static final System.Logger LOG = System.getLogger("jobwire");

    /** The most bytes of a statement in a call besides what it says: its tag and length. */
    private static final int ITEM_FRAME = 8;

    /** A locked statement is said again after up to so much more than the server asks for. */
    private static final Duration LOCKED_PAUSE = Duration.ofSeconds(3);

    /** What is to be said of a delivery that still runs, and who waits for the answer. */
    private record Extension(Extend said, List<CompletableFuture<Void>> waiters) {
        void answered() {
            waiters.forEach(waiter -> waiter.complete(null));
        }
    }

    /** An event: each stream counts its own. */
    private record Received(String session, long epoch, long sequence) {}

    private final Loop loop;
    private final Connection connection;
    private final Standing standing;
    private final IntSupplier creditsWanted;
    private final BiConsumer<String, StopReason> onStop;
    private final Consumer<String> onLost;
    private final Map<String, Settling> settlings = new LinkedHashMap<>();
    private final Map<String, Extension> extensions = new LinkedHashMap<>();
    private final Waits waits = new Waits();
    private final Retrying.Backoff backoff = new Retrying.Backoff();

    /** Handles whose jobs are locked, and from when on to try again. */
    private final Map<String, Long> locked = new LinkedHashMap<>();

    private boolean turnOfLocked;
    private boolean looking;
    private boolean sending;
    private boolean closed;
    private Future<?> pause;
    private Received received;
    private CompletableFuture<Void> receipt = CompletableFuture.completedFuture(null);

    /**
     * @param standing the session that the statements belong to
     * @param creditsWanted how many deliveries there may be at once; asked before each call
     * @param onStop called when the server's answer tells the handler of a delivery to stop
     * @param onLost called with the session's id when the server no longer knows it
     */
    Acker(
            Loop loop,
            Connection connection,
            Standing standing,
            IntSupplier creditsWanted,
            BiConsumer<String, StopReason> onStop,
            Consumer<String> onLost) {
        this.loop = loop;
        this.connection = connection;
        this.standing = standing;
        this.creditsWanted = creditsWanted;
        this.onStop = onStop;
        this.onLost = onLost;
    }

    /** What the server means by telling a worker to stop. */
    static StopReason stopReason(CancelReason reason) {
        return switch (reason) {
            case CANCEL_REASON_EXPIRED -> StopReason.EXPIRED;
            case CANCEL_REASON_LEASE_LOST -> StopReason.LEASE_LOST;
            default -> StopReason.REQUESTED;
        };
    }

    /** Reports how a delivery ended; said once, it is repeated until it is answered. */
    void settle(String handle, Settling outcome) {
        settlings.put(handle, outcome);
        forget(handle);
        look();
    }

    /** Reports that a delivery still runs. The future is done when that is answered, or of no interest any more. */
    CompletableFuture<Void> extend(String handle, Consumer<Extend.Builder> words) {
        CompletableFuture<Void> answer = new CompletableFuture<>();
        if (closed || settlings.containsKey(handle)) {
            answer.complete(null);
            return answer;
        }
        Extension before = extensions.get(handle);
        Extend.Builder said = before == null ? Extend.newBuilder() : before.said().toBuilder();
        words.accept(said);
        List<CompletableFuture<Void>> waiters = new ArrayList<>(before == null ? List.of() : before.waiters());
        waiters.add(answer);
        extensions.put(handle, new Extension(said.build(), waiters));
        look();
        return answer;
    }

    /** The words of {@link #extend} for progress; a checkpoint that waits to be sent stays if none is given. */
    static Consumer<Extend.Builder> progress(Progress progress, ByteString checkpoint) {
        return said -> {
            jobwire.v1.Progress.Builder message = said.getProgressBuilder();
            progress.fraction().ifPresentOrElse(message::setFraction, message::clearFraction);
            message.setNote(progress.note());
            if (checkpoint != null) {
                message.setCheckpointBytes(checkpoint);
            }
        };
    }

    /** Says no more of a delivery than how it ended. */
    void forget(String handle) {
        Extension extension = extensions.remove(handle);
        if (extension != null) {
            locked.remove(handle);
            extension.answered();
        }
    }

    /** The wanted credits may have changed, or the server may be back. */
    void lookAgain() {
        if (pause != null) {
            pause.cancel(false);
            pause = null;
        }
        look();
    }

    /** Answers a heartbeat. The future is done when that has arrived, or has failed. */
    CompletableFuture<Void> beat() {
        String session = standing.id;
        AckRequest request = request(session).build();
        return ack(request, Retrying.ATTEMPT_TIMEOUT).handle((response, error) -> {
            if (error == null) {
                takeSign(session, response);
            } else {
                LOG.log(DEBUG, "heartbeat not answered: {0}", error.getMessage());
            }
            return null;
        });
    }

    /** Lets the server know of all that has arrived so far. Done when it does, or when it could not be told. */
    CompletableFuture<Void> receipt() {
        Received event = new Received(standing.id, standing.epoch, standing.lastSequence);
        if (!event.equals(received) || receipt.isDone()) {
            received = event;
            receipt = beat(); // one call for all that came in one event
        }
        return receipt;
    }

    /** A future that is done when every settling statement is answered. */
    CompletableFuture<Void> allAnswered() {
        return waits.until(settlings::isEmpty);
    }

    /** Leaves: the session ends at once, and what it still holds is given back. */
    CompletableFuture<Void> closeSession(Duration within) {
        if (standing.id.isEmpty()) {
            return CompletableFuture.completedFuture(null);
        }
        String session = standing.id;
        AckRequest request = request(session).setCloseSession(true).build();
        CompletableFuture<Void> left = new CompletableFuture<>();
        closeSession(request, new Retrying.Attempts(within), left);
        return left;
    }

    private void closeSession(AckRequest request, Retrying.Attempts attempts, CompletableFuture<Void> left) {
        ack(request, attempts.timeout()).whenComplete((response, error) -> {
            if (error == null) {
                left.complete(null);
                return;
            }
            try {
                loop.after(attempts.pauseAfter((JobwireException) error), () -> closeSession(request, attempts, left));
            } catch (JobwireException last) {
                LOG.log(
                        WARNING,
                        "could not close session {0}, it ends by itself: {1}",
                        request.getSessionId(),
                        last.getMessage());
                left.complete(null);
            }
        });
    }

    /** Sends nothing more. */
    void close() {
        closed = true;
        List.copyOf(extensions.keySet()).forEach(this::forget);
    }

    private AckRequest.Builder request(String session) {
        return AckRequest.newBuilder().setSessionId(session).setLastSequence(standing.lastSequence);
    }

    /** One attempt of a call. It fails with a JobwireException. */
    private CompletableFuture<AckResponse> ack(AckRequest request, Duration timeout) {
        CompletableFuture<AckResponse> answer = new CompletableFuture<>();
        connection
                .async()
                .withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS)
                .ack(request, new StreamObserver<>() {
                    @Override
                    public void onNext(AckResponse response) {
                        answer.complete(response);
                    }

                    @Override
                    public void onError(Throwable failure) {
                        answer.completeExceptionally(Errors.from(failure, connection.target()));
                    }

                    @Override
                    public void onCompleted() {
                        if (!answer.isDone()) {
                            onError(Status.INTERNAL.withDescription("an empty answer").asException());
                        }
                    }
                });
        return answer;
    }

    /** There may be something to say: sent after what else happens now, so that it goes along. */
    private void look() {
        if (!looking && !sending && pause == null) {
            looking = true;
            loop.execute(this::sendNext);
        }
    }

    private void sendNext() {
        looking = false;
        if (sending || pause != null || closed) {
            return;
        }
        Map<String, AckItem> items = gathered();
        if (items.isEmpty() && !creditsDue()) {
            return;
        }
        sending = true;
        send(items).whenComplete((error, fault) -> {
            sending = false;
            if (error == null && fault == null) {
                backoff.reset();
                look();
                return;
            }
            Duration rest = error == null ? backoff.pause() : backoff.pause(error);
            if (fault != null) {
                LOG.log(ERROR, "a fault of the client", fault);
            } else {
                LOG.log(DEBUG, "Ack not answered, again in {0}: {1}", rest, error.getMessage());
            }
            pause = loop.after(rest, this::lookAgain);
        });
    }

    /**
     * What goes into the next call, by handle. It is not taken away here: only an answer does that. Locked statements
     * go alone, and in turn with what the others have to say.
     */
    private Map<String, AckItem> gathered() {
        long now = System.nanoTime();
        String due = locked.entrySet().stream()
                .filter(entry -> entry.getValue() - now <= 0)
                .map(Map.Entry::getKey)
                .findFirst()
                .orElse(null);
        Map<String, AckItem> group = group();
        if (due != null && (turnOfLocked || group.isEmpty())) {
            turnOfLocked = false;
            return Map.of(due, item(due));
        }
        turnOfLocked = true;
        return group;
    }

    private Map<String, AckItem> group() {
        Map<String, AckItem> items = new LinkedHashMap<>();
        int size = 0;
        Iterable<String> handles = Stream.concat(settlings.keySet().stream(), extensions.keySet().stream())
                .filter(handle -> !locked.containsKey(handle))::iterator;
        for (String handle : handles) {
            AckItem item = item(handle);
            size += item.getSerializedSize() + ITEM_FRAME;
            if (!items.isEmpty() && (items.size() == Wire.MAX_CALL_ITEMS || size > Wire.MAX_CALL_BYTES)) {
                break;
            }
            items.put(handle, item);
        }
        return items;
    }

    private AckItem item(String handle) {
        Settling outcome = settlings.get(handle);
        AckItem.Builder item =
                outcome == null ? AckItem.newBuilder().setExtend(extensions.get(handle).said()) : outcome.item();
        return item.setHandle(handle).build();
    }

    private boolean creditsDue() {
        return standing.open() && standing.toldCredits != creditsWanted.getAsInt();
    }

    /** Sends statements and takes their answers. The future has the error if some of them have to be sent again. */
    private CompletableFuture<JobwireException> send(Map<String, AckItem> items) {
        String session = standing.id;
        long epoch = standing.epoch;
        AckRequest.Builder request = request(session).addAllItems(items.values());
        if (creditsDue()) {
            request.setMaxInFlight(creditsWanted.getAsInt());
        }
        // Those that the answer will be for; what is said meanwhile is a newer one.
        Map<String, Extension> sent = new HashMap<>();
        items.forEach((handle, item) -> {
            Extension extension = extensions.get(handle);
            if (extension != null && item.hasExtend() && item.getExtend() == extension.said()) {
                sent.put(handle, extension);
            }
        });
        return ack(request.build(), Retrying.ATTEMPT_TIMEOUT)
                .handle((response, error) -> {
                    if (request.hasMaxInFlight()) {
                        standing.told(session, epoch, request.getMaxInFlight(), error == null);
                    }
                    if (error != null) {
                        return sortOut(items, (JobwireException) error);
                    }
                    take(items, sent, response.getResultsList());
                    takeSign(session, response);
                    return CompletableFuture.<JobwireException>completedFuture(null);
                })
                .thenCompose(next -> next);
    }

    private void take(Map<String, AckItem> items, Map<String, Extension> sent, List<AckResult> results) {
        int place = 0;
        for (Map.Entry<String, AckItem> entry : items.entrySet()) {
            String handle = entry.getKey();
            AckItem item = entry.getValue();
            AckResult result = results.get(place++);
            if (item.hasExtend()) {
                extended(handle, sent.get(handle), result);
                continue;
            }
            if (result.getStatus() != AckStatus.ACK_STATUS_APPLIED
                    && result.getStatus() != AckStatus.ACK_STATUS_ALREADY_APPLIED) {
                LOG.log(
                        item.hasRelease() ? DEBUG : WARNING,
                        "job {0}: its end ({1}) does not count: {2}",
                        jobId(handle),
                        item.getOutcomeCase(),
                        result.getStatus());
            }
            settled(handle);
        }
    }

    private void extended(String handle, Extension extension, AckResult result) {
        // Before the one who waits for the answer goes on, so that it does not go on for nothing.
        switch (result.getStatus()) {
            case ACK_STATUS_LEASE_LOST, ACK_STATUS_NOT_FOUND -> onStop.accept(handle, StopReason.LEASE_LOST);
            case ACK_STATUS_CANCELLED -> onStop.accept(handle, StopReason.REQUESTED);
            default -> {
                if (result.getCancel() != CancelReason.CANCEL_REASON_UNSPECIFIED) {
                    onStop.accept(handle, stopReason(result.getCancel()));
                }
            }
        }
        if (extension != null) {
            extension.answered();
            if (extensions.get(handle) == extension) { // nothing newer was said meanwhile
                extensions.remove(handle);
                locked.remove(handle);
            }
        }
    }

    private void settled(String handle) {
        settlings.remove(handle);
        locked.remove(handle);
        standing.held.remove(handle);
        waits.look();
    }

    /** Finds what a call failed for. The future has the error if all of it has to be sent again. */
    private CompletableFuture<JobwireException> sortOut(Map<String, AckItem> items, JobwireException error) {
        Status.Code code = error.code();
        boolean oneMayBeBad = code == Status.Code.ABORTED
                || code == Status.Code.INVALID_ARGUMENT
                || code == Status.Code.RESOURCE_EXHAUSTED
                || code == Status.Code.INTERNAL;
        if (!oneMayBeBad || items.isEmpty()) {
            return CompletableFuture.completedFuture(error);
        }
        if (items.size() > 1) {
            // One of them may be bad, or locked: none may suffer for it.
            Map<String, AckItem> first = new LinkedHashMap<>();
            Map<String, AckItem> second = new LinkedHashMap<>();
            items.forEach((handle, item) -> (first.size() < items.size() / 2 ? first : second).put(handle, item));
            return send(first).thenCompose(failed ->
                    failed == null ? send(second) : CompletableFuture.completedFuture(failed));
        }
        String handle = items.keySet().iterator().next();
        if (code == Status.Code.ABORTED) {
            lockedFor(handle, new Retrying.Backoff(LOCKED_PAUSE).pause(error));
            return CompletableFuture.completedFuture(null);
        }
        if (code == Status.Code.INVALID_ARGUMENT) {
            refused(handle, items.get(handle), error);
            return CompletableFuture.completedFuture(null);
        }
        // Let the others pass.
        Settling outcome = settlings.remove(handle);
        if (outcome != null) {
            settlings.put(handle, outcome);
        }
        return CompletableFuture.completedFuture(error);
    }

    /** Leaves a statement out of the next calls; it may have been withdrawn meanwhile. */
    private void lockedFor(String handle, Duration time) {
        locked.remove(handle);
        if (settlings.containsKey(handle) || extensions.containsKey(handle)) {
            locked.put(handle, System.nanoTime() + time.toNanos());
            loop.after(time, this::look);
        }
    }

    /** Replaces a statement that the server does not take by the next plainer one, so that the job gets an end. */
    private void refused(String handle, AckItem item, JobwireException error) {
        Settling outcome = settlings.get(handle);
        if (outcome == null || item.hasExtend()) {
            LOG.log(ERROR, "job {0}: the server refused to extend it: {1}", jobId(handle), error.getMessage());
            forget(handle);
            return;
        }
        LOG.log(
                ERROR,
                "job {0}: the server refused its end ({1}): {2}",
                jobId(handle),
                item.getOutcomeCase(),
                error.getMessage());
        if (outcome instanceof Outcome.Released) {
            settled(handle);
        } else if (outcome instanceof Outcome.Failed) {
            settlings.put(handle, new Outcome.Released(null));
        } else {
            settlings.put(handle, Outcome.badResult(error.getMessage()));
        }
    }

    private String jobId(String handle) {
        return standing.held.getOrDefault(handle, handle);
    }

    private void takeSign(String session, AckResponse response) {
        standing.sign();
        if (!session.isEmpty() && !response.getSessionAlive()) {
            onLost.accept(session);
        }
    }
}
