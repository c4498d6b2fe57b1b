// SPDX-License-Identifier: Apache-2.0
// The retry budget: a bucket of thousandths of a retry into which requests pay.
#include "bucket.hpp"
#include "engines.hpp"

namespace model {
namespace {

enum Field { kPerSecond, kRatio, kQuota, kInitial, kStart };
enum Call { kWithdraw, kDeposit, kBalance };

class Run {
 public:
  explicit Run(const std::vector<int64_t>& config)
      : quota_(config[kQuota]),
        ratio_(config[kRatio]),
        scale_(config[kStart]),
        bucket_(Rate(quota_ * 1000, 0, config[kPerSecond] * 1000, kSecond),
                config[kInitial] * 1000, config[kStart]) {
    agr_retry_budget_config wanted;
    agr_retry_budget_config_init(&wanted, sizeof wanted);
    wanted.min_per_second = static_cast<uint32_t>(config[kPerSecond]);
    wanted.ratio = static_cast<double>(ratio_) / 1000;
    wanted.quota = static_cast<uint32_t>(quota_);
    wanted.initial = static_cast<uint32_t>(config[kInitial]);
    if (agr_retry_budget_create_at(&wanted, config[kStart], &budget_.pointer, nullptr) != AGR_OK)
      throw Refused();
  }

  void run(const History& history) {
    for (const Step& step : history.steps) {
      const int64_t now = step.values[0], amount = step.values[1];
      if (step.operation == kWithdraw) withdraw(amount, now);
      if (step.operation == kDeposit) deposit(amount, now);
      balance(now);
      current_step += 1;
    }
  }

 private:
  void withdraw(int64_t cost, int64_t now) {
    int64_t retry_after = -7;
    const agr_status status = agr_retry_budget_withdraw_at(budget_, static_cast<uint32_t>(cost),
                                                           now, &retry_after, nullptr);
    Grant wanted{AGR_ERR_NEVER_FITS};
    if (cost <= quota_) wanted = bucket_.take(cost * 1000, scale_.read(now));
    if (wanted.status == AGR_LIMITED) wanted.status = AGR_EXHAUSTED;
    expect_equal(status, wanted.status, "withdraw");
    expect_equal(retry_after, wanted.retry_after, "retry_after_ns");
  }

  void deposit(int64_t requests, int64_t now) {
    expect_equal(
        agr_retry_budget_deposit_at(budget_, static_cast<uint32_t>(requests), now, nullptr),
        AGR_OK, "deposit");
    bucket_.deposit(std::min(requests * ratio_, quota_ * 1000), scale_.read(now));
  }

  void balance(int64_t now) {
    int64_t seen = -7;
    expect_equal(agr_retry_budget_balance_at(budget_, now, &seen, nullptr), AGR_OK, "balance");
    expect(seen >= 0 && seen <= 1000 * quota_, "the balance is out of its bounds");
    expect_equal(seen, std::max<int64_t>(0, bucket_.available(scale_.read(now))), "balance");
  }

  const int64_t quota_, ratio_;
  Scale scale_;
  Bucket bucket_;
  Handle<agr_retry_budget, agr_retry_budget_destroy> budget_;
};

class BudgetEngine : public Engine {
 public:
  BudgetEngine()
      : Engine("budget", {"per_second", "ratio", "quota", "initial", "start"},
               {{"withdraw", {"cost"}}, {"deposit", {"requests"}}, {"balance", {}}}) {}

  void generate(Random& random, History& history) const override {
    const int64_t most = random.chance(8) ? 1'000'000 : 100;
    const int64_t quota = 1 + random.below(most), start = any_start(random);
    history.config = {random.chance(4) ? 0 : random.skewed(most), random.skewed(random.chance(8) ? 1'000'000 : 2000),
                      quota, random.below(quota + 1), start};
    Clock clock(random, static_cast<Clock::Kind>(random.below(3)), start,
                kSecond / (1 + history.config[kPerSecond]) + 1);
    const int64_t count = random.between(20, 200);
    for (int64_t id = 1; id <= count; ++id) {
      Step step;
      step.id = id;
      step.operation = static_cast<int>(random.below(3));
      step.values[0] = clock.next();
      step.values[1] = step.operation == kWithdraw ? random.skewed(random.chance(30) ? quota + 1 : quota)
                                                   : random.skewed(random.chance(50) ? UINT32_MAX : 8);
      history.steps.push_back(step);
    }
  }

  void run(const History& history) const override { Run(history.config).run(history); }
};

}  // namespace

const Engine& budget_engine() {
  static const BudgetEngine engine;
  return engine;
}

}  // namespace model
