// Burns CPU in plain Java for SECONDS. usage: java Truth.java SECONDS
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
        long start = System.nanoTime(), x = 1, calls = 0;
        java.util.ArrayDeque<byte[]> garbage = new java.util.ArrayDeque<>();
        while (System.nanoTime() - start < seconds * 1e9) {
            x = work(100_000, x | 1);
            // Some garbage, so that the collector's native threads are seen as well.
            garbage.add(new byte[100_000]);
            if (garbage.size() > 200) garbage.poll();
            calls++;
        }
        System.out.println("{\"calls\":" + calls + ",\"check\":" + (x & 1) + "}");
    }
}
