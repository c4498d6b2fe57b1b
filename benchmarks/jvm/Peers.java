// SPDX-License-Identifier: Apache-2.0

import com.google.common.util.concurrent.RateLimiter;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** Guava's RateLimiter, after a warm-up: rounds of all cases in turn, a line of JSON for each. */
public final class Peers {
  private static final long ROUND_NS = 4_000_000;
  private static final long WARM_NS = 1_000_000_000;
  private static boolean sink;

  private interface Body {
    void run(long operations);
  }

  private static final class Bench {
    final String name;
    final int threads;
    final Body body;
    final List<String> ns = new ArrayList<>();
    long operations = 1000;

    Bench(String name, int threads, Body body) {
      this.name = name;
      this.threads = threads;
      this.body = body;
    }

    double once() throws InterruptedException {
      long start = System.nanoTime();
      if (threads == 1) {
        body.run(operations);
      } else {
        Thread[] workers = new Thread[threads];
        for (int i = 0; i < threads; i++) {
          workers[i] = new Thread(() -> body.run(operations));
          workers[i].start();
        }
        for (Thread worker : workers) worker.join();
      }
      return (double) (System.nanoTime() - start) / operations;
    }
  }

  public static void main(String[] arguments) throws InterruptedException {
    int rounds = arguments.length > 0 ? Integer.parseInt(arguments[0]) : 15;
    // So fast that a permit is always there.
    RateLimiter full = RateLimiter.create(1e12);
    RateLimiter empty = RateLimiter.create(1e-9);
    empty.tryAcquire();
    Body allowed = n -> {
      for (long i = 0; i < n; i++) sink = full.tryAcquire();
    };
    Body refused = n -> {
      for (long i = 0; i < n; i++) sink = empty.tryAcquire();
    };
    List<Bench> benches =
        List.of(
            new Bench("peer.guava.limiter.clock", 1, allowed),
            new Bench("peer.guava.limiter.refused.clock", 1, refused),
            new Bench("peer.guava.limiter.clock.2", 2, allowed));
    for (Bench bench : benches) {
      long end = System.nanoTime() + WARM_NS;
      while (System.nanoTime() < end) bench.once();
      while (bench.once() * bench.operations < ROUND_NS / 2.0) bench.operations *= 2;
    }
    for (int round = 0; round < rounds; round++)
      for (Bench bench : benches) bench.ns.add(String.format(Locale.ROOT, "%.3f", bench.once()));
    for (Bench bench : benches)
      System.out.printf(
          "{\"name\": \"%s\", \"threads\": %d, \"ns\": %s}%n", bench.name, bench.threads, bench.ns);
  }
}
