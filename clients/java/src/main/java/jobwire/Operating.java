package jobwire;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.stub.MetadataUtils;
import java.time.Duration;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import jobwire.v1.AdminServiceGrpc.AdminServiceBlockingStub;

/**
 * What an operator does: calls of AdminService, with the errors of this client.
 *
 * <p>The contract says which calls are safe to repeat ({@code idempotency_level}). These are repeated like a publish; any
 * other is made once, and who made it decides what an answer that did not come means.
 */
final class Operating {
    /** A call that is made once may work for a while before it answers: it has no less than this. */
    private static final Duration WORK = Duration.ofSeconds(15);

    private static final Metadata.Key<String> ACTOR =
            Metadata.Key.of("x-jobwire-actor", Metadata.ASCII_STRING_MARSHALLER);

    private final Connection connection;
    private final AdminServiceBlockingStub stub;

    /**
     * @param actor for whom calls are made; empty: the server takes this program's address
     */
    Operating(Connection connection, String actor) {
        this.connection = connection;
        Metadata headers = new Metadata();
        if (!actor.isEmpty()) {
            headers.put(ACTOR, actor.replaceAll("[^\\x20-\\x7e]", "?")); // metadata is ASCII
        }
        stub = connection.admin().withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
    }

    /** Makes a call, repeated within {@code timeout} if the contract says that this is safe; throws JobwireException. */
    <T> T call(Function<AdminServiceBlockingStub, T> method, Duration timeout) {
        Retrying.Attempts attempts = new Retrying.Attempts(timeout);
        while (true) {
            Terms terms = new Terms(attempts.timeout(), timeout.compareTo(WORK) < 0 ? WORK : timeout);
            JobwireException error;
            try {
                return connection.attempt(() -> method.apply(stub.withInterceptors(terms)));
            } catch (JobwireException failure) {
                error = failure;
            }
            if (terms.once) {
                throw Errors.madeOnce(error);
            }
            connection.sleep(attempts.pauseAfter(error));
        }
    }

    /** Gives each call of one attempt its deadline, and sees whether one is among them that is made once. */
    private static final class Terms implements ClientInterceptor {
        private final Duration repeated;
        private final Duration single;
        private boolean once;

        Terms(Duration repeated, Duration single) {
            this.repeated = repeated;
            this.single = single;
        }

        @Override
        public <Q, R> ClientCall<Q, R> interceptCall(MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
            boolean repeatable = method.isSafe() || method.isIdempotent();
            once |= !repeatable;
            long nanos = (repeatable ? repeated : single).toNanos();
            return next.newCall(method, options.withDeadlineAfter(nanos, TimeUnit.NANOSECONDS));
        }
    }
}
