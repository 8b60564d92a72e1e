#include "weights.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "hash.h"
#include "little_endian.h"

namespace smp {
namespace {

constexpr size_t kHeaderSize = 32;
constexpr size_t kAlignment = 64;
constexpr uint16_t kVersion = 1;
constexpr uint32_t kMaxColumns = 65536;  // a column is kept as uint16
constexpr uint32_t kMaxRows = 1U << 24;  // bounds what a tiny file with an empty mask can cost
constexpr uint64_t kMaxNonzeros = std::numeric_limits<uint32_t>::max();

enum ValueKind : uint8_t { kFloat32 = 0, kFloat16 = 1, kInt8 = 2 };
enum MaskKind : uint8_t { kDense = 0, kBitmap = 1, kGaps = 2 };

// One line, no "weights:" in front: the caller knows whose weights they are.
[[noreturn]] void Fail(const std::string& what) { throw std::invalid_argument(what); }

std::string Text(uint64_t number) { return std::to_string(number); }

struct Header {
  uint8_t values = 0;
  uint8_t mask = 0;
  uint32_t rows = 0;
  uint32_t columns = 0;
  uint64_t nonzeros = 0;
  uint64_t mask_bytes = 0;

  uint64_t positions() const { return static_cast<uint64_t>(rows) * columns; }  // below 2^40
  size_t value_size() const { return values == kFloat32 ? 4 : values == kFloat16 ? 2 : 1; }
};

Header ParseHeader(const uint8_t* data, size_t size) {
  if (size < kHeaderSize) Fail(Text(size) + " bytes are fewer than the header's 32");
  if (std::memcmp(data, "SMPW", 4) != 0) Fail("they do not start with the mark SMPW");
  const uint16_t version = LoadLittle<uint16_t>(data + 4);
  if (version != kVersion) {
    Fail("their format version is " + Text(version) + "; this library reads version " +
         Text(kVersion));
  }
  Header header;
  header.values = data[6];
  header.mask = data[7];
  header.rows = LoadLittle<uint32_t>(data + 8);
  header.columns = LoadLittle<uint32_t>(data + 12);
  header.nonzeros = LoadLittle<uint64_t>(data + 16);
  header.mask_bytes = LoadLittle<uint64_t>(data + 24);
  if (header.values > kInt8) Fail("unknown kind of values " + Text(header.values));
  if (header.mask > kGaps) Fail("unknown kind of mask " + Text(header.mask));
  if (header.rows < 1 || header.rows > kMaxRows) {
    Fail(Text(header.rows) + " rows; expected 1 to " + Text(kMaxRows));
  }
  if (header.columns < 1 || header.columns > kMaxColumns) {
    Fail(Text(header.columns) + " columns; expected 1 to " + Text(kMaxColumns));
  }
  if (header.nonzeros > header.positions() || header.nonzeros > kMaxNonzeros) {
    Fail(Text(header.nonzeros) + " non-zeros are too many for " + Text(header.rows) + " x " +
         Text(header.columns));
  }
  if (header.mask == kDense && (header.nonzeros != header.positions() || header.mask_bytes != 0)) {
    Fail("a dense matrix with missing values or with a mask");
  }
  if (header.mask == kBitmap && header.mask_bytes != (header.positions() + 7) / 8) {
    Fail("a bitmap of " + Text(header.mask_bytes) + " bytes; expected " +
         Text((header.positions() + 7) / 8));
  }
  return header;
}

// Hands out the sections one after another; an empty section takes no place.
class Sections {
 public:
  Sections(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  const uint8_t* Next(const char* name, uint64_t count, size_t element_size) {
    if (count == 0) return data_ + used_;
    const size_t padding = (kAlignment - used_ % kAlignment) % kAlignment;
    const size_t left = size_ - used_;
    if (padding > left || count > (left - padding) / element_size) {
      Fail("truncated: the " + std::string(name) + " need " + Text(count) + " x " +
           Text(element_size) + " bytes, " + Text(padding > left ? 0 : left - padding) +
           " are left");
    }
    for (size_t i = 0; i < padding; ++i) {
      if (data_[used_ + i] != 0) Fail("the padding before the " + std::string(name) + " is not 0");
    }
    const uint8_t* start = data_ + used_ + padding;
    used_ += padding + static_cast<size_t>(count) * element_size;
    return start;
  }

  void ExpectEnd() const {
    if (used_ != size_) Fail(Text(size_ - used_) + " bytes too many at the end");
  }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t used_ = kHeaderSize;
};

// Takes positions of the flattened matrix in ascending order.
class RowBuilder {
 public:
  RowBuilder(const Header& header, Weights* weights) : header_(header), weights_(weights) {
    weights_->row_start.assign(size_t{header.rows} + 1, 0);
    weights_->column.resize(static_cast<size_t>(header.nonzeros));
  }

  void Add(uint64_t position) {
    if (position >= header_.positions()) Fail("the mask reaches beyond the last position");
    if (count_ == weights_->column.size()) Fail("the mask has more positions than values");
    while (position - row_begin_ >= header_.columns) FinishRow();
    weights_->column[count_++] = static_cast<uint16_t>(position - row_begin_);
  }

