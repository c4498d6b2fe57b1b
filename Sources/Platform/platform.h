/* SPDX-License-Identifier: Apache-2.0
 *
 * What the library asks of the operating system, and nothing else does. Header-only, so that no C
 * object is linked; every function fails by its return value. */
#ifndef AUTOGLM_RELIABILITY_PLATFORM_H
#define AUTOGLM_RELIABILITY_PLATFORM_H

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* Of Linux; the C library declares them only to those who ask for its own extensions. */
#ifndef O_TMPFILE
#define O_TMPFILE __O_TMPFILE
#endif
#ifndef MFD_CLOEXEC
#define MFD_CLOEXEC 1u
#define MFD_ALLOW_SEALING 2u
#endif
#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#define F_SEAL_SEAL 1
#define F_SEAL_SHRINK 2
#define F_SEAL_GROW 4
#endif

#define PLATFORM_CACHE_LINE 64

/* ---- time ---- */

static inline int64_t platform_monotonic_ns(void) {
  struct timespec t;
  if (clock_gettime(CLOCK_MONOTONIC, &t) != 0) return 0;
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* How long the machine was suspended since it was booted, while which CLOCK_MONOTONIC stands still. Exact to what
 * may pass between two readings. */
static inline int64_t platform_suspended_ns(void) {
  struct timespec t;
  int64_t monotonic = platform_monotonic_ns();
  if (clock_gettime(CLOCK_BOOTTIME, &t) != 0) return 0;
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec - monotonic;
}

/* The processor's counter, which goes on at a constant rate, at least once a nanosecond; 0 on a processor without
 * one that is known here. On ARM it ticks at 24 MHz to 1 GHz, and is told in 64ths of a tick. */
static inline uint64_t platform_counter(void) {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t ticks;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
  return ticks << 6;
#else
  return 0;
#endif
}

/* The same, and not read before what the program did before. */
static inline uint64_t platform_counter_ordered(void) {
#if defined(__x86_64__)
  __builtin_ia32_lfence();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");
#endif
  return platform_counter();
}

/* What a system call would say of something that this machine does not have. */
static const int32_t platform_not_supported = ENOTSUP;

/* Whether the kernel itself takes its time from the counter, and lets this process read it. */
static inline int platform_counter_is_trusted(void) {
#if defined(__x86_64__)
  static const char wanted[] = "tsc\n";
  int mode = 0;
  unsigned a, b, c, d;
  if (!__get_cpuid(0x80000007, &a, &b, &c, &d) || !(d & 1u << 8)) return 0;
  if (prctl(PR_GET_TSC, &mode) != 0 || mode != PR_TSC_ENABLE) return 0;
#elif defined(__aarch64__)
  static const char wanted[] = "arch_sys_counter\n";
#else
  static const char wanted[] = "?";
#endif
  char source[sizeof wanted] = "";
  int file = open("/sys/devices/system/clocksource/clocksource0/current_clocksource",
                  O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  ssize_t length = read(file, source, sizeof source);
  close(file);
  return length == (ssize_t)sizeof wanted - 1 && memcmp(source, wanted, sizeof wanted - 1) == 0;
}

/* Sleeps until a CLOCK_MONOTONIC instant; a signal does not shorten it. */
static inline void platform_sleep_until_ns(int64_t deadline_ns) {
  struct timespec t = {.tv_sec = deadline_ns / 1000000000, .tv_nsec = deadline_ns % 1000000000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
  }
}

/* ---- arithmetic ---- */

/* The whole part of a number whose magnitude is below 2^63. */
static inline int64_t platform_truncate(double number) { return (int64_t)number; }

/* 2^t, 0 <= t <= 1023. exp2 itself is of glibc 2.29 where it was compiled with that or a later one. */
static inline double platform_exp2(double t) {
  const double whole = floor(t);
  return ldexp(1 + expm1((t - whole) * 0.693147180559945309417), (int)whole);
}

/* ---- threads ---- */

/* A number that tells the threads of the process apart, never 0: where the thread's control block lies. */
static inline uint64_t platform_thread(void) {
#if defined(__x86_64__)
  uint64_t self;
  __asm__("movq %%fs:0, %0" : "=r"(self));
  return self;
#else
  return (uint64_t)(uintptr_t)__builtin_thread_pointer();
#endif
}

/* ---- memory ---- */

/* Zeroed and aligned to a cache line, or NULL. */
static inline void *platform_allocate(size_t bytes) {
  void *memory = NULL;
  if (bytes == 0 || bytes > (size_t)1 << 46) return NULL;
  size_t whole = (bytes + PLATFORM_CACHE_LINE - 1) & ~(size_t)(PLATFORM_CACHE_LINE - 1);
  if (posix_memalign(&memory, PLATFORM_CACHE_LINE, whole) != 0) return NULL;
  memset(memory, 0, whole);
  return memory;
}

/* For the many small blocks of an engine, whose lifetimes differ: aligned to 16 bytes, which every allocator has at
 * hand, and with anything in it. A wider alignment leaves splinters, which glibc joins in sweeps of milliseconds. */
static inline void *platform_allocate_block(size_t bytes) {
  void *memory = NULL;
  if (bytes == 0 || bytes > (size_t)1 << 46) return NULL;
  return posix_memalign(&memory, 16, bytes) == 0 ? memory : NULL;
}

/* Where nothing lies: for what is laid out only to be measured. */
static inline void *platform_nowhere(void) { return (void *)PLATFORM_CACHE_LINE; }

static inline void platform_free(void *memory) { free(memory); }

/* ---- waiting on a word shared by the threads of this process ---- */

/* Waits while *word == expected, until an absolute CLOCK_MONOTONIC time (INT64_MAX: for ever).
 * Returns 0 when woken or when the value differs, else ETIMEDOUT or EINTR. */
static inline int platform_futex_wait(const void *word, uint32_t expected, int64_t deadline_ns) {
  struct timespec t = {.tv_sec = deadline_ns / 1000000000, .tv_nsec = deadline_ns % 1000000000};
  long r = syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected,
                   deadline_ns == INT64_MAX ? NULL : &t, NULL, FUTEX_BITSET_MATCH_ANY);
  return r == 0 || errno == EAGAIN ? 0 : errno;
}

static inline void platform_futex_wake(const void *word, int32_t count) {
  syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, count, NULL, NULL, 0);
}

