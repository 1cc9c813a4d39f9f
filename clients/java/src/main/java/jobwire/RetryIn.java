package jobwire;

import java.time.Duration;

/** Thrown by a handler: fails this run, and asks for the next one after exactly this pause. Uses up a retry. */
public class RetryIn extends RuntimeException {
    private static final long serialVersionUID = 1;

    private final Duration pause;

    /** With a pause of 0 s to 7 days. */
    public RetryIn(Duration pause) {
        this(pause, "to be tried again in " + pause);
    }

    /** With a message for people. */
    public RetryIn(Duration pause, String message) {
        super(message);
        this.pause = Pauses.checked(pause);
    }

    /** The pause. */
    public Duration pause() {
        return pause;
    }
}
