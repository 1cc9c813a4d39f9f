package jobwire;

/** Why a job was not stored. */
public enum NotCreatedReason {
    /** It was stored. */
    NONE,
    /** A job of this id is in the queue already, or finished lately. */
    DUPLICATE_ID,
    /** The queue's policy allows no further job of its key now. */
    POLICY,
    /** There was one of its key in this slot of time. */
    THROTTLED,
    /** There is one of its key for the next slot of time already. */
    DEBOUNCED,
    /** There was one of its key lately. */
    NOT_UNIQUE,
    /** A reason that this version of the client does not know. */
    OTHER
}
