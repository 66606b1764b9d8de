// A pretend CUDA for a torch without CUDA: tensors are labelled cuda:N, their memory is the host's and their kernels are the CPU's.
// What CUDA refuses is refused: tensors of two devices, generators of the host, more memory than there is. Launches of kernels,
// waits for the device and bytes of memory are counted.
#include <ATen/Context.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/copy_ops.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <random>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

using at::Tensor;
using c10::Device;
using c10::DeviceIndex;
using c10::DeviceType;
using c10::IValue;
using c10::Storage;
using c10::StorageImpl;

namespace {

// ---------------------------------------------------------------- counts

// the order of `COUNTS` in device.py
enum Count { LAUNCHES, WAITS, COPIES_TO_DEVICE, COPIES_TO_HOST, BYTES_TO_DEVICE, BYTES_TO_HOST, ALLOCATIONS, REFUSED_ALLOCATIONS, N_COUNTS };

constexpr int MAX_DEVICES = 16;
std::array<std::atomic<int64_t>, N_COUNTS> counts;
std::array<std::atomic<int64_t>, MAX_DEVICES> allocated, peak;
std::atomic<int64_t> memory_limit{0};
// allocations until one is refused; none is at 0
std::atomic<int64_t> until_refusal{0};
int n_devices = 1;
bool racing_kernels = false;
thread_local DeviceIndex current_device = 0;

using Observer = void (*)(const char* kind, const char* op);
Observer observer = nullptr;

// the host waits until the device has done all its work
void wait(const char* kind, const std::string& op) {
  counts[WAITS]++;
  if (observer) observer(kind, op.c_str());
}

// ---------------------------------------------------------------- memory

void reserve(int device, int64_t bytes) {
  const int64_t now = allocated[device] += bytes;
  const int64_t limit = memory_limit;
  const bool chosen = until_refusal > 0 && --until_refusal == 0;
  counts[ALLOCATIONS]++;
  if (chosen || (limit && now > limit)) {
    allocated[device] -= bytes;
    counts[REFUSED_ALLOCATIONS]++;
    TORCH_CHECK_WITH(
        OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ", bytes / 1048576.0, " MiB. GPU ", device,
        " has a total capacity of ", limit / 1048576.0, " MiB (pretend device)");
  }
  int64_t before = peak[device];
  while (now > before && !peak[device].compare_exchange_weak(before, now)) {}
}

struct Block {
  void* memory;
  int64_t bytes;
  int device;
};

void free_block(void* context) {
  auto* block = static_cast<Block*>(context);
  std::free(block->memory);
  allocated[block->device] -= block->bytes;
  delete block;
}

struct DeviceAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    const int device = current_device;
    reserve(device, static_cast<int64_t>(bytes));
    void* memory = nullptr;
    if (bytes && posix_memalign(&memory, 64, bytes)) {
      allocated[device] -= static_cast<int64_t>(bytes);
      TORCH_CHECK(false, "the host's memory, which the pretend device uses, is too little");
    }
    return {memory, new Block{memory, static_cast<int64_t>(bytes), device}, &free_block, Device(DeviceType::CUDA, current_device)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};
DeviceAllocator device_allocator;

// Pinned memory of the host: copies from it need not wait for the device.
std::mutex pinned_mutex;
std::unordered_map<const void*, size_t> pinned_blocks;

void free_pinned(void* memory) {
  std::lock_guard<std::mutex> lock(pinned_mutex);
  pinned_blocks.erase(memory);
  std::free(memory);
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = nullptr;
    TORCH_CHECK(!bytes || !posix_memalign(&memory, 64, bytes), "the host's memory is too little");
    std::lock_guard<std::mutex> lock(pinned_mutex);
    if (memory) pinned_blocks[memory] = bytes;
    return {memory, memory, &free_pinned, Device(DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_pinned; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};
PinnedAllocator pinned_allocator;

bool is_pinned(const void* data) {
  std::lock_guard<std::mutex> lock(pinned_mutex);
  for (const auto& [memory, bytes] : pinned_blocks)
    if (data >= memory && data < static_cast<const char*>(memory) + bytes) return true;
  return false;
}

// ---------------------------------------------------------------- the device, as torch asks for it

const at::Generator& generator(int device) {
  static std::vector<at::Generator> all = [] {
    std::vector<at::Generator> made;
    for (int k = 0; k < MAX_DEVICES; k++) made.push_back(at::detail::createCPUGenerator(67280421310721ULL));
    return made;
  }();
  return all[device];
}

struct DeviceGuard final : c10::impl::DeviceGuardImplInterface {
  DeviceType type() const override { return DeviceType::CUDA; }
  Device exchangeDevice(Device device) const override {
    const Device before = getDevice();
    setDevice(device);
    return before;
  }
  Device getDevice() const override { return Device(DeviceType::CUDA, current_device); }
  void setDevice(Device device) const override { uncheckedSetDevice(device); }
  void uncheckedSetDevice(Device device) const noexcept override {
    if (device.has_index()) current_device = device.index();
  }
  c10::Stream getStream(Device device) const override { return c10::Stream(c10::Stream::DEFAULT, device); }
  c10::Stream getDefaultStream(Device device) const override { return getStream(device); }
  c10::Stream getNewStream(Device device, int) const override { return getStream(device); }
  c10::Stream getStreamFromGlobalPool(Device device, bool) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream) const override { return getStream(getDevice()); }
  DeviceIndex deviceCount() const noexcept override { return static_cast<DeviceIndex>(n_devices); }
  // kernels run at once, in order: there is nothing to wait for
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
  void record(void**, const c10::Stream&, const DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
};

}  // namespace

C10_REGISTER_GUARD_IMPL(CUDA, DeviceGuard);

namespace at {
struct PretendHooks final : CUDAHooksInterface {
  explicit PretendHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return static_cast<DeviceIndex>(n_devices); }
  int getNumGPUs() const override { return n_devices; }
  void setCurrentDevice(DeviceIndex device) const override { ::current_device = device; }
  DeviceIndex getCurrentDevice() const override { return ::current_device; }
  DeviceIndex current_device() const override { return ::current_device; }
  DeviceIndex exchangeDevice(DeviceIndex device) const override {
    const DeviceIndex before = ::current_device;
    if (device >= 0) ::current_device = device;
    return before;
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex device) const override { return exchangeDevice(device); }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  Device getDeviceFromPtr(void*) const override { return Device(DeviceType::CUDA, 0); }
  const Generator& getDefaultGenerator(DeviceIndex device = -1) const override {
    return generator(device < 0 ? ::current_device : device);
  }
};
using CUDAHooks = PretendHooks;
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at

namespace {

// ---------------------------------------------------------------- one memory, two labels

Tensor labelled(Storage storage, c10::DispatchKey key, const Tensor& like) {
  Tensor made = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), like.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  if (like.is_conj()) made._set_conj(true);
  if (like.is_neg()) made._set_neg(true);
  return made;
}

template <typename Owner>
Storage sharing(const Storage& storage, Owner* owner, c10::DeleterFnPtr release, Device device, c10::Allocator* allocator) {
  c10::DataPtr data(const_cast<void*>(storage.data()), owner, release, device);
  return Storage(c10::make_intrusive<StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), storage.nbytes(), std::move(data), allocator, true));
}

