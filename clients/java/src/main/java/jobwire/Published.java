package jobwire;

/**
 * What became of one published job.
 *
 * @param jobId the id under which the work is stored: its own, or that of the job that stands in its way
 * @param created whether this call stored it; after a repeated call false is normal, since the first one did
 * @param reason why not, if it did not
 * @param metJobId the job that stands in its way; empty if this one was stored
 * @param dataDiffers whether the job that was there has another payload: most likely an id used twice by mistake
 */
public record Published(
        String jobId, boolean created, NotCreatedReason reason, String metJobId, boolean dataDiffers) {}
