/* SPDX-License-Identifier: Apache-2.0
 * Runs the golden vectors through the C interface.  vectors DIRECTORY */
#include <autoglm_reliability.h>
#include <cjson/cJSON.h>
#include <string.h>

#include "check.h"

/* A number, or a string that holds one. */
static long long integer(const cJSON *object, const char *name, long long otherwise) {
  const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);
  if (cJSON_IsString(value)) return strtoll(value->valuestring, NULL, 10);
  return cJSON_IsNumber(value) ? (long long)value->valuedouble : otherwise;
}

static double real(const cJSON *object, const char *name, double otherwise) {
  const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);
  return cJSON_IsNumber(value) ? value->valuedouble : otherwise;
}

static const char *string(const cJSON *object, const char *name) {
  const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);
  return cJSON_IsString(value) ? value->valuestring : "";
}

static cJSON *load(const char *directory, const char *name) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s.json", directory, name);
  FILE *file = fopen(path, "rb");
  if (!file) {
    perror(path);
    exit(EXIT_FAILURE);
  }
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  char *text = malloc((size_t)size + 1);
  size_t got = fread(text, 1, (size_t)size, file);
  text[got] = 0;
  fclose(file);
  cJSON *json = cJSON_Parse(text);
  free(text);
  CHECK(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(json, "cases")) > 0);
  return json;
}

static void run(const char *directory, const char *name, void (*one)(const cJSON *, const char *)) {
  cJSON *json = load(directory, name);
  const cJSON *item;
  int index = 0;
  cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(json, "cases")) {
    char place[256];
    snprintf(place, sizeof place, "%s %d %s", name, index++, string(item, "title"));
    one(item, place);
  }
  cJSON_Delete(json);
}

static void backoff(const cJSON *item, const char *place) {
  const cJSON *fields = cJSON_GetObjectItemCaseSensitive(item, "config");
  agr_backoff_config config;
  agr_backoff_config_init(&config, sizeof config);
  config.strategy = (int32_t)integer(fields, "strategy", config.strategy);
  config.jitter = (int32_t)integer(fields, "jitter", config.jitter);
  config.max_attempts = (uint32_t)integer(fields, "max_attempts", config.max_attempts);
  config.base_delay_ns = integer(fields, "base_delay_ns", config.base_delay_ns);
  config.max_delay_ns = integer(fields, "max_delay_ns", config.max_delay_ns);
  config.min_delay_ns = integer(fields, "min_delay_ns", config.min_delay_ns);
  config.multiplier = real(fields, "multiplier", config.multiplier);
  config.jitter_ratio = real(fields, "jitter_ratio", config.jitter_ratio);
  uint64_t random = strtoull(string(item, "random"), NULL, 16);
  int64_t delay = -1;
  agr_status status =
      agr_backoff_delay(&config, (uint32_t)integer(item, "attempt", 0),
                        integer(item, "previous_ns", 0), random, &delay, NULL);
  CHECK_EQUAL(status, integer(item, "status", 0), place);
  CHECK(llabs(delay - integer(item, "delay_ns", 0)) <= 2);
}

static void hint(const cJSON *item, const char *place) {
  const char *text = string(item, "text");
  int64_t delay = -1;
  agr_status status = agr_hint_parse((int32_t)integer(item, "kind", 0), text, strlen(text),
                                     integer(item, "wall_now_ns", 0), &delay, NULL);
  CHECK_EQUAL(status, integer(item, "status", 0), place);
  CHECK_EQUAL(delay, integer(item, "delay_ns", 0), place);
}

static void classify(const cJSON *item, const char *place) {
  agr_retry_rule rule;
  agr_status status = agr_retry_classify(NULL, (int32_t)integer(item, "domain", 0),
                                         (int32_t)integer(item, "code", 0), &rule, NULL);
  CHECK_EQUAL(status, integer(item, "status", 0), place);
  CHECK_EQUAL(rule.error_class, integer(item, "error_class", 0), place);
  CHECK_EQUAL(rule.max_retries, integer(item, "max_retries", 0), place);
  CHECK_EQUAL(rule.first_delay_ns, integer(item, "first_delay_ns", 0), place);
}

/* Permits by name. */
static struct { char name[16]; uint64_t permit; } saved[64];

static uint64_t *permit(const char *name) {
  int index = 0;
  while (saved[index].name[0] && strcmp(saved[index].name, name) != 0) ++index;
  snprintf(saved[index].name, sizeof saved[index].name, "%s", name);
  return &saved[index].permit;
}

static agr_limiter_config limiter_config(const cJSON *fields) {
  agr_limiter_config config;
  agr_limiter_config_init(&config, sizeof config);
  config.capacity = integer(fields, "capacity", 0);
  config.refill_tokens = integer(fields, "refill_tokens", 0);
  config.refill_interval_ns = integer(fields, "refill_interval_ns", 0);
  config.initial_tokens = integer(fields, "initial_tokens", config.initial_tokens);
  config.max_debt_tokens = integer(fields, "max_debt_tokens", config.max_debt_tokens);
  config.reservation_timeout_ns =
      integer(fields, "reservation_timeout_ns", config.reservation_timeout_ns);
  return config;
}