Storage host_storage(const Storage& storage) {
  auto release = [](void* owner) { delete static_cast<Storage*>(owner); };
  return sharing(storage, new Storage(storage), release, Device(DeviceType::CPU), c10::GetAllocator(DeviceType::CPU));
}

// A kernel's result: memory of the host that counts as memory of the device until it is dropped.
struct Result {
  Storage storage;
  int64_t bytes;
  int device;
};

Storage device_storage(const Storage& storage, int device) {
  const auto bytes = static_cast<int64_t>(storage.nbytes());
  reserve(device, bytes);
  auto release = [](void* owner) {
    auto* result = static_cast<Result*>(owner);
    allocated[result->device] -= result->bytes;
    delete result;
  };
  const Device label(DeviceType::CUDA, static_cast<DeviceIndex>(device));
  return sharing(storage, new Result{storage, bytes, device}, release, label, &device_allocator);
}

Tensor on_host(const Tensor& tensor) {
  return tensor.is_cuda() ? labelled(host_storage(tensor.storage()), c10::DispatchKey::CPU, tensor) : tensor;
}

// ---------------------------------------------------------------- every operator: check, run the CPU's kernel, label the results

// operators that CUDA builds let take tensors without dimensions from the host
std::unordered_set<std::string> takes_host_scalars;

