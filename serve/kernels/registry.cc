#include "registry.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>

#include "hash.h"

namespace smp {
namespace {

using Profile = std::map<std::string, double>;

// Size and 128 bits of hash: equal keys are taken for equal bytes.
using WeightsKey = std::tuple<uint64_t, uint64_t, size_t>;

struct Entry {
  NodeSource source;
  Profile start;  // what the profile was at the last reset
};

struct Registry {
  std::mutex weights_mutex;
  std::map<WeightsKey, std::weak_ptr<const Weights>> weights;
  std::mutex nodes_mutex;
  uint64_t next_id = 0;
  std::map<uint64_t, Entry> nodes;
};

// Never destroyed: sessions may outlive this library's static objects.
Registry& TheRegistry() {
  static Registry& registry = *new Registry;
  return registry;
}

void DropExpired(Registry* registry) {
  for (auto it = registry->weights.begin(); it != registry->weights.end();) {
    it = it->second.expired() ? registry->weights.erase(it) : std::next(it);
  }
}

// Reads what ProfileJson writes: one object of plain names and numbers.
Profile ParseProfile(const std::string& json) {
  Profile profile;
  size_t at = 0;
  while ((at = json.find('"', at)) != std::string::npos) {
    const size_t end = json.find('"', at + 1);
    const size_t colon = json.find(':', end);
    if (colon == std::string::npos) break;
    profile[json.substr(at + 1, end - at - 1)] = std::strtod(json.c_str() + colon + 1, nullptr);
    at = colon;
  }
  return profile;
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

std::shared_ptr<const Weights> SharedWeights(const uint8_t* data, size_t size, std::string* error) {
  Registry& registry = TheRegistry();
  const Hash128 hash = HashBytes(data, size);
  const WeightsKey key(hash.low, hash.high, size);
  {
    const std::lock_guard<std::mutex> lock(registry.weights_mutex);
    const auto found = registry.weights.find(key);
    if (found != registry.weights.end()) {
      if (auto weights = found->second.lock()) return weights;
    }
  }
  // Decoded without the lock, so that sessions are opened side by side; the first one to finish
  // wins.
  auto decoded = DecodeWeights(data, size, error);
  if (!decoded) return nullptr;
  const std::lock_guard<std::mutex> lock(registry.weights_mutex);
  DropExpired(&registry);
  std::weak_ptr<const Weights>& slot = registry.weights[key];
  if (auto weights = slot.lock()) return weights;
  slot = decoded;
  return decoded;
}

size_t SharedWeightsCount() {
  Registry& registry = TheRegistry();
  const std::lock_guard<std::mutex> lock(registry.weights_mutex);
  DropExpired(&registry);
  return registry.weights.size();
}

LiveNode::LiveNode(NodeSource source)
    : id_([&] {
        Registry& registry = TheRegistry();
        const std::lock_guard<std::mutex> lock(registry.nodes_mutex);
        registry.nodes.emplace(registry.next_id, Entry{std::move(source), {}});
        return registry.next_id++;
      }()) {}

LiveNode::~LiveNode() {
  Registry& registry = TheRegistry();
  const std::lock_guard<std::mutex> lock(registry.nodes_mutex);
  registry.nodes.erase(id_);
}

std::string LiveNodesJson() {
  Registry& registry = TheRegistry();
  const std::lock_guard<std::mutex> lock(registry.nodes_mutex);
  std::string json;
  for (const auto& [id, entry] : registry.nodes) {
    json += (json.empty() ? "" : ", ") + std::string("{\"node\": ") + JsonText(entry.source.node) +
            ", \"op\": " + JsonText(entry.source.op) + ", \"plan\": " + entry.source.plan() +
            ", \"profile\": " + ProfileSince(ParseProfile(entry.source.profile()), entry.start) +
            "}";
  }
  return "[" + json + "]";
}

void ResetProfiles() {
  Registry& registry = TheRegistry();
  const std::lock_guard<std::mutex> lock(registry.nodes_mutex);
  for (auto& [id, entry] : registry.nodes) entry.start = ParseProfile(entry.source.profile());
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
