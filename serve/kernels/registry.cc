#include "registry.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <mutex>
#include <utility>

namespace smp {
namespace {

struct Entry {
  NodeSource source;
  Profile start;  // what the profile was at the last reset
};

struct Registry {
  std::mutex mutex;
  uint64_t next_id = 0;
  std::map<uint64_t, Entry> nodes;
};

// Never destroyed: sessions may outlive this library's static objects.
Registry& TheRegistry() {
  static Registry& registry = *new Registry;
  return registry;
}

std::string ProfileSince(const Profile& now, const Profile& start) {
  std::string json;
  for (const auto& [stage, seconds] : now) {
    const auto before = start.find(stage);
    char number[32];
    std::snprintf(number, sizeof number, "%.9f",
                  std::max(0.0, before == start.end() ? seconds : seconds - before->second));
    json += (json.empty() ? "" : ", ") + JsonText(stage) + ": " + number;
  }
  return "{" + json + "}";
}

}  // namespace

LiveNode::LiveNode(NodeSource source)
    : id_([&] {
        Registry& registry = TheRegistry();
        const std::lock_guard<std::mutex> lock(registry.mutex);
        registry.nodes.emplace(registry.next_id, Entry{std::move(source), {}});
        return registry.next_id++;
      }()) {}

LiveNode::~LiveNode() {
  Registry& registry = TheRegistry();
  const std::lock_guard<std::mutex> lock(registry.mutex);
  registry.nodes.erase(id_);
}

std::string LiveNodesJson() {
  Registry& registry = TheRegistry();
  const std::lock_guard<std::mutex> lock(registry.mutex);
  std::string json;
  for (const auto& [id, entry] : registry.nodes) {
    json += (json.empty() ? "" : ", ") + std::string("{\"node\": ") + JsonText(entry.source.node) +
            ", \"op\": " + JsonText(entry.source.op) + ", \"plan\": " + entry.source.plan() +
            ", \"profile\": " + ProfileSince(entry.source.profile(), entry.start) + "}";
  }
  return "[" + json + "]";
}

void ResetProfiles() {
  Registry& registry = TheRegistry();
  const std::lock_guard<std::mutex> lock(registry.mutex);
  for (auto& [id, entry] : registry.nodes) entry.start = entry.source.profile();
}

std::string JsonText(const std::string& text) {
  std::string json = "\"";
  for (const char c : text) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (byte == '"' || byte == '\\') {
      json += '\\';
      json += c;
    } else if (byte < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(byte));
      json += code;
    } else {
      json += c;
    }
  }
  return json + "\"";
}

}  // namespace smp