// indices may lie on the host; `index` copies them and finds a mask's places by operators that are counted themselves
bool is_index(const std::string& name) { return name == "aten::index" || name == "aten::_unsafe_index"; }
bool is_index_put(const std::string& name) { return name.rfind("aten::index_put", 0) == 0 || name.rfind("aten::_index_put_impl", 0) == 0; }

// the size of the result depends on values, which the host must wait for
bool waits_for_values(const std::string& name) {
  static const std::unordered_set<std::string> names{"aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim",
                                                     "aten::unique_consecutive", "aten::repeat_interleave", "aten::bincount", "aten::equal"};
  return names.count(name) > 0;
}

// CUDA's kernels add in an order that differs from run to run
bool races(const std::string& name) {
  return name.find("index_add") != std::string::npos || name.find("scatter_add") != std::string::npos ||
         name == "aten::_softmax_backward_data";
}

// operators of froc's that CUDA has in no fixed order
bool only_in_any_order(const std::string& name, const IValue& first) {
  return name == "aten::kthvalue" || (name == "aten::cumsum" && first.isTensor() && first.toTensor().is_floating_point());
}

void move_by_one_unit(const Tensor& tensor) {
  if (!tensor.defined() || tensor.scalar_type() != at::kFloat || !tensor.is_contiguous()) return;
  static std::mt19937_64 draw{std::random_device{}()};
  auto* values = static_cast<float*>(tensor.mutable_data_ptr());
  for (int64_t i = 0; i < tensor.numel(); i++) {
    const auto direction = draw() % 3;
    if (direction > 0) values[i] = std::nextafter(values[i], direction == 1 ? INFINITY : -INFINITY);
  }
}

bool is_tensor_list(const IValue& value) {
  return value.isList() && !value.isTensorList() && !value.isOptionalTensorList() && !value.toListRef().empty() &&
         value.toListRef()[0].isTensor();
}

template <typename Function>
void for_each_tensor(const IValue& value, Function&& use) {
  if (value.isTensor()) {
    use(value.toTensor());
  } else if (value.isTensorList()) {
    for (const Tensor& tensor : value.toTensorVector()) use(tensor);
  } else if (value.isOptionalTensorList() || is_tensor_list(value)) {
    for (const IValue& element : value.toListRef())
      if (element.isTensor()) use(element.toTensor());
  }
}

// One call of an operator.
class Call {
 public:
  Call(const c10::OperatorHandle& op, torch::jit::Stack& stack)
      : schema_(op.schema()), name_(schema_.name()),
        full_(schema_.overload_name().empty() ? name_ : name_ + "." + schema_.overload_name()), stack_(stack),
        first_(stack.size() - schema_.arguments().size()) {}

  void check() {
    for (size_t i = 0; i < n_arguments(); i++) for_each_tensor(argument(i), [&](const Tensor& tensor) { see(tensor); });
    for (size_t i = 0; i < n_arguments(); i++) {
      IValue& value = argument(i);
      if (!value.isDevice() || !value.toDevice().is_cuda()) continue;
      if (device_ < 0 && value.toDevice().has_index()) device_ = value.toDevice().index();
      value = IValue(Device(DeviceType::CPU));
    }
    if (device_ < 0) device_ = current_device;
    for (size_t i = 0; i < n_arguments(); i++) for_each_tensor(argument(i), [&](const Tensor& tensor) { refuse_host(tensor, i); });
    if (at::globalContext().deterministicAlgorithms() && only_in_any_order(name_, argument(0))) at::globalContext().alertNotDeterministic(full_);
    if (waits_for_values(name_)) wait("size of a result", full_);
    if (is_index_put(name_)) count_index_put();
    choose_generators();
  }

