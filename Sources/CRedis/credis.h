/* SPDX-License-Identifier: Apache-2.0
 *
 * What the Redis store asks of sockets, OpenSSL and hiredis beside platform.h. Header-only. */
#ifndef AUTOGLM_RELIABILITY_CREDIS_H
#define AUTOGLM_RELIABILITY_CREDIS_H

#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <hiredis/read.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static inline int64_t credis_now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline int32_t credis_process(void) { return (int32_t)getpid(); }

static inline void credis_yield(void) { sched_yield(); }

/* The system's words for an errno. */
static inline void credis_words(int number, char *into, size_t room) {
  into[0] = 0;
  (void)!strerror_r(number, into, room);
  into[room - 1] = 0;
}

/* ---- a connection ---- */

typedef struct credis_link {
  int fd;
  SSL *ssl; /* NULL: none */
} credis_link;

enum { CREDIS_AGAIN = 0, CREDIS_CLOSED = -1 };

/* Waits until fd can be read or written, or `deadline_ns` is over. What it can do; 0: nothing in time. */
static inline short credis_wait(int fd, short events, int64_t deadline_ns) {
  struct pollfd entry = {.fd = fd, .events = events};
  for (;;) {
    int64_t left = deadline_ns - credis_now_ns();
    if (left < 0) left = 0;
    /* In whole milliseconds, rounded up; a long wait is made of several. */
    const int64_t milliseconds = (left + 999999) / 1000000;
    const int ready = poll(&entry, 1, milliseconds > 3600000 ? 3600000 : (int)milliseconds);
    if (ready > 0) return entry.revents;
    if (ready < 0 && errno != EINTR) return 0;
    if (left == 0) return 0;
  }
}

static inline int credis_finish_connect(int fd, int64_t deadline_ns) {
  if (!credis_wait(fd, POLLOUT, deadline_ns)) return ETIMEDOUT;
  int failed = 0;
  socklen_t size = sizeof failed;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &size) != 0 ? errno : failed;
}

static inline int credis_connect_to(int family, const struct sockaddr *address, socklen_t length,
                                    int64_t deadline_ns, int *out_errno) {
  const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    *out_errno = errno;
    return -1;
  }
  int failed = connect(fd, address, length) == 0 ? 0 : errno;
  if (failed == EINPROGRESS || failed == EINTR) failed = credis_finish_connect(fd, deadline_ns);
  if (failed) {
    *out_errno = failed;
    close(fd);
    return -1;
  }
  if (family != AF_UNIX) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  }
  return fd;
}

/* A connected socket; or -1, with why: an errno, or 0 when the name cannot be resolved. A `port` of NULL: `host` is the
 * path of a socket. Names are resolved by the system, whose time-outs are its own. */
static inline int credis_connect(const char *host, const char *port, int64_t deadline_ns,
                                 int *out_errno) {
  if (!port) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(host) >= sizeof address.sun_path) return *out_errno = ENAMETOOLONG, -1;
    strcpy(address.sun_path, host);
    return credis_connect_to(AF_UNIX, (const struct sockaddr *)&address, sizeof address, deadline_ns,
                             out_errno);
  }
  const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  struct addrinfo *all = NULL;
  int fd = -1;
  *out_errno = 0;
  if (getaddrinfo(host, port, &hints, &all) != 0) return -1;
  for (const struct addrinfo *one = all; one && fd < 0; one = one->ai_next)
    fd = credis_connect_to(one->ai_family, one->ai_addr, one->ai_addrlen, deadline_ns, out_errno);
  freeaddrinfo(all);
  return fd;
}

/* What a step of TLS asks to wait for; 0: it failed. */
static inline short credis_wanted(SSL *ssl, int result) {
  const int why = SSL_get_error(ssl, result);
  return why == SSL_ERROR_WANT_READ ? POLLIN : why == SSL_ERROR_WANT_WRITE ? POLLOUT : 0;
}

/* A client's context; NULL, with which part failed: 1 context, 2 authorities, 3 certificate, 4 key. */
static inline SSL_CTX *credis_tls(const char *ca_file, const char *certificate, const char *key,
                                  int verifies, int *out_part) {
  SSL_CTX *context = SSL_CTX_new(TLS_client_method());
  *out_part = 1;
  if (!context) return NULL;
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_verify(context, verifies ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
  *out_part = 2;
  if (ca_file ? SSL_CTX_load_verify_locations(context, ca_file, NULL) == 1
              : SSL_CTX_set_default_verify_paths(context) == 1) {
    *out_part = 3;
    if (!certificate || SSL_CTX_use_certificate_chain_file(context, certificate) == 1) {
      *out_part = 4;
      if (!key || (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) == 1 &&
                   SSL_CTX_check_private_key(context) == 1))
        return context;
    }
  }
  SSL_CTX_free(context);
  ERR_clear_error();
  return NULL;
}

