/* SPDX-License-Identifier: Apache-2.0
 *
 * Thousands of guarded calls at a time on one thread: libcurl's multi interface and epoll make the attempts, the
 * steps of a policy say when.
 *
 *   curl_multi URL [CALLS [AT_ONCE]]
 *
 * Each call is a POST with an Idempotency-Key, which stays the same for all its attempts. An ATTEMPT is a transfer, a
 * WAIT is a place in a heap of timers, and epoll waits for the sockets and for the earlier of libcurl's timer and the
 * heap's. Nothing else blocks, and nothing is allocated for a call but by libcurl. Ends with a line of what came of the
 * calls, how many a second, and how long they took; exits 0 if all succeeded. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "curl_outcome.h"

enum { MOST_AT_ONCE = 20000, MOST_CALLS = 10000000 };
static const int64_t MS = 1000000;

/* One call and, in an attempt, its transfer. */
typedef struct flight {
  CURL *curl;
  struct curl_slist *headers;
  agr_call *call;
  agr_step step;
  int64_t began_ns, due_ns, server_delay_ns;
  char key[32];
} flight;

static const char *url;
static int calls, begun, at_once, succeeded, failed;
static agr_policy *policy;
static CURLM *multi;
static int epoll;
static int64_t curl_due_ns = INT64_MAX;
static flight *flights;
static int64_t *latencies;

static void must(agr_status status, const agr_error *error) {
  if (status == AGR_OK) return;
  fprintf(stderr, "%s: %s: %s\n", agr_status_name(status), error->field, error->message);
  exit(2);
}

static void *some(size_t count, size_t size) {
  void *memory = calloc(count, size);
  if (!memory) exit(2);
  return memory;
}

/* ---- timers: a heap of the calls that wait ---- */

static flight **heap;
static int heap_count;

static void push(flight *one) {
  int place = heap_count++;
  for (; place > 0 && heap[(place - 1) / 2]->due_ns > one->due_ns; place = (place - 1) / 2)
    heap[place] = heap[(place - 1) / 2];
  heap[place] = one;
}

static flight *pop(void) {
  flight *first = heap[0], *last = heap[--heap_count];
  int place = 0;
  for (int child; (child = 2 * place + 1) < heap_count; place = child) {
    if (child + 1 < heap_count && heap[child + 1]->due_ns < heap[child]->due_ns) ++child;
    if (heap[child]->due_ns >= last->due_ns) break;
    heap[place] = heap[child];
  }
  heap[place] = last;
  return first;
}

/* ---- one call ---- */

static void start(flight *one);

static void finish(flight *one) {
  const int good = one->step.reason == AGR_REASON_SUCCEEDED;
  if (good)
    latencies[succeeded++] = agr_now_ns() - one->began_ns;
  else if (++failed <= 10)
    printf("%s: %s (%s) after %u attempts\n", one->key, agr_reason_name(one->step.reason),
           agr_component_name(one->step.component), one->step.attempt);
  agr_call_destroy(one->call);
  one->call = NULL;
}

/* Sets going what the present step asks for. */
static void follow(flight *one) {
  switch (one->step.kind) {
    case AGR_STEP_ATTEMPT:
      one->server_delay_ns = -1;
      curl_easy_setopt(one->curl, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(one->step.connect_timeout_ns));
      curl_easy_setopt(one->curl, CURLOPT_TIMEOUT_MS, milliseconds(one->step.attempt_timeout_ns));
      if (curl_multi_add_handle(multi, one->curl) != CURLM_OK) exit(2);
      break;
    case AGR_STEP_WAIT:
      one->due_ns = agr_now_ns() + one->step.wait_ns;
      push(one);
      break;
    default: finish(one);
  }
}

static void advance(flight *one, const agr_outcome *outcome) {
  agr_error error;
  must(agr_call_advance(one->call, outcome, &one->step, &error), &error);
  follow(one);
}

