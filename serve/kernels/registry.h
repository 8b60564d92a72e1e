// The operators that are alive in this process, for the report.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine.h"

namespace smp {

// Where the report asks an operator that runs in some session.
struct NodeSource {
  std::string node;
  std::string op;
  std::function<std::string()> plan;  // a JSON list
  std::function<Profile()> profile;
};

// In the report from construction to destruction, which waits for a report in progress. Must be
// destroyed before what the source's functions use.
class LiveNode {
 public:
  explicit LiveNode(NodeSource source);
  ~LiveNode();
  LiveNode(const LiveNode&) = delete;
  LiveNode& operator=(const LiveNode&) = delete;

 private:
  const uint64_t id_;
};

// [{"node": ..., "op": ..., "plan": [...], "profile": {...}}], oldest first. Safe to call at any
// time from any thread.
std::string LiveNodesJson();

// Profiles count from now on.
void ResetProfiles();

// A JSON text with its quotes.
std::string JsonText(const std::string& text);

}  // namespace smp
