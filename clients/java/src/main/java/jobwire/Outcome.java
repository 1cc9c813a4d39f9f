package jobwire;

import com.google.protobuf.ByteString;
import java.io.InterruptedIOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.channels.ClosedByInterruptException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Collections;
import java.util.EnumSet;
import java.util.IdentityHashMap;
import java.util.Objects;
import java.util.Set;
import java.util.function.Supplier;
import jobwire.v1.AckItem;
import jobwire.v1.Complete;
import jobwire.v1.Fail;
import jobwire.v1.Release;

/** How a run of a handler ended, and what is said of it in an Ack. */
sealed interface Outcome {
    /** An outcome that may be reported. */
    sealed interface Settling extends Outcome {
        /** The statement that settles a delivery, without its handle. */
        AckItem.Builder item();
    }

    /**
     * The handler returned.
     *
     * @param output its result as JSON text; empty for null
     */
    record Completed(ByteString output) implements Settling {
        @Override
        public AckItem.Builder item() {
            return AckItem.newBuilder().setComplete(Complete.newBuilder().setOutputBytes(output));
        }
    }

    /** The handler threw, or its result cannot travel. */
    record Failed(String type, String message, String trace, boolean permanent, Duration retryIn) implements Settling {
        @Override
        public AckItem.Builder item() {
            Fail.Builder fail = Fail.newBuilder()
                    .setType(Wire.cleanText(type, 200))
                    .setMessage(Wire.cleanText(message, 2000))
                    .setTrace(beginning(trace))
                    .setPermanent(permanent);
            if (retryIn != null) {
                fail.setRetryIn(Wire.duration(retryIn));
            }
            return AckItem.newBuilder().setFail(fail);
        }
    }

    /**
     * The job goes back untouched.
     *
     * @param delay null: as the server sees fit
     */
    record Released(Duration delay) implements Settling {
        @Override
        public AckItem.Builder item() {
            Release.Builder release = Release.newBuilder();
            if (delay != null) {
                release.setDelay(Wire.duration(delay));
            }
            return AckItem.newBuilder().setRelease(release);
        }
    }

    /** The handler ended because it was told to. */
    record Stopped() implements Outcome {}

    /** Reasons that are not the job's own. */
    Set<StopReason> NO_FAULT = EnumSet.of(StopReason.STOPPING, StopReason.SILENCE, StopReason.LEASE_LOST);

    int TRACE_BYTES = 8 * 1024;

    /** The outcome of a handler that returned {@code result}. */
    static Settling completed(Object result) {
        if (result == null) {
            return new Completed(ByteString.EMPTY);
        }
        try {
            return new Completed(Wire.json(result, Wire.MAX_DATA_BYTES));
        } catch (IllegalArgumentException error) {
            return badResult(error.getMessage());
        }
    }

    /** The outcome of a handler whose result nobody takes; running it again would not help. */
    static Failed badResult(String why) {
        return new Failed("BadResult", "the handler's result cannot be stored: " + why, "", true, null);
    }

    /** The outcome of a handler that threw {@code error}. */
    static Outcome thrown(Throwable error, boolean toldToStop) {
        if (toldToStop && comesFromStopping(error)) {
            return new Stopped();
        }
        if (error instanceof ReleaseJob release) {
            return new Released(release.delay().orElse(null));
        }
        return new Failed(
                shown(() -> typeOf(error)),
                shown(() -> messageOf(error)),
                shown(() -> traceOf(error)),
                error instanceof FailForGood,
                error instanceof RetryIn retry ? retry.pause() : null);
    }

    /** What to report of a run that was told to stop for {@code reason}, or not at all (null). */
    static Settling settling(Outcome outcome, StopReason reason) {
        if (outcome instanceof Failed failed) {
            boolean plain = !failed.permanent() && failed.retryIn() == null;
            // It broke because it was interrupted, for a reason that is not the job's: that uses up no retry.
            return plain && reason != null && NO_FAULT.contains(reason) ? new Released(null) : failed;
        }
        if (outcome instanceof Settling settling) {
            return settling;
        }
        return reason == StopReason.EXPIRED
                ? new Failed(
                        "EXPIRED",
                        "the run took longer than its time limit; expireIn sets it, Job.extend moves it",
                        "",
                        false,
                        null)
                : new Released(null);
    }

    /** An interrupt comes out of libraries in many forms, often as the cause of something else. Causes may go in a circle. */
    private static boolean comesFromStopping(Throwable error) {
        Set<Throwable> seen = Collections.newSetFromMap(new IdentityHashMap<>());
        for (Throwable each = error; each != null && seen.add(each); each = each.getCause()) {
            if (each instanceof InterruptedException
                    || each instanceof InterruptedIOException
                    || each instanceof ClosedByInterruptException
                    || each instanceof JobCancelled) {
                return true;
            }
        }
        return false;
    }

    private static String typeOf(Throwable error) {
        if (error instanceof TypedError typed) {
            return typed.errorType();
        }
        String name = error.getClass().getSimpleName();
        return name.isEmpty() ? error.getClass().getName() : name;
    }

    private static String messageOf(Throwable error) {
        String message = error.getMessage();
        return message == null || message.isEmpty() ? typeOf(error) : message;
    }

    private static String traceOf(Throwable error) {
        StringWriter trace = new StringWriter();
        error.printStackTrace(new PrintWriter(trace));
        return trace.toString();
    }

    /** An exception's own methods may be broken; its job gets an end all the same. */
    private static String shown(Supplier<String> text) {
        try {
            return Objects.requireNonNullElse(text.get(), "");
        } catch (RuntimeException | Error broken) { // such as a StackOverflowError of causes in a circle
            return "(cannot be shown: " + broken.getClass().getName() + ")";
        }
    }

    /** The beginning of a long trace: it names the place. */
    private static String beginning(String trace) {
        byte[] text = Wire.cleanText(trace, TRACE_BYTES).getBytes(StandardCharsets.UTF_8);
        int length = Math.min(text.length, TRACE_BYTES);
        while (length > 0 && length < text.length && (text[length] & 0xC0) == 0x80) {
            length--; // not within a character
        }
        return new String(text, 0, length, StandardCharsets.UTF_8);
    }
}
