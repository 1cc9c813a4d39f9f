package jobwire;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What is made of errors that are broken themselves; no server is needed. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class OutcomeTest {
    private static final class Endless extends RuntimeException {
        private static final long serialVersionUID = 1;

        @Override
        public String getMessage() {
            return getMessage() + "!";
        }
    }

    @Test
    void anErrorWhoseTextBreaksIsAFailureAllTheSame() {
        Outcome.Failed failed = assertInstanceOf(Outcome.Failed.class, Outcome.thrown(new Endless(), false));
        assertEquals("Endless", failed.type());
        assertTrue(failed.message().contains("StackOverflowError"), failed.message());
    }

    @Test
    void causesThatGoInACircleAreLookedAtOnce() {
        IOException first = new IOException("first");
        IOException second = new IOException("second", first);
        first.initCause(second);
        assertInstanceOf(Outcome.Failed.class, Outcome.thrown(first, true));
        InterruptedException told = new InterruptedException();
        told.initCause(first);
        assertInstanceOf(Outcome.Stopped.class, Outcome.thrown(told, true));
    }
}
