/* SPDX-License-Identifier: Apache-2.0
 * The test's server, for C++. */
#include "redis_server_cpp.h"

#include "../store/redis_server.h"

static redis_server server;

int redis_start(void) {
  start_server(&server);
  return server.port;
}

void redis_end(void) { end_server(&server); }
