package jobwire;

import io.grpc.ConnectivityState;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import java.net.URI;
import java.time.Duration;
import java.util.concurrent.Executor;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.function.Supplier;
import java.util.regex.Pattern;
import jobwire.v1.AdminServiceGrpc;
import jobwire.v1.AdminServiceGrpc.AdminServiceBlockingStub;
import jobwire.v1.QueueServiceGrpc;
import jobwire.v1.QueueServiceGrpc.QueueServiceBlockingStub;
import jobwire.v1.QueueServiceGrpc.QueueServiceStub;

/**
 * The channel to Jobwire, which may be left for another one: its settings, its stubs, and calls that are repeated where
 * that helps.
 */
final class Connection {
    private static final Pattern WEB = Pattern.compile("https?:", Pattern.CASE_INSENSITIVE);

    private final String target;
    private final ManagedChannelBuilder<?> builder;
    private final Token token;

    /** Each call that somebody waits for has a permit; who gets all of them knows that there is none. */
    private final Semaphore underWay = new Semaphore(Integer.MAX_VALUE);

    private volatile int line;
    private volatile ManagedChannel channel;
    private volatile QueueServiceBlockingStub blocking;
    private volatile QueueServiceStub async;
    private volatile AdminServiceBlockingStub admin;

    /** For callers that publish and look: calls are spread over all addresses of the name. */
    static Connection forCallers(Endpoint endpoint) {
        return new Connection(endpoint, builder(endpoint, "round_robin"));
    }

    /**
     * For a worker: its Acks share the connection of its streams, and so go to the replica that serves them.
     *
     * @param executor runs everything that gRPC calls back
     */
    static Connection forWorker(Endpoint endpoint, Executor executor) {
        return new Connection(endpoint, builder(endpoint, "pick_first").executor(executor));
    }

    private static ManagedChannelBuilder<?> builder(Endpoint endpoint, String balancing) {
        return Grpc.newChannelBuilder(checked(endpoint.target()), endpoint.credentials())
                .defaultLoadBalancingPolicy(balancing)
                // A connection that died unnoticed is found within 40 s, also while no call is under way: proxies and
                // firewalls forget connections that are idle for a few minutes.
                .keepAliveTime(30, TimeUnit.SECONDS)
                .keepAliveTimeout(10, TimeUnit.SECONDS)
                .keepAliveWithoutCalls(true)
                // A group of deliveries is 1 MiB, but a single job with all that it carries may be larger.
                .maxInboundMessageSize(64 * 1024 * 1024);
    }

    /** Refuses what gRPC would refuse in words of its own, or look for until the time is over. */
    private static String checked(String target) {
        boolean fine = target != null && !target.isEmpty() && !WEB.matcher(target).lookingAt();
        try {
            // Of such a port gRPC says nothing: the thread dies of it in which the name would be looked up.
            fine = fine && URI.create("//" + target.substring(target.lastIndexOf('/') + 1)).getPort() <= 0xFFFF;
        } catch (IllegalArgumentException noAddress) {
            fine = false;
        }
        if (!fine) {
            throw new IllegalArgumentException(
                    "target: host and port, such as 127.0.0.1:50051 or dns:///jobwire:50051, not \"" + target + '"');
        }
        return target;
    }

    private Connection(Endpoint endpoint, ManagedChannelBuilder<?> builder) {
        target = endpoint.target();
        this.builder = builder;
        token = endpoint.token() == null ? null : new Token(endpoint.token());
        open();
    }

    private void open() {
        channel = builder.build();
        blocking = QueueServiceGrpc.newBlockingStub(channel).withCallCredentials(token);
        async = QueueServiceGrpc.newStub(channel).withCallCredentials(token);
        admin = AdminServiceGrpc.newBlockingStub(channel).withCallCredentials(token);
    }

    /** The number of the present channel. */
    int line() {
        return line;
    }

    /**
     * Goes on over a new channel, since the one of this number may be dead without anybody having said so. What is
     * under way over the old one ends as unavailable. If it was left before, by somebody else who shares it, nothing
     * happens.
     */
    void leave(int number) {
        if (number == line) {
            ManagedChannel left = channel;
            line = number + 1;
            open();
            left.shutdownNow();
        }
    }

    /** Host and port. */
    String target() {
        return target;
    }

    /** The stub of calls that answer by callbacks, as seen by the connection's executor. */
    QueueServiceStub async() {
        connectAtOnce();
        return async;
    }

    /** The stub of what operators do; its calls have no deadline yet. */
    AdminServiceBlockingStub admin() {
        return admin;
    }

    /** Makes a call, repeated with growing pauses within {@code timeout}; throws JobwireException. */
    <T> T call(Function<QueueServiceBlockingStub, T> method, Duration timeout) {
        Retrying.Attempts attempts = new Retrying.Attempts(timeout);
        while (true) {
            JobwireException error;
            try {
                return attempt(method, attempts.timeout());
            } catch (JobwireException failure) {
                error = failure;
            }
            sleep(attempts.pauseAfter(error));
        }
    }

    /** Makes a call once; throws JobwireException. */
    <T> T attempt(Function<QueueServiceBlockingStub, T> method, Duration timeout) {
        return attempt(() -> method.apply(blocking.withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS)));
    }

    /** Makes once what is called over this connection, whose deadlines are the caller's; throws JobwireException. */
    <T> T attempt(Supplier<T> calls) {
        connectAtOnce();
        underWay.acquireUninterruptibly();
        try {
            return calls.get();
        } catch (StatusRuntimeException failure) {
            if (Thread.currentThread().isInterrupted()) {
                throw Errors.interrupted(target, failure);
            }
            throw channel.isShutdown() ? Errors.closed(target, failure) : Errors.from(failure, target);
        } finally {
            underWay.release();
        }
    }

    /** Waits between attempts. */
    void sleep(Duration pause) {
        try {
            TimeUnit.NANOSECONDS.sleep(pause.toNanos());
        } catch (InterruptedException interrupted) {
            throw Errors.interrupted(target, interrupted);
        }
    }

    /**
     * Ends gRPC's own pause between attempts to connect, which grows to two minutes and cannot be set: whoever calls
     * has made a pause already. The name is looked up again as well (as often as Java's own cache of names allows).
     */
    private void connectAtOnce() {
        if (channel.getState(false) == ConnectivityState.TRANSIENT_FAILURE) {
            channel.enterIdle();
        }
    }

    /** Closes the channel. Calls that are under way may end for so long; then they are cancelled. */
    void close(Duration patience) {
        channel.shutdown();
        try {
            if (underWay.tryAcquire(Integer.MAX_VALUE, patience.toNanos(), TimeUnit.NANOSECONDS)) {
                underWay.release(Integer.MAX_VALUE);
            }
            channel.shutdownNow();
            // Not until its end: what failed to connect gRPC keeps for 5 s more.
            channel.awaitTermination(1, TimeUnit.SECONDS);
        } catch (InterruptedException interrupted) {
            channel.shutdownNow();
            Thread.currentThread().interrupt();
        }
    }
}
