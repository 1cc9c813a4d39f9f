package jobwire;

/** Thrown by {@link Job#check} in a handler that is to stop; let it pass. */
public final class JobCancelled extends RuntimeException {
    private static final long serialVersionUID = 1;

    JobCancelled() {
        super("the job is to stop");
    }
}
