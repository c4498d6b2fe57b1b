// SPDX-License-Identifier: Apache-2.0
#include "engines.hpp"

int main(int count, char** arguments) {
  return model::main({&model::limiter_engine(), &model::keyed_engine(), &model::budget_engine(),
                      &model::breaker_engine(), &model::idempotency_engine(),
                      &model::backoff_engine(), &model::policy_engine()},
                     count, arguments);
}
