package jobwire;

import com.google.protobuf.ByteString;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;

/**
 * The link between a running handler and the Acks: progress at a bearable pace, extensions at once.
 *
 * <p>However often a handler reports, from whatever thread, the loop is woken at most once per interval, and only the
 * latest word is sent.
 */
final class Reporter implements Job.Link {
    /** The shortest time between two reports of one job. */
    private static final Duration INTERVAL = Duration.ofMillis(200);

    private final Loop loop;
    private final Acker acker;
    private final String handle;

    /** Why the run is to stop; null while it is not. */
    private volatile StopReason reason;

    // What a handler said last; guarded by this object.
    private Progress latest;
    private ByteString checkpoint;
    private boolean scheduled;

    // Within the loop.
    private long nextAt = System.nanoTime();
    private Future<?> timer;
    private boolean closed;
    private CompletableFuture<Void> left = CompletableFuture.completedFuture(null);

    Reporter(Loop loop, Acker acker, String handle) {
        this.loop = loop;
        this.acker = acker;
        this.handle = handle;
    }

    @Override
    public Optional<StopReason> stopReason() {
        return Optional.ofNullable(reason);
    }

    /** The run is to stop. */
    void stop(StopReason why) {
        reason = why;
    }

    /** Takes the latest word. Costs next to nothing while an earlier one waits to be sent. */
    @Override
    public synchronized void report(Progress progress, ByteString newCheckpoint) {
        latest = progress;
        if (newCheckpoint != null) {
            checkpoint = newCheckpoint;
        }
        if (!scheduled) {
            scheduled = true;
            loop.execute(this::due);
        }
    }

    /** Asks for a new time limit at once, and waits for the answer. */
    @Override
    public void extend(Duration limit) throws InterruptedException {
        if (loop.closed()) {
            return; // this handler outlived its worker
        }
        CompletableFuture<Void> answer = new CompletableFuture<>();
        loop.execute(() -> {
            if (closed) {
                answer.complete(null);
                return;
            }
            acker.extend(handle, said -> said.setExpireIn(Wire.duration(limit)))
                    .whenComplete((done, error) -> answer.complete(null));
        });
        try {
            answer.get();
        } catch (ExecutionException error) {
            throw new IllegalStateException(error);
        }
    }

    /**
     * Lets a checkpoint that was said arrive, before the end of the run is reported: it might be lost otherwise. The
     * future is done when it has.
     */
    CompletableFuture<Void> left() {
        boolean waiting;
        synchronized (this) {
            waiting = checkpoint != null;
        }
        if (waiting) {
            send();
        }
        return left;
    }

    /** The run is over: what is said from now on is of no interest. */
    void close() {
        closed = true;
        if (timer != null) {
            timer.cancel(false);
        }
    }

    private void due() {
        if (!closed) {
            timer = loop.after(Duration.ofNanos(nextAt - System.nanoTime()), this::send);
        }
    }

    private void send() {
        Progress progress;
        ByteString text;
        synchronized (this) {
            scheduled = false;
            progress = latest;
            text = checkpoint;
            latest = null;
            checkpoint = null;
        }
        if (progress == null || closed) {
            return;
        }
        nextAt = System.nanoTime() + INTERVAL.toNanos();
        CompletableFuture<Void> answered = acker.extend(handle, Acker.progress(progress, text));
        if (text != null) {
            left = answered;
        }
    }
}