  void to_host() {
    for (size_t i = 0; i < n_arguments(); i++) {
      IValue& value = argument(i);
      const bool write = written_to(i);
      if (value.isTensor()) {
        value = IValue(host(value.toTensor(), write));
      } else if (value.isTensorList() || is_tensor_list(value)) {
        c10::List<Tensor> list;
        for_each_tensor(value, [&](const Tensor& tensor) { list.push_back(host(tensor, write)); });
        value = IValue(list);
      } else if (value.isOptionalTensorList()) {
        c10::List<std::optional<Tensor>> list;
        for (const IValue& element : value.toListRef())
          list.push_back(element.isTensor() ? std::optional<Tensor>(host(element.toTensor(), write)) : std::nullopt);
        value = IValue(list);
      }
    }
  }

  void to_device() {
    for (const auto& [on_host, on_device] : written_) follow(on_host, on_device);
    const size_t n_results = schema_.returns().size();
    for (size_t i = stack_.size() - n_results; i < stack_.size(); i++) {
      IValue& value = stack_[i];
      if (value.isTensor()) {
        value = IValue(device(value.toTensor()));
      } else if (value.isTensorList()) {
        c10::List<Tensor> list;
        for (const Tensor& tensor : value.toTensorVector()) list.push_back(device(tensor));
        value = IValue(list);
      }
    }
  }

 private:
  size_t n_arguments() const { return schema_.arguments().size(); }
  IValue& argument(size_t i) { return stack_[first_ + i]; }
  bool written_to(size_t i) const {
    const auto* alias = schema_.arguments()[i].alias_info();
    return alias && alias->isWrite();
  }

