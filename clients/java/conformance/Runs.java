package conformance;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.function.BooleanSupplier;

/** The handlers that have started and wait to be told how to end, by job; {@code J} is what a handler gets. */
final class Runs<J> {
    private record Run<J>(J job, CompletableFuture<JsonNode> end) {}

    private final Map<String, Run<J>> runs = new ConcurrentHashMap<>();

    /**
     * Says that a handler has started, and waits for the request by which it is to end.
     *
     * @param goesOn asked when the handler is told to stop
     */
    JsonNode waitForEnd(
            String jobId, J job, int attempt, JsonNode data, JsonNode checkpoint, BooleanSupplier goesOn)
            throws InterruptedException {
        Run<J> run = new Run<>(job, new CompletableFuture<>());
        runs.put(jobId, run);
        Driver.say(Driver.event("started")
                .put("job_id", jobId)
                .put("attempt", attempt)
                .<com.fasterxml.jackson.databind.node.ObjectNode>set("data", data)
                .set("checkpoint", checkpoint));
        try {
            while (true) {
                try {
                    return run.end().get();
                } catch (InterruptedException told) {
                    if (!goesOn.getAsBoolean()) {
                        throw told;
                    }
                }
            }
        } catch (ExecutionException never) {
            throw new IllegalStateException(never);
        } finally {
            runs.remove(jobId, run);
        }
    }

    /** What the handler of a job got. */
    J job(JsonNode request) {
        return run(request, false).job();
    }

    /** Lets the handler of a job end as the request says; it ends once. */
    void end(JsonNode request) {
        run(request, true).end().complete(request);
    }

    private Run<J> run(JsonNode request, boolean last) {
        String jobId = request.get("job_id").asText();
        Run<J> run = last ? runs.remove(jobId) : runs.get(jobId);
        if (run == null) {
            throw new Driver.NotHere(jobId);
        }
        return run;
    }
}
