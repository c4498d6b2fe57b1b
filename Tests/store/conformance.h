/* SPDX-License-Identifier: Apache-2.0
 * Whether a driver does all that store_driver.h says. A program with a driver of its own is linked with
 * conformance.c, and calls:
 *
 *   int main(void) {
 *     agr_store_driver driver = ...;
 *     return store_conformance(&driver, &again);
 *   }
 *
 * `again` is a second driver on the same data, such as another connection; NULL: there is none. The data may
 * have anything in it: the suite uses keys that nobody else has. Groups that the driver does not offer are
 * passed over, and named. Prints one line for each group, and "N checks, M failed"; returns the exit status.
 * Neither driver is destroyed. */
#ifndef CONFORMANCE_H
#define CONFORMANCE_H

#include <autoglm_reliability.h>

int store_conformance(const agr_store_driver *driver, const agr_store_driver *again);

#endif
