package jobwire;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import jobwire.v1.SessionOpened;
import org.junit.jupiter.api.Test;

/** What a worker does when its peer is gone without a word: no FIN, no RST, and nothing that answers any more. */
class SilenceTest extends RealServer {
    /** One connection, whose two ends may be made to hear of each other no more. */
    private record Link(Socket worker, Socket server, CountDownLatch forgotten) {
        void pass(Socket from, Socket to) {
            byte[] piece = new byte[64 * 1024];
            try {
                for (int size = 0; size >= 0; size = from.getInputStream().read(piece)) {
                    if (forgotten.getCount() > 0) {
                        to.getOutputStream().write(piece, 0, size);
                    }
                }
            } catch (IOException end) {
                // As good as any other end.
            }
            if (forgotten.getCount() > 0) {
                close();
            }
        }

        void close() {
            try (worker;
                    server) {
                // Both, whatever becomes of the first.
            } catch (IOException end) {
                throw new UncheckedIOException(end);
            }
        }
    }

    /** Stands between the worker and the server. */
    private static final class Network implements AutoCloseable {
        final AtomicInteger connections = new AtomicInteger();
        private final ConcurrentLinkedQueue<Link> links = new ConcurrentLinkedQueue<>();
        private final ServerSocket listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        private final String upstream;

        Network(String upstream) throws IOException {
            this.upstream = upstream;
            inBackground(this::accept);
        }

        String target() {
            return "127.0.0.1:" + listener.getLocalPort();
        }

        /** Present connections stay as they are, to both ends; new ones are not touched. */
        void forget() {
            links.forEach(link -> link.forgotten().countDown());
        }

        @Override
        public void close() throws IOException {
            listener.close();
            links.forEach(Link::close);
        }

        private void accept() {
            int colon = upstream.lastIndexOf(':');
            try {
                while (true) {
                    Socket worker = listener.accept();
                    Socket server = new Socket(
                            upstream.substring(0, colon), Integer.parseInt(upstream.substring(colon + 1)));
                    Link link = new Link(worker, server, new CountDownLatch(1));
                    links.add(link);
                    connections.incrementAndGet();
                    inBackground(() -> link.pass(worker, server));
                    inBackground(() -> link.pass(server, worker));
                }
            } catch (IOException closed) {
                // The test is over.
            }
        }

        private static void inBackground(Runnable task) {
            Thread thread = new Thread(task);
            thread.setDaemon(true);
            thread.start();
        }
    }

    @Test
    void handlersNoticeNothingAndAllSessionsGoOverToOneNewConnection() throws Exception {
        List<String> queues = List.of(queue, queue + "-2");
        CountDownLatch begun = new CountDownLatch(2);
        CountDownLatch finish = new CountDownLatch(1);
        Handler handler = job -> {
            begun.countDown();
            finish.await();
            return "undisturbed";
        };
        try (Network network = new Network(endpoint.target())) {
            Worker worker = new Worker(Endpoint.of(network.target()))
                    .heartbeatInterval(Duration.ofSeconds(4))
                    .resumeGrace(Duration.ofSeconds(12));
            queues.forEach(each -> worker.handle(each, 2, handler));
            worker.start();
            try {
                List<Published> held =
                        queues.stream().map(each -> client.publish(each, new NewJob(1))).toList();
                begun.await();
                network.forget();
                until(() -> network.connections.get() > 1);
                finish.countDown();
                for (int n = 0; n < 2; n++) {
                    JobInfo job = client.waitFor(queues.get(n), held.get(n).jobId(), PATIENCE);
                    assertEquals("undisturbed", job.output().asText());
                    assertEquals(1, job.attempt());
                }
                assertEquals(2, network.connections.get());
            } finally {
                worker.close();
            }
        }
    }

    @Test
    void aStreamAfterASilentOneHasMoreTime() {
        Standing standing = new Standing();
        long half = Duration.ofMillis(7_500).toNanos();
        opens(standing);
        assertTrue(standing.streamLeft() <= half);
        standing.fellSilent();
        opens(standing);
        // A delivery that takes eight seconds arrives at the second attempt.
        assertTrue(standing.streamLeft() > half);
        standing.event(2);
        assertTrue(standing.streamLeft() <= half);
    }

    private static void opens(Standing standing) {
        standing.subscribing(1);
        standing.event(1);
        standing.opened(SessionOpened.newBuilder()
                .setSessionId("s")
                .setHeartbeatInterval(Wire.duration(Duration.ofSeconds(5)))
                .setResumeGrace(Wire.duration(Duration.ofSeconds(15)))
                .build());
    }
}
