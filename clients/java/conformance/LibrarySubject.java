package conformance;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.CountDownLatch;
import java.util.function.Consumer;
import jobwire.Client;
import jobwire.Endpoint;
import jobwire.FailForGood;
import jobwire.Job;
import jobwire.JobInfo;
import jobwire.JobOptions;
import jobwire.JobwireException;
import jobwire.NewJob;
import jobwire.NotCreatedReason;
import jobwire.Published;
import jobwire.ReleaseJob;
import jobwire.RetryIn;
import jobwire.TypedError;
import jobwire.Worker;

/** Drives the library, by its public classes. */
final class LibrarySubject implements Driver.Subject {
    private static final List<String> CLAIMS = List.of(
            "publish", "republish", "oversize", "deliver", "ack", "fail", "retry", "progress", "sigterm", "stale-lease",
            "extend", "cancel", "slow-reader", "resume-after-cut", "resume-elsewhere", "peer-vanishes", "drain",
            "server-restart", "storm", "bad-token", "tls", "no-tls", "wrong-port", "older-server", "newer-server",
            "draining-server", "gone-server", "refused-progress", "checkpoint-first", "unanswered-stop", "lost-lease",
            "unsure-credits", "receipt");

    private final Runnable onOver;
    private final Runs<Job> runs = new Runs<>();
    private final CountDownLatch workerEnded = new CountDownLatch(1);
    private Endpoint endpoint;
    private Client client;
    private Worker worker;
    private boolean stopAsked;
    private volatile boolean deaf;

    /** @param onOver called when the worker has ended though nobody asked for that by a line, as after SIGTERM */
    LibrarySubject(Runnable onOver) {
        this.onOver = onOver;
    }

    @Override
    public JsonNode request(String what, JsonNode request) throws InterruptedException {
        ObjectNode result = Driver.JSON.createObjectNode();
        switch (what) {
            case "about" -> result.put("client", "java")
                    .put("form", "resuming")
                    .set("claims", Driver.JSON.valueToTree(CLAIMS));
            case "connect" -> connect(request);
            case "publish" -> result.set("results", publish(request));
            case "get" -> result.set("job", shown(client().getJob(queue(request), jobId(request))));
            case "wait" -> result.set(
                    "job", shown(client().waitFor(queue(request), jobId(request), seconds(request, "timeout"))));
            case "work" -> work(request);
            case "end" -> runs.end(request);
            case "progress" -> progress(request);
            case "extend" -> runs.job(request).extend(seconds(request, "seconds"));
            case "stop" -> stop(request);
            default -> throw new IllegalArgumentException(what);
        }
        return result;
    }

    private synchronized void connect(JsonNode request) {
        if (client != null) {
            client.close();
        }
        endpoint = Endpoint.of(request.get("target").asText());
        if (request.hasNonNull("ca_file")) {
            endpoint = endpoint.withTls(Path.of(request.get("ca_file").asText()));
        }
        if (request.hasNonNull("token")) {
            endpoint = endpoint.withToken(request.get("token").asText());
        }
        client = new Client(endpoint, seconds(request, "timeout"));
    }

    private synchronized Client client() {
        return client;
    }

    private ArrayNode publish(JsonNode request) {
        List<NewJob> jobs = new ArrayList<>();
        for (JsonNode said : request.get("jobs")) {
            NewJob job = new NewJob(said.get("data"));
            ifSaid(said, "id", id -> job.id(id.asText()));
            ifSaid(said, "priority", priority -> job.priority(priority.asInt()));
            ifSaid(said, "start_in", pause -> job.startIn(seconds(pause)));
            JobOptions options = JobOptions.DEFAULTS;
            if (said.hasNonNull("retry_limit")) {
                options = options.withRetryLimit(said.get("retry_limit").asInt());
            }
            if (said.hasNonNull("retry_delay")) {
                options = options.withRetryDelay(seconds(said, "retry_delay"));
            }
            if (said.hasNonNull("expire_in")) {
                options = options.withExpireIn(seconds(said, "expire_in"));
            }
            jobs.add(job.options(options));
        }
        ArrayNode results = Driver.JSON.createArrayNode();
        for (Published published : client().publishMany(queue(request), jobs)) {
            boolean stored = published.reason() == NotCreatedReason.NONE;
            results.addObject()
                    .put("job_id", published.jobId())
                    .put("created", published.created())
                    .put("reason", stored ? "" : published.reason().name())
                    .put("data_differs", published.dataDiffers());
        }
        return results;
    }

    private static ObjectNode shown(JobInfo job) {
        ObjectNode shown = Driver.JSON.createObjectNode()
                .put("state", job.state().name().toLowerCase(Locale.ROOT))
                .put("attempt", job.attempt())
                .put("retry_count", job.retryCount());
        shown.set("output", job.output());
        ArrayNode errors = shown.putArray("errors");
        job.errors().forEach(error -> errors.addObject().put("type", error.type()).put("message", error.message()));
        return shown;
    }

