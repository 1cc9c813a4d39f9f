package jobwire;

import java.time.Duration;
import java.util.UUID;
import java.util.concurrent.Callable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Timeout;

/** A test's queue and client at the server that JOBWIRE_SERVER names; without it the test is skipped. */
@Timeout(120)
abstract class RealServer {
    static final Duration PATIENCE = Duration.ofSeconds(60);

    final Endpoint endpoint = Endpoint.of(server());
    final Client client = new Client(endpoint, PATIENCE);
    final String queue = "java-" + UUID.randomUUID();

    private static String server() {
        String target = System.getenv("JOBWIRE_SERVER");
        Assumptions.assumeTrue(target != null, "JOBWIRE_SERVER names no server");
        return target;
    }

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
