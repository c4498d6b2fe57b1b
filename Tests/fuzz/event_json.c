/* SPDX-License-Identifier: Apache-2.0 */
#include "bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bytes in = {data, size};
  agr_event event;
  agr_error error;
  memset(&event, 0, sizeof event);
  for (size_t i = 0; i < sizeof event && in.size > 0; ++i) ((uint8_t *)&event)[i] = u8(&in);
  event.struct_size = sizeof event;
  size_t length = 0, written = 0;
  HOLDS(agr_event_json(&event, NULL, 0, &length, &error) == AGR_OK);
  HOLDS(length > 2 && length < 2048);
  char *text = malloc(length + 1);
  if (!text) return 0;
  HOLDS(agr_event_json(&event, text, length, &written, &error) == AGR_ERR_CAPACITY && written == length);
  HOLDS(agr_event_json(&event, text, length + 1, &written, &error) == AGR_OK && written == length);
  HOLDS(text[0] == '{' && text[length - 1] == '}' && text[length] == 0 && strlen(text) == length);
  int quotes = 0;
  for (size_t i = 0; i < length; ++i) {
    HOLDS((unsigned char)text[i] >= 0x20 && (unsigned char)text[i] < 0x7f);
    if (text[i] == '\\') ++i;
    else quotes += text[i] == '"';
  }
  HOLDS(quotes % 2 == 0);
  free(text);
  return 0;
}
