package jobwire;

import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Proxy;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;

/**
 * SIGTERM and SIGINT, taken from the JVM while a worker runs.
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

    private final Map<String, Object> before = new HashMap<>();

    /** Takes the signals; {@code onSignal} gets the name of each that comes, in a thread of the JVM. */
    Signals(Consumer<String> onSignal) {
        for (String name : NAMES) {
            before.put(name, set(name, handler(onSignal)));
        }
    }

    /** Gives them back. */
    void giveBack() {
        before.forEach(Signals::set);
    }

    private static Object handler(Consumer<String> onSignal) {
        InvocationHandler handle = (proxy, method, arguments) -> switch (method.getName()) {
            case "handle" -> {
                onSignal.accept("SIG" + arguments[0].getClass().getMethod("getName").invoke(arguments[0]));
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
