#include "plan.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <map>
#include <mutex>
#include <random>
#include <sstream>
#include <stdexcept>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>
#endif
#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace smp {
namespace {

constexpr size_t kWidth = kMaxWidth;
constexpr size_t kSampleRows = 192;  // of the matrix: enough to tell kernels apart
constexpr double kDenseMustWinBy = 1.05;

std::string CpuName() {
#if defined(__x86_64__) || defined(_M_X64)
  unsigned int words[12] = {};
  unsigned int highest = __get_cpuid_max(0x80000000u, nullptr);
  if (highest >= 0x80000004u) {
    for (unsigned int i = 0; i < 3; ++i) {
      __get_cpuid(0x80000002u + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2],
                  &words[4 * i + 3]);
    }
    unsigned int family = 0, b = 0, c = 0, d = 0;
    __get_cpuid(1, &family, &b, &c, &d);
    std::string name(reinterpret_cast<const char*>(words), sizeof words);
    name = name.substr(0, name.find('\0')) + "-" + std::to_string(family);
    std::replace_if(name.begin(), name.end(), [](char ch) { return ch <= ' ' || ch > '~'; }, '_');
    return name;
  }
#endif
  std::string id = "cpu";
  // Arm names its cores by a register, which Linux shows here.
  std::ifstream file("/sys/devices/system/cpu/cpu0/regs/identification/midr_el1");
  file >> id;
  return id;
}

Weights Sample(const Weights& like) {
  Weights sample;
  sample.rows = static_cast<uint32_t>(std::min<size_t>(like.rows, kSampleRows));
  sample.columns = like.columns;
  const double density = static_cast<double>(like.nonzeros()) /
                         (static_cast<double>(like.rows) * static_cast<double>(like.columns));
  std::mt19937 random(1);  // the same matrix every time
  const auto limit = static_cast<uint32_t>(std::min(1.0, density) * 4294967295.0);
  sample.row_start.push_back(0);
  for (uint32_t row = 0; row < sample.rows; ++row) {
    for (uint32_t column = 0; column < sample.columns; ++column) {
      if (random() <= limit) {
        sample.column.push_back(static_cast<uint16_t>(column));
        sample.values.push_back(static_cast<float>(random() % 255) - 127.0f);
      }
    }
    sample.row_start.push_back(static_cast<uint32_t>(sample.column.size()));
  }
  return sample;
}

// Seconds of the fastest of a few runs over one tile.
double Measure(const Weights& weights, Kernel kernel, const KernelTable& table) {
  const auto product = Product::Make(weights, kernel);
  const size_t quads = (weights.columns + 3) / 4 * 4;
  struct alignas(64) Line {
    uint8_t bytes[64];
  };
  std::vector<Line> bytes(quads), values(weights.columns * 4), out(weights.rows * 4);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i].bytes[i % 64] = static_cast<uint8_t>(i);
  std::vector<float> scale(kWidth, 1.0f);
  const QuantizedTile quantized{bytes.data()->bytes, scale.data(), scale.data()};
  const TileInput input{reinterpret_cast<const float*>(values.data()), quantized, quantized};
  const Epilogue epilogue{nullptr, Activation::kNone, false, nullptr,
                          reinterpret_cast<float*>(out.data())};
  using Clock = std::chrono::steady_clock;
  double best = std::numeric_limits<double>::infinity(), total = 0.0;
  for (int i = 0; i < 20 && (i < 4 || total < 5e-4); ++i) {
    const auto start = Clock::now();
    product->Run(table, 0, weights.rows, kWidth, input, epilogue);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, seconds);
    total += seconds;
  }
  return best;
}