/* ---- eventfd ---- */

/* A new eventfd, or -errno. */
static inline int32_t platform_eventfd_create(void) {
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return fd < 0 ? -errno : fd;
}

static inline void platform_eventfd_signal(int32_t fd) {
  uint64_t one = 1;
  ssize_t written;
  do written = write(fd, &one, sizeof one);
  while (written < 0 && errno == EINTR);
}

/* Makes it unreadable again. */
static inline void platform_eventfd_clear(int32_t fd) {
  uint64_t count;
  ssize_t got;
  do got = read(fd, &count, sizeof count);
  while (got < 0 && errno == EINTR);
}

/* Waits until fd is readable, or an absolute CLOCK_MONOTONIC time (INT64_MAX: for ever). */
static inline void platform_wait_readable(int32_t fd, int64_t deadline_ns) {
  struct pollfd entry = {.fd = fd, .events = POLLIN};
  for (;;) {
    int64_t left = deadline_ns - platform_monotonic_ns();
    if (left <= 0) return;
    /* In whole milliseconds, rounded up; a long wait is made of several. */
    int64_t milliseconds = left / 1000000 + 1;
    int ready = poll(&entry, 1, milliseconds > 3600000 ? 3600000 : (int)milliseconds);
    if (ready > 0 || (ready < 0 && errno != EINTR)) return;
  }
}

static inline void platform_close(int32_t fd) { close(fd); }

/* ---- entropy ---- */

/* 64 bits from the kernel. Early in boot, or in a sandbox without the call, the clock and the
 * address space's layout stand in: jitter needs to differ, not to be secret. */
static inline uint64_t platform_entropy(void) {
  uint64_t value = 0;
  ssize_t got;
  do got = getrandom(&value, sizeof value, 0);
  while (got < 0 && errno == EINTR);
  if (got == (ssize_t)sizeof value) return value;
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return ((uint64_t)t.tv_nsec << 32) ^ (uint64_t)t.tv_sec ^ (uint64_t)(uintptr_t)&value ^
         ((uint64_t)getpid() << 16);
}

/* A page of zeros, or NULL. */
static inline void *platform_map_page(void) {
  void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return page == MAP_FAILED ? NULL : page;
}

/* From now on the page is zeros again in every child of fork; 0 where the kernel does not know how to. An
 * emulator that says yes to advice which does not exist has not understood this one either. */
static inline int platform_wipe_on_fork(void *page) {
  return madvise(page, 4096, -1) != 0 && madvise(page, 4096, MADV_WIPEONFORK) == 0;
}

static inline void platform_unmap_page(void *page) { munmap(page, 4096); }

