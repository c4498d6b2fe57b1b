// SPDX-License-Identifier: Apache-2.0
//
// An HTTP inference server with the library inside, on the serving side.
//
//   inference_server [REQUESTS_PER_MINUTE [TOKENS_PER_MINUTE [MILLISECONDS_PER_TOKEN]]]
//
//   POST /v1/generate?max_tokens=N    the body is the prompt; X-Tenant says whose, Idempotency-Key
//                                     makes a repetition safe
//   POST /model?works=0|1             the model fails from now on, or works again
//   GET  /stats
//
// A tenant has so many requests a minute; all share the tokens. A request reserves its prompt and
// max_tokens, and is settled by what was generated. A duplicate waits for the run that is under way
// and gets the same bytes; it costs nothing. A model that keeps failing is left alone for a while:
// its breaker opens, and requests are refused at once, with the time when to come back. Prints its address, and serves until stdin closes.
// Exits 0 if nothing was left reserved, pinned or waited for.
#include <autoglm_reliability.hpp>
#include <httplib.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <thread>

using namespace std::chrono_literals;

namespace {

constexpr int64_t max_tokens_limit = 4096;
constexpr unsigned waiters = 32;  // duplicates that may wait at a time
constexpr unsigned pool = 64;     // more, for each waits on a thread of the server's

template <typename T>
T must(agr::Result<T> result) {
  if (result) return *std::move(result);
  std::fprintf(stderr, "%s: %s: %s\n", result.status().name(), result.field().data(),
               result.message().data());
  std::exit(2);
}

agr_keyed_limiter_config tenant_limits(int64_t requests) {
  auto config = agr::keyed_limiter_config();
  config.capacity = config.refill_tokens = requests;
  config.refill_interval_ns = agr::Duration{1min}.count();
  config.max_keys = 10'000;
  config.when_full = AGR_WHEN_FULL_EVICT;  // a flood of made-up tenants must not lock real ones out
  return config;
}

agr_idempotency_config replies() {
  auto config = agr::idempotency_config();
  config.max_entries = 10'000;
  config.max_waiters = waiters;
  config.when_full = AGR_WHEN_FULL_EVICT;
  config.ttl_ns = agr::Duration{1h}.count();
  return config;
}

agr_breaker_config model_breaker() {
  auto config = agr::breaker_config();
  config.window = AGR_WINDOW_NONE;
  config.consecutive_failures = 5;
  config.open_ns = config.open_max_ns = agr::Duration{2s}.count();
  return config;
}

/// Stands for the model: it says the prompt's words backwards, a token every so many milliseconds.
struct Model {
  const std::chrono::milliseconds time_per_token;
  std::atomic<int64_t> runs{0};
  std::atomic<bool> works{true};

  /// A reply tells its run, so that one which was computed again would differ. Empty: it failed.
  std::string generate(const std::vector<std::string>& words, int64_t max_tokens, int64_t& tokens) {
    const int64_t run = ++runs;
    if (!works) return {};
    std::string text;
    for (auto word = words.rbegin(); word != words.rend() && tokens < max_tokens; ++word, ++tokens) {
      if (time_per_token > 0ms) std::this_thread::sleep_for(time_per_token);
      text += (tokens ? " " : "") + *word;
    }
    return "{\"run\":" + std::to_string(run) + ",\"text\":\"" + text +
           "\",\"generated_tokens\":" + std::to_string(tokens) + "}\n";
  }
};

/// Letters and digits only, which need no escaping in JSON.
std::vector<std::string> words_of(const std::string& prompt) {
  std::istringstream stream(prompt);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) {
    for (char& c : word)
      if (!std::isalnum(static_cast<unsigned char>(c))) c = '.';
    words.push_back(word);
  }
  return words;
}

void refuse(httplib::Response& response, int status, const char* why, agr::Duration retry_after = {}) {
  response.status = status;
  response.set_content("{\"error\":\"" + std::string(why) + "\"}\n", "application/json");
  if (retry_after <= 0s || retry_after == agr::forever) return;
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(retry_after).count();
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(retry_after).count();
  response.set_header("Retry-After", std::to_string(seconds));
  response.set_header("retry-after-ms", std::to_string(ms));
}

class Server {
 public:
  Server(int64_t requests_per_minute, int64_t tokens_per_minute, int64_t ms_per_token)
      : model_{std::chrono::milliseconds{ms_per_token}},
        tenants_(must(agr::KeyedLimiter::create(tenant_limits(requests_per_minute)))),
        tokens_(must(agr::Limiter::create(
            agr::limiter_config(tokens_per_minute, tokens_per_minute, 1min)))),
        cache_(must(agr::Idempotency::create(replies()))),
        breaker_(must(agr::Breaker::create(model_breaker()))) {}

  void set_works(bool works) { model_.works = works; }

