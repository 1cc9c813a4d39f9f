package jobwire;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import jobwire.v1.AdminServiceGrpc.AdminServiceBlockingStub;
import jobwire.v1.GetJobRequest;
import jobwire.v1.JobSpec;
import jobwire.v1.PublishRequest;

/**
 * Publishes jobs, looks at them, waits for them, and does what operators do; share one among all threads.
 *
 * <p>The connection is made with the first call, and again whenever it breaks. A call is repeated within the client's
 * timeout where that helps; every method throws {@link JobwireException}. If the calling thread is interrupted, a call
 * ends with the code CANCELLED, and the thread stays interrupted.
 */
public final class Client implements AutoCloseable {
    private final Connection connection;
    private final Operating operating;
    private final Duration timeout;

    /** Without TLS and token, and with a timeout of 10 s; {@code target} is host and port. */
    public Client(String target) {
        this(Endpoint.of(target));
    }

    /** With a timeout of 10 s. */
    public Client(Endpoint endpoint) {
        this(endpoint, Duration.ofSeconds(10));
    }

    /**
     * @param endpoint where Jobwire is
     * @param timeout for each call, repetitions and pauses included
     * @throws IllegalArgumentException the endpoint's target is no address
     */
    public Client(Endpoint endpoint, Duration timeout) {
        this.connection = Connection.forCallers(endpoint);
        this.operating = new Operating(connection, endpoint.actor());
        this.timeout = Wire.bounded(timeout);
    }

    /**
     * Stores one job. When this returns, it is on disk, or {@code created} is false and {@code reason} says why.
     *
     * @param queue the queue
     * @param job a {@link NewJob}, or just its payload: what Jackson writes as JSON
     * @throws JobwireException.InvalidArgument a field breaks a rule; nothing was stored
     * @throws JobwireException.NotFound the queue does not exist, and the server does not make queues by itself
     * @throws JobwireException.Overloaded no room for it within the timeout; nothing was stored
     * @throws JobwireException.QueueFull the same, in this queue
     * @throws JobwireException.Unavailable not within the timeout; the job may be stored, and publishing the same
     *     NewJob again is safe
     * @throws JobwireException.DeadlineExceeded the same
     */
    public Published publish(String queue, Object job) {
        return publishMany(queue, List.of(job instanceof NewJob ready ? ready : new NewJob(job)))
                .get(0);
    }

    /**
     * Stores many jobs of one queue in their order; the results are in that order too.
     *
     * <p>Up to 1,000 jobs and 3 MiB travel in one call and are stored all or none. A longer list is split, and atomic
     * only per call: if this throws, the calls before are stored. Repeating it with the same NewJob objects is safe,
     * and completes the rest. All jobs are checked for what cannot travel before the first is sent.
     *
     * <p>Throws as {@link #publish}; the timeout is for each call.
     */
    public List<Published> publishMany(String queue, Iterable<NewJob> jobs) {
        List<Published> published = new ArrayList<>();
        for (PublishRequest request : calls(queue, jobs)) {
            connection
                    .call(stub -> stub.publish(request), timeout)
                    .getResultsList()
                    .forEach(result -> published.add(Convert.published(result)));
        }
        return published;
    }

    /** The calls that publish many jobs, each as full as it may be. */
    private static List<PublishRequest> calls(String queue, Iterable<NewJob> jobs) {
        List<PublishRequest> calls = new ArrayList<>();
        PublishRequest.Builder call = PublishRequest.newBuilder().setQueue(queue);
        int size = 0;
        for (NewJob job : jobs) {
            JobSpec spec = job.spec();
            int more = spec.getSerializedSize() + 5; // with its tag and length
            boolean full = call.getJobsCount() == Wire.MAX_CALL_ITEMS || size + more > Wire.MAX_CALL_BYTES;
            if (full && call.getJobsCount() > 0) {
                calls.add(call.build());
                call.clearJobs();
                size = 0;
            }
            call.addJobs(spec);
            size += more;
        }
        if (call.getJobsCount() > 0) {
            calls.add(call.build());
        }
        return calls;
    }

    /**
     * Returns a job as it is now, live or finished.
     *
     * @param queue its queue; empty searches all, and the newest job of the id counts
     * @param jobId its id
     * @throws JobwireException.NotFound there is no such job, or its retention is over
     */
    public JobInfo getJob(String queue, String jobId) {
        GetJobRequest request =
                GetJobRequest.newBuilder().setQueue(queue).setJobId(jobId).build();
        return Convert.info(
                connection.call(stub -> stub.getJob(request), timeout).getJob());
    }

    /**
     * Waits until a job is finished, and returns it. How it finished is in its {@code state}.
     *
     * <p>Waits by long polls, and goes on by itself after the server restarts or the network fails.
     *
     * @param queue its queue; empty searches all
     * @param jobId its id
     * @param within how long to wait; {@code ChronoUnit.FOREVER.getDuration()} is for ever
     * @throws JobwireException.DeadlineExceeded not finished within that time
     * @throws JobwireException.NotFound there is no such job
     */
    public JobInfo waitFor(String queue, String jobId, Duration within) {
        return new Following(connection, queue, jobId).toTheEnd(Wire.bounded(within));
    }

    /**
     * Makes a call of AdminService, what an operator does, over this client's connection:
     * {@code client.admin(admin -> admin.cancelJobs(request))}.
     *
     * <p>Calls that the contract calls idempotent are repeated as the others of this client. {@code changeJobs}, {@code
     * updateJobs}, {@code purgeQueue}, {@code deleteQueue}, {@code redriveJobs} and {@code unblockKeys} are made once, with
     * the client's timeout or 15 s, whichever is longer; if their answer does not come, {@code listActions} says what was
     * done.
     *
     * @param call makes one call with the stub that it is given, and may be asked to make it again
     * @throws JobwireException.InvalidArgument a field breaks a rule
     * @throws JobwireException.NotFound there is no such queue, schedule or session
     * @throws JobwireException.Unavailable not within the timeout; the call may have taken effect
     */
    public <T> T admin(Function<AdminServiceBlockingStub, T> call) {
        return operating.call(call, timeout);
    }

    /**
     * Lets calls that are under way end within the timeout, and closes the connection. What is asked later fails with
     * FAILED_PRECONDITION {@code CLOSED}. Closing twice is fine.
     */
    @Override
    public void close() {
        connection.close(timeout);
    }
}
