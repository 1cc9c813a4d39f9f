package jobwire;

import com.fasterxml.jackson.databind.JsonNode;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * One job as it was stored and as it stood when the server answered.
 *
 * @param queue its queue
 * @param id its id
 * @param state where it stands
 * @param data the payload
 * @param headers as published
 * @param priority higher is delivered first
 * @param options the rules in force, all of them set
 * @param attempt deliveries so far, the running one included
 * @param retryCount retries used up by failures and time limits
 * @param lossCount how often it was lost together with its worker; at 5 it is failed as poison
 * @param releaseCount how often a worker gave it back
 * @param progress what the current or the last run said
 * @param output what the handler returned; JSON's null if nothing
 * @param checkpoint what its runs left for the next one; JSON's null if nothing
 * @param errors the failed runs, oldest first, at most 10
 * @param createdAt when it was stored
 * @param startAfter not delivered before this time
 * @param startedAt when the current or the last run was delivered
 * @param finishedAt when it completed, failed or was cancelled
 * @param worker the worker that holds it or held it last; empty before the first delivery
 * @param cancelRequested whether a running job was told to stop and has not settled yet
 * @param key its key; empty if it has none
 * @param waitsFor what a blocked job waits for; empty otherwise
 * @param revision changes whenever state, attempt or progress change
 */
public record JobInfo(
        String queue,
        String id,
        JobState state,
        JsonNode data,
        Map<String, String> headers,
        int priority,
        JobOptions options,
        int attempt,
        int retryCount,
        int lossCount,
        int releaseCount,
        Optional<Progress> progress,
        JsonNode output,
        JsonNode checkpoint,
        List<JobError> errors,
        Instant createdAt,
        Instant startAfter,
        Optional<Instant> startedAt,
        Optional<Instant> finishedAt,
        String worker,
        boolean cancelRequested,
        String key,
        String waitsFor,
        String revision) {

    /** Whether nothing more will happen to the job. */
    public boolean finished() {
        return state.finished();
    }
}
