package jobwire;

import java.lang.annotation.Inherited;
import java.lang.annotation.Retention;
import java.lang.annotation.RetentionPolicy;
import java.time.Duration;
import java.util.UUID;
import java.util.concurrent.Callable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;

/** A test's queue and client at the server that JOBWIRE_SERVER names; without it the test is skipped. */
@RealServer.Needed
@Timeout(120)
abstract class RealServer {
    /** JUnit's own annotation would not hold for the classes that extend this one. */
    @Inherited
    @Retention(RetentionPolicy.RUNTIME)
    @EnabledIfEnvironmentVariable(named = "JOBWIRE_SERVER", matches = ".+", disabledReason = "names no server")
    @interface Needed {}

    static final Duration PATIENCE = Duration.ofSeconds(60);

    final Endpoint endpoint = Endpoint.of(System.getenv("JOBWIRE_SERVER"));
    final Client client = new Client(endpoint, PATIENCE);
    final String queue = "java-" + UUID.randomUUID();

    @AfterEach
    void closeClient() {
        client.close();
    }

    /** The job, once it is finished. */
    JobInfo finished(Published published) {
        return client.waitFor(queue, published.jobId(), PATIENCE);
    }

    /** Returns when the condition holds; fails if it does not come to hold. */
    static void until(Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (!condition.call()) {
            if (System.nanoTime() - deadline > 0) {
                throw new AssertionError("what was awaited did not come");
            }
            Thread.sleep(50);
        }
    }
}
