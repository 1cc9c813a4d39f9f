package jobwire;

import com.fasterxml.jackson.databind.JsonNode;
import com.google.protobuf.ByteString;
import java.time.Duration;
import java.time.Instant;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import jobwire.v1.Delivery;

/** One delivery of a job, in the hands of a handler. Safe to use from any thread. */
public final class Job {
    private static final Duration SHORTEST = Duration.ofSeconds(1);
    private static final Duration LONGEST = Duration.ofDays(7);

    /** How a running job reaches its worker. */
    interface Link {
        Optional<StopReason> stopReason();

        void report(Progress progress, ByteString checkpoint);

        void extend(Duration limit) throws InterruptedException;
    }

    private static final Link NOBODY = new Link() {
        @Override
        public Optional<StopReason> stopReason() {
            return Optional.empty();
        }

        @Override
        public void report(Progress progress, ByteString checkpoint) {}

        @Override
        public void extend(Duration limit) {}
    };

    private final Delivery delivery;
    private final Link link;

    Job(Delivery delivery, Link link) {
        this.delivery = delivery;
        this.link = link;
    }

    /** A job made by hand, for trying out a handler: it says nothing to anybody. */
    public static Job of(Object data) {
        Delivery delivery = Delivery.newBuilder()
                .setJobId(Wire.newJobId())
                .setDataBytes(Wire.json(data, Wire.MAX_DATA_BYTES))
                .setAttempt(1)
                .build();
        return new Job(delivery, NOBODY);
    }

    /** The payload. */
    public JsonNode data() {
        return Wire.node(delivery.getData());
    }

    /**
     * The payload as a class, such as a record; properties that it does not know are ignored.
     *
     * @throws IllegalArgumentException the payload has another shape
     */
    public <T> T data(Class<T> kind) {
        return Wire.value(delivery.getData(), kind);
    }

    /** The payload as it was published: JSON text. */
    public String dataText() {
        return delivery.getData();
    }

    /** The queue it came from. */
    public String queue() {
        return delivery.getQueue();
    }

    /** Its id. */
    public String id() {
        return delivery.getJobId();
    }

    /** As published. */
    public Map<String, String> headers() {
        return delivery.getHeadersMap();
    }

    /** Higher is delivered first. */
    public int priority() {
        return delivery.getPriority();
    }

    /** Which delivery of the job this is, counted from 1. It only grows, so it may fence writes to other systems. */
    public int attempt() {
        return delivery.getAttempt();
    }

    /** Retries used up so far. */
    public int retryCount() {
        return delivery.getRetryCount();
    }

    /** Retries allowed. */
    public int retryLimit() {
        return delivery.getRetryLimit();
    }

    /** When the job was stored. */
    public Instant createdAt() {
        return Wire.instant(delivery.getCreateTime());
    }

    /** How long this run may take from its delivery, unless {@link #extend} moves the limit. */
    public Duration expireIn() {
        return Wire.span(delivery.getExpireIn());
    }

    /** What earlier runs left for this one; JSON's null if nothing. */
    public JsonNode checkpoint() {
        return Wire.node(delivery.getCheckpoint());
    }

    /** The same as a class; null if nothing. Throws as {@link #data(Class)}. */
    public <T> T checkpoint(Class<T> kind) {
        return Wire.value(delivery.getCheckpoint(), kind);
    }

    /**
     * Says how far the job is. Cheap: call it as often as you like, the latest word is sent a few times a second.
     *
     * @param fraction share of the work that is done; what is outside 0 to 1 is clamped, and NaN means unknown
     * @param note a line for people, at most 1,000 characters; longer ones are cut, and null is none
     */
    public void progress(double fraction, String note) {
        link.report(said(fraction, note), null);
    }

    /**
     * Does the same, and leaves a checkpoint: what the next run is to know should this one not finish. It is kept until
     * another one replaces it. What is said before the run fails or is given back is there when that is.
     *
     * @param checkpoint what Jackson writes as JSON, at most 64 KiB
     * @throws IllegalArgumentException it cannot be written, or is too large
     */
    public void progress(double fraction, String note, Object checkpoint) {
        link.report(said(fraction, note), Wire.json(checkpoint, Wire.MAX_CHECKPOINT_BYTES));
    }

    private static Progress said(double fraction, String note) {
        OptionalDouble share = Double.isNaN(fraction)
                ? OptionalDouble.empty()
                : OptionalDouble.of(Math.min(1, Math.max(0, fraction)));
        return new Progress(share, Wire.cleanText(note == null ? "" : note, 1000));
    }

    /**
     * Moves the run's time limit to so long from now, and returns when the server has answered.
     *
     * @param limit 1 s to 7 days
     * @throws InterruptedException the job is to stop
     */
    public void extend(Duration limit) throws InterruptedException {
        if (limit.compareTo(SHORTEST) < 0 || limit.compareTo(LONGEST) > 0) {
            throw new IllegalArgumentException("extend(" + limit + "): a time limit is 1 s to 7 days from now");
        }
        link.extend(limit);
    }

    /** Whether the run is to stop: the job was cancelled, its time is over, its lease lost, or the worker stops. */
    public boolean isCancelled() {
        return stopReason().isPresent();
    }

    /** Why the run is to stop, if it is. */
    public Optional<StopReason> stopReason() {
        return link.stopReason();
    }

    /** For handlers that never wait, and so notice no interrupt: throws JobCancelled if the run is to stop. */
    public void check() {
        if (isCancelled()) {
            throw new JobCancelled();
        }
    }
}
