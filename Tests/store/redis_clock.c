/* SPDX-License-Identifier: Apache-2.0
 * Loaded into a redis-server: its wall clock is off by as many microseconds as a file says. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  static int (*real)(struct timeval *, void *);
  static const volatile int64_t *offset;
  if (!real) {
    *(void **)(void *)&real = dlsym(RTLD_NEXT, "gettimeofday");
    const char *path = getenv("REDIS_CLOCK_OFFSET");
    const int file = path ? open(path, O_RDONLY) : -1;
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) offset = mapped;
  }
  const int result = real(time, zone);
  if (!offset) return result;
  const int64_t now = (int64_t)time->tv_sec * 1000000 + time->tv_usec + *offset;
  time->tv_sec = now / 1000000;
  time->tv_usec = now % 1000000;
  return result;
}