  void Finish() {
    if (count_ != weights_->column.size()) {
      Fail("the mask has " + Text(count_) + " positions for " + Text(weights_->column.size()) +
           " values");
    }
    while (row_ < header_.rows) FinishRow();
  }

 private:
  void FinishRow() {
    weights_->row_start[++row_] = static_cast<uint32_t>(count_);
    row_begin_ += header_.columns;
  }

  const Header& header_;
  Weights* weights_;
  size_t count_ = 0;
  size_t row_ = 0;
  uint64_t row_begin_ = 0;
};

void DecodeBitmap(const uint8_t* mask, uint64_t mask_bytes, RowBuilder* rows) {
  uint64_t at = 0;
  const auto add = [&](uint64_t bits) {  // also refuses bits behind the last position
    for (; bits != 0; bits &= bits - 1) {
      rows->Add(8 * at + static_cast<uint64_t>(__builtin_ctzll(bits)));
    }
  };
  for (; at + 8 <= mask_bytes; at += 8) add(LoadLittle<uint64_t>(mask + at));
  for (; at < mask_bytes; ++at) add(mask[at]);
}

void DecodeGaps(const uint8_t* mask, uint64_t mask_bytes, uint64_t positions, RowBuilder* rows) {
  uint64_t next = 0;
  for (uint64_t i = 0; i < mask_bytes; ++i) {
    if (mask[i] == 255) {
      next += 255;
      if (next >= positions) Fail("the mask reaches beyond the last position");
    } else {
      rows->Add(next + mask[i]);
      next += mask[i] + 1U;
    }
  }
  if (mask_bytes > 0 && mask[mask_bytes - 1] == 255) Fail("the mask ends within a gap");
}

void DecodeMask(const Header& header, const uint8_t* mask, Weights* weights) {
  RowBuilder rows(header, weights);
  if (header.mask == kBitmap) {
    DecodeBitmap(mask, header.mask_bytes, &rows);
  } else if (header.mask == kGaps) {
    DecodeGaps(mask, header.mask_bytes, header.positions(), &rows);
  } else {
    for (uint64_t i = 0; i < header.positions(); ++i) rows.Add(i);
  }
  rows.Finish();
}

float FloatFromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float FloatFromHalf(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fU;
  const uint32_t fraction = half & 0x3ffU;
  if (exponent == 0x1f) return FloatFromBits(sign | 0x7f800000U | (fraction << 13));
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24
    const float magnitude = static_cast<float>(fraction) * 5.9604644775390625e-8f;
    return sign != 0 ? -magnitude : magnitude;
  }
  return FloatFromBits(sign | ((exponent + 112) << 23) | (fraction << 13));
}

void DecodeScales(const uint8_t* data, Weights* weights) {
  weights->scale.resize(weights->rows);
  for (size_t row = 0; row < weights->scale.size(); ++row) {
    const float scale = FloatFromBits(LoadLittle<uint32_t>(data + 4 * row));
    // Also no weight may be infinite.
    if (!(scale >= 0.0f) || !std::isfinite(scale * 127.0f)) {
      Fail("the scale of row " + Text(row) + " is negative, too large or not a number");
    }
    weights->scale[row] = scale;
  }
}

void DecodeValues(const Header& header, const uint8_t* data, Weights* weights) {
  const size_t count = static_cast<size_t>(header.nonzeros);
  if (header.values == kInt8) {
    weights->quantized.resize(count);
    if (count > 0) std::memcpy(weights->quantized.data(), data, count);
    for (size_t i = 0; i < count; ++i) {
      if (weights->quantized[i] == -128) Fail("value " + Text(i) + " is -128");
    }
    return;
  }
  weights->values.resize(count);
  for (size_t i = 0; i < count; ++i) {
    const float value = header.values == kFloat32
                            ? FloatFromBits(LoadLittle<uint32_t>(data + 4 * i))
                            : FloatFromHalf(LoadLittle<uint16_t>(data + 2 * i));
    if (!std::isfinite(value)) Fail("value " + Text(i) + " is not finite");
    weights->values[i] = value;
  }
}

std::shared_ptr<const Weights> Decode(const uint8_t* data, size_t size) {
  const Header header = ParseHeader(data, size);
  // All sections are found inside the file before anything is allocated by what the header says.
  Sections sections(data, size);
  const uint8_t* scales = sections.Next("scales", header.values == kInt8 ? header.rows : 0, 4);
  const uint8_t* mask = sections.Next("mask bytes", header.mask_bytes, 1);
  const uint8_t* values = sections.Next("values", header.nonzeros, header.value_size());
  sections.ExpectEnd();

  auto weights = std::make_shared<Weights>();
  weights->rows = header.rows;
  weights->columns = header.columns;
  weights->hash = HashBytes(data, size);
  if (header.values == kInt8) DecodeScales(scales, weights.get());
  DecodeMask(header, mask, weights.get());
  DecodeValues(header, values, weights.get());
  return weights;
}

}  // namespace

std::shared_ptr<const Weights> DecodeWeights(const uint8_t* data, size_t size, std::string* error) {
  try {
    return Decode(data, size);
  } catch (const std::bad_alloc&) {
    *error = "not enough memory to decode them";
  } catch (const std::exception& e) {
    *error = e.what();
  }
  return nullptr;
}

}  // namespace smp
