package conformance;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.NullNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.github.f4b6a3.uuid.UuidCreator;
import com.google.protobuf.Duration;
import io.grpc.ChannelCredentials;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.io.IOException;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import jobwire.JobwireException;
import jobwire.v1.AckItem;
import jobwire.v1.AckRequest;
import jobwire.v1.Cancellation;
import jobwire.v1.Complete;
import jobwire.v1.Delivery;
import jobwire.v1.Extend;
import jobwire.v1.Fail;
import jobwire.v1.GetJobRequest;
import jobwire.v1.Job;
import jobwire.v1.JobOptions;
import jobwire.v1.JobSpec;
import jobwire.v1.Progress;
import jobwire.v1.PublishRequest;
import jobwire.v1.PublishResult;
import jobwire.v1.QueueServiceGrpc;
import jobwire.v1.QueueServiceGrpc.QueueServiceBlockingStub;
import jobwire.v1.Release;
import jobwire.v1.SubscribeRequest;
import jobwire.v1.SubscribeResponse;

/**
 * Drives the bare stubs, as examples/ThinPublisher and examples/ThinWorker use them, with threads for several jobs at
 * once.
 *
 * <p>Its worker makes one Subscribe call, answers heartbeats, and sends each Ack once.
 */
final class ThinSubject implements Driver.Subject {
    private static final List<String> CLAIMS = List.of(
            "publish", "republish", "oversize", "deliver", "ack", "fail", "retry", "progress", "extend", "cancel",
            "slow-reader", "bad-token", "tls", "no-tls", "wrong-port", "older-server", "newer-server");

    /** gRPC itself repeats what could not be delivered, and what its answer did not come for. */
    private static final Map<String, ?> REPEATING = Map.of(
            "methodConfig",
            List.of(Map.of(
                    "name",
                    List.of(
                            Map.of("service", "jobwire.v1.QueueService", "method", "Publish"),
                            Map.of("service", "jobwire.v1.QueueService", "method", "GetJob"),
                            Map.of("service", "jobwire.v1.QueueService", "method", "Ack")),
                    "retryPolicy",
                    Map.of(
                            "maxAttempts", 4.0,
                            "initialBackoff", "0.2s",
                            "maxBackoff", "3s",
                            "backoffMultiplier", 2.0,
                            "retryableStatusCodes", List.of("UNAVAILABLE", "ABORTED")))));

    private final Runnable onOver;
    private final Runs<Delivery> runs = new Runs<>();
    private final Map<String, Thread> handlers = new ConcurrentHashMap<>();
    private final Map<String, String> toldToStop = new ConcurrentHashMap<>();
    private final Context.CancellableContext stream = Context.current().withCancellation();
    private final CountDownLatch workerEnded = new CountDownLatch(1);
    private ManagedChannel channel;
    private volatile QueueServiceBlockingStub stub;
    private volatile String target;
    private volatile double timeout;
    private volatile String session = "";
    private volatile boolean stopping;

    ThinSubject(Runnable onOver) {
        this.onOver = onOver;
    }

    @Override
    public JsonNode request(String what, JsonNode request) throws Exception {
        ObjectNode result = Driver.JSON.createObjectNode();
        switch (what) {
            case "about" -> result.put("client", "java")
                    .put("form", "thin")
                    .set("claims", Driver.JSON.valueToTree(CLAIMS));
            case "connect" -> connect(request);
            case "publish" -> result.set("results", publish(request));
            case "get" -> result.set("job", shown(get(request)));
            case "wait" -> result.set("job", shown(waitFor(request)));
            case "work" -> work(request);
            case "end" -> runs.end(request);
            case "progress" -> progress(request);
            case "extend" -> ack(AckItem.newBuilder()
                    .setHandle(runs.job(request).getHandle())
                    .setExtend(Extend.newBuilder().setExpireIn(seconds(request.get("seconds")))));
            case "stop" -> stop();
            default -> throw new IllegalArgumentException(what);
        }
        return result;
    }

