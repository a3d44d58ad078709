// Burns SECONDS of its main thread's CPU time in plain Java. usage: java Truth.java SECONDS
public final class Truth {
    private static long work(long rounds, long seed) {
        long x = seed;
        for (long i = 0; i < rounds; i++) {
            x ^= x << 13;
            x ^= x >>> 7;
            x ^= x << 17;
        }
        return x;
    }

    public static void main(String[] arguments) {
        double seconds = arguments.length > 0 ? Double.parseDouble(arguments[0]) : 10;
        java.lang.management.ThreadMXBean clock = java.lang.management.ManagementFactory.getThreadMXBean();
        long x = 1, calls = 0;
        java.util.ArrayDeque<byte[][]> garbage = new java.util.ArrayDeque<>();
        while (clock.getCurrentThreadCpuTime() < seconds * 1e9) {
            x = work(100_000, x | 1);
            // Some garbage, so that the collector's native threads are seen as well.
            garbage.add(new byte[200][500]);
            if (garbage.size() > 500) garbage.poll();
            calls++;
        }
        System.out.println("{\"calls\":" + calls + ",\"check\":" + (x & 1) + "}");
    }
}
