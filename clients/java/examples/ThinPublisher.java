import com.github.f4b6a3.uuid.UuidCreator;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.util.concurrent.TimeUnit;
import jobwire.v1.JobSpec;
import jobwire.v1.PublishRequest;
import jobwire.v1.QueueServiceGrpc;

/**
 * Publishes one job with the generated stubs alone: TARGET QUEUE DATA, and prints its id.
 *
 * <p>The id is made here, so whoever gets no answer may repeat the call. What it gives up against jobwire.Client: calls
 * that are repeated. (JobwireException.from(error, target) says what an error of a stub means.)
 */
public final class ThinPublisher {
    public static void main(String[] arguments) {
        ManagedChannel channel = Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create())
                .build();
        JobSpec job = JobSpec.newBuilder()
                .setId(UuidCreator.getTimeOrderedEpoch().toString())
                .setData(arguments[2])
                .build();
        PublishRequest request =
                PublishRequest.newBuilder().setQueue(arguments[1]).addJobs(job).build();
        String id = QueueServiceGrpc.newBlockingStub(channel)
                .withDeadlineAfter(10, TimeUnit.SECONDS)
                .publish(request)
                .getResults(0)
                .getJobId();
        System.out.println(id);
        channel.shutdown();
    }
}
