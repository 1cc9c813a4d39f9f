package jobwire;

import io.grpc.CallCredentials;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.concurrent.Executor;
import java.util.function.Supplier;
import java.util.regex.Pattern;

/**
 * The token that each call carries as metadata, also without TLS: gRPC for Java leaves that to the credentials. No token
 * is in a text that is shown or logged.
 */
final class Token extends CallCredentials {
    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private static final Pattern WORD = Pattern.compile("[\\x21-\\x7e]+");

    private final Supplier<String> token;

    Token(Supplier<String> token) {
        this.token = token;
    }

    /** Returns the token if it can be one. */
    static String checked(String token) {
        if (token == null || !WORD.matcher(token).matches()) {
            throw new IllegalArgumentException("a token must be a word of plain ASCII, without blanks and line ends");
        }
        return token;
    }

    @Override
    public void applyRequestMetadata(RequestInfo call, Executor executor, MetadataApplier applier) {
        Metadata headers = new Metadata();
        try {
            headers.put(AUTHORIZATION, "Bearer " + checked(token.get()));
        } catch (RuntimeException error) {
            applier.fail(Status.UNAUTHENTICATED.withDescription("there is no token to call with: " + error));
            return;
        }
        applier.apply(headers);
    }
}
