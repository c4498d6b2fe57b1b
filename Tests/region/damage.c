/* SPDX-License-Identifier: Apache-2.0
 * Regions in which somebody writes what no sequence of calls would: before they are opened, and while they are in
 * use. Answers may be wrong then; nothing crashes, hangs, or touches other memory.
 *
 *   test_region_damage [ROUNDS [SEED]] */
#define _GNU_SOURCE
#include <signal.h>

#include "region.h"

enum { BYTES = 1 << 17, SECONDS = 20 };

static uint64_t stream;
static int may_remove;
static int64_t now;

static uint64_t draw(uint64_t limit) {
  uint64_t random = 0;
  agr_random_next(&stream, &random, NULL);
  return random % limit;
}

/* ---- every function on every object ---- */

static struct {
  agr_region *region;
  agr_limiter *limiter;
  agr_keyed_limiter *keyed;
  agr_breaker *count, *time;
  agr_retry_budget *budget;
} its;

static void open_objects(void) {
  agr_limiter_config limiter = limiter_config(1000, 1000);
  const agr_keyed_limiter_config keyed = keyed_config(1000, 1000);
  agr_breaker_config count = breaker_config(), time = count;
  time.window = AGR_WINDOW_TIME;
  const agr_retry_budget_config budget = budget_config();
  agr_limiter_create_in_region_at(its.region, "l", &limiter, now, &its.limiter, &error);
  agr_keyed_limiter_create_in_region(its.region, "k", &keyed, &its.keyed, &error);
  agr_breaker_create_in_region(its.region, "b", &count, &its.count, &error);
  agr_breaker_create_in_region(its.region, "t", &time, &its.time, &error);
  agr_retry_budget_create_in_region_at(its.region, "r", &budget, now, &its.budget, &error);
}

static void destroy_objects(void) {
  agr_limiter_destroy(its.limiter);
  agr_keyed_limiter_destroy(its.keyed);
  agr_breaker_destroy(its.count);
  agr_breaker_destroy(its.time);
  agr_retry_budget_destroy(its.budget);
  its.limiter = NULL;
  its.keyed = NULL;
  its.count = its.time = NULL;
  its.budget = NULL;
}

static void use_breaker(agr_breaker *breaker) {
  for (int i = 0; i < 8; ++i) {
    uint64_t permit = 0, cursor = 0, lost;
    int64_t wait;
    int32_t state;
    agr_breaker_acquire_at(breaker, now, &permit, &wait, &error);
    agr_breaker_report_at(breaker, draw(4) ? permit : draw(UINT64_MAX), 1 + (int32_t)draw(4), 5, now,
                          &error);
    agr_breaker_state_at(breaker, now, &state, &error);
    agr_breaker_snapshot snapshot = {.struct_size = sizeof snapshot};
    agr_breaker_snapshot_read_at(breaker, now, &snapshot, &error);
    agr_breaker_event event = {.struct_size = sizeof event};
    for (int j = 0; j < 100; ++j) {
      if (agr_breaker_next_event(breaker, &cursor, &event, &lost, &error) != AGR_OK) break;
    }
    if (draw(10) == 0) agr_breaker_force_at(breaker, (int32_t)draw(5), now, &error);
    now += (int64_t)draw(10 * SECOND);
  }
}

static void use_limiters(void) {
  agr_reservation held[4] = {{0}};
  int64_t wait, left;
  for (int i = 0; i < 8; ++i) {
    const char key = (char)('a' + draw(8));
    agr_reservation *slot = &held[draw(4)];
    agr_limiter_try_acquire_at(its.limiter, (int64_t)draw(1200), now, &wait, &error);
    agr_limiter_reserve_at(its.limiter, (int64_t)draw(1000), SECOND, now, slot, &wait, &error);
    agr_limiter_settle_at(its.limiter, draw(4) ? slot->permit : draw(UINT64_MAX),
                          (int64_t)draw(2000), now, &error);
    agr_limiter_available_at(its.limiter, now, &left, &error);
    agr_limiter_snapshot seen = {.struct_size = sizeof seen};
    agr_limiter_snapshot_read_at(its.limiter, now, &seen, &error);
    agr_limiter_demand demand = {its.limiter, 1};
    agr_limiter_try_acquire_all_at(&demand, 1, now, NULL, NULL, &error);
    if (draw(4) == 0) {
      const agr_limiter_config config = limiter_config(1000, 1 + (int64_t)draw(1000));
      agr_limiter_reconfigure_at(its.limiter, &config, now, &error);
    }
    agr_keyed_limiter_try_acquire_at(its.keyed, &key, 1, (int64_t)draw(1200), now, &wait, &error);
    agr_keyed_limiter_reserve_at(its.keyed, &key, 1, (int64_t)draw(1000), SECOND, now, slot, &wait,
                                 &error);
    agr_keyed_limiter_settle_at(its.keyed, draw(4) ? slot->permit : draw(UINT64_MAX),
                                (int64_t)draw(2000), now, &error);
    agr_keyed_limiter_available_at(its.keyed, &key, 1, now, &left, &error);
    agr_keyed_limiter_snapshot found = {.struct_size = sizeof found};
    agr_keyed_limiter_snapshot_read_at(its.keyed, now, &found, &error);
    if (draw(4) == 0) {
      const agr_keyed_limiter_config config = keyed_config(1000, 1 + (int64_t)draw(1000));
      agr_keyed_limiter_reconfigure(its.keyed, &config, &error);
    }
    agr_retry_budget_withdraw_at(its.budget, (uint32_t)draw(100), now, &wait, &error);
    agr_retry_budget_deposit_at(its.budget, (uint32_t)draw(100), now, &error);
    agr_retry_budget_balance_at(its.budget, now, &left, &error);
    now += (int64_t)draw(SECOND);
  }
}

