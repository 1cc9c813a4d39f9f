package jobwire;

import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import jobwire.v1.SessionOpened;

/**
 * What a session is to the server, as far as the worker knows: identity, terms, signs of life. No I/O.
 *
 * <p>All times are of {@code System.nanoTime}. {@code held} are the deliveries whose settling Ack has not been
 * answered; nothing else may be named in a resume.
 */
final class Standing {
    /** How long the first event of a stream may take. */
    private static final long OPENING_TIME = Duration.ofSeconds(10).toNanos();

    /** Credits that nobody names. */
    private static final int UNSURE = -1;

    /** The session; empty if there is none. */
    String id = "";

    /** The number of the last Subscribe that was made for it. */
    long epoch;

    /** The last event received on the present stream. */
    long lastSequence;

    /** The credits that the server was told of last; {@link #UNSURE} if it may have heard others since. */
    int toldCredits;

    /** The job ids of the deliveries that the session holds, by handle. */
    final Map<String, String> held = new LinkedHashMap<>();

    private long grace;
    private boolean opened;
    private boolean patient;
    private long lastEvent = System.nanoTime();
    private long lastSign = lastEvent;

    /** A new Subscribe is about to be made. */
    void subscribing(int credits) {
        lastSequence = 0;
        toldCredits = credits;
        opened = false;
        lastEvent = System.nanoTime();
        if (!id.isEmpty()) {
            epoch++;
        }
    }

    /** The stream is open under these terms. */
    void opened(SessionOpened terms) {
        id = terms.getSessionId();
        epoch = Math.max(epoch, terms.getEpoch());
        long heartbeat = Wire.span(terms.getHeartbeatInterval()).toNanos();
        grace = Math.max(Wire.span(terms.getResumeGrace()).toNanos(), 3 * heartbeat);
        opened = true;
    }

    /**
     * An Ack of that session and epoch has named credits. It may have counted though it was not answered; and one that
     * a resume has overtaken may have counted before or after that.
     */
    void told(String session, long of, int credits, boolean answered) {
        if (session.equals(id)) {
            toldCredits = answered && of == epoch ? credits : UNSURE;
        }
    }

    /** Whether the last Subscribe has been answered: until then it may overrule what is said of credits. */
    boolean open() {
        return !id.isEmpty() && opened;
    }

    /** The server goes away, and waits so long for a resume. */
    void draining(Duration resumeWithin) {
        grace = resumeWithin.toNanos();
    }

    /** An event arrived. */
    void event(long sequence) {
        lastSequence = sequence;
        lastEvent = System.nanoTime();
        if (opened) {
            patient = false;
        }
        sign();
    }

    /** The server gave a sign of life. */
    void sign() {
        lastSign = System.nanoTime();
    }

    /** The stream was given up since it brought nothing. */
    void fellSilent() {
        patient = true;
    }

    /** The session is over. */
    void lost() {
        id = "";
        epoch = 0;
        lastSequence = 0;
        held.clear();
    }

    /**
     * How long the stream may still bring nothing before it is given up, and its connection with it.
     *
     * <p>Half of the grace that holds: what is left then of {@link #signLeft} is for the resume, of which handlers
     * notice nothing. A stream that follows a silent one has all that time, or a delivery that takes so long on a slow
     * line would never arrive.
     */
    long streamLeft() {
        long patience = !opened ? OPENING_TIME : patient ? silence() : grace / 2;
        return lastEvent + patience - System.nanoTime();
    }

    /** How long nothing may still be heard of the server at all before handlers are stopped. */
    long signLeft() {
        return lastSign + silence() - System.nanoTime();
    }

    private long silence() {
        return grace / 3 * 2;
    }
}