static void limiter(const cJSON *item, const char *place) {
  agr_limiter_config config = limiter_config(cJSON_GetObjectItemCaseSensitive(item, "config"));
  agr_limiter *limiter = NULL;
  CHECK(agr_limiter_create_at(&config, 0, &limiter, NULL) == AGR_OK);
  memset(saved, 0, sizeof saved);
  const cJSON *op;
  cJSON_ArrayForEach(op, cJSON_GetObjectItemCaseSensitive(item, "ops")) {
    const char *name = string(op, "op");
    int64_t now = integer(op, "now_ns", 0), tokens = integer(op, "tokens", 0), number = 0;
    agr_status status = AGR_OK;
    if (!strcmp(name, "try_acquire")) {
      status = agr_limiter_try_acquire_at(limiter, tokens, now, &number, NULL);
      CHECK_EQUAL(number, integer(op, "retry_after_ns", 0), place);
    } else if (!strcmp(name, "available")) {
      status = agr_limiter_available_at(limiter, now, &number, NULL);
      CHECK_EQUAL(number, tokens, place);
    } else if (!strcmp(name, "reserve")) {
      agr_reservation reservation;
      status = agr_limiter_reserve_at(limiter, tokens, integer(op, "max_wait_ns", 0), now,
                                      &reservation, &number, NULL);
      CHECK_EQUAL(reservation.wait_ns, integer(op, "wait_ns", 0), place);
      CHECK_EQUAL(number, integer(op, "retry_after_ns", 0), place);
      *permit(string(op, "save")) = reservation.permit;
    } else if (!strcmp(name, "cancel")) {
      status = agr_limiter_cancel_at(limiter, *permit(string(op, "permit")), now, NULL);
    } else if (!strcmp(name, "settle")) {
      status = agr_limiter_settle_at(limiter, *permit(string(op, "permit")),
                                     integer(op, "actual_tokens", 0), now, NULL);
    } else {
      CHECK(!strcmp(name, "reconfigure"));
      config = limiter_config(cJSON_GetObjectItemCaseSensitive(op, "config"));
      status = agr_limiter_reconfigure_at(limiter, &config, now, NULL);
    }
    CHECK_EQUAL(status, integer(op, "status", 0), place);
  }
  agr_limiter_destroy(limiter);
}

static agr_breaker_config breaker_config(const cJSON *fields) {
  agr_breaker_config config;
  agr_breaker_config_init(&config, sizeof config);
  config.window = (int32_t)integer(fields, "window", config.window);
  config.window_calls = (uint32_t)integer(fields, "window_calls", config.window_calls);
  config.window_ns = integer(fields, "window_ns", config.window_ns);
  config.minimum_calls = (uint32_t)integer(fields, "minimum_calls", config.minimum_calls);
  config.consecutive_failures = (uint32_t)integer(fields, "consecutive_failures", 0);
  config.half_open_permits = (uint32_t)integer(fields, "half_open_permits", config.half_open_permits);
  config.half_open_successes = (uint32_t)integer(fields, "half_open_successes", 0);
  config.failure_rate = real(fields, "failure_rate", config.failure_rate);
  config.slow_rate = real(fields, "slow_rate", config.slow_rate);
  config.slow_call_ns = integer(fields, "slow_call_ns", config.slow_call_ns);
  config.open_ns = integer(fields, "open_ns", config.open_ns);
  config.open_jitter = real(fields, "open_jitter", config.open_jitter);
  config.permit_timeout_ns = integer(fields, "permit_timeout_ns", config.permit_timeout_ns);
  config.backpressure_fails = (uint32_t)integer(fields, "backpressure_fails", 0);
  config.mode = (int32_t)integer(fields, "mode", config.mode);
  return config;
}

static void breaker(const cJSON *item, const char *place) {
  agr_breaker_config config = breaker_config(cJSON_GetObjectItemCaseSensitive(item, "config"));
  agr_breaker *breaker = NULL;
  CHECK(agr_breaker_create(&config, &breaker, NULL) == AGR_OK);
  memset(saved, 0, sizeof saved);
  const cJSON *op;
  cJSON_ArrayForEach(op, cJSON_GetObjectItemCaseSensitive(item, "ops")) {
    const char *name = string(op, "op");
    int64_t now = integer(op, "now_ns", 0), number = 0;
    if (!strcmp(name, "acquire")) {
      agr_status status =
          agr_breaker_acquire_at(breaker, now, permit(string(op, "save")), &number, NULL);
      CHECK_EQUAL(status, integer(op, "status", 0), place);
      CHECK_EQUAL(number, integer(op, "retry_after_ns", 0), place);
    } else if (!strcmp(name, "report")) {
      agr_status status = agr_breaker_report_at(
          breaker, *permit(string(op, "permit")), (int32_t)integer(op, "outcome", 0),
          integer(op, "latency_ns", 0), now, NULL);
      CHECK_EQUAL(status, integer(op, "status", 0), place);
    } else if (!strcmp(name, "state")) {
      int32_t state = 0;
      CHECK(agr_breaker_state_at(breaker, now, &state, NULL) == AGR_OK);
      CHECK_EQUAL(state, integer(op, "state", 0), place);
    } else {
      CHECK(!strcmp(name, "force"));
      CHECK(agr_breaker_force_at(breaker, (int32_t)integer(op, "mode", 0), now, NULL) == AGR_OK);
    }
  }
  agr_breaker_destroy(breaker);
}

int main(int count, char **arguments) {
  if (count != 2) return EXIT_FAILURE;
  run(arguments[1], "backoff", backoff);
  run(arguments[1], "hints", hint);
  run(arguments[1], "classify", classify);
  run(arguments[1], "limiter", limiter);
  run(arguments[1], "breaker", breaker);
  return finish();
}
