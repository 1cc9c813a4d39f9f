package jobwire;

import io.grpc.ChannelCredentials;
import io.grpc.InsecureChannelCredentials;
import io.grpc.TlsChannelCredentials;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.function.Supplier;

/**
 * Where Jobwire is and how it is spoken to: an address, and if need be TLS and a token.
 *
 * <p>{@code Endpoint.of("jobs.example.org:50051").withTls().withToken(token)}; each method returns a new Endpoint.
 */
public final class Endpoint {
    private final String target;
    private final ChannelCredentials credentials;
    private final Supplier<String> token;
    private final String actor;

    private Endpoint(String target, ChannelCredentials credentials, Supplier<String> token, String actor) {
        this.target = target;
        this.credentials = credentials;
        this.token = token;
        this.actor = actor;
    }

    /**
     * Without encryption and token.
     *
     * @param target host and port; all addresses of a name are used
     */
    public static Endpoint of(String target) {
        return new Endpoint(target, InsecureChannelCredentials.create(), null, "");
    }

    /** With TLS, trusting the authorities that Java trusts. */
    public Endpoint withTls() {
        return withCredentials(TlsChannelCredentials.create());
    }

    /**
     * With TLS, trusting the certificates of a PEM file.
     *
     * @throws UncheckedIOException the file cannot be read
     */
    public Endpoint withTls(Path caFile) {
        try {
            return withCredentials(
                    TlsChannelCredentials.newBuilder().trustManager(caFile.toFile()).build());
        } catch (IOException error) {
            throw new UncheckedIOException("cannot read " + caFile, error);
        }
    }

    /** With credentials of gRPC's own, such as those with a certificate of the client. */
    public Endpoint withCredentials(ChannelCredentials credentials) {
        return new Endpoint(target, credentials, token, actor);
    }

    /**
     * With a token, which goes with every call. Without TLS whoever sees the network can read it.
     *
     * @throws IllegalArgumentException it can be none
     */
    public Endpoint withToken(String token) {
        Token.checked(token);
        return withToken(() -> token);
    }

    /** With a token that changes: asked before each call for the one that is valid now, it should answer at once. */
    public Endpoint withToken(Supplier<String> token) {
        return new Endpoint(target, credentials, token, actor);
    }

    /** With the name of who operates, for the record of what operators do. */
    public Endpoint withActor(String actor) {
        return new Endpoint(target, credentials, token, actor);
    }

    /** Host and port. */
    public String target() {
        return target;
    }

    ChannelCredentials credentials() {
        return credentials;
    }

    /** Null: none. */
    Supplier<String> token() {
        return token;
    }

    /** Empty: none was said. */
    String actor() {
        return actor;
    }

    /** The address alone: a token is for nobody to read. */
    @Override
    public String toString() {
        return target;
    }
}
