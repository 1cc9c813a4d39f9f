package jobwire;

import java.time.Duration;
import java.time.Instant;
import java.util.Map;
import jobwire.v1.JobGroup;
import jobwire.v1.JobSpec;

/**
 * A job to be published: {@code new NewJob(data).priority(5).startIn(Duration.ofMinutes(1))}.
 *
 * <p>Its id is made with it, so publishing the same NewJob again is safe. Each method changes the NewJob and returns
 * it.
 */
public final class NewJob {
    private final JobSpec.Builder spec = JobSpec.newBuilder();
    private final Object data;

    /**
     * @param data the payload: what Jackson writes as JSON, at most 64 KiB or what the queue allows; null is JSON's
     *     null
     */
    public NewJob(Object data) {
        this.data = data;
        spec.setId(Wire.newJobId());
    }

    /** An id of your own, a UUID, instead of the one of version 7 that was made. */
    public NewJob id(String id) {
        spec.setId(id);
        return this;
    }

    /** The id. */
    public String id() {
        return spec.getId();
    }

    /** Higher is delivered first: -32768 to 32767, default 0. */
    public NewJob priority(int priority) {
        spec.setPriority(priority);
        return this;
    }

    /** Not before this pause from now, free of this machine's clock; replaces {@link #startAfter}. */
    public NewJob startIn(Duration pause) {
        spec.setStartIn(Wire.duration(pause));
        return this;
    }

    /** Not before this point in time, compared with the database's clock; replaces {@link #startIn}. */
    public NewJob startAfter(Instant moment) {
        spec.setStartAfter(Wire.timestamp(moment));
        return this;
    }

    /** Carried unread, such as {@code traceparent}: at most 20, values up to 1,000 characters. */
    public NewJob headers(Map<String, String> headers) {
        spec.clearHeaders().putAllHeaders(headers);
        return this;
    }

    /** What differs from the queue's options. */
    public NewJob options(JobOptions options) {
        spec.setOptions(Convert.options(options));
        return this;
    }

    /** What the job is about, such as an order's number, at most 200 characters; a queue's policy minds it. */
    public NewJob key(String key) {
        spec.setKey(key);
        return this;
    }

    /** Whom the job is done for, 1 to 200 characters. */
    public NewJob group(String group) {
        spec.setGroup(JobGroup.newBuilder().setId(group));
        return this;
    }

    /** Not if one of its key was stored in the same slot of time, of this length: 1 ms to 365 days. */
    public NewJob throttle(Duration slot) {
        spec.setThrottle(Wire.duration(slot));
        return this;
    }

    /** The same, but the second one is stored, to start with the next slot. Replaces {@link #throttle}. */
    public NewJob debounce(Duration slot) {
        spec.setDebounce(Wire.duration(slot));
        return this;
    }

    /** Not if one of its key was stored within this time before: 1 ms to 365 days. Replaces the two above. */
    public NewJob uniqueFor(Duration time) {
        spec.setUniqueFor(Wire.duration(time));
        return this;
    }

    /** As it travels; throws InvalidArgument for data that cannot. The other rules are the server's. */
    JobSpec spec() {
        try {
            return spec.setDataBytes(Wire.json(data, Wire.MAX_DATA_BYTES)).build();
        } catch (IllegalArgumentException error) {
            throw Errors.refused("data of job " + spec.getId(), error);
        }
    }
}
