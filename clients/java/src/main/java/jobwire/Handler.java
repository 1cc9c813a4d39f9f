package jobwire;

/** What a worker does with a job. */
@FunctionalInterface
public interface Handler {
    /**
     * Works on one job, in a thread of its own. Must be idempotent, since a job may run again after a lost connection.
     *
     * <p>If the job is to stop, the thread is interrupted; let the InterruptedException pass. It may throw
     * {@link FailForGood}, {@link RetryIn} or {@link ReleaseJob}; anything else fails the run, which is tried again as
     * the job's options say.
     *
     * @return the job's output, which Jackson writes as JSON; null for none
     */
    Object handle(Job job) throws Exception;
}
