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
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { KEYS = 24, AT_ONCE = 3, CALLS = KEYS * (AT_ONCE + 1) };
static const int64_t MS = 1000000;

/* One call and, in an attempt, its connection. */
typedef struct flight {
  agr_call *call;
  agr_step step;
  int64_t due_ns; /* the step goes on at this time, whatever happens */
  int fd;         /* of the attempt, else -1 */
  int joined;
  int key_number;
  char key[16], request[256], reply[2048];
  size_t request_length, sent, received;
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

/* ---- one attempt: HTTP/1.1 over a socket that does not block ---- */

/* Begins an attempt. Returns an errno, 0 if it is under way. */
static int open_connection(flight *f) {
  f->sent = f->received = 0;
  f->request_length = (size_t)snprintf(
      f->request, sizeof f->request,
      "POST %s HTTP/1.1\r\nHost: %s\r\nIdempotency-Key: %s\r\nConnection: close\r\n"
      "Content-Length: 2\r\n\r\n{}", path, host, f->key);
  f->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (f->fd < 0) return errno;
  fcntl(f->fd, F_SETFL, O_NONBLOCK);
  if (connect(f->fd, (struct sockaddr *)&server, sizeof server) == 0 || errno == EINPROGRESS) return 0;
  return errno;
}

static void close_connection(flight *f) {
  if (f->fd >= 0) close(f->fd);
  f->fd = -1;
}

/* Reads a whole reply; anything less means that the connection was lost. Of HTTP/1.1 it knows what
 * this needs: a Content-Length, and no chunks. */
static void read_reply(flight *f, agr_outcome *outcome) {
  size_t length = SIZE_MAX;
  f->reply[f->received] = '\0';
  outcome->domain = AGR_DOMAIN_ERRNO;
  outcome->code = ECONNRESET;
  char *body = strstr(f->reply, "\r\n\r\n"), *line = strstr(f->reply, "\r\n");
  if (!body || strncmp(f->reply, "HTTP/1.", 7) != 0) return;
  for (body += 4; line + 2 < body - 2; line = strstr(line + 2, "\r\n")) {
    char *name = line + 2, *end = strstr(name, "\r\n"), *value = strchr(name, ':');
    if (!value || value > end) continue;
    ++value;
    int32_t kind = strncasecmp(name, "retry-after:", 12) == 0      ? AGR_HINT_RETRY_AFTER
                   : strncasecmp(name, "retry-after-ms:", 15) == 0 ? AGR_HINT_RETRY_AFTER_MS
                                                                   : 0;
    int64_t delay_ns, wall_ns = (int64_t)time(NULL) * 1000 * MS;
    if (strncasecmp(name, "content-length:", 15) == 0) length = strtoul(value, NULL, 10);
    if (kind && agr_hint_parse(kind, value, (size_t)(end - value), wall_ns, &delay_ns, NULL) == AGR_OK &&
        (kind == AGR_HINT_RETRY_AFTER_MS || outcome->server_delay_ns < 0))
      outcome->server_delay_ns = delay_ns; /* the header in milliseconds is the more exact one */
  }
  if (length != f->received - (size_t)(body - f->reply)) return;
  outcome->domain = AGR_DOMAIN_HTTP;
  outcome->code = (int32_t)strtol(f->reply + 9, NULL, 10);
  outcome->result = body; /* kept by the policy for those who joined */
  outcome->result_length = length;
}

/* Does what the socket is ready for. Returns 1 when the attempt has ended, with its outcome. */
static int transfer(flight *f, agr_outcome *outcome) {
  outcome->domain = AGR_DOMAIN_ERRNO;
  if (f->sent < f->request_length) {
    socklen_t size = sizeof outcome->code;
    getsockopt(f->fd, SOL_SOCKET, SO_ERROR, &outcome->code, &size); /* a connect that failed */
    if (outcome->code) return 1;
    ssize_t n = send(f->fd, f->request + f->sent, f->request_length - f->sent, MSG_NOSIGNAL);
    if (n > 0) f->sent += (size_t)n;
    outcome->code = errno;
    return n < 0 && errno != EAGAIN && errno != EINTR;
  }
  ssize_t n = recv(f->fd, f->reply + f->received, sizeof f->reply - 1 - f->received, 0);
  if (n > 0) {
    f->received += (size_t)n;
    return 0;
  }
  outcome->code = errno;
  if (n == 0) read_reply(f, outcome);
  return n == 0 || (errno != EAGAIN && errno != EINTR);
}

/* ---- one call ---- */

static void finish(flight *f) {
  const char *result = f->step.result;
  size_t length = f->step.result_length;
  char *answer = answers[f->key_number];
  if (f->step.reason == AGR_REASON_SUCCEEDED) { /* the one who executed: the reply is in its buffer */
    ++executed;
    snprintf(answer, sizeof answers[0], "%s", strstr(f->reply, "\r\n\r\n") + 4);
    printf("%-8s executed, %u attempts\n", f->key, f->step.attempt);
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

/* Sets up what the present step waits for. An attempt that fails at once leads to the next step. */
static void follow(flight *f, int64_t now) {
  agr_error error;
  while (f->step.kind == AGR_STEP_ATTEMPT) {
    f->due_ns = now + f->step.attempt_timeout_ns;
    int failure = open_connection(f);
    if (failure == 0) return;
    close_connection(f);
    agr_outcome outcome;
    agr_outcome_init(&outcome, sizeof outcome);
    outcome.domain = AGR_DOMAIN_ERRNO;
    outcome.code = failure;
    must(agr_call_advance_at(f->call, &outcome, now, &f->step, &error), &error);
  }
  if (f->step.kind == AGR_STEP_DONE) {
    finish(f);
    return;
  }
  f->joined |= f->step.kind == AGR_STEP_JOIN;
  f->due_ns = now + f->step.wait_ns;
}

/* Something has happened that the call waited for. */
static void go_on(flight *f, int64_t now) {
  agr_error error;
  if (f->step.kind == AGR_STEP_ATTEMPT) {
    agr_outcome outcome;
    agr_outcome_init(&outcome, sizeof outcome);
    if (now >= f->due_ns)
      outcome.error_class = f->sent ? AGR_CLASS_UNKNOWN : AGR_CLASS_TRANSIENT; /* timed out */
    else if (!transfer(f, &outcome))
      return;
    close_connection(f);
    must(agr_call_advance_at(f->call, &outcome, now, &f->step, &error), &error);
  } else {
    must(agr_call_advance_at(f->call, NULL, now, &f->step, &error), &error);
  }
  follow(f, now);
}

static void start(flight *f, int key_number) {
  agr_error error;
  agr_request request;
  agr_request_init(&request, sizeof request);
  *f = (flight){.fd = -1, .key_number = key_number, .step = {.struct_size = sizeof f->step}};
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
      set[i].fd = f->step.kind == AGR_STEP_ATTEMPT ? f->fd : f->step.fd;
      if (f->step.kind == AGR_STEP_ATTEMPT && f->sent < f->request_length) set[i].events = POLLOUT;
      if (f->due_ns < next) next = f->due_ns;
    }
    int timeout = next > now ? (int)((next - now + MS - 1) / MS) : 0;
    if (poll(set, CALLS, timeout) < 0 && errno != EINTR) exit(2);
    now = agr_now_ns();
    for (int i = 0; i < CALLS; ++i)
      if (flights[i].call && (set[i].revents || now >= flights[i].due_ns)) go_on(&flights[i], now);
  }
}

static void make_policy(void) {
  agr_error error;
  agr_idempotency_config caching;
  agr_idempotency_config_init(&caching, sizeof caching);
  agr_idempotency *cache;
  must(agr_idempotency_create(&caching, &cache, &error), &error);
  agr_limiter_config limits; /* a burst of 8, then 400 a second: most first attempts have to wait */
  agr_limiter_config_init(&limits, sizeof limits);
  limits.capacity = 8;
  limits.refill_tokens = 400;
  agr_limiter *limiter;
  must(agr_limiter_create(&limits, &limiter, &error), &error);
  agr_retry_config retry;
  agr_retry_config_init(&retry, sizeof retry);
  retry.backoff.max_attempts = 4;
  retry.backoff.base_delay_ns = retry.server_delay_spread_ns = 20 * MS;

  agr_policy_config config;
  agr_policy_config_init(&config, sizeof config);
  config.idempotency = cache;
  config.limiters[0] = limiter;
  config.limiter_count = 1;
  config.max_limiter_wait_ns = 5000 * MS;
  config.retry = &retry;
  config.total_timeout_ns = 10000 * MS;
  config.attempt_timeout_ns = 1500 * MS;
  must(agr_policy_create(&config, &policy, &error), &error);
  agr_limiter_destroy(limiter); /* the policy holds them */
  agr_idempotency_destroy(cache);
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
