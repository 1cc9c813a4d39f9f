package jobwire;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.netty.shaded.io.netty.handler.codec.http2.Http2Exception;
import io.grpc.protobuf.StatusProto;
import java.net.ConnectException;
import java.net.UnknownHostException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import jobwire.JobwireException.FieldViolation;
import jobwire.JobwireException.Told;

/** Turns gRPC's errors into ours: the server's own words stand, and what gRPC itself says becomes what to do. */
final class Errors {
    private static final String SAFE = "and repeating it is safe";

    private Errors() {}

    /** The error of a call to the server at {@code target}. */
    static JobwireException from(Throwable failure, String target) {
        Status status = Status.fromThrowable(failure);
        if (status.getCause() instanceof Http2Exception) {
            // What answers there does not speak HTTP/2. gRPC calls that INTERNAL, as if it were a fault of the server.
            status = Status.UNAVAILABLE.withDescription(status.getDescription()).withCause(status.getCause());
        }
        String reason = "";
        List<FieldViolation> violations = new ArrayList<>();
        Duration retryAfter = null;
        for (Any detail : details(failure)) {
            try {
                if (detail.is(ErrorInfo.class)) {
                    reason = detail.unpack(ErrorInfo.class).getReason();
                } else if (detail.is(BadRequest.class)) {
                    for (BadRequest.FieldViolation each : detail.unpack(BadRequest.class).getFieldViolationsList()) {
                        violations.add(new FieldViolation(each.getField(), each.getDescription()));
                    }
                } else if (detail.is(RetryInfo.class)) {
                    retryAfter = Wire.span(detail.unpack(RetryInfo.class).getRetryDelay());
                }
            } catch (InvalidProtocolBufferException garbled) {
                continue; // something between us and the server rewrote it; the status stands
            }
        }
        String message = message(status, reason, target);
        return new Told(status.getCode(), reason, message, List.copyOf(violations), retryAfter, failure).exception();
    }

    /** The error of a call that is made once, with other advice than that of the calls that may be repeated. */
    static JobwireException madeOnce(JobwireException error) {
        if (!error.getMessage().contains(SAFE)) {
            return error;
        }
        String message = error.getMessage().replace(SAFE, "and listActions says whether");
        Duration retryAfter = error.retryAfter().orElse(null);
        return new Told(error.code(), error.reason(), message, error.fieldViolations(), retryAfter, error.getCause())
                .exception();
    }

    /** A request that would not travel; nothing was sent. */
    static JobwireException refused(String what, IllegalArgumentException error) {
        String reason = error instanceof Wire.TooLarge ? "DATA_TOO_LARGE" : "INVALID_ARGUMENT";
        return new Told(Status.Code.INVALID_ARGUMENT, reason, what + ": " + error.getMessage(), error).exception();
    }

    /** The error of who calls, or waits for an answer, after the end. */
    static JobwireException closed(String target, Throwable cause) {
        String message = "the connection to Jobwire at " + target + " was closed by this program: make a new one";
        return new Told(Status.Code.FAILED_PRECONDITION, "CLOSED", message, cause).exception();
    }

    /** The error of a call whose thread was interrupted; the thread stays so. */
    static JobwireException interrupted(String target, Throwable cause) {
        Thread.currentThread().interrupt();
        String message = "interrupted while calling Jobwire at " + target + "; the call may have taken effect";
        return new JobwireException(new Told(Status.Code.CANCELLED, "", message, cause));
    }

    private static List<Any> details(Throwable failure) {
        com.google.rpc.Status told = StatusProto.fromThrowable(failure);
        return told == null ? List.of() : told.getDetailsList();
    }

    private static String message(Status status, String reason, String target) {
        String text = Optional.ofNullable(status.getDescription()).orElse("");
        if (!reason.isEmpty()) {
            return text.isEmpty() ? reason : text;
        }
        return switch (status.getCode()) {
            case UNAVAILABLE -> "cannot reach Jobwire at " + target + " (" + why(status)
                    + "): is it running there, and are address and TLS right?";
            case DEADLINE_EXCEEDED -> "no answer from Jobwire at " + target
                    + " in time; the call may have taken effect, " + SAFE;
            case CANCELLED -> "the call to Jobwire at " + target + " was ended (" + why(status)
                    + "); it may have taken effect, " + SAFE;
            case UNIMPLEMENTED -> "the server at " + target + " does not know this call (" + why(status)
                    + "): is it Jobwire, and as new as this client?";
            default -> why(status) + " (from " + target + ")";
        };
    }

    /** In one line, what the transport met: the innermost cause knows best, and gRPC's own text is often long. */
    private static String why(Status status) {
        String text = Optional.ofNullable(status.getDescription()).orElse(status.getCode().name());
        for (Throwable cause = status.getCause(); cause != null; cause = cause.getCause()) {
            if (cause instanceof UnknownHostException) {
                break; // gRPC has said so; Java's own text is the bare name, the second time
            }
            if (cause.getMessage() != null) {
                text = cause.getMessage();
            }
            if (cause instanceof ConnectException) {
                text = text.substring(text.lastIndexOf(": ") + 1).strip(); // such as "Connection refused"
            }
        }
        return Wire.cleanText(text.lines().findFirst().orElse(""), 200);
    }
}
