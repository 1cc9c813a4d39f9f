package jobwire;

import io.grpc.Status;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/**
 * A call that failed, with a message that says what to do.
 *
 * <p>The subclasses are those that callers act on; all other failures are of this class, told apart by {@link #code}
 * and {@link #reason}.
 */
public class JobwireException extends RuntimeException {
    private static final long serialVersionUID = 1;

    private final Status.Code code;
    private final String reason;
    private final transient List<FieldViolation> fieldViolations;
    private final Duration retryAfter;

    JobwireException(Told told) {
        super(told.message(), told.cause());
        code = told.code();
        reason = told.reason();
        fieldViolations = told.fieldViolations();
        retryAfter = told.retryAfter();
    }

    /**
     * What a call of the bare stubs failed with, as this class says it.
     *
     * @param failure what the stub threw, or told its observer
     * @param target the address that was called
     */
    public static JobwireException from(Throwable failure, String target) {
        return Errors.from(failure, target);
    }

    /** gRPC's status code. */
    public Status.Code code() {
        return code;
    }

    /** The server's finer word, such as {@code QUEUE_NOT_FOUND}; empty if it gave none. */
    public String reason() {
        return reason;
    }

    /** Which fields of the request break which rules. */
    public List<FieldViolation> fieldViolations() {
        return fieldViolations == null ? List.of() : fieldViolations;
    }

    /** After how long the server asks to repeat the call, if it does. The client has done so within its timeout. */
    public Optional<Duration> retryAfter() {
        return Optional.ofNullable(retryAfter);
    }

    /**
     * A field of a request that breaks a rule.
     *
     * @param field its path, such as {@code jobs[3].data}
     * @param description the rule
     */
    public record FieldViolation(String field, String description) {}

    /** A request that breaks a rule: correct the named field. Repeating it is of no use. */
    public static final class InvalidArgument extends JobwireException {
        private static final long serialVersionUID = 1;

        InvalidArgument(Told told) {
            super(told);
        }
    }

    /** A queue or job that does not exist (any more). */
    public static final class NotFound extends JobwireException {
        private static final long serialVersionUID = 1;

        NotFound(Told told) {
            super(told);
        }
    }

    /** The server is publishing as much as it can hold. Nothing of the call was stored; repeat it later. */
    public static final class Overloaded extends JobwireException {
        private static final long serialVersionUID = 1;

        Overloaded(Told told) {
            super(told);
        }
    }

    /** As many jobs wait in the queue as may. Nothing of the call was stored; repeat it later. */
    public static final class QueueFull extends JobwireException {
        private static final long serialVersionUID = 1;

        QueueFull(Told told) {
            super(told);
        }
    }

    /** The server cannot be reached, drains, has lost its database, or ended the call as it stopped. */
    public static final class Unavailable extends JobwireException {
        private static final long serialVersionUID = 1;

        Unavailable(Told told) {
            super(told);
        }
    }

    /** No answer within the timeout. Whether the call took effect is not known; repeating it is safe. */
    public static final class DeadlineExceeded extends JobwireException {
        private static final long serialVersionUID = 1;

        DeadlineExceeded(Told told) {
            super(told);
        }
    }

    /** The server wants a token, or does not accept this one. */
    public static final class Unauthenticated extends JobwireException {
        private static final long serialVersionUID = 1;

        Unauthenticated(Told told) {
            super(told);
        }
    }

    /** The server at this address does not know the call; perhaps it is older than this client. */
    public static final class Unimplemented extends JobwireException {
        private static final long serialVersionUID = 1;

        Unimplemented(Told told) {
            super(told);
        }
    }

    /** What is known of a failure. */
    record Told(
            Status.Code code,
            String reason,
            String message,
            List<FieldViolation> fieldViolations,
            Duration retryAfter,
            Throwable cause) {

        Told(Status.Code code, String reason, String message, Throwable cause) {
            this(code, reason, message, List.of(), null, cause);
        }

        /** The exception of the class that a caller would catch. */
        JobwireException exception() {
            switch (reason) {
                case "OVERLOADED":
                    return new Overloaded(this);
                case "QUEUE_FULL":
                    return new QueueFull(this);
                default:
                    break;
            }
            return switch (code) {
                case INVALID_ARGUMENT -> new InvalidArgument(this);
                case NOT_FOUND -> new NotFound(this);
                // Whoever cancels a call is told otherwise: this is how gRPC ends calls that reach a server as it
                // stops.
                case UNAVAILABLE, CANCELLED -> new Unavailable(this);
                case DEADLINE_EXCEEDED -> new DeadlineExceeded(this);
                case UNAUTHENTICATED -> new Unauthenticated(this);
                case UNIMPLEMENTED -> new Unimplemented(this);
                default -> new JobwireException(this);
            };
        }
    }
}
