/* SPDX-License-Identifier: Apache-2.0
 * The C client: libcurl and threads. It sends its share of the traffic, naively or guarded.
 *
 *   client naive|guarded PORT START SCHEDULE OUTPUT
 *
 * SCHEDULE has a line a request: id, seconds after START (CLOCK_MONOTONIC), tokens. OUTPUT gets a JSON
 * object a line. */
#define _POSIX_C_SOURCE 200809L
#include <autoglm_reliability.h>
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { THREADS = 192, MAX_REQUESTS = 20000, ATTEMPT_TIMEOUT_MS = 1000 };
#define MS INT64_C(1000000)

typedef struct { char id[24]; double when; int tokens; } request;

static request requests[MAX_REQUESTS];
static int request_count;
static atomic_int next_request;
static atomic_bool finished;
static int64_t start_ns;
static char url[64];
static FILE *output;
static pthread_mutex_t output_lock = PTHREAD_MUTEX_INITIALIZER;

static agr_policy *policy; /* NULL: naive */
static agr_breaker *breaker;
static agr_limiter *limiter;

static double age(void) { return (double)(agr_now_ns() - start_ns) / 1e9; }

static void sleep_ns(int64_t ns) {
  struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
  while (ns > 0 && nanosleep(&t, &t) == -1 && errno == EINTR) {
  }
}

/* ---- one attempt ---- */

typedef struct { CURL *curl; const request *request; int attempts; int64_t hint_ns; } exchange;

static size_t ignore(char *data, size_t size, size_t count, void *unused) {
  (void)data, (void)unused;
  return size * count;
}

static size_t read_header(char *line, size_t size, size_t count, void *data) {
  static const char name[] = "retry-after:";
  size_t length = size * count, skip = sizeof name - 1;
  exchange *state = data;
  int64_t delay;
  while (length > 0 && (line[length - 1] == '\r' || line[length - 1] == '\n')) --length;
  if (length > skip && curl_strnequal(line, name, skip) &&
      agr_hint_parse(AGR_HINT_RETRY_AFTER, line + skip, length - skip, (int64_t)time(NULL) * 1000000000,
                     &delay, NULL) == AGR_OK)
    state->hint_ns = delay;
  return size * count;
}

