/* SPDX-License-Identifier: Apache-2.0
 * What a libcurl transfer says to a policy: how it ended, and what the server asked for. */
#ifndef CURL_OUTCOME_H
#define CURL_OUTCOME_H

#include <autoglm_reliability.h>
#include <curl/curl.h>
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* Of a response's header lines: the wait that the server asks for goes to *server_delay_ns, which is -1 before.
 * The header in milliseconds is the more exact one, so it wins. */
static inline void read_hint(const char *line, size_t length, int64_t *server_delay_ns) {
  static const struct {
    const char *name;
    int32_t kind;
  } hints[] = {{"retry-after:", AGR_HINT_RETRY_AFTER}, {"retry-after-ms:", AGR_HINT_RETRY_AFTER_MS}};
  while (length > 0 && (line[length - 1] == '\r' || line[length - 1] == '\n')) --length;
  for (size_t i = 0; i < sizeof hints / sizeof *hints; ++i) {
    const size_t name = strlen(hints[i].name);
    if (length < name || strncasecmp(line, hints[i].name, name) != 0) continue;
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    int64_t delay_ns;
    const int64_t wall_ns = (int64_t)wall.tv_sec * 1000000000 + wall.tv_nsec;
    if (agr_hint_parse(hints[i].kind, line + name, length - name, wall_ns, &delay_ns, NULL) != AGR_OK)
      continue; /* an unreadable hint is no hint */
    if (hints[i].kind == AGR_HINT_RETRY_AFTER_MS || *server_delay_ns < 0) *server_delay_ns = delay_ns;
  }
}

/* libcurl takes whole milliseconds, and 0 for "no limit". */
static inline long milliseconds(int64_t ns) {
  if (ns == AGR_FOREVER) return 0;
  if (ns < 1000000) return 1;
  return ns / 1000000 > 1000000000 ? 1000000000 : (long)(ns / 1000000);
}

/* What the policy has to know of an ending: above all whether the server may have acted on it. */
static inline void describe(CURL *curl, CURLcode code, agr_outcome *outcome) {
  long status = 0, request_size = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(curl, CURLINFO_REQUEST_SIZE, &request_size);
  switch (code) {
    case CURLE_OK:
      outcome->domain = AGR_DOMAIN_HTTP;
      outcome->code = (int32_t)status;
      break;
    case CURLE_COULDNT_CONNECT: /* nothing was sent: safe to repeat */
      outcome->domain = AGR_DOMAIN_ERRNO;
      outcome->code = ECONNREFUSED;
      break;
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR: /* sent, and no (whole) reply */
      outcome->domain = AGR_DOMAIN_ERRNO;
      outcome->code = ECONNRESET;
      break;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_WRITE_ERROR: /* larger than we take; it would be again */
      outcome->error_class = AGR_CLASS_PERMANENT;
      break;
    case CURLE_ABORTED_BY_CALLBACK:
      outcome->error_class = AGR_CLASS_CANCELLED;
      break;
    default: /* time-outs among them; in a name look-up or a connect nothing was sent yet */
      outcome->error_class = request_size > 0 ? AGR_CLASS_UNKNOWN : AGR_CLASS_TRANSIENT;
  }
}

#endif