/* Puts TLS on a connection; the certificate must be of `name`, if it is checked. 0, an errno, or -1: refused. */
static inline int credis_secure(credis_link *link, SSL_CTX *context, const char *name,
                                int64_t deadline_ns) {
  unsigned char address[16];
  SSL *ssl = SSL_new(context);
  if (!ssl) return ENOMEM;
  link->ssl = ssl;
  const int is_address = inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
  X509_VERIFY_PARAM *wanted = SSL_get0_param(ssl);
  if (is_address) X509_VERIFY_PARAM_set1_ip_asc(wanted, name);
  else SSL_set1_host(ssl, name), SSL_set_tlsext_host_name(ssl, name);
  SSL_set_fd(ssl, link->fd);
  for (;;) {
    ERR_clear_error();
    const int result = SSL_connect(ssl);
    if (result == 1) return 0;
    const short events = credis_wanted(ssl, result);
    if (!events) return ERR_clear_error(), -1;
    if (!credis_wait(link->fd, events, deadline_ns)) return ETIMEDOUT;
  }
}

/* Bytes that were read; CREDIS_AGAIN with what to wait for; or CREDIS_CLOSED. */
static inline ssize_t credis_read(credis_link *link, void *into, size_t room, short *out_events) {
  *out_events = POLLIN;
  if (!link->ssl) {
    ssize_t got;
    do got = recv(link->fd, into, room, 0);
    while (got < 0 && errno == EINTR);
    if (got > 0) return got;
    return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? CREDIS_AGAIN : CREDIS_CLOSED;
  }
  ERR_clear_error();
  const int got = SSL_read(link->ssl, into, room > 1 << 20 ? 1 << 20 : (int)room);
  if (got > 0) return got;
  *out_events = credis_wanted(link->ssl, got);
  return *out_events ? CREDIS_AGAIN : (ERR_clear_error(), CREDIS_CLOSED);
}

/* The same for writing. A server that went away raises no signal: MSG_NOSIGNAL, and with TLS, which writes
 * by itself, the signal is held back and taken away. */
static inline ssize_t credis_write(credis_link *link, const void *from, size_t length,
                                   short *out_events) {
  *out_events = POLLOUT;
  if (!link->ssl) {
    ssize_t sent;
    do sent = send(link->fd, from, length, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent > 0) return sent;
    return sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? CREDIS_AGAIN : CREDIS_CLOSED;
  }
  /* On Linux this mask is the thread's, as that of pthread_sigmask, which is of glibc 2.32. */
  sigset_t broken_pipe, before, pending;
  sigemptyset(&broken_pipe);
  sigaddset(&broken_pipe, SIGPIPE);
  sigpending(&pending);
  const int was_pending = sigismember(&pending, SIGPIPE);
  sigprocmask(SIG_BLOCK, &broken_pipe, &before);
  ERR_clear_error();
  const int sent = SSL_write(link->ssl, from, length > 1 << 20 ? 1 << 20 : (int)length);
  if (sent <= 0) *out_events = credis_wanted(link->ssl, sent);
  if (!was_pending) sigtimedwait(&broken_pipe, NULL, &(struct timespec){0, 0});
  sigprocmask(SIG_SETMASK, &before, NULL);
  if (sent > 0) return sent;
  return *out_events ? CREDIS_AGAIN : (ERR_clear_error(), CREDIS_CLOSED);
}

/* Closes the copy that a child of a fork has, and leaves the parent's session as it is. */
static inline void credis_leave(const credis_link *link) { close(link->fd); }

static inline void credis_close(credis_link *link) {
  if (link->ssl) {
    SSL_set_quiet_shutdown(link->ssl, 1);
    SSL_free(link->ssl);
  }
  if (link->fd >= 0) close(link->fd);
  link->ssl = NULL;
  link->fd = -1;
}

/* Wakes whoever waits for the connection; it is closed afterwards. */
static inline void credis_shut(const credis_link *link) { shutdown(link->fd, SHUT_RDWR); }

/* Whether the server ended a connection on which nothing is expected. */
static inline int credis_has_gone(const credis_link *link) {
  char byte;
  const ssize_t got = recv(link->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

/* ---- replies ---- */

/* A reader that gives whole replies; NULL without memory. Bounded in depth by hiredis. */
static inline redisReader *credis_reader(void) { return redisReaderCreate(); }

/* The next whole reply: 1; 0: there is none yet; -1: what came is no reply. */
static inline int credis_next_reply(redisReader *reader, redisReply **out_reply) {
  void *reply = NULL;
  if (redisReaderGetReply(reader, &reply) != REDIS_OK) return -1;
  *out_reply = (redisReply *)reply;
  return reply ? 1 : 0;
}

#endif
