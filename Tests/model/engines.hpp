// SPDX-License-Identifier: Apache-2.0
#ifndef MODEL_ENGINES_HPP
#define MODEL_ENGINES_HPP

#include "harness.hpp"

namespace model {

const Engine& limiter_engine();
const Engine& keyed_engine();
const Engine& breaker_engine();
const Engine& idempotency_engine();
const Engine& budget_engine();
const Engine& backoff_engine();
const Engine& policy_engine();

}  // namespace model
#endif
