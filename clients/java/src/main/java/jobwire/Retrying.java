package jobwire;

import io.grpc.Status;
import java.time.Duration;
import java.util.EnumSet;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;

/**
 * When a failed call is repeated, and after what pause.
 *
 * <p>Only what may be repeated safely comes here, so what decides is only whether repeating can help.
 */
final class Retrying {
    /** How long one attempt may take, so that a connection that died unnoticed leaves time for another attempt. */
    static final Duration ATTEMPT_TIMEOUT = Duration.ofSeconds(5);

    private static final Set<Status.Code> WORTH_REPEATING = EnumSet.of(
            Status.Code.UNAVAILABLE,
            Status.Code.DEADLINE_EXCEEDED,
            Status.Code.ABORTED,
            Status.Code.CANCELLED); // not by the caller

    private Retrying() {}

    /** Whether the same call may succeed later. */
    static boolean worthRepeating(JobwireException error) {
        return WORTH_REPEATING.contains(error.code()) || error.retryAfter().isPresent();
    }

    /** Pauses that grow, with full jitter: each is uniform between 0 and a bound that doubles up to 3 s. */
    static final class Backoff {
        private static final long CAP = Duration.ofSeconds(3).toNanos();

        private final long first;
        private long bound;

        Backoff() {
            this(Duration.ofMillis(100));
        }

        /** With another first bound. */
        Backoff(Duration first) {
            this.first = first.toNanos();
            bound = this.first;
        }

        /** The next pause: what the server asked for, if it did, and a random part. */
        Duration pause(JobwireException error) {
            Duration pause = pause();
            return error.retryAfter().map(pause::plus).orElse(pause);
        }

        /** The next pause, with no error to look at. */
        Duration pause() {
            long pause = ThreadLocalRandom.current().nextLong(bound + 1);
            bound = Math.min(CAP, bound * 2);
            return Duration.ofNanos(pause);
        }

        /** Begins anew, after a success. */
        void reset() {
            bound = first;
        }
    }

    /** The attempts of one call within its time. */
    static final class Attempts {
        private final long deadline;
        private final Backoff backoff = new Backoff();

        /** What an attempt failed with that says more than that its time was up. */
        private JobwireException telling;

        Attempts(Duration timeout) {
            deadline = System.nanoTime() + timeout.toNanos();
        }

        /** How long the next attempt may take. */
        Duration timeout() {
            long left = Math.max(1_000_000, deadline - System.nanoTime());
            return Duration.ofNanos(Math.min(left, ATTEMPT_TIMEOUT.toNanos()));
        }

        /** How long to wait before the next attempt; if there should be none, throws the error that says most. */
        Duration pauseAfter(JobwireException error) {
            if (!worthRepeating(error)) {
                throw error;
            }
            if (error.code() != Status.Code.DEADLINE_EXCEEDED) {
                telling = error;
            }
            Duration pause = backoff.pause(error);
            if (System.nanoTime() + pause.toNanos() - deadline >= 0) {
                throw telling == null ? error : telling;
            }
            return pause;
        }
    }
}