  void see(const Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_cuda()) return;
    const int index = tensor.device().index();
    TORCH_CHECK(
        device_ < 0 || index == device_, "Expected all tensors to be on the same device, but found at least two devices, cuda:", device_,
        " and cuda:", index, "! (", full_, ")");
    device_ = index;
  }

  void refuse_host(const Tensor& tensor, size_t i) {
    if (!tensor.defined() || !tensor.device().is_cpu()) return;
    if (!written_to(i)) {
      if ((is_index(name_) || is_index_put(name_)) && i > 0) return;
      if (tensor.dim() == 0 && takes_host_scalars.count(full_)) return;
      // a number of Python's
      if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) return;
    }
    TORCH_CHECK(
        false, "Expected all tensors to be on the same device, but found at least two devices, cuda:", device_, " and cpu! (argument ",
        schema_.arguments()[i].name(), " of ", full_, ")");
  }

  // self, indices, values, accumulate
  void count_index_put() {
    const bool number = argument(2).isTensor() && argument(2).toTensor().device().is_cpu();
    bool masked = false;
    for_each_tensor(argument(1), [&](const Tensor& index) {
      if (!index.defined()) return;
      const bool mask = index.scalar_type() == at::kBool || index.scalar_type() == at::kByte;
      masked = masked || mask;
      if (index.device().is_cpu() && index.numel()) wait("index on the host", full_);
      // a mask's places are not needed to fill them with one number
      if (mask && !number) wait("size of a result", full_);
    });
    if (number && !masked) wait("value on the host", full_);
  }

  void choose_generators() {
    for (size_t i = 0; i < n_arguments(); i++) {
      if (schema_.arguments()[i].type()->str().find("Generator") == std::string::npos) continue;
      IValue& value = argument(i);
      TORCH_CHECK(value.isNone(), "Expected a 'cuda' device type for generator but found 'cpu' (", full_, ")");
      value = IValue(generator(device_));
    }
  }

  // tensors that share memory on the device share it on the host
  Tensor host(const Tensor& tensor, bool write) {
    if (!tensor.defined() || !tensor.is_cuda()) return tensor;
    const StorageImpl* own = tensor.storage().unsafeGetStorageImpl();
    auto known = host_storages_.find(own);
    if (known == host_storages_.end()) {
      known = host_storages_.emplace(own, host_storage(tensor.storage())).first;
      device_of_.emplace(known->second.unsafeGetStorageImpl(), tensor);
    }
    Tensor made = labelled(known->second, c10::DispatchKey::CPU, tensor);
    if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) made.unsafeGetTensorImpl()->set_wrapped_number(true);
    same_.emplace(made.unsafeGetTensorImpl(), tensor);
    if (write) written_.emplace_back(made, tensor);
    return made;
  }

  // an `out` tensor may have been given other memory or another shape
  void follow(const Tensor& on_host, const Tensor& on_device) {
    auto* tensor = on_device.unsafeGetTensorImpl();
    const bool moved = on_host.storage().data() != on_device.storage().data();
    if (moved) tensor->set_storage_keep_dtype(device_storage(on_host.storage(), device_));
    if (moved || on_host.sizes() != on_device.sizes() || on_host.strides() != on_device.strides() ||
        on_host.storage_offset() != on_device.storage_offset())
      tensor->set_sizes_and_strides(on_host.sizes(), on_host.strides(), on_host.storage_offset());
  }

  Tensor device(const Tensor& result) {
    if (!result.defined() || !result.device().is_cpu()) return result;
    if (racing_kernels && races(name_) && !at::globalContext().deterministicAlgorithms()) move_by_one_unit(result);
    if (const auto same = same_.find(result.unsafeGetTensorImpl()); same != same_.end()) return same->second;
    const StorageImpl* own = result.storage().unsafeGetStorageImpl();
    if (const auto viewed = device_of_.find(own); viewed != device_of_.end()) {
      const Tensor& of = viewed->second;
      Tensor view = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, Storage(of.storage()), of.key_set(), result.dtype());
      view.unsafeGetTensorImpl()->set_sizes_and_strides(result.sizes(), result.strides(), result.storage_offset());
      return view;
    }
    auto made = result_storages_.find(own);
    if (made == result_storages_.end()) made = result_storages_.emplace(own, device_storage(result.storage(), device_)).first;
    return labelled(made->second, c10::DispatchKey::CUDA, result);
  }

  const c10::FunctionSchema& schema_;
  const std::string& name_;
  const std::string full_;
  torch::jit::Stack& stack_;
  const size_t first_;
  int device_ = -1;
  std::unordered_map<const StorageImpl*, Storage> host_storages_;     // memory on the device -> the same on the host
  std::unordered_map<const StorageImpl*, Tensor> device_of_;          // memory on the host -> a tensor on the device
  std::unordered_map<const StorageImpl*, Storage> result_storages_;   // memory of results -> the same on the device
  std::unordered_map<const c10::TensorImpl*, Tensor> same_;           // argument on the host -> itself on the device
  std::vector<std::pair<Tensor, Tensor>> written_;                    // arguments that are written to: on the host, on the device
};

void every_operator(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  counts[LAUNCHES]++;
  Call call(op, *stack);
  call.check();
  call.to_host();
  op.callBoxed(stack);
  call.to_device();
}

// ---------------------------------------------------------------- operators of the device's own

struct CurrentDevice {
  explicit CurrentDevice(std::optional<Device> wanted) : before(current_device) {
    const int index = wanted && wanted->has_index() ? wanted->index() : current_device;
    TORCH_CHECK(index < n_devices, "CUDA error: invalid device ordinal");
    current_device = static_cast<DeviceIndex>(index);
  }
  ~CurrentDevice() { current_device = before; }
  DeviceIndex before;
};

const c10::DispatchKeySet CUDA_KEY(c10::DispatchKey::CUDA);

Tensor empty(
    c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<Device> device,
    std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const CurrentDevice here(device);
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &device_allocator, CUDA_KEY, at::dtype_or_default(dtype), format);
}

