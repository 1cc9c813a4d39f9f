package jobwire;

import java.util.OptionalDouble;

/**
 * What a handler last said of its own work.
 *
 * @param fraction share of the work that is done, 0 to 1; empty if the handler cannot tell
 * @param note a line for people
 */
public record Progress(OptionalDouble fraction, String note) {}
