/* SPDX-License-Identifier: Apache-2.0
 *
 * One HTTP/1.1 request over a socket that does not block: only as much of it as poll_loop.c needs.
 * It knows a Content-Length, no chunks, and nothing larger than its buffer. */
#ifndef HTTP_ATTEMPT_H
#define HTTP_ATTEMPT_H

#include <autoglm_reliability.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct http_attempt {
  int fd;
  char request[256], reply[2048];
  size_t request_length, sent, received;
} http_attempt;

/* Begins it. Returns an errno, 0 if it is under way. */
static int http_begin(http_attempt *http, const struct sockaddr_in *server, const char *host,
                      const char *path, const char *key) {
  http->sent = http->received = 0;
  http->request_length = (size_t)snprintf(
      http->request, sizeof http->request,
      "POST %s HTTP/1.1\r\nHost: %s\r\nIdempotency-Key: %s\r\nConnection: close\r\n"
      "Content-Length: 2\r\n\r\n{}", path, host, key);
  http->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (http->fd < 0) return errno;
  fcntl(http->fd, F_SETFL, O_NONBLOCK);
  if (connect(http->fd, (const struct sockaddr *)server, sizeof *server) == 0) return 0;
  if (errno == EINPROGRESS) return 0;
  int failure = errno;
  close(http->fd);
  return failure;
}

static int http_wants_to_write(const http_attempt *http) {
  return http->sent < http->request_length;
}

/* The value of a header, up to the end of its line. */
static const char *http_header(const http_attempt *http, const char *name) {
  const char *line = strstr(http->reply, "\r\n");
  for (; line && line[2] != '\r'; line = strstr(line + 2, "\r\n"))
    if (strncasecmp(line + 2, name, strlen(name)) == 0) return line + 2 + strlen(name);
  return NULL;
}

/* Reads a whole reply into the outcome; with anything less it is left as a connection that was lost. */
static void http_read_reply(http_attempt *http, agr_outcome *outcome) {
  http->reply[http->received] = '\0';
  const char *end = strstr(http->reply, "\r\n\r\n"), *length = http_header(http, "content-length:");
  if (!end || !length || strncmp(http->reply, "HTTP/1.", 7) != 0) return;
  size_t body = http->received - (size_t)(end + 4 - http->reply);
  if (body != strtoul(length, NULL, 10)) return;
  outcome->domain = AGR_DOMAIN_HTTP;
  outcome->code = (int32_t)strtol(http->reply + 9, NULL, 10);
  outcome->result = end + 4; /* the policy keeps a copy for those who joined */
  outcome->result_length = body;

  /* The header in milliseconds is the more exact one, so it wins. An unreadable hint is no hint. */
  const char *ms = http_header(http, "retry-after-ms:");
  const char *hint = ms ? ms : http_header(http, "retry-after:");
  int64_t delay_ns, wall_ns = (int64_t)time(NULL) * INT64_C(1000000000);
  if (hint && agr_hint_parse(ms ? AGR_HINT_RETRY_AFTER_MS : AGR_HINT_RETRY_AFTER, hint,
                             strcspn(hint, "\r"), wall_ns, &delay_ns, NULL) == AGR_OK)
    outcome->server_delay_ns = delay_ns;
}

/* Does what the socket is ready for. Returns 1 when the attempt has ended, with its outcome. */
static int http_transfer(http_attempt *http, agr_outcome *outcome) {
  outcome->domain = AGR_DOMAIN_ERRNO;
  outcome->code = ECONNRESET; /* sent, and no reply: the policy takes it for "outcome unknown" */
  ssize_t moved;
  if (http_wants_to_write(http)) {
    int failure = 0;
    socklen_t size = sizeof failure;
    getsockopt(http->fd, SOL_SOCKET, SO_ERROR, &failure, &size);
    if (failure) { /* of the connect: nothing was sent */
      outcome->code = failure;
      return 1;
    }
    moved = send(http->fd, http->request + http->sent, http->request_length - http->sent, MSG_NOSIGNAL);
    if (moved > 0) http->sent += (size_t)moved;
  } else {
    moved = recv(http->fd, http->reply + http->received, sizeof http->reply - 1 - http->received, 0);
    if (moved > 0) http->received += (size_t)moved;
    if (moved == 0) http_read_reply(http, outcome);
  }
  return moved == 0 || (moved < 0 && errno != EAGAIN && errno != EINTR);
}

/* The body of a reply that was read. */
static const char *http_body(const http_attempt *http) {
  return strstr(http->reply, "\r\n\r\n") + 4;
}

#endif
