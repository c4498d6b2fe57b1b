/* SPDX-License-Identifier: Apache-2.0
 *
 * An HTTP server called with libcurl, guarded by a policy: retries within a budget, a circuit
 * breaker, one deadline for everything, the server's own hints.
 *
 *   curl_retry URL [CALLS]
 *
 * curl_easy_perform blocks, so agr_policy_execute fits: it calls attempt() as often as the policy
 * allows, and sleeps between. Exits 0 if every call got its reply. */
#define _POSIX_C_SOURCE 200809L
#include <autoglm_reliability.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>

#include "curl_outcome.h"

static const int64_t MS = 1000000;

/* One call, whatever number of attempts it takes. */
typedef struct exchange {
  CURL *curl;
  char key[32];
  char reply[4096];
  size_t reply_length;
  int64_t server_delay_ns; /* -1: the server asked for none */
} exchange;

static size_t on_body(char *data, size_t size, size_t count, void *context) {
  exchange *call = context;
  size_t length = size * count;
  if (length > sizeof call->reply - call->reply_length) return 0; /* ends in CURLE_WRITE_ERROR */
  memcpy(call->reply + call->reply_length, data, length);
  call->reply_length += length;
  return length;
}

static size_t on_header(char *line, size_t size, size_t count, void *context) {
  read_hint(line, size * count, &((exchange *)context)->server_delay_ns);
  return size * count;
}

/* One attempt: an agr_attempt_fn. */
static void attempt(const agr_step *step, agr_outcome *outcome, void *context) {
  exchange *call = context;
  call->reply_length = 0;
  call->server_delay_ns = -1;
  curl_easy_setopt(call->curl, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(step->connect_timeout_ns));
  curl_easy_setopt(call->curl, CURLOPT_TIMEOUT_MS, milliseconds(step->attempt_timeout_ns));
  CURLcode code = curl_easy_perform(call->curl);
  describe(call->curl, code, outcome);
  outcome->server_delay_ns = call->server_delay_ns;
  printf("  attempt %u: ", step->attempt);
  if (outcome->domain == AGR_DOMAIN_HTTP)
    printf("HTTP %d\n", (int)outcome->code);
  else
    printf("%s\n", curl_easy_strerror(code));
}

/* Ends the program when the library refuses what it was given. */
static void must(agr_status status, const agr_error *error) {
  if (status == AGR_OK) return;
  fprintf(stderr, "%s: %s: %s\n", agr_status_name(status), error->field, error->message);
  exit(2);
}

static agr_policy *make_policy(void) {
  agr_error error;
  agr_retry_config retry;
  agr_retry_config_init(&retry, sizeof retry);
  retry.backoff.max_attempts = 4;
  retry.backoff.base_delay_ns = 20 * MS;
  retry.server_delay_spread_ns = 20 * MS; /* this is one client; thousands need more */

  agr_retry_budget_config saving;
  agr_retry_budget_config_init(&saving, sizeof saving);
  agr_retry_budget *budget;
  must(agr_retry_budget_create(&saving, &budget, &error), &error);

  agr_breaker_config breaking;
  agr_breaker_config_init(&breaking, sizeof breaking);
  breaking.consecutive_failures = 5;
  agr_breaker *breaker;
  must(agr_breaker_create(&breaking, &breaker, &error), &error);

  agr_policy_config config;
  agr_policy_config_init(&config, sizeof config);
  config.retry = &retry;
  config.budget = budget;
  config.breaker = breaker;
  config.total_timeout_ns = 10000 * MS;
  config.attempt_timeout_ns = 1500 * MS;
  config.connect_timeout_ns = 1000 * MS;
  agr_policy *policy;
  must(agr_policy_create(&config, &policy, &error), &error);
  agr_breaker_destroy(breaker); /* the policy holds them */
  agr_retry_budget_destroy(budget);
  return policy;
}

/* Makes one guarded POST. The key stays the same for all its attempts: by it the server recognises
 * a repetition, and by it the policy knows that an attempt without a reply may be repeated. */
static int post(agr_policy *policy, exchange *call, const char *url, int number) {
  char header[64], body[64];
  snprintf(call->key, sizeof call->key, "curl-%d", number);
  snprintf(header, sizeof header, "Idempotency-Key: %s", call->key);
  snprintf(body, sizeof body, "{\"prompt\": \"call %d\"}", number);
  struct curl_slist *headers = curl_slist_append(NULL, header);
  headers = curl_slist_append(headers, "Content-Type: application/json");
  curl_easy_setopt(call->curl, CURLOPT_URL, url);
  curl_easy_setopt(call->curl, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(call->curl, CURLOPT_POSTFIELDS, body);
  curl_easy_setopt(call->curl, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(call->curl, CURLOPT_HEADERDATA, call);
  curl_easy_setopt(call->curl, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(call->curl, CURLOPT_WRITEDATA, call);
  curl_easy_setopt(call->curl, CURLOPT_NOSIGNAL, 1L);
  /* On a kept connection that turns out dead libcurl repeats the request by itself, past the budget.
   * A new connection for every attempt leaves that decision to the policy. */
  curl_easy_setopt(call->curl, CURLOPT_FRESH_CONNECT, 1L);
  curl_easy_setopt(call->curl, CURLOPT_FORBID_REUSE, 1L);

  agr_request request;
  agr_request_init(&request, sizeof request);
  request.key = request.trace_id = call->key;
  request.key_length = request.trace_id_length = strlen(call->key);
  agr_step step = {.struct_size = sizeof step};
  agr_error error;
  printf("%s\n", call->key);
  must(agr_policy_execute(policy, &request, attempt, call, NULL, &step, &error), &error);
  curl_slist_free_all(headers);

  printf("  %s", agr_reason_name(step.reason));
  if (step.component != AGR_COMPONENT_NONE) printf(" (%s)", agr_component_name(step.component));
  printf("; attempts: %u; reply: %.*s\n", step.attempt,
         step.reason == AGR_REASON_SUCCEEDED ? (int)call->reply_length : 0, call->reply);
  return step.reason == AGR_REASON_SUCCEEDED && call->reply_length > 0;
}

int main(int count, char **arguments) {
  int calls = count == 3 ? atoi(arguments[2]) : 10, good = 0;
  if (count < 2 || count > 3 || calls < 1) {
    fprintf(stderr, "usage: curl_retry URL [CALLS]\n");
    return 2;
  }
  curl_global_init(CURL_GLOBAL_DEFAULT);
  exchange call = {.curl = curl_easy_init()};
  if (!call.curl) return 2;
  agr_policy *policy = make_policy();
  for (int i = 0; i < calls; ++i) good += post(policy, &call, arguments[1], i);

  agr_policy_snapshot seen = {.struct_size = sizeof seen};
  agr_error error;
  must(agr_policy_snapshot_read(policy, &seen, &error), &error);
  printf("%d of %d calls succeeded; %llu attempts, %llu of them retries\n", good, calls,
         (unsigned long long)seen.attempts, (unsigned long long)seen.retries);
  agr_policy_destroy(policy);
  curl_easy_cleanup(call.curl);
  curl_global_cleanup();
  return good == calls ? EXIT_SUCCESS : EXIT_FAILURE;
}
