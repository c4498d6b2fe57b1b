/* SPDX-License-Identifier: Apache-2.0
 * CLOCK_MONOTONIC as a kernel on 64-bit ARM gives it, made of the counter, for programs under an emulator whose
 * counter and clock are not one: in front of libc's, for the library as well. */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

long syscall(long number, ...);

static uint64_t frequency, begin;
static struct timespec start;

static uint64_t counter(void) {
  uint64_t ticks;
  __asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(ticks)::"memory");
  return ticks;
}

__attribute__((constructor)) static void set(void) {
  __asm__("mrs %0, cntfrq_el0" : "=r"(frequency));
  begin = counter();
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &start);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  if (clock != CLOCK_MONOTONIC) return (int)syscall(SYS_clock_gettime, clock, time);
  const uint64_t ticks = counter() - begin;
  const uint64_t ns = ticks % frequency * 1000000000 / frequency + (uint64_t)start.tv_nsec;
  time->tv_sec = start.tv_sec + (time_t)(ticks / frequency + ns / 1000000000);
  time->tv_nsec = (long)(ns % 1000000000);
  return 0;
}
