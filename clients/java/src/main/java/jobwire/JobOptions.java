package jobwire;

import java.time.Duration;

/**
 * The rules a job lives by; null means: as the queue says.
 *
 * <p>{@code JobOptions.DEFAULTS.withRetryLimit(5).withExpireIn(Duration.ofMinutes(1))}
 *
 * @param retryLimit how often a failed job is tried again: 0 to 1000, default 2
 * @param retryDelay pause before a retry: 0 s to 7 days, default 1 s
 * @param retryBackoff whether the pause doubles with each retry, with jitter; default true
 * @param retryDelayMax upper bound of a pause that doubles: 0 s to 7 days, default 1 hour
 * @param expireIn how long one run may take: 1 s to 7 days, default 15 minutes; {@link Job#extend} moves it
 * @param retention how long a finished job is kept, exact to the day: 0 s to 3650 days, default 7 days
 * @param deadLetter the queue in which a job that failed for good is published anew; empty: none
 */
public record JobOptions(
        Integer retryLimit,
        Duration retryDelay,
        Boolean retryBackoff,
        Duration retryDelayMax,
        Duration expireIn,
        Duration retention,
        String deadLetter) {

    /** All as the queue says. */
    public static final JobOptions DEFAULTS = new JobOptions(null, null, null, null, null, null, null);

    public JobOptions withRetryLimit(int limit) {
        return new JobOptions(limit, retryDelay, retryBackoff, retryDelayMax, expireIn, retention, deadLetter);
    }

    public JobOptions withRetryDelay(Duration delay) {
        return new JobOptions(retryLimit, delay, retryBackoff, retryDelayMax, expireIn, retention, deadLetter);
    }

    public JobOptions withRetryBackoff(boolean doubles) {
        return new JobOptions(retryLimit, retryDelay, doubles, retryDelayMax, expireIn, retention, deadLetter);
    }

    public JobOptions withRetryDelayMax(Duration max) {
        return new JobOptions(retryLimit, retryDelay, retryBackoff, max, expireIn, retention, deadLetter);
    }

    public JobOptions withExpireIn(Duration limit) {
        return new JobOptions(retryLimit, retryDelay, retryBackoff, retryDelayMax, limit, retention, deadLetter);
    }

    public JobOptions withRetention(Duration time) {
        return new JobOptions(retryLimit, retryDelay, retryBackoff, retryDelayMax, expireIn, time, deadLetter);
    }

    public JobOptions withDeadLetter(String queue) {
        return new JobOptions(retryLimit, retryDelay, retryBackoff, retryDelayMax, expireIn, retention, queue);
    }
}
