package jobwire;

import java.time.Duration;
import java.util.Optional;

/** Thrown by a handler: gives the job back untouched, so that no retry is used up. */
public class ReleaseJob extends RuntimeException {
    private static final long serialVersionUID = 1;

    private final Duration delay;

    /** To be delivered again at once the first time, then after a pause that grows to 60 s. */
    public ReleaseJob() {
        super("given back");
        delay = null;
    }

    /** To be delivered again no sooner than after {@code delay}, 0 s to 7 days. */
    public ReleaseJob(Duration delay) {
        super("given back");
        this.delay = Pauses.checked(delay);
    }

    /** The pause before the next delivery, if one was named. */
    public Optional<Duration> delay() {
        return Optional.ofNullable(delay);
    }
}
