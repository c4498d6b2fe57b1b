/* SPDX-License-Identifier: Apache-2.0
 * What a process pays to have the library: nanoseconds for dlopen alone, and with the first object made.
 *
 *   load LIBRARY */
#include <autoglm_reliability.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int main(int count, char **arguments) {
  if (count != 2) return 2;
  (void)now();
  const int64_t start = now();
  void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
  const int64_t opened = now();
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  void (*init)(agr_limiter_config *, uint32_t) = NULL;
  agr_status (*create)(const agr_limiter_config *, agr_limiter **, agr_error *) = NULL;
  void *symbols[] = {dlsym(library, "agr_limiter_config_init"), dlsym(library, "agr_limiter_create")};
  /* A library without them is the floor: the linker's own time. */
  if (symbols[0] && symbols[1]) {
    memcpy(&init, &symbols[0], sizeof init);
    memcpy(&create, &symbols[1], sizeof create);
    agr_limiter_config config;
    agr_limiter *limiter;
    init(&config, sizeof config);
    config.capacity = 1;
    config.refill_tokens = 1;
    if (create(&config, &limiter, NULL) != AGR_OK) return 1;
  }
  printf("%lld %lld\n", (long long)(opened - start), (long long)(now() - start));
  return 0;
}
