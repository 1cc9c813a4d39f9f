package jobwire;

/** Thrown by a handler: fails the job without further retries. A subclass gives the error its type. */
public class FailForGood extends RuntimeException {
    private static final long serialVersionUID = 1;

    /** With a message for people. */
    public FailForGood(String message) {
        super(message);
    }

    /** With what it comes from. */
    public FailForGood(String message, Throwable cause) {
        super(message, cause);
    }
}
