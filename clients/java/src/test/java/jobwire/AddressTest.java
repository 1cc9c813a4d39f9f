package jobwire;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.grpc.Status;
import java.net.UnknownHostException;
import org.junit.jupiter.api.Test;

/** Addresses at which nobody can be; needs no server. */
class AddressTest {
    @Test
    void whatIsNoAddressIsRefusedAtOnce() {
        for (String target : new String[] {null, "", "http://127.0.0.1:50051", "HTTPS://a", "a b:1", "127.0.0.1:65536"}) {
            IllegalArgumentException error = assertThrows(IllegalArgumentException.class, () -> new Client(target));
            assertEquals(
                    "target: host and port, such as 127.0.0.1:50051 or dns:///jobwire:50051, not \"" + target + '"',
                    error.getMessage());
            Worker worker = new Worker(target).handle("mail", 1, job -> null);
            assertThrows(IllegalArgumentException.class, worker::start);
        }
        for (String target : new String[] {"jobwire", "jobwire:1", "dns:///jobwire:65535", "[::1]:50051"}) {
            new Client(target).close();
        }
    }

    @Test
    void aNameThatNobodyKnowsIsCalledSoEachTime() {
        for (String java : new String[] {"jobs.invalid: Name or service not known", "jobs.invalid"}) {
            Status said = Status.UNAVAILABLE
                    .withDescription("Unable to resolve host jobs.invalid")
                    .withCause(new UnknownHostException(java));
            assertEquals(
                    "cannot reach Jobwire at jobs.invalid:1 (Unable to resolve host jobs.invalid):"
                            + " is it running there, and are address and TLS right?",
                    JobwireException.from(said.asRuntimeException(), "jobs.invalid:1").getMessage());
        }
    }
}
