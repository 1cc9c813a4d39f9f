package jobwire;

import java.time.Instant;

/**
 * One run that failed.
 *
 * @param attempt which delivery failed, counted from 1
 * @param time when, by the database's clock
 * @param type an exception's class, {@code EXPIRED} (time limit), {@code LOST} (its worker was lost), or what the
 *     worker sent
 * @param message what a person should read
 * @param trace a stack trace or other detail
 * @param worker the worker that ran it
 */
public record JobError(int attempt, Instant time, String type, String message, String trace, String worker) {}