/* ---- memory that processes share ---- */

/* Room for the path of a region, which is at most 63 bytes behind a prefix. */
typedef struct platform_region_path {
  char text[96];
} platform_region_path;

#define PLATFORM_REGION_PREFIX "/dev/shm/agr."

static const int32_t platform_error_exists = EEXIST;
static const int32_t platform_error_missing = ENOENT;

/* A file that nothing can open or map but this process: in /dev/shm, to be linked there once it is complete, or one
 * that has no place for a name at all (memfd). Its descriptor, or -errno. */
static inline int32_t platform_region_new(int32_t is_named) {
  int fd = is_named ? open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)
                    : (int)syscall(SYS_memfd_create, "agr", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  return fd < 0 ? -errno : fd;
}

/* Its size and its permissions. All of it is there from then on: no write to it finds the memory full. 0 or -errno. */
static inline int32_t platform_region_size(int32_t fd, uint64_t bytes, uint32_t mode) {
  int error;
  if (ftruncate(fd, (off_t)bytes) != 0) return -errno;
  do error = posix_fallocate(fd, 0, (off_t)bytes);
  while (error == EINTR);
  if (error != 0) return -error;
  return fchmod(fd, (mode_t)mode) != 0 ? -errno : 0;
}

/* Nobody can cut it from here on. 0 or -errno. */
static inline int32_t platform_region_seal(int32_t fd) {
  return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0 ? -errno : 0;
}

/* Gives a file of platform_region_new a name. 0, -EEXIST, or another -errno. */
static inline int32_t platform_region_link(int32_t fd, const platform_region_path *path) {
  char own[40] = "/proc/self/fd/";
  char digits[12];
  int count = 0, length = 14;
  for (int32_t rest = fd; count == 0 || rest > 0; rest /= 10) digits[count++] = (char)('0' + rest % 10);
  while (count > 0) own[length++] = digits[--count];
  own[length] = 0;
  return linkat(AT_FDCWD, own, AT_FDCWD, path->text, AT_SYMLINK_FOLLOW) != 0 ? -errno : 0;
}

/* The file of a name, never through a link. Its descriptor, or -errno. */
static inline int32_t platform_region_find(const platform_region_path *path) {
  int fd = open(path->text, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  return fd < 0 ? -errno : fd;
}

static inline int32_t platform_region_unlink(const platform_region_path *path) {
  return unlink(path->text) != 0 ? -errno : 0;
}

/* A descriptor of one's own of the same file, or -errno. */
static inline int32_t platform_duplicate(int32_t fd) {
  int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  return own < 0 ? -errno : own;
}

typedef struct platform_region_facts {
  uint64_t bytes;
  uint32_t mode;
  uint32_t owner;
  uint32_t is_file;
  uint32_t reserved;
} platform_region_facts;

/* 0 or -errno. */
static inline int32_t platform_region_look(int32_t fd, platform_region_facts *facts) {
  struct stat status;
  /* The kernel's structure is that of 64-bit glibc, whose own function is of 2.33. */
  if (syscall(SYS_fstat, fd, &status) != 0) return -errno;
  facts->bytes = status.st_size < 0 ? 0 : (uint64_t)status.st_size;
  facts->mode = (uint32_t)status.st_mode & 07777;
  facts->owner = (uint32_t)status.st_uid;
  facts->is_file = S_ISREG(status.st_mode);
  facts->reserved = 0;
  return 0;
}

/* Takes the pages that a file is missing, so that no access to it finds the memory full. 0 or -errno. */
static inline int32_t platform_region_fill(int32_t fd, uint64_t bytes) {
  int error;
  do error = posix_fallocate(fd, 0, (off_t)bytes);
  while (error == EINTR);
  return -error;
}

static inline uint32_t platform_user(void) { return (uint32_t)geteuid(); }

/* Maps a file to be shared; NULL with errno in *error. */
static inline void *platform_map_shared(int32_t fd, uint64_t bytes, int32_t *error) {
  void *memory = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  *error = memory == MAP_FAILED ? errno : 0;
  return memory == MAP_FAILED ? NULL : memory;
}

static inline void platform_unmap(void *memory, uint64_t bytes) { munmap(memory, (size_t)bytes); }

/* ---- fork ---- */

/* 0, or an errno. The handlers go when the library is unloaded. */
static inline int platform_at_fork(void (*before)(void), void (*in_parent)(void),
                                   void (*in_child)(void)) {
  return pthread_atfork(before, in_parent, in_child);
}

#endif