    private synchronized void connect(JsonNode request) throws IOException {
        close();
        ChannelCredentials credentials = request.hasNonNull("ca_file")
                ? TlsChannelCredentials.newBuilder()
                        .trustManager(new File(request.get("ca_file").asText()))
                        .build()
                : InsecureChannelCredentials.create();
        target = request.get("target").asText();
        channel = Grpc.newChannelBuilder(target, credentials)
                .keepAliveTime(30, TimeUnit.SECONDS)
                .keepAliveTimeout(10, TimeUnit.SECONDS)
                .defaultServiceConfig(REPEATING)
                .build();
        Metadata headers = new Metadata();
        if (request.hasNonNull("token")) {
            headers.put(
                    Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER),
                    "Bearer " + request.get("token").asText());
        }
        stub = QueueServiceGrpc.newBlockingStub(channel)
                .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
        timeout = request.get("timeout").asDouble();
    }

    private QueueServiceBlockingStub calls() {
        return stub.withDeadlineAfter((long) (timeout * 1000), TimeUnit.MILLISECONDS);
    }

    private ArrayNode publish(JsonNode request) {
        PublishRequest.Builder call =
                PublishRequest.newBuilder().setQueue(request.get("queue").asText());
        for (JsonNode said : request.get("jobs")) {
            JobOptions.Builder options = JobOptions.newBuilder();
            if (said.hasNonNull("retry_limit")) {
                options.setRetryLimit(said.get("retry_limit").asInt());
            }
            if (said.hasNonNull("retry_delay")) {
                options.setRetryDelay(seconds(said.get("retry_delay")));
            }
            if (said.hasNonNull("expire_in")) {
                options.setExpireIn(seconds(said.get("expire_in")));
            }
            JobSpec.Builder spec = call.addJobsBuilder()
                    // Made here, so that repeating the call is safe.
                    .setId(said.path("id").asText(UuidCreator.getTimeOrderedEpoch().toString()))
                    .setData(said.get("data").toString())
                    .setPriority(said.path("priority").asInt())
                    .setOptions(options);
            if (said.hasNonNull("start_in")) {
                spec.setStartIn(seconds(said.get("start_in")));
            }
        }
        ArrayNode results = Driver.JSON.createArrayNode();
        for (PublishResult result : calls().publish(call.build()).getResultsList()) {
            String reason = result.getReason().name().replace("NOT_CREATED_REASON_", "");
            results.addObject()
                    .put("job_id", result.getJobId())
                    .put("created", result.getCreated())
                    .put("reason", reason.equals("UNSPECIFIED") ? "" : reason)
                    .put("data_differs", result.getDataDiffers());
        }
        return results;
    }

    private Job get(JsonNode request) {
        return calls().getJob(look(request).build()).getJob();
    }

    private Job waitFor(JsonNode request) {
        Duration within = seconds(request.get("timeout"));
        return stub.getJob(look(request).setWait(within).setUntilFinished(true).build())
                .getJob();
    }

    private static GetJobRequest.Builder look(JsonNode request) {
        return GetJobRequest.newBuilder()
                .setQueue(request.get("queue").asText())
                .setJobId(request.get("job_id").asText());
    }

    private static ObjectNode shown(Job job) throws JsonProcessingException {
        ObjectNode shown = Driver.JSON.createObjectNode()
                .put("state", job.getState().name().replace("JOB_STATE_", "").toLowerCase(Locale.ROOT))
                .put("attempt", job.getAttempt())
                .put("retry_count", job.getRetryCount());
        shown.set("output", json(job.getOutput()));
        ArrayNode errors = shown.putArray("errors");
        job.getErrorsList()
                .forEach(error -> errors.addObject().put("type", error.getType()).put("message", error.getMessage()));
        return shown;
    }

    private void work(JsonNode request) {
        SubscribeRequest.Builder terms = SubscribeRequest.newBuilder()
                .addQueues(request.get("queue").asText())
                .setMaxInFlight(request.get("concurrency").asInt())
                .setWorker(request.get("name").asText());
        if (request.hasNonNull("heartbeat_interval")) {
            terms.setHeartbeatInterval(seconds(request.get("heartbeat_interval")));
        }
        if (request.hasNonNull("resume_grace")) {
            terms.setResumeGrace(seconds(request.get("resume_grace")));
        }
        daemon("worker", () -> seeThrough(terms.build())).start();
    }

    private void seeThrough(SubscribeRequest terms) {
        ObjectNode error = null;
        try {
            Iterator<SubscribeResponse> events = stream.call(() -> stub.subscribe(terms));
            while (events.hasNext()) {
                take(events.next());
            }
        } catch (Exception failure) {
            error = stopping ? null : told(failure);
        }
        Driver.say(Driver.event("worker_ended").set("error", error));
        workerEnded.countDown();
        if (error == null && !stopping) {
            onOver.run();
        }
    }

    private void take(SubscribeResponse event) {
        switch (event.getEventCase()) {
            case OPENED -> session = event.getOpened().getSessionId();
            case DELIVERIES -> event.getDeliveries().getDeliveriesList().forEach(delivery -> {
                Thread handler = daemon(delivery.getJobId(), () -> handle(delivery));
                handlers.put(delivery.getHandle(), handler);
                handler.start();
            });
            case CANCELLATION -> {
                Cancellation cancellation = event.getCancellation();
                Thread handler = handlers.get(cancellation.getHandle());
                if (handler != null) {
                    String reason = cancellation.getReason().name().replace("CANCEL_REASON_", "");
                    toldToStop.put(cancellation.getHandle(), reason);
                    handler.interrupt();
                }
            }
            case HEARTBEAT -> calls().ack(AckRequest.newBuilder()
                    .setSessionId(session)
                    .setLastSequence(event.getSequence())
                    .build());
            default -> {} // newer servers may say more
        }
    }

    private void handle(Delivery delivery) {
        AckItem.Builder item = AckItem.newBuilder().setHandle(delivery.getHandle());
        try {
            JsonNode end = runs.waitForEnd(
                    delivery.getJobId(),
                    delivery,
                    delivery.getAttempt(),
                    json(delivery.getData()),
                    json(delivery.getCheckpoint()),
                    () -> false);
            settle(item, end);
        } catch (InterruptedException told) {
            Driver.say(Driver.event("stopping").put("job_id", delivery.getJobId()).put("reason", ""));
            item.setFail(Fail.newBuilder().setType(toldToStop.remove(delivery.getHandle())));
        } catch (JsonProcessingException error) {
            item.setFail(Fail.newBuilder().setType("BadData").setMessage(error.getMessage()));
        }
        ack(item);
        handlers.remove(delivery.getHandle());
    }

    private static void settle(AckItem.Builder item, JsonNode end) {
        switch (end.get("as").asText()) {
            case "complete" -> item.setComplete(Complete.newBuilder()
                    .setOutput(end.hasNonNull("output") ? end.get("output").toString() : ""));
            case "release" -> {
                Release.Builder release = Release.newBuilder();
                if (end.hasNonNull("delay")) {
                    release.setDelay(seconds(end.get("delay")));
                }
                item.setRelease(release);
            }
            default -> {
                Fail.Builder fail = Fail.newBuilder()
                        .setType(end.path("type").asText())
                        .setMessage(end.path("message").asText())
                        .setPermanent(end.path("permanent").asBoolean());
                if (end.hasNonNull("retry_in")) {
                    fail.setRetryIn(seconds(end.get("retry_in")));
                }
                item.setFail(fail);
            }
        }
    }

    private void progress(JsonNode request) {
        Progress.Builder progress = Progress.newBuilder()
                .setFraction(request.path("fraction").asDouble())
                .setNote(request.path("note").asText());
        if (request.hasNonNull("checkpoint")) {
            progress.setCheckpoint(request.get("checkpoint").toString());
        }
        ack(AckItem.newBuilder()
                .setHandle(runs.job(request).getHandle())
                .setExtend(Extend.newBuilder().setProgress(progress)));
    }

    private void ack(AckItem.Builder item) {
        calls().ack(AckRequest.newBuilder().setSessionId(session).addItems(item).build());
    }

    private void stop() throws InterruptedException {
        stopping = true;
        calls().ack(AckRequest.newBuilder()
                .setSessionId(session)
                .setMaxInFlight(0)
                .build());
        for (Thread handler : handlers.values()) {
            handler.join();
        }
        calls().ack(AckRequest.newBuilder()
                .setSessionId(session)
                .setCloseSession(true)
                .build());
        stream.cancel(null);
        workerEnded.await();
    }

    @Override
    public ObjectNode told(Exception error) {
        if (!(error instanceof StatusRuntimeException failure)) {
            return null;
        }
        JobwireException told = JobwireException.from(failure, target);
        return Driver.error(told.code().name(), told.reason(), told.getMessage());
    }

    @Override
    public synchronized void close() {
        if (channel != null) {
            channel.shutdownNow();
        }
    }

    private static Thread daemon(String name, Runnable task) {
        Thread thread = new Thread(task, name);
        thread.setDaemon(true);
        return thread;
    }

    private static JsonNode json(String text) throws JsonProcessingException {
        return text.isEmpty() ? NullNode.getInstance() : Driver.JSON.readTree(text);
    }

    private static Duration seconds(JsonNode value) {
        long nanos = Math.round(value.asDouble() * 1e9);
        return Duration.newBuilder()
                .setSeconds(nanos / 1_000_000_000)
                .setNanos((int) (nanos % 1_000_000_000))
                .build();
    }
}
