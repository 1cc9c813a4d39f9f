package jobwire;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.function.BooleanSupplier;

/** Futures that are done as soon as something holds; whoever changes what they look at says so. Within the loop. */
final class Waits {
    private record Wait(BooleanSupplier holds, CompletableFuture<Void> done) {}

    private final List<Wait> waits = new ArrayList<>();

    /** A future that is done when {@code holds}, perhaps at once. */
    CompletableFuture<Void> until(BooleanSupplier holds) {
        Wait wait = new Wait(holds, new CompletableFuture<>());
        waits.add(wait);
        look();
        return wait.done();
    }

    /** Something has changed. */
    void look() {
        if (waits.isEmpty()) {
            return;
        }
        List<Wait> over = waits.stream().filter(wait -> wait.holds().getAsBoolean()).toList();
        waits.removeAll(over);
        over.forEach(wait -> wait.done().complete(null));
    }
}
