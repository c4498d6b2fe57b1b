// SPDX-License-Identifier: Apache-2.0
#include "text.hpp"

#include <cstring>
#include <sstream>

namespace model {

std::string to_text(const Engine& engine, const History& history) {
  std::ostringstream text;
  text << engine.name << "\nconfig";
  for (size_t index = 0; index < engine.config.size(); ++index)
    if (history.config[index]) text << " " << engine.config[index] << "=" << history.config[index];
  text << "\n";
  for (const Step& step : history.steps) {
    const Operation& operation = engine.operations[static_cast<size_t>(step.operation)];
    text << step.id << " " << operation.name << " at=" << step.values[0];
    for (size_t index = 0; index < operation.values.size(); ++index)
      if (step.values[index + 1])
        text << " " << operation.values[index] << "=" << step.values[index + 1];
    text << "\n";
  }
  return text.str();
}

/// Reads name=number pairs to the places that `find` gives.
template <typename Find>
static std::string read_pairs(std::istringstream& line, Find find) {
  std::string word;
  while (line >> word) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos) return "no value: " + word;
    int64_t* place = find(word.substr(0, equals));
    if (!place) return "unknown name: " + word;
    char* end = nullptr;
    *place = strtoll(word.c_str() + equals + 1, &end, 10);
    if (*end) return "not a number: " + word;
  }
  return "";
}

std::string from_text(const std::vector<const Engine*>& engines, std::istream& text,
                      const Engine*& engine, History& history) {
  for (std::string whole; std::getline(text, whole);) {
    std::istringstream line(whole.substr(0, whole.find('#')));
    std::string first, second;
    if (!(line >> first)) continue;
    std::string wrong;
    if (!engine) {
      for (const Engine* one : engines)
        if (first == one->name) engine = one;
      if (!engine) return "unknown engine: " + first;
      history.config.assign(engine->config.size(), 0);
    } else if (first == "config") {
      wrong = read_pairs(line, [&](const std::string& name) -> int64_t* {
        for (size_t index = 0; index < engine->config.size(); ++index)
          if (name == engine->config[index]) return &history.config[index];
        return nullptr;
      });
    } else {
      Step step;
      step.id = strtoll(first.c_str(), nullptr, 10);
      line >> second;
      const Operation* operation = nullptr;
      for (size_t index = 0; index < engine->operations.size(); ++index) {
        if (second != engine->operations[index].name) continue;
        step.operation = static_cast<int>(index);
        operation = &engine->operations[index];
      }
      if (!operation) return "unknown operation: " + second;
      wrong = read_pairs(line, [&](const std::string& name) -> int64_t* {
        if (name == "at") return &step.values[0];
        for (size_t index = 0; index < operation->values.size(); ++index)
          if (name == operation->values[index]) return &step.values[index + 1];
        return nullptr;
      });
      history.steps.push_back(step);
    }
    if (!wrong.empty()) return wrong;
  }
  return engine ? "" : "empty";
}

}  // namespace model
