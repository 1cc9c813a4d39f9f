package jobwire;

import java.time.Duration;

/** The pauses that a handler may ask for. */
final class Pauses {
    private static final Duration LONGEST = Duration.ofDays(7);

    private Pauses() {}

    /** Returns the pause if the server would take it. */
    static Duration checked(Duration pause) {
        if (pause.isNegative() || pause.compareTo(LONGEST) > 0) {
            throw new IllegalArgumentException("a pause of " + pause + ": it must be 0 s to 7 days");
        }
        return pause;
    }
}
