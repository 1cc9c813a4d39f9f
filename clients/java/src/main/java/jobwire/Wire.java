package jobwire;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.json.JsonWriteFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.cfg.JsonNodeFeature;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.NullNode;
import com.github.f4b6a3.uuid.UuidCreator;
import com.google.protobuf.ByteString;
import com.google.protobuf.Timestamp;
import com.google.protobuf.UnsafeByteOperations;
import java.time.Duration;
import java.time.Instant;

/** What travels, and in what form: JSON text, spans of time, texts for people, ids. */
final class Wire {
    /** The largest payload or output that any queue can allow. */
    static final int MAX_DATA_BYTES = 512 * 1024;

    /** The largest checkpoint. */
    static final int MAX_CHECKPOINT_BYTES = 64 * 1024;

    /** What one Publish or Ack call may carry in all, less its own frame. */
    static final int MAX_CALL_BYTES = 3 * 1024 * 1024 - 4096;

    /** How many jobs or statements one Publish or Ack call may carry. */
    static final int MAX_CALL_ITEMS = 1000;

    /** The longest time that anybody waits. */
    private static final Duration FOR_EVER = Duration.ofDays(100 * 365);

    private static final JsonMapper JSON = JsonMapper.builder()
            // A publisher that is newer than the worker may say more.
            .disable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES)
            // Numbers arrive as they were said; a double would round them.
            .enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS)
            .disable(JsonNodeFeature.STRIP_TRAILING_BIGDECIMAL_ZEROES)
            // What is no number goes to the server bare, which refuses it; as a text nobody would notice.
            .disable(JsonWriteFeature.WRITE_NAN_AS_STRINGS)
            .build();

    private Wire() {}

    /** A payload, an output or a checkpoint that is larger than is ever allowed. */
    static final class TooLarge extends IllegalArgumentException {
        private static final long serialVersionUID = 1;

        TooLarge(int bytes, int limit) {
            super(bytes + " bytes of JSON, but at most " + limit + " are taken: store the content elsewhere"
                    + " (object storage, a table) and send its key");
        }
    }

    /** Returns a new UUID of version 7: unique anywhere, and sorted by time. */
    static String newJobId() {
        return UuidCreator.getTimeOrderedEpoch().toString();
    }

    /**
     * Writes a value as JSON text in UTF-8.
     *
     * @throws IllegalArgumentException what Jackson cannot write, or more than {@code limit} bytes
     */
    static ByteString json(Object value, int limit) {
        byte[] text;
        try {
            // As bytes, since this way half a surrogate pair is found, and nothing is measured twice.
            text = JSON.writeValueAsBytes(value);
        } catch (JsonProcessingException error) {
            throw new IllegalArgumentException("not JSON: " + error.getOriginalMessage(), error);
        }
        if (text.length > limit) {
            throw new TooLarge(text.length, limit);
        }
        return UnsafeByteOperations.unsafeWrap(text);
    }

    /** Reads JSON text; the empty text, which means that nothing was given, is JSON's null. */
    static JsonNode node(String text) {
        try {
            return text.isEmpty() ? NullNode.getInstance() : JSON.readTree(text);
        } catch (JsonProcessingException error) {
            throw new IllegalArgumentException("not JSON: " + error.getOriginalMessage(), error);
        }
    }

    /**
     * Reads JSON text as a class; the empty text is null.
     *
     * @throws IllegalArgumentException the text has another shape
     */
    static <T> T value(String text, Class<T> kind) {
        try {
            return text.isEmpty() ? null : JSON.readValue(text, kind);
        } catch (JsonProcessingException error) {
            String why = "not a " + kind.getSimpleName() + ": " + error.getOriginalMessage();
            throw new IllegalArgumentException(why, error);
        }
    }

    /** Makes any text one that travels: valid Unicode without NUL, at most {@code limit} characters. */
    static String cleanText(String text, int limit) {
        StringBuilder clean = new StringBuilder();
        text.codePoints()
                .limit(limit)
                .map(point -> point == 0 || (point >= 0xD800 && point <= 0xDFFF) ? 0xFFFD : point)
                .forEach(clean::appendCodePoint);
        return clean.toString();
    }

    /** How long to wait, of which the end is a time that System.nanoTime can say. */
    static Duration bounded(Duration span) {
        return span.compareTo(FOR_EVER) > 0 ? FOR_EVER : span;
    }

    static com.google.protobuf.Duration duration(Duration span) {
        return com.google.protobuf.Duration.newBuilder()
                .setSeconds(span.getSeconds())
                .setNanos(span.getNano())
                .build();
    }

    static Duration span(com.google.protobuf.Duration duration) {
        return Duration.ofSeconds(duration.getSeconds(), duration.getNanos());
    }

    static Timestamp timestamp(Instant moment) {
        return Timestamp.newBuilder()
                .setSeconds(moment.getEpochSecond())
                .setNanos(moment.getNano())
                .build();
    }

    static Instant instant(Timestamp timestamp) {
        return Instant.ofEpochSecond(timestamp.getSeconds(), timestamp.getNanos());
    }
}
