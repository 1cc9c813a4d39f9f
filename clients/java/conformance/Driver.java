package conformance;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Phaser;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.logging.Handler;
import java.util.logging.Level;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import java.util.logging.SimpleFormatter;

/**
 * The driver of the conformance suite: does what a line of standard input says, and says what came of it.
 *
 * <p>tests/conformance/README.md describes the lines. Without arguments it drives the library, with {@code thin} the
 * bare stubs. Always holds: an answer for each request, whatever it asked; nothing but lines of JSON on standard
 * output.
 */
public final class Driver {
    static final JsonMapper JSON = new JsonMapper();

    private static final PrintStream OUT =
            new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);

    /** A client in one of its forms: does what requests ask. */
    interface Subject {
        JsonNode request(String what, JsonNode request) throws Exception;

        /** An error as a user of this client would see it; null if it is none of the client's. */
        ObjectNode told(Exception error);

        /** Lets go of everything; the input has ended. */
        void close();
    }

    private final CountDownLatch over = new CountDownLatch(1);
    private final Phaser answering = new Phaser(1);
    private final Subject subject;

    private Driver(boolean thin) {
        subject = thin ? new ThinSubject(over::countDown) : new LibrarySubject(over::countDown);
    }

    public static void main(String[] arguments) throws InterruptedException {
        // Kept, since loggers that nobody holds forget their handlers.
        Logger logger = Logger.getLogger("jobwire");
        logger.addHandler(new Warnings());
        new Driver(arguments.length > 0 && arguments[0].equals("thin")).run();
    }

    private void run() throws InterruptedException {
        Thread reading = new Thread(this::read, "requests");
        reading.setDaemon(true); // a worker that ended by a signal ends the program, though the input goes on
        reading.start();
        over.await();
        try {
            answering.awaitAdvanceInterruptibly(answering.arrive(), 5, TimeUnit.SECONDS);
        } catch (TimeoutException stillAnswering) {
            System.err.println("some requests are not answered");
        }
        subject.close();
    }

    /** Answers each line beside those before it. */
    private void read() {
        ExecutorService threads = Executors.newCachedThreadPool(task -> {
            Thread thread = new Thread(task, "request");
            thread.setDaemon(true);
            return thread;
        });
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                JsonNode request = JSON.readTree(line);
                answering.register();
                threads.execute(() -> {
                    answer(request);
                    answering.arriveAndDeregister();
                });
            }
        } catch (IOException error) {
            error.printStackTrace();
        }
        over.countDown();
    }

    private void answer(JsonNode request) {
        ObjectNode answer = JSON.createObjectNode();
        answer.set("id", request.get("id"));
        try {
            answer.set("result", subject.request(request.get("do").asText(), request));
        } catch (Exception error) {
            ObjectNode told = subject.told(error);
            if (told == null) {
                error.printStackTrace();
                String code = error instanceof NotHere ? "NOT_FOUND" : "UNKNOWN";
                told = error(code, "", error.toString());
            }
            answer.set("error", told);
        }
        say(answer);
    }

    /** An error as the lines have it. */
    static ObjectNode error(String code, String reason, String message) {
        return JSON.createObjectNode().put("code", code).put("reason", reason).put("message", message);
    }

    /** An event without its fields. */
    static ObjectNode event(String kind) {
        return JSON.createObjectNode().put("event", kind);
    }

    /** Writes a line. */
    static synchronized void say(ObjectNode line) {
        try {
            OUT.println(JSON.writeValueAsString(line));
        } catch (JsonProcessingException error) {
            throw new IllegalStateException(error);
        }
    }

    /** What was asked of a handler that does not run here (any more). */
    static final class NotHere extends RuntimeException {
        private static final long serialVersionUID = 1;

        NotHere(String jobId) {
            super("no handler of job " + jobId + " runs");
        }
    }

    /** Says what the client logs at the level of warning or above. */
    private static final class Warnings extends Handler {
        private final SimpleFormatter formatter = new SimpleFormatter();

        Warnings() {
            setLevel(Level.WARNING);
        }

        @Override
        public void publish(LogRecord entry) {
            if (isLoggable(entry)) {
                say(event("warning").put("message", formatter.formatMessage(entry)));
            }
        }

        @Override
        public void flush() {}

        @Override
        public void close() {}
    }
}