static void use_region(void) {
  uint64_t cursor = 0;
  agr_region_object object = {.struct_size = sizeof object};
  for (int i = 0; i < 100; ++i) {
    if (agr_region_next_object(its.region, &cursor, &object, &error) != AGR_OK) break;
    CHECK(memchr(object.name, 0, sizeof object.name) != NULL);
  }
  agr_region_snapshot snapshot = {.struct_size = sizeof snapshot};
  agr_region_snapshot_read(its.region, &snapshot, &error);
  if (may_remove && draw(20) == 0) agr_region_remove(its.region, "l", &error);
}

static void use_all(void) {
  use_limiters();
  use_breaker(its.count);
  use_breaker(its.time);
  use_region();
}

/* ---- damage ---- */

/* The header, the directory, the objects, or all of it. */
static void damage(uint64_t *words, int edits) {
  static const uint64_t zones[][2] = {
      {0, 6}, {512, 440}, {1536, 6000}, {1536, 14848}, {1536, 14848}, {0, BYTES / 8}};
  const uint64_t *zone = zones[draw(sizeof zones / sizeof *zones)];
  while (edits-- > 0) {
    uint64_t *word = &words[zone[0] + draw(zone[1])];
    const uint64_t random = draw(UINT64_MAX);
    switch (draw(9)) {
      case 0: *word = random; break;
      case 1: *word = 0; break;
      case 2: *word = UINT64_MAX; break;
      case 3: *word ^= UINT64_C(1) << draw(64); break;
      case 4: *word = words[draw(BYTES / 8)]; break;
      case 5: *word += random % 16 - 8; break;
      case 6: *word = UINT64_C(1) << draw(64); break;
      case 7: *word = (UINT64_C(1) << draw(64)) - 1; break;
      default: *word = ~*word;
    }
  }
}

static uint64_t *mapped(agr_region *region) {
  int32_t fd = -1;
  CHECK(agr_region_fd(region, &fd, NULL) == AGR_OK);
  void *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  CHECK(memory != MAP_FAILED);
  return memory;
}

/* Images are damaged, then opened, and damaged again in use. */
static void damage_images(int rounds) {
  static uint64_t image[BYTES / 8];
  agr_region_config config;
  agr_region_config_init(&config, sizeof config);
  config.max_objects = 8;
  CHECK(agr_region_open(NULL, BYTES, &config, &its.region, &error) == AGR_OK);
  now = agr_now_ns();
  open_objects();
  CHECK(its.limiter && its.keyed && its.count && its.time && its.budget);
  for (int i = 0; i < 20; ++i) use_all();
  const agr_limiter_config limiter = limiter_config(1000, 1000);
  const agr_keyed_limiter_config keyed = keyed_config(1000, 1000);
  CHECK(agr_limiter_reconfigure_at(its.limiter, &limiter, now, &error) == AGR_OK);
  CHECK(agr_keyed_limiter_reconfigure(its.keyed, &keyed, &error) == AGR_OK);
  destroy_objects();
  may_remove = 1;
  uint64_t *words = mapped(its.region);
  memcpy(image, words, BYTES);
  agr_region *keep = its.region;
  int opened = 0, found = 0;
  for (int round = 0; round < rounds; ++round) {
    alarm(SECONDS);
    memcpy(words, image, BYTES);
    now = agr_now_ns();
    damage(words, 1 + (int)draw(round % 2 ? 4 : 400));
    int32_t fd = -1;
    CHECK(agr_region_fd(keep, &fd, NULL) == AGR_OK);
    its.region = NULL;
    const agr_status status = agr_region_open_fd(fd, NULL, &its.region, &error);
    CHECK(status == AGR_OK || status == AGR_ERR_REGION);
    if (status != AGR_OK) {
      /* The header is to blame; the rest is seen with a good one. */
      memcpy(words, image, 4096);
      if (agr_region_open_fd(fd, NULL, &its.region, &error) != AGR_OK) continue;
    } else {
      ++opened;
    }
    open_objects();
    found += its.limiter != NULL;
    use_all();
    damage(words, (int)draw(100));
    use_all();
    destroy_objects();
    agr_region_close(its.region);
  }
  alarm(0);
  CHECK(opened > 0 && opened < rounds && found > 0 && found < rounds);
  printf("%d images, of which %d were opened; in %d a limiter was found\n", rounds, opened, found);
  agr_region_close(keep);
  munmap(words, BYTES);
}

/* Another process damages a region all the time. */
static void damage_in_use(int rounds) {
  agr_region_config config;
  agr_region_config_init(&config, sizeof config);
  config.max_objects = 8;
  for (int i = 0; i < 10; ++i) {
    CHECK(agr_region_open(NULL, BYTES, &config, &its.region, &error) == AGR_OK);
    now = agr_now_ns();
    open_objects();
    uint64_t *words = mapped(its.region);
    const pid_t pid = fork();
    if (pid == 0) {
      stream = agr_random();
      for (;;) damage(words, 1000);
    }
    alarm(SECONDS);
    for (int j = 0; j < rounds / 10; ++j) use_all();
    alarm(0);
    kill(pid, SIGKILL);
    CHECK(waitpid(pid, NULL, 0) == pid);
    destroy_objects();
    agr_region_close(its.region);
    munmap(words, BYTES);
  }
}

int main(int count, char **arguments) {
  const int rounds = count > 1 ? atoi(arguments[1]) : 3000;
  const uint64_t seed = count > 2 ? strtoull(arguments[2], NULL, 0) : agr_random();
  stream = seed;
  printf("seed %llu\n", (unsigned long long)seed);
  fflush(stdout);
  damage_images(rounds);
  damage_in_use(rounds);
  return finish();
}