  void generate(const httplib::Request& request, httplib::Response& response) {
    const std::string tenant = request.get_header_value("X-Tenant");
    const std::string key = request.get_header_value("Idempotency-Key");
    const std::string limit = request.get_param_value("max_tokens");
    const int64_t max_tokens = std::atoll(limit.c_str());
    if (tenant.empty() || max_tokens < 1 || max_tokens > max_tokens_limit)
      return refuse(response, 400, "X-Tenant and max_tokens=1...4096 are needed");
    if (key.empty()) {
      std::string reply;
      if (run(tenant, request.body, max_tokens, response, reply))
        response.set_content(reply, "application/json");
      return;
    }

    // A key is its tenant's own. The same key with another request is a mistake of the client's.
    auto answer = cache_.begin_or_wait(tenant + '\n' + key, limit + '\n' + request.body, 30s);
    if (answer.result) {
      response.set_header("Idempotency-Replayed", "true");
      response.set_content(std::string(answer.result->data()), "application/json");
    } else if (answer.status == AGR_MISMATCH) {
      refuse(response, 422, "this Idempotency-Key was used for another request");
    } else if (answer.status == AGR_TIMED_OUT) {
      refuse(response, 409, "a request with this key is being executed", 1s);
    } else if (answer.status == AGR_ERR_CAPACITY) {
      refuse(response, 503, "too many requests are under way", 1s);
    } else if (!answer.lease) {
      refuse(response, 400, "the Idempotency-Key is too long");
    } else {
      std::string reply;
      if (!run(tenant, request.body, max_tokens, response, reply)) {
        answer.lease->fail();  // forgets the key: it may be tried again at once
        return;
      }
      // If there is no room for the reply, this client gets it and a duplicate would run again.
      if (!answer.lease->complete(reply)) answer.lease->fail();
      response.set_content(reply, "application/json");
    }
  }

  void stats(httplib::Response& response) const {
    const auto seen = snapshot();
    std::ostringstream out;
    out << "{\"runs\":" << model_.runs << ",\"waiting\":" << seen.waiters
        << ",\"joined\":" << seen.joined << ",\"replayed\":" << seen.replayed
        << ",\"mismatched\":" << seen.mismatched << ",\"tokens_available\":" << tokens_.available()
        << "}\n";
    response.set_content(out.str(), "application/json");
  }

  /// Whether everything that was taken has been given back.
  bool at_rest() const {
    agr_limiter_snapshot tokens{};
    tokens.struct_size = sizeof tokens;
    (void)agr_limiter_snapshot_read(tokens_.get(), &tokens, nullptr);
    const auto seen = snapshot();
    return tokens.open_reservations == 0 && seen.pins == 0 && seen.waiters == 0 && seen.illegal == 0;
  }

 private:
  /// Runs the model if the limits allow it; else it has written the refusal.
  bool run(const std::string& tenant, const std::string& prompt, int64_t max_tokens,
           httplib::Response& response, std::string& reply) {
    const auto words = words_of(prompt);
    const auto prompt_tokens = static_cast<int64_t>(words.size());
    auto reserved = tokens_.reserve(prompt_tokens + max_tokens, 0s);
    if (reserved.status() == AGR_ERR_NEVER_FITS) {
      refuse(response, 400, "more tokens than can ever be had");
      return false;
    }
    if (!reserved) {
      refuse(response, 429, "the tokens are used up", reserved.retry_after());
      return false;
    }
    auto permit = breaker_.acquire();
    if (!permit) {
      refuse(response, 503, "the model is out of order", permit.retry_after());
      return false;
    }
    agr::Duration retry_after{};
    if (!tenants_.try_acquire(tenant, 1, &retry_after)) {
      refuse(response, 429, "this tenant's requests are used up", retry_after);
      return false;  // reservation and permit are dropped: tokens go back, and the breaker counts nothing
    }
    int64_t generated = 0;
    reply = model_.generate(words, max_tokens, generated);
    if (reply.empty()) {
      permit->failure();
      refuse(response, 500, "the model failed");
      return false;
    }
    permit->success();
    reserved->settle(prompt_tokens + generated);
    return true;
  }

  agr_idempotency_snapshot snapshot() const {
    agr_idempotency_snapshot value{};
    value.struct_size = sizeof value;
    (void)agr_idempotency_snapshot_read(cache_.get(), &value, nullptr);
    return value;
  }

  Model model_;
  agr::KeyedLimiter tenants_;
  agr::Limiter tokens_;
  agr::Idempotency cache_;
  agr::Breaker breaker_;
};

}  // namespace

int main(int count, char** arguments) {
  const auto number = [&](int index, int64_t otherwise) {
    return count > index ? std::atoll(arguments[index]) : otherwise;
  };
  Server server(number(1, 60), number(2, 8192), number(3, 4));
  httplib::Server http;
  http.new_task_queue = [] { return new httplib::ThreadPool(pool); };
  http.set_tcp_nodelay(true);  // else each reply on a kept connection waits for an acknowledgement
  http.set_payload_max_length(1 << 20);
  http.Post("/v1/generate", [&](const auto& request, auto& response) {
    server.generate(request, response);
  });
  http.Post("/model", [&](const auto& request, auto&) {
    server.set_works(request.get_param_value("works") != "0");
  });
  http.Get("/stats", [&](const auto&, auto& response) { server.stats(response); });

  const int port = http.bind_to_any_port("127.0.0.1");
  if (port < 0) return 2;
  std::printf("http://127.0.0.1:%d\n", port);
  std::fflush(stdout);
  std::thread serving([&] { http.listen_after_bind(); });
  while (std::getchar() != EOF) {
  }
  http.stop();
  serving.join();
  std::printf("%s\n", server.at_rest() ? "nothing was left behind" : "something was left behind");
  return server.at_rest() ? EXIT_SUCCESS : EXIT_FAILURE;
}
