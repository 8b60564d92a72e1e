// Aligned memory that Run calls borrow and give back, so that it is not mapped anew each time. All
// operators of the process borrow from one place: models that run in turn need no more than one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

namespace smp {

class Workspace {
 public:
  // The process' own, as long as somebody holds it.
  static std::shared_ptr<Workspace> Shared() {
    static std::mutex& mutex = *new std::mutex;
    static std::weak_ptr<Workspace>& held = *new std::weak_ptr<Workspace>;
    const std::lock_guard<std::mutex> lock(mutex);
    std::shared_ptr<Workspace> shared = held.lock();
    if (shared == nullptr) held = shared = std::make_shared<Workspace>();
    return shared;
  }

  struct Free {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  using Block = std::unique_ptr<std::byte[], Free>;

  // One Run's memory, cut into arrays. Two passes: Reserve all, then Get them in the same order.
  class Lease {
   public:
    explicit Lease(Workspace& owner) : owner_(owner) {}
    ~Lease() { owner_.Return(std::move(block_), size_); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    // Offset of an array of `bytes`, aligned to 64.
    size_t Reserve(size_t bytes) {
      const size_t at = total_;
      total_ += (bytes + 63) / 64 * 64;
      return at;
    }
    void Allocate() {
      size_ = total_;
      block_ = owner_.Borrow(&size_);
    }
    template <typename T>
    T* At(size_t offset) const {
      return reinterpret_cast<T*>(block_.get() + offset);
    }

   private:
    Workspace& owner_;
    size_t total_ = 0;
    size_t size_ = 0;
    Block block_;
  };

 private:
  // A block of at least *size bytes; *size becomes its own.
  Block Borrow(size_t* size) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      while (!free_.empty()) {
        Entry entry = std::move(free_.back());
        free_.pop_back();
        if (entry.size >= *size) {
          *size = entry.size;
          return std::move(entry.block);
        }  // too small: dropped, the larger one will come back
      }
    }
    return Block(static_cast<std::byte*>(::operator new[](*size, std::align_val_t{64})));
  }
  void Return(Block block, size_t size) {
    if (block == nullptr) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back({std::move(block), size});
  }

  struct Entry {
    Block block;
    size_t size;
  };
  std::mutex mutex_;
  std::vector<Entry> free_;
};

}  // namespace smp
