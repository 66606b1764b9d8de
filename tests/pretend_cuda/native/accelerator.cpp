// A torch built without an accelerator decides so when it is compiled. Loaded before it, this function takes the place of torch's own.
#include <cstdint>
#include <optional>

namespace c10 {
enum class DeviceType : int8_t { CPU = 0, CUDA = 1 };
}

namespace at::accelerator {
std::optional<c10::DeviceType> getAccelerator(bool) { return c10::DeviceType::CUDA; }
}  // namespace at::accelerator
