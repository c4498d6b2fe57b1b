/* SPDX-License-Identifier: Apache-2.0
 * The example store, twice on the same directory: it does what every driver does. */
#include <stdlib.h>
#include <stdio.h>

#include "../../examples/c/file_store.h"
#include "conformance.h"

int main(int count, char **arguments) {
  agr_store_driver one, two;
  agr_error error = {0};
  if (count < 2 || file_store_open(arguments[1], &one, &error) != AGR_OK ||
      file_store_open(arguments[1], &two, &error) != AGR_OK) {
    fprintf(stderr, "%s\n", error.message);
    return EXIT_FAILURE;
  }
  const int status = store_conformance(&one, &two);
  one.api->destroy(one.self);
  two.api->destroy(two.self);
  return status;
}
