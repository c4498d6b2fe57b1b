/* SPDX-License-Identifier: Apache-2.0
 * A redis-server of the test's own: its port. */
#ifndef REDIS_SERVER_CPP_H
#define REDIS_SERVER_CPP_H

#ifdef __cplusplus
extern "C" {
#endif

int redis_start(void);
void redis_end(void);

#ifdef __cplusplus
}
#endif
#endif