/* Sends the request once; returns the HTTP status, or 0 with the reason in *code. */
static long send_once(exchange *state, const char *key, int64_t connect_ms, int64_t total_ms,
                      CURLcode *code) {
  char body[64], id[64], idempotency[64];
  snprintf(body, sizeof body, "{\"model\":\"demo\",\"max_tokens\":%d}", state->request->tokens);
  snprintf(id, sizeof id, "X-Request-Id: %s", state->request->id);
  struct curl_slist *headers = curl_slist_append(NULL, id);
  if (key) {
    snprintf(idempotency, sizeof idempotency, "Idempotency-Key: %s", key);
    headers = curl_slist_append(headers, idempotency);
  }
  state->hint_ns = -1;
  ++state->attempts;
  curl_easy_setopt(state->curl, CURLOPT_URL, url);
  curl_easy_setopt(state->curl, CURLOPT_POSTFIELDS, body);
  curl_easy_setopt(state->curl, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(state->curl, CURLOPT_WRITEFUNCTION, ignore);
  curl_easy_setopt(state->curl, CURLOPT_HEADERFUNCTION, read_header);
  curl_easy_setopt(state->curl, CURLOPT_HEADERDATA, state);
  curl_easy_setopt(state->curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(state->curl, CURLOPT_FORBID_REUSE, 1L);
  curl_easy_setopt(state->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)connect_ms);
  curl_easy_setopt(state->curl, CURLOPT_TIMEOUT_MS, (long)total_ms);
  long status = 0;
  *code = curl_easy_perform(state->curl);
  if (*code == CURLE_OK) curl_easy_getinfo(state->curl, CURLINFO_RESPONSE_CODE, &status);
  curl_slist_free_all(headers);
  return status;
}

/* ---- naive: five tries, a tenth of a second apart ---- */

static int naive(exchange *state) {
  for (int attempt = 0; attempt < 5; ++attempt) {
    CURLcode code;
    if (send_once(state, NULL, ATTEMPT_TIMEOUT_MS, ATTEMPT_TIMEOUT_MS, &code) == 200) return 1;
    sleep_ns(100 * MS);
  }
  return 0;
}

/* ---- guarded ---- */

static void attempt(const agr_step *step, agr_outcome *outcome, void *data) {
  exchange *state = data;
  CURLcode code;
  long status = send_once(state, state->request->id, step->connect_timeout_ns / MS + 1,
                          step->attempt_timeout_ns / MS + 1, &code);
  if (status != 0) {
    outcome->domain = AGR_DOMAIN_HTTP;
    outcome->code = (int32_t)status;
    outcome->server_delay_ns = state->hint_ns;
  } else if (code == CURLE_COULDNT_CONNECT) {
    outcome->domain = AGR_DOMAIN_ERRNO;
    outcome->code = ECONNREFUSED;
  } else {
    outcome->error_class = AGR_CLASS_UNKNOWN; /* sent, and no reply */
  }
}

static int guarded(exchange *state, const char **refused) {
  agr_request call;
  agr_request_init(&call, sizeof call);
  /* The server knows a repeated request by its key, so that an unknown outcome may be retried. */
  call.key = state->request->id;
  call.key_length = strlen(state->request->id);
  call.trace_id = state->request->id;
  call.trace_id_length = strlen(state->request->id);
  agr_step step = {.struct_size = sizeof step};
  agr_error error;
  if (agr_policy_execute(policy, &call, attempt, state, NULL, &step, &error) != AGR_OK) {
    fprintf(stderr, "%s: %s\n", error.field, error.message);
    return 0;
  }
  if (step.reason == AGR_REASON_OPEN || step.reason == AGR_REASON_LIMITED ||
      step.reason == AGR_REASON_DEADLINE || step.reason == AGR_REASON_BUDGET_EXHAUSTED)
    *refused = agr_reason_name(step.reason);
  return step.reason == AGR_REASON_SUCCEEDED;
}

static int build(void) {
  agr_error error;
  agr_breaker_config breaking;
  agr_breaker_config_init(&breaking, sizeof breaking);
  breaking.window_calls = 20;
  breaking.minimum_calls = 10;
  breaking.open_ns = 500 * MS;
  breaking.open_max_ns = 1000 * MS;
  breaking.half_open_permits = 2;
  agr_limiter_config limiting;
  agr_limiter_config_init(&limiting, sizeof limiting);
  limiting.capacity = 20;
  limiting.refill_tokens = 60;
  agr_retry_budget_config budgeting;
  agr_retry_budget_config_init(&budgeting, sizeof budgeting);
  budgeting.ratio = 0.5;
  budgeting.min_per_second = 20;
  budgeting.quota = budgeting.initial = 200;
  agr_retry_config retrying;
  agr_retry_config_init(&retrying, sizeof retrying);
  retrying.backoff.max_attempts = 10;
  retrying.backoff.base_delay_ns = 200 * MS;
  retrying.backoff.max_delay_ns = 2000 * MS;
  retrying.backoff.jitter = AGR_JITTER_EQUAL;
  retrying.server_delay_spread_ns = 1000 * MS;
  agr_policy_config composing;
  agr_policy_config_init(&composing, sizeof composing);
  agr_retry_budget *budget = NULL;
  int good = agr_breaker_create(&breaking, &breaker, &error) == AGR_OK &&
             agr_limiter_create(&limiting, &limiter, &error) == AGR_OK &&
             agr_retry_budget_create(&budgeting, &budget, &error) == AGR_OK;
  composing.breaker = breaker;
  composing.limiters[0] = limiter;
  composing.limiter_count = 1;
  composing.budget = budget;
  composing.retry = &retrying;
  composing.retry_when_open = 1;
  composing.max_limiter_wait_ns = 5000 * MS;
  composing.total_timeout_ns = 9000 * MS;
  composing.attempt_timeout_ns = ATTEMPT_TIMEOUT_MS * MS;
  good = good && agr_policy_create(&composing, &policy, &error) == AGR_OK;
  if (!good) fprintf(stderr, "%s: %s\n", error.field, error.message);
  agr_retry_budget_destroy(budget); /* the policy holds it */
  return good;
}

/* ---- the traffic ---- */

static void *work(void *unused) {
  (void)unused;
  exchange state = {.curl = curl_easy_init()};
  for (int index; (index = next_request++) < request_count;) {
    state.request = &requests[index];
    state.attempts = 0;
    sleep_ns(start_ns + (int64_t)(state.request->when * 1e9) - agr_now_ns());
    double began = age();
    const char *refused = NULL;
    int ok = policy ? guarded(&state, &refused) : naive(&state);
    pthread_mutex_lock(&output_lock);
    fprintf(output, "{\"id\":\"%s\",\"start\":%.3f,\"end\":%.3f,\"ok\":%s,\"attempts\":%d", state.request->id,
            began, age(), ok ? "true" : "false", state.attempts);
    if (refused) fprintf(output, ",\"refused\":\"%s\"", refused);
    fputs("}\n", output);
    pthread_mutex_unlock(&output_lock);
  }
  curl_easy_cleanup(state.curl);
  return NULL;
}

/* Writes down the breaker and the tokens ten times a second. */
static void *sample(void *unused) {
  static const char *const names[] = {"", "CLOSED", "OPEN", "HALF_OPEN"};
  (void)unused;
  while (!finished) {
    int32_t state = 0;
    int64_t tokens = 0;
    sleep_ns(100 * MS);
    if (!policy || agr_breaker_state(breaker, &state, NULL) != AGR_OK ||
        agr_limiter_available(limiter, &tokens, NULL) != AGR_OK)
      continue;
    pthread_mutex_lock(&output_lock);
    fprintf(output, "{\"sample\":%.3f,\"breaker\":\"%s\",\"tokens\":%lld}\n", age(), names[state],
            (long long)tokens);
    pthread_mutex_unlock(&output_lock);
  }
  return NULL;
}

int main(int count, char **arguments) {
  if (count != 6) return EXIT_FAILURE;
  snprintf(url, sizeof url, "http://127.0.0.1:%s/v1/chat/completions", arguments[2]);
  start_ns = (int64_t)(strtod(arguments[3], NULL) * 1e9);
  FILE *schedule = fopen(arguments[4], "r");
  output = fopen(arguments[5], "w");
  if (!schedule || !output || curl_global_init(CURL_GLOBAL_ALL) != 0) return EXIT_FAILURE;
  while (request_count < MAX_REQUESTS &&
         fscanf(schedule, "%23s %lf %d", requests[request_count].id, &requests[request_count].when,
                &requests[request_count].tokens) == 3)
    ++request_count;
  fclose(schedule);
  if (strcmp(arguments[1], "guarded") == 0 && !build()) return EXIT_FAILURE;

  pthread_t threads[THREADS], sampler;
  int started = 0;
  pthread_create(&sampler, NULL, sample, NULL);
  while (started < THREADS && pthread_create(&threads[started], NULL, work, NULL) == 0) ++started;
  for (int i = 0; i < started; ++i) pthread_join(threads[i], NULL);
  finished = 1;
  pthread_join(sampler, NULL);
  fclose(output);
  agr_policy_destroy(policy);
  agr_limiter_destroy(limiter);
  agr_breaker_destroy(breaker);
  curl_global_cleanup();
  return EXIT_SUCCESS;
}
