package jobwire;

/**
 * An exception that says itself what kind of error its job shows, such as a code; others show the name of their class.
 */
public interface TypedError {
    /** The kind, at most 200 characters. */
    String errorType();
}
