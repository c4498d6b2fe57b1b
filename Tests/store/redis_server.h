/* SPDX-License-Identifier: Apache-2.0
 * A redis-server of the test's own, on a free port of this host, which ends with the test. */
#ifndef REDIS_SERVER_H
#define REDIS_SERVER_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef struct redis_server {
  pid_t pid;
  int port;
  char directory[64];
  const char *preload;     /* a library that is loaded into it; NULL: none */
  const char *options[24]; /* further ones of its command line, then NULL */
} redis_server;

static inline void give_up(const char *what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(EXIT_FAILURE);
}

static inline int free_port(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 ||
      getsockname(fd, (struct sockaddr *)&address, &size) != 0)
    give_up("no free port");
  close(fd);
  return ntohs(address.sin_port);
}

static inline int is_open(int port) {
  const struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_port = htons((uint16_t)port),
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int open = fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0;
  close(fd);
  return open;
}

/* Starts it at server->port, or at a free one, and waits until it listens. */
static inline void start_server(redis_server *server) {
  char port[16];
  if (!server->directory[0]) {
    strcpy(server->directory, "/tmp/agr-redis-XXXXXX");
    if (!mkdtemp(server->directory)) give_up("mkdtemp");
  }
  if (!server->port) server->port = free_port();
  snprintf(port, sizeof port, "%d", server->port);
  const char *arguments[48] = {"redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                               "--logfile", "log", "--dir", server->directory, "--daemonize", "no",
                               "--enable-debug-command", "yes"};
  int count = 15, has_port = 0;
  for (int i = 0; server->options[i]; ++i) {
    has_port = has_port || !strcmp(server->options[i], "--port");
    arguments[count++] = server->options[i];
  }
  if (!has_port) arguments[count++] = "--port", arguments[count++] = port;
  server->pid = fork();
  if (server->pid < 0) give_up("fork");
  if (server->pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (server->preload) setenv("LD_PRELOAD", server->preload, 1);
    execvp(arguments[0], (char **)(void *)arguments);
    _exit(127);
  }
  for (int tries = 0; !is_open(server->port); ++tries) {
    if (tries > 5000 || waitpid(server->pid, NULL, WNOHANG) != 0) give_up("redis-server does not start");
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
  }
}

static inline void stop_server(redis_server *server) {
  if (server->pid <= 0) return;
  kill(server->pid, SIGCONT);
  kill(server->pid, SIGKILL);
  waitpid(server->pid, NULL, 0);
  server->pid = 0;
}

/* Also what it left. */
static inline void end_server(redis_server *server) {
  char command[160];
  stop_server(server);
  snprintf(command, sizeof command, "rm -rf '%s'", server->directory);
  if (server->directory[0] && system(command) != 0) give_up("rm");
}

#endif
