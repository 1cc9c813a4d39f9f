package jobwire;

import io.grpc.Status;
import java.time.Duration;
import jobwire.JobwireException.Told;
import jobwire.v1.GetJobRequest;

/** Follows one job to its end by long polls, across server restarts. */
final class Following {
    /** How long one GetJob waits; proxies rarely cut a call that is this short. */
    private static final Duration LONG_POLL = Duration.ofSeconds(30);

    /** How much longer than its wait a long poll may take. */
    private static final Duration ANSWER_TIME = Duration.ofSeconds(10);

    /** An unfinished job that comes back faster than this means that waits end early, as when the server drains. */
    private static final long QUICK = Duration.ofSeconds(1).toNanos();

    private final Connection connection;
    private final String queue;
    private final String jobId;
    private JobInfo seen;
    private JobwireException trouble;

    Following(Connection connection, String queue, String jobId) {
        this.connection = connection;
        this.queue = queue;
        this.jobId = jobId;
    }

    /** Returns the finished job; throws DeadlineExceeded after {@code within}. */
    JobInfo toTheEnd(Duration within) {
        long deadline = System.nanoTime() + Wire.bounded(within).toNanos();
        Retrying.Backoff backoff = new Retrying.Backoff();
        while (true) {
            long asked = System.nanoTime();
            Duration pause = Duration.ZERO;
            try {
                boolean first = seen == null;
                seen = poll(deadline - asked);
                trouble = null;
                if (seen.finished()) {
                    return seen;
                }
                if (first || System.nanoTime() - asked >= QUICK) {
                    backoff.reset();
                } else {
                    pause = backoff.pause();
                }
            } catch (JobwireException error) {
                if (!Retrying.worthRepeating(error) || Thread.currentThread().isInterrupted()) {
                    throw error;
                }
                trouble = error;
                pause = backoff.pause(error);
            }
            if (System.nanoTime() + pause.toNanos() - deadline >= 0) {
                throw tooLate(within);
            }
            connection.sleep(pause);
        }
    }

    /** Asks once: the first time for the job as it is, then for its end. */
    private JobInfo poll(long left) {
        Duration wait = seen == null ? Duration.ZERO : LONG_POLL;
        GetJobRequest request = GetJobRequest.newBuilder()
                .setQueue(queue)
                .setJobId(jobId)
                .setWait(Wire.duration(wait))
                .setKnownRevision(seen == null ? "" : seen.revision())
                .setUntilFinished(true)
                .build();
        long timeout = Math.min(wait.plus(ANSWER_TIME).toNanos(), Math.max(1_000_000, left));
        return Convert.info(connection
                .attempt(stub -> stub.getJob(request), Duration.ofNanos(timeout))
                .getJob());
    }

    private JobwireException tooLate(Duration within) {
        String last = seen == null ? "it was never seen" : "it was " + seen.state() + " when last seen";
        // That a long poll was cut off by the time that was left is no trouble.
        boolean telling = trouble != null && trouble.code() != Status.Code.DEADLINE_EXCEEDED;
        String why = telling ? "; the last attempt failed: " + trouble.getMessage() : "";
        String message = "job " + jobId + " did not finish within " + within + ", " + last + why;
        return new Told(Status.Code.DEADLINE_EXCEEDED, "", message, trouble).exception();
    }
}