Tensor empty_strided(
    c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<Device> device, std::optional<bool>) {
  const CurrentDevice here(device);
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &device_allocator, CUDA_KEY, at::dtype_or_default(dtype));
}

Tensor& copy_(Tensor& self, const Tensor& source, bool non_blocking) {
  counts[LAUNCHES]++;
  // from or to pageable memory, a copy waits whatever is asked for
  if (source.numel() && self.is_cuda() && source.device().is_cpu()) {
    counts[COPIES_TO_DEVICE]++;
    counts[BYTES_TO_DEVICE] += static_cast<int64_t>(source.nbytes());
    if (!non_blocking || !is_pinned(source.storage().data())) wait("copy to device", "aten::copy_");
  } else if (source.numel() && source.is_cuda() && self.device().is_cpu()) {
    counts[COPIES_TO_HOST]++;
    counts[BYTES_TO_HOST] += static_cast<int64_t>(source.nbytes());
    if (!non_blocking || !is_pinned(self.storage().data())) wait("copy to host", "aten::copy_");
  }
  Tensor to = on_host(self);
  at::_ops::copy_::call(to, on_host(source), false);
  return self;
}

at::Scalar item(const Tensor& self) {
  wait("number read", "aten::_local_scalar_dense");
  return on_host(self).item();
}

Tensor& set_storage(Tensor& self, Storage storage, c10::SymInt offset, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(storage));
  self.unsafeGetTensorImpl()->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), offset.expect_int());
  return self;
}

// attention by plain products
int64_t attention_kernel(
    const Tensor&, const Tensor&, const Tensor&, const std::optional<Tensor>&, double, bool, std::optional<double>, bool) {
  return 0;
}

}  // namespace

TORCH_LIBRARY_IMPL(_, CUDA, library) { library.fallback(torch::CppFunction::makeFromBoxedFunction<&every_operator>()); }
TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("copy_", &copy_);
  library.impl("_local_scalar_dense", &item);
  library.impl("set_.source_Storage_storage_offset", &set_storage);
  library.impl("_fused_sdp_choice", &attention_kernel);
}

// ---------------------------------------------------------------- for device.py

extern "C" {
void pretend_start(const char* host_scalar_operators) {
  c10::SetAllocator(DeviceType::CUDA, &device_allocator, 1);
  std::ifstream names(host_scalar_operators);
  for (std::string name; names >> name;) takes_host_scalars.insert(name);
}
void pretend_show(int devices) { n_devices = devices; }
void pretend_limit(int64_t bytes) { memory_limit = bytes; }
void pretend_refuse(int64_t number) { until_refusal = number; }
void pretend_race(int on) { racing_kernels = on; }
void pretend_observe(Observer wanted) { observer = wanted; }
int pretend_current() { return current_device; }
void pretend_set_current(int device) { current_device = static_cast<DeviceIndex>(device); }
int64_t pretend_allocated(int device) { return allocated[device]; }
int64_t pretend_peak(int device) { return peak[device]; }
void pretend_reset_peak(int device) { peak[device] = allocated[device].load(); }
int64_t pretend_count(int what) { return counts[what]; }
void pretend_reset_counts() {
  for (auto& counted : counts) counted = 0;
}
void pretend_seed(int device, uint64_t seed) {
  auto of_device = generator(device);
  std::lock_guard<std::mutex> lock(of_device.mutex());
  of_device.set_current_seed(seed);
}
int64_t pretend_state_size(int device) { return static_cast<int64_t>(generator(device).get_state().nbytes()); }
void pretend_get_state(int device, void* to) {
  const Tensor state = generator(device).get_state();
  std::memcpy(to, state.data_ptr(), state.nbytes());
}
void pretend_set_state(int device, const void* from, int64_t bytes) {
  auto of_device = generator(device);
  const Tensor state = of_device.get_state().clone();
  std::memcpy(state.data_ptr(), from, bytes);
  of_device.set_state(state);
}
}