class Cache {
 public:
  Cache() : path_(Path()) {
    std::ifstream file(path_);
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      std::string key, kernel;
      if (!(words >> key >> kernel)) continue;
      for (const Kernel known :
           {Kernel::kSparseInt8, Kernel::kDenseInt8, Kernel::kSparseFp32, Kernel::kDenseFp32}) {
        if (kernel == Name(known)) kernels_[key] = known;
      }
    }
  }

  std::mutex mutex;

  const Kernel* Find(const std::string& key) const {
    const auto found = kernels_.find(key);
    return found == kernels_.end() ? nullptr : &found->second;
  }

  void Put(const std::string& key, Kernel kernel) {
    kernels_[key] = kernel;
    if (path_.empty()) return;
#if !defined(_WIN32)
    const std::string partial = path_ + "." + std::to_string(getpid());
#else
    const std::string partial = path_ + ".new";
#endif
    {
      std::ofstream file(partial, std::ios::trunc);
      for (const auto& [name, choice] : kernels_) file << name << ' ' << Name(choice) << '\n';
      if (!file.flush()) {
        std::remove(partial.c_str());
        return;
      }
    }
    if (std::rename(partial.c_str(), path_.c_str()) != 0) std::remove(partial.c_str());
  }

 private:
  static std::string Path() {
#if defined(_WIN32)
    return "";
#else
    const auto variable = [](const char* name) {
      const char* value = std::getenv(name);
      return std::string(value != nullptr ? value : "");
    };
    std::string directory = variable("SMP_ENGINE_CACHE");
    if (directory.empty()) {
      std::string base = variable("XDG_CACHE_HOME");
      if (base.empty()) {
        if (variable("HOME").empty()) return "";
        base = variable("HOME") + "/.cache";
        ::mkdir(base.c_str(), 0700);
      }
      directory = base + "/smp-pipeline";
    }
    ::mkdir(directory.c_str(), 0700);
    return directory + "/engine-plan-1.txt";
#endif
  }

  std::string path_;
  std::map<std::string, Kernel> kernels_;
};

}  // namespace

Kernel ChooseKernel(const Weights& weights, Compute compute, const KernelTable& table) {
  const bool int8 = compute == Compute::kInt8;
  const Kernel sparse = int8 ? Kernel::kSparseInt8 : Kernel::kSparseFp32;
  const Kernel dense = int8 ? Kernel::kDenseInt8 : Kernel::kDenseFp32;
  const char* variable = std::getenv("SMP_ENGINE_PLAN");
  const std::string forced = variable != nullptr ? variable : "";
  if (forced == "sparse") return sparse;
  if (forced == "dense") return dense;
  if (!forced.empty() && forced != "auto") {
    throw std::runtime_error("SMP_ENGINE_PLAN is '" + forced + "'; give auto, sparse or dense");
  }
  const double size = static_cast<double>(weights.rows) * static_cast<double>(weights.columns);
  const double density = size > 0.0 ? static_cast<double>(weights.nonzeros()) / size : 0.0;
  // Beyond doubt, and a matrix too small to matter or to measure.
  if (density <= 0.05 || size < 4096.0) return sparse;

  static Cache cache;
  static const std::string cpu = CpuName();
  std::ostringstream key;
  key << cpu << '/' << Name(table.isa) << '/' << (int8 ? "int8" : "fp32") << '/'
      << std::min<size_t>(weights.rows, kSampleRows) << 'x' << weights.columns << '/'
      << std::lround(density * 40.0);  // steps of 2.5 %
  const std::lock_guard<std::mutex> lock(cache.mutex);
  if (const Kernel* known = cache.Find(key.str())) return *known;
  const Weights sample = Sample(weights);
  Kernel best = sparse;
  double seconds = Measure(sample, sparse, table);
  std::vector<Kernel> others{dense};
  if (int8 && table.isa != Isa::kAvx512Vnni) others.push_back(Kernel::kSparseFp32);
  for (const Kernel other : others) {
    const double needed = Measure(sample, other, table);
    if (needed * kDenseMustWinBy < seconds) {
      best = other;
      seconds = needed;
    }
  }
  cache.Put(key.str(), best);
  return best;
}

}  // namespace smp
