package jobwire;

import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Proxy;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;

/**
 * SIGTERM and SIGINT, taken from the JVM while workers run.
 *
 * <p>Without that the JVM would begin to end at once: shutdown hooks would close connection pools and loggers under the
 * hands of handlers that still finish, a second signal would be ignored, and the exit code be 143. With it the worker
 * stops in order first, {@code main} returns, and the program ends like any other that is done, with 0 and its hooks.
 *
 * <p>Java has no public way to do this. {@code sun.misc.Signal} is in every JDK (module {@code jdk.unsupported}, which
 * Netty and protobuf need as well), but javac warns of its name and no annotation quiets it; hence by reflection.
 */
final class Signals {
    private static final List<String> NAMES = List.of("TERM", "INT");

    /** Who is told, and by whom it was handled before the first came; both guarded by this class. */
    private static final List<Consumer<String>> TAKERS = new ArrayList<>();

    private static final Map<String, Object> BEFORE = new HashMap<>();

    private final Consumer<String> onSignal;

    /**
     * Takes the signals; {@code onSignal} gets the name of each that comes, in a thread of the JVM. A signal is for all
     * who have taken it.
     */
    Signals(Consumer<String> onSignal) {
        this.onSignal = onSignal;
        synchronized (Signals.class) {
            if (TAKERS.isEmpty()) {
                NAMES.forEach(name -> BEFORE.put(name, set(name, handler())));
            }
            TAKERS.add(onSignal);
        }
    }

    /** Gives them back, with the last that has taken them. */
    void giveBack() {
        synchronized (Signals.class) {
            TAKERS.remove(onSignal);
            if (TAKERS.isEmpty()) {
                BEFORE.forEach(Signals::set);
            }
        }
    }

    private static void tell(String signal) {
        List<Consumer<String>> takers;
        synchronized (Signals.class) {
            takers = List.copyOf(TAKERS);
        }
        takers.forEach(taker -> taker.accept(signal));
    }

    private static Object handler() {
        InvocationHandler handle = (proxy, method, arguments) -> switch (method.getName()) {
            case "handle" -> {
                tell("SIG" + arguments[0].getClass().getMethod("getName").invoke(arguments[0]));
                yield null;
            }
            case "equals" -> proxy == arguments[0];
            case "hashCode" -> System.identityHashCode(proxy);
            default -> "jobwire.Signals";
        };
        return Proxy.newProxyInstance(Signals.class.getClassLoader(), new Class<?>[] {type("SignalHandler")}, handle);
    }

    /** Sets the handler of a signal, and returns the one before. */
    private static Object set(String name, Object handler) {
        try {
            Class<?> signal = type("Signal");
            return signal.getMethod("handle", signal, type("SignalHandler"))
                    .invoke(null, signal.getConstructor(String.class).newInstance(name), handler);
        } catch (ReflectiveOperationException error) {
            throw new IllegalStateException(
                    "SIG" + name + " cannot be handled in this JVM (was it started with -Xrs?):"
                            + " use start() and close() instead of run()",
                    error);
        }
    }

    private static Class<?> type(String name) {
        try {
            return Class.forName("sun.misc." + name);
        } catch (ClassNotFoundException error) {
            throw new IllegalStateException("this Java runtime lacks the module jdk.unsupported", error);
        }
    }
}
