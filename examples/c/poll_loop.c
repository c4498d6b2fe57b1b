/* SPDX-License-Identifier: Apache-2.0
 *
 * Many guarded calls on one thread: a poll() loop that never blocks anywhere else.
 *
 *   poll_loop http://ADDRESS:PORT/PATH
 *
 * The policy decides and never acts, so its steps drive an event loop as well as a blocking program:
 *   ATTEMPT  a socket in the poll set, until the reply or attempt_timeout_ns
 *   WAIT     a timer of wait_ns
 *   JOIN     the step's eventfd in the poll set: another call is executing the same key
 * Each key is asked for three times at once, which makes one request and two who join it, and once
 * more at the end, when the answer is there already. Exits 0 if that is what happened. */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <autoglm_reliability.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http_attempt.h"

enum { KEYS = 24, AT_ONCE = 3, CALLS = KEYS * (AT_ONCE + 1) };
static const int64_t MS = 1000000;

/* One call and, in an attempt, its connection. */
typedef struct flight {
  agr_call *call;
  agr_step step;
  int64_t due_ns; /* the step goes on at this time, whatever happens */
  int joined;     /* woken by the run of another */
  int key_number;
  char key[16];
  http_attempt http;
} flight;

static struct sockaddr_in server;
static char host[64], path[128];
static agr_policy *policy;
static flight flights[CALLS];
static char answers[KEYS][256];
static int alive, executed, joined, replayed, failed;

static void must(agr_status status, const agr_error *error) {
  if (status == AGR_OK) return;
  fprintf(stderr, "%s: %s: %s\n", agr_status_name(status), error->field, error->message);
  exit(2);
}

/* ---- one call ---- */

static void finish(flight *f) {
  const char *result = f->step.result;
  size_t length = f->step.result_length;
  char *answer = answers[f->key_number];
  if (f->step.reason == AGR_REASON_SUCCEEDED) { /* the one who executed: the reply is in its buffer */
    ++executed;
    snprintf(answer, sizeof answers[0], "%s", http_body(&f->http));
    printf("%-8s executed; attempts: %u\n", f->key, f->step.attempt);
  } else if (f->step.reason == AGR_REASON_REPLAYED && length == strlen(answer) &&
             memcmp(result, answer, length) == 0) {
    ++*(f->joined ? &joined : &replayed);
  } else {
    ++failed;
    printf("%-8s failed: %s\n", f->key, agr_reason_name(f->step.reason));
  }
  agr_call_destroy(f->call); /* its result and its eventfd go with it */
  f->call = NULL;
  --alive;
}

static void follow(flight *f, int64_t now);

static void advance(flight *f, const agr_outcome *outcome, int64_t now) {
  agr_error error;
  must(agr_call_advance_at(f->call, outcome, now, &f->step, &error), &error);
  follow(f, now);
}

/* Sets up what the present step waits for. */
static void follow(flight *f, int64_t now) {
  if (f->step.kind == AGR_STEP_ATTEMPT) {
    agr_outcome outcome;
    agr_outcome_init(&outcome, sizeof outcome);
    outcome.domain = AGR_DOMAIN_ERRNO;
    outcome.code = http_begin(&f->http, &server, host, path, f->key);
    f->due_ns = now + f->step.attempt_timeout_ns;
    if (outcome.code) advance(f, &outcome, now); /* as deep as there are attempts */
  } else if (f->step.kind == AGR_STEP_DONE) {
    finish(f);
  } else {
    f->due_ns = now + f->step.wait_ns;
  }
}

/* What the call waited for has happened, or its time is up. */
static void go_on(flight *f, int ready, int64_t now) {
  if (f->step.kind != AGR_STEP_ATTEMPT) {
    f->joined |= ready; /* an eventfd has told it */
    advance(f, NULL, now);
    return;
  }
  agr_outcome outcome;
  agr_outcome_init(&outcome, sizeof outcome);
  if (!ready)
    outcome.error_class = f->http.sent ? AGR_CLASS_UNKNOWN : AGR_CLASS_TRANSIENT;
  else if (!http_transfer(&f->http, &outcome))
    return;
  close(f->http.fd);
  advance(f, &outcome, now);
}

