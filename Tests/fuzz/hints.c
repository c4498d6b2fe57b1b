/* SPDX-License-Identifier: Apache-2.0 */
#include "bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bytes in = {data, size};
  agr_error error;
  int32_t kind = u8(&in) % 5;
  int64_t wall = i64(&in), delay = -1;
  /* In memory of exactly its length, so that a byte read beyond it is noticed. */
  char *text = malloc(in.size ? in.size : 1);
  if (!text) return 0;
  memcpy(text, in.data, in.size);
  agr_status status = agr_hint_parse(kind, text, in.size, wall, &delay, &error);
  check_status(status, &error);
  HOLDS(delay >= 0 && delay <= AGR_TIME_MAX_NS);
  HOLDS(status == AGR_OK || status == AGR_ERR_PARSE || status == AGR_ERR_ARGUMENT);
  free(text);
  return 0;
}
