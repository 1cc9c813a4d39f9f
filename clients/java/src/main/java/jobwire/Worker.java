package jobwire;

import static java.lang.System.Logger.Level.DEBUG;
import static java.lang.System.Logger.Level.INFO;

import java.net.InetAddress;
import java.net.UnknownHostException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import jobwire.v1.SubscribeRequest;

/**
 * Runs handlers on the jobs of their queues.
 *
 * <pre>{@code
 * new Worker("127.0.0.1:50051").handle("mail", 10, job -> send(job.data(Mail.class))).run();
 * }</pre>
 *
 * <p>Each handler has a session of its own, so its concurrency is exact. When the connection breaks or the server
 * restarts, handlers go on, and the sessions are resumed. A handler that throws fails its job; nothing it does ends the
 * worker. Logs go to {@code System.getLogger("jobwire")}.
 */
public final class Worker implements AutoCloseable {
    private static final System.Logger LOG = System.getLogger("jobwire");

    private final Endpoint endpoint;
    private final List<Lifetime.Post> posts = new ArrayList<>();
    private String name = hostAndProcess();
    private Duration stopGrace = Duration.ofSeconds(25);
    private Duration heartbeatInterval = Duration.ofSeconds(5);
    private Duration resumeGrace = Duration.ofSeconds(15);
    private Lifetime lifetime;

    /** Without TLS and token; {@code target} is host and port. */
    public Worker(String target) {
        this(Endpoint.of(target));
    }

    /** @param endpoint where Jobwire is */
    public Worker(Endpoint endpoint) {
        this.endpoint = endpoint;
    }

    /** The worker's name, for people and logs, at most 200 characters. Default: host name and process id. */
    public Worker name(String name) {
        this.name = name;
        return this;
    }

    /**
     * How long handlers may finish when the worker stops, default 25 s. What still runs then is interrupted and given
     * back, which takes up to 4 s more; keep the sum below what your platform grants after SIGTERM.
     */
    public Worker stopGrace(Duration grace) {
        this.stopGrace = Wire.bounded(grace);
        return this;
    }

    /** How often the server asks for a sign of life: 1 s to 5 minutes, default 5 s. */
    public Worker heartbeatInterval(Duration interval) {
        this.heartbeatInterval = interval;
        return this;
    }

    /** How long jobs stay with the worker when its connection breaks: 0 s to 15 s, default 15 s. */
    public Worker resumeGrace(Duration grace) {
        this.resumeGrace = grace;
        return this;
    }

    /**
     * Registers the handler of a queue, before the worker runs.
     *
     * @param queue the queue; one handler each
     * @param concurrency how many jobs may run at once, each in a thread of its own: 1 to 1000
     * @param handler what is done with a job
     */
    public Worker handle(String queue, int concurrency, Handler handler) {
        if (posts.stream().anyMatch(post -> post.queue().equals(queue))) {
            throw new IllegalArgumentException(
                    "queue " + queue + " has a handler already; to run more jobs at once, raise its concurrency");
        }
        if (concurrency < 1 || concurrency > Wire.MAX_CALL_ITEMS) {
            throw new IllegalArgumentException(
                    "concurrency " + concurrency + " of queue " + queue + " must be between 1 and 1000");
        }
        posts.add(new Lifetime.Post(queue, concurrency, Objects.requireNonNull(handler, "handler")));
        return this;
    }

    /**
     * Works until SIGTERM, SIGINT or {@link #stop}, then ends in order; for the end of {@code main}. A second signal
     * cuts the grace short. When this has returned, the program ends with 0 unless it has more to do.
     *
     * <p>It returns as well when an operator has asked the worker to leave, and what it ran is finished.
     *
     * @throws JobwireException the server refuses the name of a queue, the worker's terms or its credentials
     */
    public void run() {
        start();
        Signals signals;
        try {
            signals = new Signals(this::signalled);
        } catch (IllegalStateException error) {
            close();
            throw error;
        }
        try {
            join();
        } finally {
            signals.giveBack();
        }
    }

    private void signalled(String signal) {
        boolean again = lifetime().stopping();
        LOG.log(INFO, "{0}: {1}", signal, again ? "giving back what runs" : "finishing what runs");
        stop(again);
    }

    /**
     * Starts to work in the background, in a program that ends the worker itself: with {@link #close}.
     *
     * @throws IllegalArgumentException the endpoint's target is no address
     */
    public synchronized void start() {
        if (posts.isEmpty()) {
            throw new IllegalStateException("this worker has no handlers: register one with handle(queue, …)");
        }
        if (lifetime != null) {
            throw new IllegalStateException("this worker was started already: make a new one");
        }
        SubscribeRequest terms = SubscribeRequest.newBuilder()
                .setWorker(name)
                .setHeartbeatInterval(Wire.duration(heartbeatInterval))
                .setResumeGrace(Wire.duration(resumeGrace))
                .build();
        lifetime = new Lifetime(endpoint, terms, posts, stopGrace);
    }

    /** Tells the worker to stop in order, from any thread; does not wait. Calling it twice is fine. */
    public void stop() {
        stop(false);
    }

    /** Tells the worker to stop without the grace: handlers are interrupted at once, and their jobs given back. */
    public void stopNow() {
        stop(true);
    }

    private void stop(boolean now) {
        Lifetime life = lifetime();
        if (life != null) {
            life.stop(now);
        }
    }

    /** Done when the worker has ended; fails with the JobwireException for which it could not go on. */
    public CompletableFuture<Void> ended() {
        Lifetime life = lifetime();
        return life == null ? CompletableFuture.completedFuture(null) : life.ended().copy();
    }

    /**
     * Stops in order, and returns when all is put away. Why a worker could not go on, {@link #ended} and the log say.
     */
    @Override
    public void close() {
        stop();
        try {
            join();
        } catch (JobwireException refused) {
            LOG.log(DEBUG, "ended before it was closed", refused);
        }
    }

    private void join() {
        boolean interrupted = false;
        while (true) {
            try {
                ended().get();
                break;
            } catch (InterruptedException early) {
                // Stops in order all the same, and tells the caller afterwards.
                interrupted = true;
                stop();
            } catch (ExecutionException error) {
                if (error.getCause() instanceof JobwireException refused) {
                    throw refused;
                }
                throw new IllegalStateException("a fault of the client", error.getCause());
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    private synchronized Lifetime lifetime() {
        return lifetime;
    }

    private static String hostAndProcess() {
        String host;
        try {
            host = InetAddress.getLocalHost().getHostName();
        } catch (UnknownHostException unknown) {
            host = "java";
        }
        return host + ":" + ProcessHandle.current().pid();
    }
}
