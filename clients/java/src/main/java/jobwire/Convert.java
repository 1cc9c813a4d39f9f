package jobwire;

import com.google.protobuf.Timestamp;
import java.time.Instant;
import java.util.Optional;
import java.util.OptionalDouble;
import jobwire.v1.PublishResult;

/** Between messages and the values that callers see: one method for each, and nothing else. */
final class Convert {
    private Convert() {}

    static jobwire.v1.JobOptions options(JobOptions options) {
        jobwire.v1.JobOptions.Builder message = jobwire.v1.JobOptions.newBuilder();
        Optional.ofNullable(options.retryLimit()).ifPresent(message::setRetryLimit);
        Optional.ofNullable(options.retryDelay()).map(Wire::duration).ifPresent(message::setRetryDelay);
        Optional.ofNullable(options.retryBackoff()).ifPresent(message::setRetryBackoff);
        Optional.ofNullable(options.retryDelayMax()).map(Wire::duration).ifPresent(message::setRetryDelayMax);
        Optional.ofNullable(options.expireIn()).map(Wire::duration).ifPresent(message::setExpireIn);
        Optional.ofNullable(options.retention()).map(Wire::duration).ifPresent(message::setRetention);
        Optional.ofNullable(options.deadLetter()).ifPresent(message::setDeadLetter);
        return message.build();
    }

    private static JobOptions options(jobwire.v1.JobOptions message) {
        return new JobOptions(
                message.getRetryLimit(),
                Wire.span(message.getRetryDelay()),
                message.getRetryBackoff(),
                Wire.span(message.getRetryDelayMax()),
                Wire.span(message.getExpireIn()),
                Wire.span(message.getRetention()),
                message.getDeadLetter());
    }

    static Published published(PublishResult result) {
        return new Published(
                result.getJobId(), result.getCreated(), reason(result), result.getMetJobId(), result.getDataDiffers());
    }

    private static NotCreatedReason reason(PublishResult result) {
        return switch (result.getReason()) {
            case NOT_CREATED_REASON_UNSPECIFIED -> NotCreatedReason.NONE;
            case NOT_CREATED_REASON_DUPLICATE_ID -> NotCreatedReason.DUPLICATE_ID;
            case NOT_CREATED_REASON_POLICY -> NotCreatedReason.POLICY;
            case NOT_CREATED_REASON_THROTTLED -> NotCreatedReason.THROTTLED;
            case NOT_CREATED_REASON_DEBOUNCED -> NotCreatedReason.DEBOUNCED;
            case NOT_CREATED_REASON_NOT_UNIQUE -> NotCreatedReason.NOT_UNIQUE;
            case UNRECOGNIZED -> NotCreatedReason.OTHER;
        };
    }

    static JobInfo info(jobwire.v1.Job job) {
        return new JobInfo(
                job.getQueue(),
                job.getId(),
                state(job.getState()),
                Wire.node(job.getData()),
                job.getHeadersMap(),
                job.getPriority(),
                options(job.getOptions()),
                job.getAttempt(),
                job.getRetryCount(),
                job.getLossCount(),
                job.getReleaseCount(),
                job.hasProgress() ? Optional.of(progress(job.getProgress())) : Optional.empty(),
                Wire.node(job.getOutput()),
                Wire.node(job.getCheckpoint()),
                job.getErrorsList().stream().map(Convert::error).toList(),
                Wire.instant(job.getCreateTime()),
                Wire.instant(job.getStartAfter()),
                job.hasStartTime() ? moment(job.getStartTime()) : Optional.empty(),
                job.hasFinishTime() ? moment(job.getFinishTime()) : Optional.empty(),
                job.getWorker(),
                job.getCancelRequested(),
                job.getKey(),
                job.getWaitsFor(),
                job.getRevision());
    }

    private static JobState state(jobwire.v1.JobState state) {
        return switch (state) {
            case JOB_STATE_CREATED -> JobState.CREATED;
            case JOB_STATE_RETRY -> JobState.RETRY;
            case JOB_STATE_ACTIVE -> JobState.ACTIVE;
            case JOB_STATE_COMPLETED -> JobState.COMPLETED;
            case JOB_STATE_CANCELLED -> JobState.CANCELLED;
            case JOB_STATE_FAILED -> JobState.FAILED;
            case JOB_STATE_BLOCKED -> JobState.BLOCKED;
            case JOB_STATE_UNSPECIFIED, UNRECOGNIZED -> JobState.UNKNOWN;
        };
    }

    private static Progress progress(jobwire.v1.Progress progress) {
        OptionalDouble fraction =
                progress.hasFraction() ? OptionalDouble.of(progress.getFraction()) : OptionalDouble.empty();
        return new Progress(fraction, progress.getNote());
    }

    private static JobError error(jobwire.v1.JobError error) {
        return new JobError(
                error.getAttempt(),
                Wire.instant(error.getTime()),
                error.getType(),
                error.getMessage(),
                error.getTrace(),
                error.getWorker());
    }

    private static Optional<Instant> moment(Timestamp timestamp) {
        return Optional.of(Wire.instant(timestamp));
    }
}
