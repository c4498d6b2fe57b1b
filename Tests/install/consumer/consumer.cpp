// SPDX-License-Identifier: Apache-2.0
#include <autoglm_reliability.hpp>
#include <cstdio>

int main() {
  auto breaker = agr::Breaker::create(agr::breaker_config());
  if (!breaker) return 1;
  auto permit = breaker->acquire();
  if (!permit || permit->success() != AGR_OK) return 1;
  std::printf("C++17: version %s, %s\n", agr_version(), permit->success().name());
  return permit->success() != AGR_STALE;
}
