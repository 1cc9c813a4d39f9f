package jobwire;

/** Where a job stands. */
public enum JobState {
    /** A state that this version of the client does not know. */
    UNKNOWN,
    /** Waits for its first delivery. */
    CREATED,
    /** Waits for another delivery. */
    RETRY,
    /** Is with a worker. */
    ACTIVE,
    /** Its handler returned. */
    COMPLETED,
    /** Somebody cancelled it. */
    CANCELLED,
    /** Out of retries, failed for good, or given up as a poison job. */
    FAILED,
    /** Waits for something other than time. */
    BLOCKED;

    /** Whether nothing more will happen to the job. */
    public boolean finished() {
        return this == COMPLETED || this == CANCELLED || this == FAILED;
    }
}