static void begin(flight *one) {
  agr_error error;
  agr_request request;
  agr_request_init(&request, sizeof request);
  const int length = snprintf(one->key, sizeof one->key, "multi-%d", begun++);
  char header[64];
  snprintf(header, sizeof header, "Idempotency-Key: %s", one->key);
  curl_slist_free_all(one->headers);
  one->headers = curl_slist_append(NULL, header);
  curl_easy_setopt(one->curl, CURLOPT_HTTPHEADER, one->headers);
  request.key = request.trace_id = one->key;
  request.key_length = request.trace_id_length = (size_t)length;
  one->began_ns = agr_now_ns();
  one->step.struct_size = sizeof one->step;
  must(agr_call_begin(policy, &request, &one->call, &one->step, &error), &error);
  follow(one);
}

/* Begins calls in this place until one has something to wait for: a call may be refused at once. */
static void start(flight *one) {
  while (!one->call && begun < calls) begin(one);
}

/* ---- libcurl ---- */

static size_t on_header(char *line, size_t size, size_t count, void *context) {
  read_hint(line, size * count, &((flight *)context)->server_delay_ns);
  return size * count;
}

static size_t on_body(char *data, size_t size, size_t count, void *context) {
  (void)data, (void)context; /* a program would keep it */
  return size * count;
}

static int on_socket(CURL *curl, curl_socket_t socket, int what, void *context, void *known) {
  (void)curl, (void)context;
  struct epoll_event event = {.data.fd = socket};
  if (what == CURL_POLL_REMOVE) {
    epoll_ctl(epoll, EPOLL_CTL_DEL, socket, NULL);
    return 0;
  }
  event.events = (what & CURL_POLL_IN ? EPOLLIN : 0u) | (what & CURL_POLL_OUT ? EPOLLOUT : 0u);
  if (epoll_ctl(epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, socket, &event) != 0) return -1;
  curl_multi_assign(multi, socket, multi); /* anything but NULL: epoll knows it */
  return 0;
}

static int on_timer(CURLM *handle, long ms, void *context) {
  (void)handle, (void)context;
  curl_due_ns = ms < 0 ? INT64_MAX : agr_now_ns() + ms * MS;
  return 0;
}

static void prepare(flight *one) {
  one->curl = curl_easy_init();
  if (!one->curl) exit(2);
  curl_easy_setopt(one->curl, CURLOPT_PRIVATE, one);
  curl_easy_setopt(one->curl, CURLOPT_URL, url);
  curl_easy_setopt(one->curl, CURLOPT_POSTFIELDS, "one two three");
  curl_easy_setopt(one->curl, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(one->curl, CURLOPT_HEADERDATA, one);
  curl_easy_setopt(one->curl, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(one->curl, CURLOPT_NOSIGNAL, 1L);
}

/* Transfers that have ended: each is an outcome. */
static void collect(void) {
  CURLMsg *message;
  int left;
  while ((message = curl_multi_info_read(multi, &left))) {
    if (message->msg != CURLMSG_DONE) continue;
    flight *one = NULL;
    agr_outcome outcome;
    agr_outcome_init(&outcome, sizeof outcome);
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)(void *)&one);
    describe(one->curl, message->data.result, &outcome);
    outcome.server_delay_ns = one->server_delay_ns;
    curl_multi_remove_handle(multi, one->curl);
    advance(one, &outcome);
    start(one);
  }
}

static int alive(void) { return begun - succeeded - failed; }

