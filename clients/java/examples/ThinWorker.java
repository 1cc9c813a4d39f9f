import com.google.protobuf.Duration;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.util.Iterator;
import java.util.concurrent.TimeUnit;
import jobwire.v1.AckRequest;
import jobwire.v1.Delivery;
import jobwire.v1.QueueServiceGrpc;
import jobwire.v1.QueueServiceGrpc.QueueServiceBlockingStub;
import jobwire.v1.SubscribeRequest;
import jobwire.v1.SubscribeResponse;

/**
 * Works on the jobs of a queue, one after the other, with the generated stubs alone: TARGET QUEUE.
 *
 * <p>Each event is answered by an Ack, heartbeats too; three of them cover the longest job. What it gives up against
 * jobwire.Worker: it does not resume, so when its connection breaks it ends, and what it ran is run again.
 */
public final class ThinWorker {
    public static void main(String[] arguments) {
        ManagedChannel channel = Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create())
                .keepAliveTime(30, TimeUnit.SECONDS) // finds out that the server is gone
                .build();
        QueueServiceBlockingStub jobwire = QueueServiceGrpc.newBlockingStub(channel);
        SubscribeRequest request = SubscribeRequest.newBuilder()
                .addQueues(arguments[1])
                .setHeartbeatInterval(Duration.newBuilder().setSeconds(60))
                .build();
        String session = "";
        Iterator<SubscribeResponse> events = jobwire.subscribe(request);
        while (events.hasNext()) {
            SubscribeResponse event = events.next();
            session = event.hasOpened() ? event.getOpened().getSessionId() : session;
            AckRequest.Builder ack = AckRequest.newBuilder().setSessionId(session).setLastSequence(event.getSequence());
            for (Delivery job : event.getDeliveries().getDeliveriesList()) {
                ack.addItemsBuilder().setHandle(job.getHandle()).getCompleteBuilder().setOutput(work(job.getData()));
            }
            jobwire.ack(ack.build());
        }
    }

    /** What is done with a job: payload and output are JSON text. */
    private static String work(String data) {
        System.out.println(data);
        return "{\"length\": " + data.length() + "}";
    }
}
