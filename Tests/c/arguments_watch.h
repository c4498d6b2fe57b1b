/* SPDX-License-Identifier: Apache-2.0
 * What was being tried: for a check that fails, and for a call that never came back. */
#ifndef ARGUMENTS_WATCH_H
#define ARGUMENTS_WATCH_H

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "arguments_invoke.h"

static _Thread_local char present[512];

static void describe(const struct call *call, const struct change *const *tried, int count) {
  int length = snprintf(present, sizeof present, "%s", call->function->name);
  for (int i = 0; i < count; ++i) {
    const struct change *change = tried[i];
    const uint64_t value =
        change->kind == KIND_STRUCT_SIZE
            ? struct_size(change->index,
                          change->object >= 0 ? call->objects[change->object].structure->size : 0)
            : bad_value(call, change);
    length +=
        snprintf(present + length, sizeof present - (size_t)length, " %s%s%s = %#llx",
                 call->function->parameters[change->parameter].name, change->field ? "->" : "",
                 change->field ? change->field->path : "", (unsigned long long)value);
  }
}

static void on_signal(int number) {
  static const char end[] = ": stopped the process\n";
  if (write(2, present, strlen(present)) < 0 || write(2, end, sizeof end - 1) < 0) _exit(3);
  signal(number, SIG_DFL);
  raise(number);
}

static void watch(void) {
  /* A region of a large size is one that cannot be made. */
  const struct rlimit most = {.rlim_cur = 32 << 20, .rlim_max = RLIM_INFINITY};
  setrlimit(RLIMIT_FSIZE, &most);
  signal(SIGXFSZ, SIG_IGN);
  static char stack[65536];
  const stack_t alternative = {.ss_sp = stack, .ss_size = sizeof stack};
  sigaltstack(&alternative, NULL);
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_NODEFER};
  const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGABRT, SIGFPE, SIGTRAP, SIGALRM};
  for (int i = 0; i < COUNT(signals); ++i) sigaction(signals[i], &action, NULL);
}

#define EXPECT(condition)                                                                    \
  do {                                                                                       \
    ++checks;                                                                                \
    if (!(condition) && ++failures <= 200) {                                                 \
      fprintf(stderr, "%s -> %d \"%.55s\" %.99s: failed: %s\n", present, status,             \
              status < 0 ? error->field : "", status < 0 ? error->message : "", #condition); \
    }                                                                                        \
  } while (0)

/* An error is whole when there is one, and else not written to. */
static inline int is_error_right(const agr_error *error, int32_t status) {
  const char *bytes = (const char *)error;
  if (status < 0) {
    return error->status == status && (error->system_errno != 0) == (status == AGR_ERR_SYSTEM) &&
           memchr(error->field, 0, sizeof error->field) &&
           memchr(error->message, 0, sizeof error->message) && error->message[0] &&
           (error->field[0] || status == AGR_ERR_NO_MEMORY);
  }
  for (size_t i = 0; i < sizeof *error; ++i) {
    if (bytes[i] != FILLER) return 0;
  }
  return 1;
}

#endif
