// SPDX-License-Identifier: Apache-2.0
// Random histories against the models, without end if that is wanted.
//
//   test_models [--engine NAME] [--steps N] [--seed S] [--cases DIR] [--state FILE] [--history K]
//
// Runs the cases of DIR, then histories of each engine until it has made N steps. With a state file a
// run goes on where the last one was stopped, however that was. --history runs one of them.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fstream>
#include <map>
#include <sstream>
#include <algorithm>

#include "harness.hpp"
#include "text.hpp"

namespace model {
namespace {

struct Options {
  std::string engine, cases, state;
  uint64_t steps = 1'000'000, seed = 1;
  int64_t history = -1;
};

struct Progress {
  uint64_t next = 0, steps = 0;
  double seconds = 0;
};

constexpr char kRefused[] = "the configuration is refused";

volatile sig_atomic_t stopped = 0;
const Engine* running = nullptr;
uint64_t running_history = 0;
uint64_t running_seed = 0;

void stop(int) { stopped = 1; }

/// The library has stopped the process: says in which history, and leaves it at that.
void crashed(int signal) {
  char text[160];
  const int length = snprintf(
      text, sizeof text, "signal %d: --engine %s --seed %llu --history %llu shrinks it\n", signal,
      running ? running->name : "?", static_cast<unsigned long long>(running_seed),
      static_cast<unsigned long long>(running_history));
  if (write(2, text, static_cast<size_t>(length)) < 0) _exit(3);
  _exit(2);
}

History make(const Engine& engine, uint64_t seed, uint64_t number) {
  Random random{seed};
  random.state = random.next() ^ (number * UINT64_C(0xD1342543DE82EF95));
  random.next();
  History history;
  engine.generate(random, history);
  return history;
}

/// Runs a history; the text of a mismatch, or none.
std::string check(const Engine& engine, const History& history) {
  current_step = 0;
  try {
    engine.run(history);
  } catch (const Mismatch& mismatch) {
    const auto& steps = history.steps;
    const std::string at =
        mismatch.step < steps.size() ? "step " + std::to_string(steps[mismatch.step].id) : "the end";
    return at + ": " + mismatch.what;
  } catch (const Refused&) {
    return kRefused;
  }
  return "";
}

/// The same in a process of its own, since a candidate may crash or run for ever.
std::string check_apart(const Engine& engine, const History& history) {
  int ends[2];
  if (pipe(ends) != 0) abort();
  const pid_t pid = fork();
  if (pid == 0) {
    for (int signal : {SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT}) std::signal(signal, SIG_DFL);
    alarm(20);
    const std::string what = check(engine, history);
    if (write(ends[1], what.data(), what.size()) < 0) _exit(1);
    _exit(0);
  }
  close(ends[1]);
  std::string what;
  char buffer[512];
  for (ssize_t count; (count = read(ends[0], buffer, sizeof buffer)) > 0;)
    what.append(buffer, static_cast<size_t>(count));
  close(ends[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  if (WIFSIGNALED(status)) what = "stopped by signal " + std::to_string(WTERMSIG(status));
  return what;
}

/// What is wrong, without the numbers: while a history is made small, it stays the same defect.
std::string kind(const std::string& what) {
  std::string kind;
  for (char one : what)
    if (!isdigit(static_cast<unsigned char>(one)) && one != '-') kind += one;
  return kind.substr(kind.find(':') == std::string::npos ? 0 : kind.find(':'));
}

/// Makes a failing history small: leaves out steps, in halves, quarters, ... and one by one; then
/// makes values small, and gaps in time short.
class Shrinker {
 public:
  Shrinker(const Engine& engine, History history, const std::string& what)
      : engine_(engine), best_(std::move(history)), kind_(kind(what)) {}

  History shrink() {
    for (size_t before = 0; before != size() && tries_ < kMost;) {
      before = size();
      leave_out();
      make_small();
    }
    return best_;
  }

 private:
  static constexpr int kMost = 20'000;

  size_t size() const {
    size_t sum = best_.steps.size() * 1000;
    for (const Step& step : best_.steps)
      for (int64_t value : step.values) sum += value != 0;
    return sum;
  }

  bool accept(const History& candidate) {
    if (++tries_ > kMost) return false;
    if (kind(check_apart(engine_, candidate)) != kind_) return false;
    best_ = candidate;
    return true;
  }

  void leave_out() {
    for (size_t part = (best_.steps.size() + 1) / 2; part >= 1; part /= 2) {
      for (size_t end = best_.steps.size(); end > 0; end = end > part ? end - part : 0) {
        History candidate = best_;
        if (end > candidate.steps.size()) continue;
        const size_t begin = end > part ? end - part : 0;
        candidate.steps.erase(candidate.steps.begin() + static_cast<ptrdiff_t>(begin),
                              candidate.steps.begin() + static_cast<ptrdiff_t>(end));
        accept(candidate);
      }
      if (part == 1) break;
    }
  }

  void make_small() {
    for (size_t index = 0; index < best_.steps.size(); ++index) {
      for (size_t value = 1; value < kValues; ++value) {
        reduce([&](History& history) -> int64_t& { return history.steps[index].values[value]; });
      }
      shorten(index);
    }
    for (size_t index = 0; index < best_.config.size(); ++index)
      reduce([&](History& history) -> int64_t& { return history.config[index]; });
  }

  template <typename Place>
  void reduce(Place place) {
    for (int64_t present = place(best_); present != 0 && present != -1;) {
      bool smaller = false;
      for (int64_t value : {INT64_C(0), INT64_C(1), present / 16, present / 2, present - 1}) {
        if (value >= present && present > 0) continue;
        History candidate = best_;
        place(candidate) = value;
        if (accept(candidate)) {
          smaller = true;
          break;
        }
      }
      if (!smaller) break;
      present = place(best_);
    }
  }

  /// Draws a step, and all that follow, nearer to the one before it.
  void shorten(size_t index) {
    const int64_t before = index ? best_.steps[index - 1].values[0] : 0;
    for (int64_t gap = best_.steps[index].values[0] - before; gap > 0;) {
      bool shorter = false;
      for (int64_t by : {gap, gap - 1, gap - gap / 16, gap / 2, INT64_C(1)}) {
        if (by <= 0) continue;
        History candidate = best_;
        for (size_t later = index; later < candidate.steps.size(); ++later)
          candidate.steps[later].values[0] =
              std::max<int64_t>(0, candidate.steps[later].values[0] - by);
        if (accept(candidate)) {
          shorter = true;
          break;
        }
      }
      if (!shorter) break;
      gap = best_.steps[index].values[0] - before;
    }
  }

  const Engine& engine_;
  History best_;
  const std::string kind_;
  int tries_ = 0;
};

void report(const Engine& engine, const History& history, const std::string& what) {
  printf("%s: %s, in %zu steps\n", engine.name, what.c_str(), history.steps.size());
  fflush(stdout);
  const History small = Shrinker(engine, history, what).shrink();
  printf("shrunk to %zu steps, a case for Tests/model/cases:\n\n# %s\n%s\n", small.steps.size(),
         check_apart(engine, small).c_str(), to_text(engine, small).c_str());
}

/// Whether all cases of a directory hold.
bool run_cases(const std::vector<const Engine*>& engines, const std::string& directory) {
  DIR* open = opendir(directory.c_str());
  if (!open) {
    fprintf(stderr, "%s: cannot be read\n", directory.c_str());
    return false;
  }
  std::vector<std::string> names;
  while (const dirent* entry = readdir(open)) {
    const std::string name = entry->d_name;
    if (name.size() > 4 && name.substr(name.size() - 4) == ".txt") names.push_back(name);
  }
  closedir(open);
  std::sort(names.begin(), names.end());
  bool good = !names.empty();
  for (const std::string& name : names) {
    std::ifstream file(directory + "/" + name);
    const Engine* engine = nullptr;
    History history;
    std::string what = from_text(engines, file, engine, history);
    if (what.empty()) what = check_apart(*engine, history);
    if (what.empty()) continue;
    good = false;
    printf("%s: %s\n", name.c_str(), what.c_str());
  }
  printf("%zu cases\n", names.size());
  return good;
}

void read_state(const std::string& path, Options& options, std::map<std::string, Progress>& all) {
  std::ifstream file(path);
  std::string word;
  while (file >> word) {
    if (word == "seed") {
      file >> options.seed;
    } else {
      Progress& progress = all[word];
      file >> progress.next >> progress.steps >> progress.seconds;
    }
  }
}

/// Written beside and renamed, so that the file is whole whenever the process is killed.
void write_state(const Options& options, const std::map<std::string, Progress>& all) {
  if (options.state.empty()) return;
  const std::string fresh = options.state + ".new";
  {
    std::ofstream file(fresh);
    file << "seed " << options.seed << "\n";
    for (const auto& [name, progress] : all)
      file << name << " " << progress.next << " " << progress.steps << " " << progress.seconds
           << "\n";
  }
  if (rename(fresh.c_str(), options.state.c_str()) != 0) perror(options.state.c_str());
}

/// Runs about half a second of histories. Says whether they held.
bool run_slice(const Engine& engine, const Options& options, Progress& progress) {
  using Time = std::chrono::steady_clock;
  const auto start = Time::now();
  std::chrono::duration<double> passed{};
  running = &engine;
  running_seed = options.seed;
  bool good = true;
  while (good && !stopped && progress.steps < options.steps && passed.count() < 0.5) {
    running_history = progress.next;
    const History history = make(engine, options.seed, progress.next);
    const std::string what = check(engine, history);
    if (!what.empty()) {
      printf("--seed %llu --history %llu\n", static_cast<unsigned long long>(options.seed),
             static_cast<unsigned long long>(progress.next));
      report(engine, history, what);
      good = false;
    }
    progress.next += 1;
    progress.steps += history.steps.size();
    passed = Time::now() - start;
  }
  progress.seconds += passed.count();
  return good;
}

bool read_options(int count, char** arguments, Options& options) {
  for (int index = 1; index + 1 < count; index += 2) {
    const std::string name = arguments[index], value = arguments[index + 1];
    if (name == "--engine") options.engine = value;
    else if (name == "--cases") options.cases = value;
    else if (name == "--state") options.state = value;
    else if (name == "--steps") options.steps = strtoull(value.c_str(), nullptr, 10);
    else if (name == "--seed") options.seed = strtoull(value.c_str(), nullptr, 10);
    else if (name == "--history") options.history = strtoll(value.c_str(), nullptr, 10);
    else return false;
  }
  return count % 2 == 1;
}

}  // namespace

int main(const std::vector<const Engine*>& all_engines, int count, char** arguments) {
  Options options;
  if (!read_options(count, arguments, options)) {
    fprintf(stderr, "usage: %s [--engine NAME] [--steps N] [--seed S] [--cases DIR]"
            " [--state FILE] [--history K]\n", arguments[0]);
    return 2;
  }
  std::vector<const Engine*> engines;
  for (const Engine* engine : all_engines)
    if (options.engine.empty() || options.engine == engine->name) engines.push_back(engine);
  if (engines.empty()) {
    fprintf(stderr, "no such engine\n");
    return 2;
  }
  if (options.history >= 0) {
    const History history = make(*engines[0], options.seed, static_cast<uint64_t>(options.history));
    const std::string what = check_apart(*engines[0], history);
    if (!what.empty()) report(*engines[0], history, what);
    return what.empty() ? 0 : 1;
  }
  std::signal(SIGINT, stop);
  std::signal(SIGTERM, stop);
  for (int signal : {SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT}) std::signal(signal, crashed);
  bool good = options.cases.empty() || run_cases(all_engines, options.cases);

  std::map<std::string, Progress> progress;
  if (!options.state.empty()) read_state(options.state, options, progress);
  bool more = true;
  while (more && !stopped) {
    more = false;
    for (const Engine* engine : engines) {
      Progress& mine = progress[engine->name];
      if (mine.steps >= options.steps || stopped) continue;
      more = true;
      good = run_slice(*engine, options, mine) && good;
      write_state(options, progress);
    }
    if (!good) break;
  }
  for (const Engine* engine : engines) {
    const Progress& mine = progress[engine->name];
    printf("%-12s %12llu steps in %llu histories, %.2f million steps/s\n", engine->name,
           static_cast<unsigned long long>(mine.steps),
           static_cast<unsigned long long>(mine.next),
           mine.seconds > 0 ? static_cast<double>(mine.steps) / mine.seconds / 1e6 : 0.0);
  }
  printf("models: %s%s\n", good ? "no difference" : "DIFFERENT", stopped ? ", stopped" : "");
  return good ? 0 : 1;
}

}  // namespace model