static void start(flight *f, int key_number) {
  agr_error error;
  agr_request request;
  agr_request_init(&request, sizeof request);
  *f = (flight){.key_number = key_number, .step = {.struct_size = sizeof f->step}};
  request.key = f->key;
  request.key_length = (size_t)snprintf(f->key, sizeof f->key, "poll-%d", key_number);
  int64_t now = agr_now_ns();
  must(agr_call_begin_at(policy, &request, now, &f->call, &f->step, &error), &error);
  ++alive;
  follow(f, now);
}

/* ---- the loop ---- */

/* Runs until no call is alive, which the calls' deadline bounds. */
static void run(void) {
  while (alive > 0) {
    struct pollfd set[CALLS];
    int64_t now = agr_now_ns(), next = now + 60000 * MS;
    for (int i = 0; i < CALLS; ++i) { /* poll passes over a negative fd */
      flight *f = &flights[i];
      set[i] = (struct pollfd){.fd = -1, .events = POLLIN};
      if (!f->call) continue;
      set[i].fd = f->step.fd; /* of a JOIN; of a WAIT it is -1 */
      if (f->step.kind == AGR_STEP_ATTEMPT) {
        set[i].fd = f->http.fd;
        set[i].events = http_wants_to_write(&f->http) ? POLLOUT : POLLIN;
      }
      if (f->due_ns < next) next = f->due_ns;
    }
    int timeout = next > now ? (int)((next - now + MS - 1) / MS) : 0;
    if (poll(set, CALLS, timeout) < 0 && errno != EINTR) exit(2);
    now = agr_now_ns();
    for (int i = 0; i < CALLS; ++i)
      if (flights[i].call && (set[i].revents || now >= flights[i].due_ns))
        go_on(&flights[i], set[i].revents != 0, now);
  }
}

static void make_policy(void) {
  agr_error error;
  agr_idempotency_config caching;
  agr_idempotency_config_init(&caching, sizeof caching);
  agr_idempotency *cache;
  must(agr_idempotency_create(&caching, &cache, &error), &error);
  agr_retry_config retry;
  agr_retry_config_init(&retry, sizeof retry);
  retry.backoff.max_attempts = 4;
  retry.backoff.base_delay_ns = retry.server_delay_spread_ns = 20 * MS;

  agr_policy_config config;
  agr_policy_config_init(&config, sizeof config);
  config.idempotency = cache;
  config.retry = &retry;
  config.total_timeout_ns = 10000 * MS;
  config.attempt_timeout_ns = 1500 * MS;
  must(agr_policy_create(&config, &policy, &error), &error);
  agr_idempotency_destroy(cache); /* the policy holds it */
}

int main(int count, char **arguments) {
  unsigned port = 0;
  if (count != 2 || sscanf(arguments[1], "http://%63[0-9.]:%5u%127s", host, &port, path) != 3 ||
      inet_pton(AF_INET, host, &server.sin_addr) != 1) {
    fprintf(stderr, "usage: poll_loop http://ADDRESS:PORT/PATH\n"); /* a name would block for DNS */
    return 2;
  }
  server.sin_family = AF_INET;
  server.sin_port = htons((uint16_t)port);
  make_policy();
  for (int i = 0; i < KEYS * AT_ONCE; ++i) start(&flights[i], i % KEYS);
  run();
  for (int i = KEYS * AT_ONCE; i < CALLS; ++i) start(&flights[i], i % KEYS);
  run();
  printf("%d executed, %d joined, %d replayed, %d failed\n", executed, joined, replayed, failed);
  agr_policy_destroy(policy);
  return executed == KEYS && joined == KEYS * (AT_ONCE - 1) && replayed == KEYS ? EXIT_SUCCESS
                                                                               : EXIT_FAILURE;
}
