#include "registry.h"

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "blob.h"
#include "cases.h"
#include "checks.h"
#include "product.h"
#include "tests.h"
#include "threads.h"
#include "weights.h"

namespace smp::test {

void TestRegistry() {
  const Bytes blobs[] = {Encode(RandomMatrix(20, 30, 0.3, 1), kFp32, kBitmap),
                         Encode(RandomMatrix(20, 30, 0.3, 2), kInt8, kGaps)};
  EXPECT(Product::Held() == 0, "");
  {
    std::vector<std::shared_ptr<const Product>> held(8);
    Together(8, [&](size_t i) {
      const Bytes& blob = blobs[i % 2];
      std::string error;
      held[i] =
          Product::Make(*DecodeWeights(blob.data(), blob.size(), &error), Kernel::kSparseInt8);
      const LiveNode node({"n\"" + std::to_string(i), "op", [] { return std::string("[]"); },
                           [] { return Profile{{"a", 1.5}, {"b", 2.0}}; }});
      const std::string report = LiveNodesJson();
      EXPECT(report.find("\"n\\\"" + std::to_string(i) + "\"") != std::string::npos, report);
      ResetProfiles();
      EXPECT(LiveNodesJson().find("\"a\": 0.000") != std::string::npos, LiveNodesJson());
    });
    for (size_t i = 0; i < held.size(); ++i) EXPECT(held[i] == held[i % 2], "shared");
    EXPECT(held[0] != held[1] && Product::Held() == 2, "two different ones");
    std::string error;
    const auto weights = DecodeWeights(blobs[0].data(), blobs[0].size(), &error);
    EXPECT(Product::Make(*weights, Kernel::kDenseInt8) != held[0], "of another kernel");
  }
  EXPECT(Product::Held() == 0, "nobody holds them");
  EXPECT(LiveNodesJson() == "[]", LiveNodesJson());
}

}  // namespace smp::test