    private synchronized void work(JsonNode request) {
        deaf = request.path("deaf").asBoolean();
        worker = new Worker(endpoint)
                .name(request.get("name").asText())
                .handle(queue(request), request.get("concurrency").asInt(), this::handle);
        ifSaid(request, "stop_grace", grace -> worker.stopGrace(seconds(grace)));
        ifSaid(request, "heartbeat_interval", interval -> worker.heartbeatInterval(seconds(interval)));
        ifSaid(request, "resume_grace", grace -> worker.resumeGrace(seconds(grace)));
        Thread working = new Thread(() -> seeThrough(worker), "worker");
        working.setDaemon(true);
        working.start();
    }

    private void seeThrough(Worker running) {
        ObjectNode error = null;
        try {
            running.run();
        } catch (JobwireException failure) {
            error = told(failure);
        }
        Driver.say(Driver.event("worker_ended").set("error", error));
        workerEnded.countDown();
        synchronized (this) {
            if (error == null && !stopAsked) {
                onOver.run();
            }
        }
    }

    private Object handle(Job job) throws InterruptedException {
        JsonNode end = runs.waitForEnd(job.id(), job, job.attempt(), job.data(), job.checkpoint(), () -> {
            String reason = job.stopReason().map(why -> why.name().toLowerCase(Locale.ROOT)).orElse("");
            Driver.say(Driver.event("stopping").put("job_id", job.id()).put("reason", reason));
            return deaf;
        });
        switch (end.get("as").asText()) {
            case "complete":
                JsonNode output = end.get("output");
                return output == null || output.isNull() ? null : output;
            case "release":
                throw end.hasNonNull("delay") ? new ReleaseJob(seconds(end, "delay")) : new ReleaseJob();
            default:
                throw failure(end.path("type").asText(), end.path("message").asText(), end);
        }
    }

    private static RuntimeException failure(String type, String message, JsonNode end) {
        if (end.path("permanent").asBoolean()) {
            return new Hopeless(type, message);
        }
        return end.hasNonNull("retry_in")
                ? new Later(type, message, seconds(end, "retry_in"))
                : new Failure(type, message);
    }

    private void progress(JsonNode request) {
        Job job = runs.job(request);
        double fraction = request.path("fraction").asDouble(Double.NaN);
        String note = request.path("note").asText();
        if (request.hasNonNull("checkpoint")) {
            job.progress(fraction, note, request.get("checkpoint"));
        } else {
            job.progress(fraction, note);
        }
    }

    private void stop(JsonNode request) throws InterruptedException {
        Worker running;
        synchronized (this) {
            stopAsked = true;
            running = worker;
        }
        if (running == null) {
            return;
        }
        if (request.path("now").asBoolean()) {
            running.stopNow();
        } else {
            running.stop();
        }
        workerEnded.await();
    }

    @Override
    public ObjectNode told(Exception error) {
        return error instanceof JobwireException failure
                ? Driver.error(failure.code().name(), failure.reason(), failure.getMessage())
                : null;
    }

    @Override
    public synchronized void close() {
        if (worker != null) {
            worker.stopNow();
        }
        if (client != null) {
            client.close();
        }
    }

    private static String queue(JsonNode request) {
        return request.get("queue").asText();
    }

    private static String jobId(JsonNode request) {
        return request.get("job_id").asText();
    }

    private static Duration seconds(JsonNode request, String field) {
        return seconds(request.get(field));
    }

    private static Duration seconds(JsonNode value) {
        return Duration.ofNanos(Math.round(value.asDouble() * 1e9));
    }

    private static void ifSaid(JsonNode request, String field, Consumer<JsonNode> then) {
        if (request.hasNonNull(field)) {
            then.accept(request.get(field));
        }
    }

    private static final class Failure extends RuntimeException implements TypedError {
        private static final long serialVersionUID = 1;
        private final String type;

        Failure(String type, String message) {
            super(message);
            this.type = type;
        }

        @Override
        public String errorType() {
            return type;
        }
    }

    private static final class Hopeless extends FailForGood implements TypedError {
        private static final long serialVersionUID = 1;
        private final String type;

        Hopeless(String type, String message) {
            super(message);
            this.type = type;
        }

        @Override
        public String errorType() {
            return type;
        }
    }

    private static final class Later extends RetryIn implements TypedError {
        private static final long serialVersionUID = 1;
        private final String type;

        Later(String type, String message, Duration pause) {
            super(pause, message);
            this.type = type;
        }

        @Override
        public String errorType() {
            return type;
        }
    }
}
