/* SPDX-License-Identifier: Apache-2.0 */
#include <autoglm_reliability.h>
#include <stdio.h>
#include <string.h>

int main(void) {
  agr_limiter_config config;
  agr_limiter *limiter = NULL;
  agr_limiter_config_init(&config, sizeof config);
  config.capacity = config.refill_tokens = 1;
  if (agr_limiter_create(&config, &limiter, NULL) != AGR_OK) return 1;
  int first = agr_limiter_try_acquire(limiter, 1, NULL, NULL);
  int second = agr_limiter_try_acquire(limiter, 1, NULL, NULL);
  agr_limiter_destroy(limiter);
  char header[32];
  snprintf(header, sizeof header, "%d.%d.%d", AGR_VERSION_MAJOR, AGR_VERSION_MINOR, AGR_VERSION_PATCH);
  printf("C99: version %s, %s then %s\n", agr_version(), agr_status_name(first), agr_status_name(second));
  return first != AGR_OK || second != AGR_LIMITED || strcmp(header, agr_version()) != 0;
}
