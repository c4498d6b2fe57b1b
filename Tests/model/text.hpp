// SPDX-License-Identifier: Apache-2.0
// Histories as text: the engine, its configuration, and a line a step,
//   <id> <operation> at=<time> <value>=<number> ...
// A value that is 0 may be left out; # begins a comment.
#ifndef MODEL_TEXT_HPP
#define MODEL_TEXT_HPP

#include <istream>

#include "harness.hpp"

namespace model {

std::string to_text(const Engine& engine, const History& history);

/// Reads a case; says what is wrong with it, or nothing.
std::string from_text(const std::vector<const Engine*>& engines, std::istream& text,
                      const Engine*& engine, History& history);

}  // namespace model
#endif
