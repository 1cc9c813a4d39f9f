package jobwire;

/** Why a handler is told to stop. */
public enum StopReason {
    /** Somebody cancelled the job. */
    REQUESTED,
    /** Its time limit is over. */
    EXPIRED,
    /** The server gave the job to somebody else, or to nobody. */
    LEASE_LOST,
    /** Nothing was heard from the server for so long that it may have done so. */
    SILENCE,
    /** The worker stops. */
    STOPPING
}
