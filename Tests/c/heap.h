/* SPDX-License-Identifier: Apache-2.0
 * The allocator of the whole program, in front of libc's: it counts, and fails where it is told to.
 * What is defined in a program comes before what is in libc, for the library as well. */
#ifndef HEAP_H
#define HEAP_H

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Blocks and mappings that were taken and not given back. */
static _Atomic long heap_live;
/* Of this thread: requests since heap_watch, and which of them fails; 0: none. */
static _Thread_local long heap_requests, heap_fails_at;

static inline void heap_watch(long fails_at) {
  heap_requests = 0;
  heap_fails_at = fails_at;
}

/* Ends it; says whether a request was made to fail. */
static inline int heap_relent(void) {
  const int failed = heap_fails_at > 0 && heap_requests >= heap_fails_at;
  heap_fails_at = 0;
  return failed;
}

static int heap_fails(void) { return ++heap_requests == heap_fails_at; }

static void *heap_given(void *memory) {
  if (memory) ++heap_live;
  return memory;
}

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void *memory);

static void *heap_refused(void) {
  errno = ENOMEM;
  return NULL;
}

void *malloc(size_t bytes) {
  return heap_fails() ? heap_refused() : heap_given(__libc_malloc(bytes));
}

void *calloc(size_t count, size_t bytes) {
  return heap_fails() ? heap_refused() : heap_given(__libc_calloc(count, bytes));
}

void *realloc(void *memory, size_t bytes) {
  if (heap_fails()) return heap_refused();
  void *given = __libc_realloc(memory, bytes);
  return memory ? given : heap_given(given);
}

void *memalign(size_t alignment, size_t bytes) {
  return heap_fails() ? heap_refused() : heap_given(__libc_memalign(alignment, bytes));
}

void *aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }

int posix_memalign(void **memory, size_t alignment, size_t bytes) {
  void *given = memalign(alignment, bytes);
  if (!given) return ENOMEM;
  *memory = given;
  return 0;
}

void free(void *memory) {
  if (memory) --heap_live;
  __libc_free(memory);
}

void *mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset) {
  if (heap_fails()) return errno = ENOMEM, MAP_FAILED;
  void *mapped = (void *)syscall(SYS_mmap, at, bytes, protection, flags, file, offset);
  if (mapped != MAP_FAILED) ++heap_live;
  return mapped;
}

int munmap(void *mapped, size_t bytes) {
  const int status = (int)syscall(SYS_munmap, mapped, bytes);
  if (status == 0) --heap_live;
  return status;
}

/* Handlers of fork are kept in memory of libc's own; that it has none left is told by this. */
int __register_atfork(void (*before)(void), void (*in_parent)(void), void (*in_child)(void),
                      void *library) {
  static int (*next)(void (*)(void), void (*)(void), void (*)(void), void *);
  if (heap_fails()) return ENOMEM;
  if (!next) *(void **)&next = dlsym(RTLD_NEXT, "__register_atfork");
  return next(before, in_parent, in_child, library);
}

#endif