static void run(void) {
  for (int i = 0; i < at_once; ++i) start(&flights[i]);
  while (alive() > 0) {
    struct epoll_event events[256];
    const int64_t now = agr_now_ns();
    const int64_t timer = heap_count > 0 && heap[0]->due_ns < curl_due_ns ? heap[0]->due_ns : curl_due_ns;
    const int64_t wait = timer <= now ? 0 : timer - now > 1000 * MS ? 1000 : (timer - now + MS - 1) / MS;
    const int count = epoll_wait(epoll, events, 256, (int)wait);
    int running;
    for (int i = 0; i < count; ++i) {
      const uint32_t seen = events[i].events;
      const int what = (seen & EPOLLIN ? CURL_CSELECT_IN : 0) | (seen & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                       (seen & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
      curl_multi_socket_action(multi, events[i].data.fd, what, &running);
    }
    if (agr_now_ns() >= curl_due_ns) {
      curl_due_ns = INT64_MAX;
      curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    collect();
    while (heap_count > 0 && heap[0]->due_ns <= agr_now_ns()) {
      flight *one = pop();
      advance(one, NULL);
      start(one);
    }
  }
}

/* ---- the policy, and the report ---- */

static void make_policy(void) {
  agr_error error;
  agr_retry_config retry;
  agr_retry_config_init(&retry, sizeof retry);
  retry.backoff.max_attempts = 5;
  retry.backoff.base_delay_ns = retry.server_delay_spread_ns = 20 * MS;
  agr_retry_budget_config saving;
  agr_retry_budget_config_init(&saving, sizeof saving);
  agr_retry_budget *budget;
  must(agr_retry_budget_create(&saving, &budget, &error), &error);
  agr_breaker_config breaking;
  agr_breaker_config_init(&breaking, sizeof breaking);
  agr_breaker *breaker;
  must(agr_breaker_create(&breaking, &breaker, &error), &error);
  agr_policy_config config;
  agr_policy_config_init(&config, sizeof config);
  config.retry = &retry;
  config.budget = budget;
  config.breaker = breaker;
  config.max_calls = (uint32_t)at_once;
  config.total_timeout_ns = 30000 * MS;
  config.attempt_timeout_ns = 10000 * MS;
  must(agr_policy_create(&config, &policy, &error), &error);
  agr_breaker_destroy(breaker); /* the policy holds them */
  agr_retry_budget_destroy(budget);
}

static int by_time(const void *one, const void *other) {
  const int64_t a = *(const int64_t *)one, b = *(const int64_t *)other;
  return (a > b) - (a < b);
}

static void report(int64_t elapsed_ns) {
  agr_error error;
  agr_policy_snapshot seen = {.struct_size = sizeof seen};
  must(agr_policy_snapshot_read(policy, &seen, &error), &error);
  qsort(latencies, (size_t)succeeded, sizeof *latencies, by_time);
  printf("%d succeeded, %d failed; %llu attempts, %llu of them retries; %.0f calls/s; p50 %.1f ms, p99 %.1f ms\n",
         succeeded, failed, (unsigned long long)seen.attempts, (unsigned long long)seen.retries,
         calls / (elapsed_ns / 1e9), succeeded ? latencies[succeeded / 2] / 1e6 : 0,
         succeeded ? latencies[(int64_t)succeeded * 99 / 100] / 1e6 : 0);
}

int main(int count, char **arguments) {
  calls = count > 2 ? atoi(arguments[2]) : 1000;
  at_once = count > 3 ? atoi(arguments[3]) : 100;
  if (count < 2 || count > 4 || calls < 1 || calls > MOST_CALLS || at_once < 1 || at_once > MOST_AT_ONCE) {
    fprintf(stderr, "usage: curl_multi URL [CALLS, 1 ... %d [AT_ONCE, 1 ... %d]]\n", MOST_CALLS, MOST_AT_ONCE);
    return 2;
  }
  url = arguments[1];
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files); /* a connection is a file */
  curl_global_init(CURL_GLOBAL_DEFAULT);
  multi = curl_multi_init();
  epoll = epoll_create1(EPOLL_CLOEXEC);
  if (!multi || epoll < 0) return 2;
  flights = some((size_t)at_once, sizeof *flights);
  heap = some((size_t)at_once, sizeof *heap);
  latencies = some((size_t)calls, sizeof *latencies);
  curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket);
  curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timer);
  curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)at_once);
  make_policy();
  for (int i = 0; i < at_once; ++i) prepare(&flights[i]);
  const int64_t begin_ns = agr_now_ns();
  run();
  report(agr_now_ns() - begin_ns);
  for (int i = 0; i < at_once; ++i) {
    curl_easy_cleanup(flights[i].curl);
    curl_slist_free_all(flights[i].headers);
  }
  curl_multi_cleanup(multi);
  close(epoll);
  agr_policy_destroy(policy);
  curl_global_cleanup();
  free(flights), free(heap), free(latencies);
  return succeeded == calls ? EXIT_SUCCESS : EXIT_FAILURE;
}
