#!/usr/bin/env bash
# Java: the compiler and a program with threads, buffers outside its heap, compression, archives, and code that is compiled while it
# runs: what the virtual machine needs itself is malloc's.
# packages: openjdk-17-jdk-headless
# program: java|javac
set -euo pipefail
cat >Program.java <<'EOF'
import java.io.*;
import java.math.BigInteger;
import java.nio.*;
import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.stream.*;
import java.util.zip.*;

public class Program {
    static byte[] text(int seed, int length) {
        StringBuilder s = new StringBuilder();
        for (long x = seed + 1; s.length() < length; x = x * 16807 % 2147483647) s.append(x % 1000).append(' ');
        return s.toString().getBytes(StandardCharsets.US_ASCII);
    }

    static long compressed(int seed, int length) throws Exception {
        byte[] bytes = text(seed, length), back = new byte[bytes.length];
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        try (GZIPOutputStream z = new GZIPOutputStream(out)) { z.write(bytes); }
        try (GZIPInputStream z = new GZIPInputStream(new ByteArrayInputStream(out.toByteArray()))) {
            if (z.readNBytes(back, 0, back.length) != back.length || !Arrays.equals(bytes, back)) throw new Exception("compression");
        }
        CRC32 crc = new CRC32();
        crc.update(back);
        return crc.getValue();
    }

    static long outside(int seed, int n) {
        ByteBuffer[] buffers = new ByteBuffer[200];
        long sum = 0, x = seed + 1;
        for (int i = 0; i < n; i++) {
            x = x * 16807 % 2147483647;
            int k = (int) (x % buffers.length);
            if (buffers[k] != null) sum += buffers[k].getInt(buffers[k].capacity() - 4);
            buffers[k] = ByteBuffer.allocateDirect(4 + (int) (x % 50000));
            buffers[k].putInt(buffers[k].capacity() - 4, k);
        }
        return sum;
    }

    public static void main(String[] arguments) throws Exception {
        int n = Integer.parseInt(arguments[0]);
        ExecutorService pool = Executors.newFixedThreadPool(8);
        List<Future<Long>> results = new ArrayList<>();
        for (int i = 0; i < 16; i++) {
            int k = i;
            results.add(pool.submit(() -> compressed(k, 20 * n)));
            results.add(pool.submit(() -> outside(k, n / 5)));
        }
        long sum = 0;
        for (Future<Long> r : results) sum = sum * 31 + r.get();
        pool.shutdown();
        System.out.println("threads " + sum);
        Map<String, Integer> words = new TreeMap<>();
        for (String w : new String(text(7, 10 * n)).split(" ")) words.merge(w, 1, Integer::sum);
        System.out.println("words " + words.size() + " " + words.hashCode());
        System.out.println("streams " + IntStream.range(0, n).parallel().mapToObj(i -> "s" + i * 7 % 1013)
            .collect(Collectors.groupingByConcurrent(s -> s, Collectors.counting())).entrySet().stream()
            .mapToLong(e -> e.getKey().hashCode() * e.getValue()).sum());
        BigInteger b = BigInteger.ONE;
        for (int i = 2; i < n / 20; i++) b = b.multiply(BigInteger.valueOf(i));
        System.out.println("numbers " + b.bitLength() + " " + b.toString().hashCode());
        try (ZipOutputStream zip = new ZipOutputStream(new FileOutputStream("a.zip"))) {
            for (int i = 0; i < 100; i++) { zip.putNextEntry(new ZipEntry("e" + i)); zip.write(text(i, 5000)); }
        }
        long crc = 0;
        try (ZipFile zip = new ZipFile("a.zip")) {
            for (ZipEntry e : Collections.list(zip.entries())) crc += e.getCrc() + zip.getInputStream(e).readAllBytes().length;
        }
        System.out.println("archive " + crc);
        List<Thread> threads = new ArrayList<>();
        LongAdder adder = new LongAdder();
        for (int i = 0; i < 300; i++) {
            Thread t = new Thread(() -> adder.add(ByteBuffer.allocateDirect(1000).capacity()));
            t.start();
            threads.add(t);
        }
        for (Thread t : threads) t.join();
        System.out.println("short threads " + adder.sum());
        try { Object o = arguments[5]; } catch (ArrayIndexOutOfBoundsException e) { System.out.println(e.getMessage()); }
    }
}
EOF
n=10000
[ "${1:-}" != brief ] || n=300
javac Program.java
java -Xmx256m -XX:MaxDirectMemorySize=1g -cp . Program "$n"
