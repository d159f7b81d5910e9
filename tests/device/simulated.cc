// A CUDA device that is simulated over CPU memory. See simulated_device.py, which builds and loads this.
//
// Every operation on a tensor of the device runs the CPU's kernel on aliases of its arguments: a boxed fallback of the
// dispatch key CUDA. So autograd, autocast and optimisers see tensors whose device is really cuda.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/extension.h>
#include <torch/library.h>

#include <mutex>
#include <set>
#include <unordered_map>

namespace {
using namespace at;
using c10::IValue;
using c10::Storage;
using c10::StorageImpl;

const Device SIMULATED(kCUDA, 0);
PyObject* listener = nullptr;

// Tells Python of an event: its kind, the operation and the bytes that were copied.
void tell(const std::string& kind, const std::string& op, int64_t bytes) {
  if (!listener) return;
  pybind11::gil_scoped_acquire gil;
  PyObject* returned = PyObject_CallFunction(listener, "ssL", kind.c_str(), op.c_str(), (long long)bytes);
  if (returned) Py_DECREF(returned);
  else PyErr_Clear();
}

// ---- memory

struct DeviceAllocator final : c10::Allocator {
  DataPtr allocate(size_t bytes) override {
    auto* held = new DataPtr(c10::GetCPUAllocator()->allocate(bytes));
    return DataPtr(held->get(), held, [](void* held) { delete static_cast<DataPtr*>(held); }, SIMULATED);
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
};
DeviceAllocator device_memory;

// Page-locked memory of the host, which alone is copied without a wait.
struct PinnedAllocator final : c10::Allocator {
  static std::mutex& mutex() { static std::mutex m; return m; }
  static std::set<const void*>& pinned() { static std::set<const void*> all; return all; }
  static bool holds(const void* data) {
    std::lock_guard<std::mutex> lock(mutex());
    return pinned().count(data) > 0;
  }
  static void release(void* held) {
    auto* memory = static_cast<DataPtr*>(held);
    {
      std::lock_guard<std::mutex> lock(mutex());
      pinned().erase(memory->get());
    }
    delete memory;
  }
  DataPtr allocate(size_t bytes) override {
    auto* held = new DataPtr(c10::GetCPUAllocator()->allocate(bytes));
    if (held->get()) {
      std::lock_guard<std::mutex> lock(mutex());
      pinned().insert(held->get());
    }
    return DataPtr(held->get(), held, &PinnedAllocator::release, Device(kCPU));
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
};
PinnedAllocator pinned_memory;

void free_storage(void* storage) { delete static_cast<Storage*>(storage); }

// ---- device, streams and generators

struct Guard final : c10::impl::DeviceGuardImplInterface {
  Stream stream() const noexcept { return Stream(Stream::DEFAULT, SIMULATED); }
  DeviceType type() const override { return kCUDA; }
  Device exchangeDevice(Device) const override { return SIMULATED; }
  Device getDevice() const override { return SIMULATED; }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device) const noexcept override { return stream(); }
  Stream getNewStream(Device, int) const override { return stream(); }
  Stream exchangeStream(Stream) const noexcept override { return stream(); }
  DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const Stream&, const DeviceIndex, const EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override { tell("synchronize", "stream", 0); }
  void synchronizeEvent(void*) const override { tell("synchronize", "event", 0); }
  void synchronizeDevice(const DeviceIndex) const override { tell("synchronize", "device", 0); }
};

struct DeviceGenerator final : c10::GeneratorImpl {
  Generator inner;
  explicit DeviceGenerator(uint64_t seed = 0)
      : GeneratorImpl(SIMULATED, DispatchKeySet(DispatchKey::CUDA)), inner(at::detail::createCPUGenerator(seed)) {}
  void set_current_seed(uint64_t seed) override { inner.set_current_seed(seed); }
  void set_offset(uint64_t offset) override { inner.set_offset(offset); }
  uint64_t get_offset() const override { return inner.get_offset(); }
  uint64_t current_seed() const override { return inner.current_seed(); }
  uint64_t seed() override { return inner.seed(); }
  void set_state(const c10::TensorImpl& state) override { inner.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return inner.unsafeGetGeneratorImpl()->get_state(); }
  DeviceGenerator* clone_impl() const override {
    auto* copy = new DeviceGenerator();
    copy->inner = inner.clone();
    return copy;
  }
};

Generator& default_generator() {
  static Generator generator = at::make_generator<DeviceGenerator>(67280421310721ULL);
  return generator;
}

struct Hooks final : CUDAHooksInterface {
  explicit Hooks(CUDAHooksArgs) {}
  void init() const override {}
  const Generator& getDefaultGenerator(DeviceIndex) const override { return default_generator(); }
  Generator getNewGenerator(DeviceIndex) const override { return at::make_generator<DeviceGenerator>(); }
  Device getDeviceFromPtr(void*) const override { return SIMULATED; }
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex current_device() const override { return 0; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(DeviceIndex) const override {}
  DeviceIndex exchangeDevice(DeviceIndex) const override { return 0; }
  DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
  bool isPinnedPtr(const void* data) const override { return PinnedAllocator::holds(data); }
  Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
  Allocator* getCUDADeviceAllocator() const override { return &device_memory; }
  int getNumGPUs() const override { return 1; }
  void deviceSynchronize(DeviceIndex) const override { tell("synchronize", "device", 0); }
};
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, Hooks)

// ---- aliases: tensors of the CPU over the memory of those of the device, and the reverse

struct Aliases {
  std::unordered_map<StorageImpl*, Storage> cpu_of;  // of the device's storages
  std::unordered_map<StorageImpl*, Storage> sim_of;  // the inverse
  std::vector<std::pair<Tensor, Tensor>> tensors;    // (of the device, its alias)

  static Tensor make(const Storage& storage, DispatchKey key, const Tensor& like) {
    Tensor made = at::detail::make_tensor<c10::TensorImpl>(Storage(storage), DispatchKeySet(key), like.dtype());
    made.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
    return made;
  }

  static Storage over(const Storage& memory, Device device, Allocator* allocator) {
    DataPtr data(const_cast<void*>(memory.data()), new Storage(memory), &free_storage, device);
    return Storage(Storage::use_byte_size_t(), memory.nbytes(), std::move(data), allocator, true);
  }

  Tensor alias(const Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_cuda()) return tensor;
    for (auto& [sim, cpu] : tensors)
      if (sim.is_same(tensor)) return cpu;
    Storage sim = tensor.storage();
    auto found = cpu_of.find(sim.unsafeGetStorageImpl());
    if (found == cpu_of.end()) {
      Storage cpu = over(sim, Device(kCPU), c10::GetCPUAllocator());
      sim_of.emplace(cpu.unsafeGetStorageImpl(), sim);
      found = cpu_of.emplace(sim.unsafeGetStorageImpl(), cpu).first;
    }
    Tensor made = make(found->second, DispatchKey::CPU, tensor);
    if (tensor.is_conj()) made._set_conj(true);
    if (tensor.is_neg()) made._set_neg(true);
    tensors.emplace_back(tensor, made);
    return made;
  }

  std::optional<Tensor> alias(const std::optional<Tensor>& tensor) {
    return tensor && tensor->defined() ? std::optional<Tensor>(alias(*tensor)) : std::nullopt;
  }

  Storage to_sim(const Storage& cpu) {
    auto found = sim_of.find(cpu.unsafeGetStorageImpl());
    if (found != sim_of.end()) return found->second;
    Storage sim = over(cpu, SIMULATED, &device_memory);
    sim_of.emplace(cpu.unsafeGetStorageImpl(), sim);
    return sim;
  }

  Tensor wrap(const Tensor& tensor) {
    if (!tensor.defined() || tensor.is_cuda()) return tensor;
    for (auto& [sim, cpu] : tensors)
      if (cpu.is_same(tensor)) return sim;
    return make(to_sim(tensor.storage()), DispatchKey::CUDA, tensor);
  }

  // Gives the device's tensors what an operation changed of their aliases: memory, sizes and strides.
  void finish() {
    for (auto& [sim, cpu] : cpu_of) {
      if (cpu.data() == sim->data()) continue;
      sim->set_data_ptr_noswap(DataPtr(const_cast<void*>(cpu.data()), new Storage(cpu), &free_storage, SIMULATED));
      sim->set_nbytes(cpu.nbytes());
    }
    for (auto& [sim, cpu] : tensors) {
      auto* impl = sim.unsafeGetTensorImpl();
      if (cpu.sizes() != sim.sizes() || cpu.strides() != sim.strides() || cpu.storage_offset() != sim.storage_offset())
        impl->set_sizes_and_strides(cpu.sizes(), cpu.strides(), cpu.storage_offset());
      Storage now = to_sim(cpu.storage());
      if (now.unsafeGetStorageImpl() != sim.storage().unsafeGetStorageImpl()) impl->set_storage_keep_dtype(now);
    }
  }
};

// ---- what CUDA does otherwise than the CPU

// Operations whose result has a size that depends on values, or that the host computes a part of.
const std::set<std::string> WAITS = {
    "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2", "aten::unique_dim", "aten::_unique",
    "aten::unique_consecutive", "aten::bincount", "aten::multinomial", "aten::linalg_svd", "aten::_linalg_svd",
    "aten::_linalg_eigh", "aten::linalg_lstsq", "aten::linalg_eig", "aten::linalg_householder_product"};

// Operations that raise under deterministic algorithms. A sum along an axis does so for floats alone.
const std::set<std::string> NONDETERMINISTIC = {
    "aten::cumsum", "aten::cumsum_", "aten::cumsum.out", "aten::histc", "aten::kthvalue", "aten::put_",
    "aten::_ctc_loss", "aten::grid_sampler_2d_backward", "aten::upsample_linear1d_backward"};

const std::set<std::string> INDEX = {
    "aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_", "aten::_unsafe_index",
    "aten::_unsafe_index_put", "aten::_unsafe_masked_index", "aten::_unsafe_masked_index_put_accumulate"};

bool is_optional_tensors(const c10::Argument& argument) {
  const auto& type = argument.type();
  if (type->kind() != c10::TypeKind::ListType) return false;
  const auto& element = type->containedType(0);
  return element->kind() == c10::TypeKind::OptionalType &&
         element->containedType(0)->kind() == c10::TypeKind::TensorType;
}

// The tensors among the arguments of an operation, by what CUDA thinks of them.
struct Arguments {
  bool sim = false;         // there are tensors of the device
  bool by_mask = false;     // an index is a mask
  bool is_float = false;    // the first tensor is one of floats
  bool first_on_cpu = false;
  std::vector<Tensor> cpu;         // tensors of the CPU
  std::vector<Tensor> cpu_scalar;  // those of no axis, whose value a kernel takes as an argument
};

Arguments read(const c10::FunctionSchema& schema, const torch::jit::Stack& stack, size_t begin, bool index) {
  Arguments read;
  bool first = true;
  auto see = [&](const Tensor& tensor, const c10::Argument& argument) {
    if (!tensor.defined()) return;
    bool is_index = index && argument.name() == "indices";
    if (first) {
      read.is_float = tensor.is_floating_point();
      read.first_on_cpu = tensor.is_cpu();
      first = false;
    }
    if (tensor.is_cuda()) {
      read.sim = true;
      read.by_mask |= is_index && (tensor.scalar_type() == kBool || tensor.scalar_type() == kByte);
    } else if (tensor.dim() == 0) {
      if (!tensor.unsafeGetTensorImpl()->is_wrapped_number()) read.cpu_scalar.push_back(tensor);
    } else if (is_index) {
      // Only page-locked indices would be copied without a wait, and these never are.
      tell("h2d", schema.name() + " by an index of the CPU", tensor.nbytes());
    } else {
      read.cpu.push_back(tensor);
    }
  };
  for (size_t i = 0; i < schema.arguments().size(); i++) {
    const IValue& value = stack[begin + i];
    const auto& argument = schema.arguments()[i];
    if (value.isTensor()) see(value.toTensor(), argument);
    else if (value.isTensorList() || is_optional_tensors(argument))
      for (const IValue& each : value.toListRef())
        if (each.isTensor()) see(each.toTensor(), argument);
  }
  return read;
}

void refuse_mixed(const Arguments& read, const std::string& name, bool index) {
  TORCH_CHECK(!read.sim || read.cpu.empty(), "Expected all tensors to be on the same device, but found at least two ",
              "devices, cuda:0 and cpu! (simulated, ", name, ")");
  TORCH_CHECK(!index || !read.sim || !read.first_on_cpu, "indices should be either on cpu or on the same device as the ",
              "indexed tensor (cpu) (simulated, ", name, ")");
}

void tell_waits(const Arguments& read, const c10::FunctionSchema& schema, const torch::jit::Stack& stack, size_t begin) {
  const std::string& name = schema.name();
  const bool index = INDEX.count(name) > 0;
  if (WAITS.count(name)) tell("read", name, 0);
  if (name == "aten::repeat_interleave" && schema.overload_name() == "Tensor" && stack[begin + 1].isNone())
    tell("read", name, 0);
  if (!index || name == "aten::index") return;  // CUDA looks for the places in a mask by `nonzero`, as the CPU does
  if (read.by_mask) {
    const Tensor& value = stack[begin + 2].toTensor();
    bool is_fill = value.defined() && value.numel() == 1 && !stack[begin + 3].toBool();
    if (!is_fill) tell("read", name + " by a mask", 0);
  } else if (!read.cpu_scalar.empty()) {
    tell("h2d", name + " of a number of the CPU", 4);
  }
}

void to_cpu(Aliases& aliases, const c10::Argument& argument, const std::string& name, IValue& value) {
  if (value.isTensor()) {
    value = aliases.alias(value.toTensor());
  } else if (value.isTensorList()) {
    c10::List<Tensor> all;
    for (const Tensor& each : value.toTensorVector()) all.push_back(aliases.alias(each));
    value = all;
  } else if (value.isList() && is_optional_tensors(argument)) {
    c10::List<std::optional<Tensor>> all;
    for (const IValue& each : value.toListRef())
      all.push_back(each.isTensor() ? aliases.alias(std::optional<Tensor>(each.toTensor())) : std::nullopt);
    value = all;
  } else if (value.isDevice() && value.toDevice().is_cuda()) {
    value = Device(kCPU);
  } else if (value.isGenerator()) {
    Generator generator = value.toGenerator();
    TORCH_CHECK(generator.device().is_cuda(), "Expected a 'cuda' device type for generator but found '",
                generator.device(), "' (simulated, ", name, ")");
    value = IValue(static_cast<DeviceGenerator*>(generator.unsafeGetGeneratorImpl())->inner);
  }
}

void to_device(Aliases& aliases, const Arguments& read, const std::string& name, IValue& value) {
  if (value.isTensor()) {
    for (auto& each : read.cpu_scalar)
      TORCH_CHECK(!each.is_same(value.toTensor()), "an operation in place on a tensor of the CPU by tensors of the ",
                  "device (simulated, ", name, ")");
    value = aliases.wrap(value.toTensor());
  } else if (value.isTensorList()) {
    c10::List<Tensor> all;
    for (const Tensor& each : value.toTensorVector()) all.push_back(aliases.wrap(each));
    value = all;
  }
}

void fallback(const c10::OperatorHandle& op, DispatchKeySet, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const std::string& name = schema.name();
  const size_t begin = stack->size() - schema.arguments().size();
  const bool index = INDEX.count(name) > 0;
  Arguments arguments = read(schema, *stack, begin, index);
  refuse_mixed(arguments, name, index);
  tell_waits(arguments, schema, *stack, begin);
  if (arguments.sim && !arguments.cpu_scalar.empty()) tell("scalar", name, 0);
  TORCH_CHECK(!(arguments.sim && arguments.is_float && NONDETERMINISTIC.count(name) && globalContext().deterministicAlgorithms()),
              name, " does not have a deterministic implementation on CUDA (simulated)");

  Aliases aliases;
  for (size_t i = 0; i < schema.arguments().size(); i++)
    to_cpu(aliases, schema.arguments()[i], name, (*stack)[begin + i]);
  op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), stack);
  aliases.finish();
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); i++)
    to_device(aliases, arguments, name, (*stack)[i]);
}

// ---- operations that are not the CPU's on aliases

Tensor empty(IntArrayRef size, std::optional<ScalarType> dtype, std::optional<Layout>, std::optional<Device>,
             std::optional<bool>, std::optional<MemoryFormat> format) {
  return Tensor(at::detail::empty_generic(size, &device_memory, DispatchKeySet(DispatchKey::CUDA),
                                          c10::dtype_or_default(dtype), format));
}

Tensor empty_strided(IntArrayRef size, IntArrayRef stride, std::optional<ScalarType> dtype, std::optional<Layout>,
                     std::optional<Device>, std::optional<bool>) {
  return Tensor(at::detail::empty_strided_generic(size, stride, &device_memory, DispatchKeySet(DispatchKey::CUDA),
                                                  c10::dtype_or_default(dtype)));
}

// Zeros with memory, as kernels of the CPU would read that of zeros without.
Tensor zeros(IntArrayRef size, std::optional<ScalarType> dtype, std::optional<Layout> layout,
             std::optional<Device> device, std::optional<bool> pinned) {
  return empty(size, dtype, layout, device, pinned, std::nullopt).zero_();
}

Tensor& copy_(Tensor& to, const Tensor& from, bool non_blocking) {
  if (to.is_cuda() != from.is_cuda() && to.numel()) {
    const Tensor& host = to.is_cuda() ? from : to;
    bool waits = !non_blocking || !PinnedAllocator::holds(host.storage().data());
    tell(std::string(to.is_cuda() ? "h2d" : "d2h") + (waits ? "" : "-async"), "copy", from.nbytes());
  }
  Aliases aliases;
  Tensor a = aliases.alias(to), b = aliases.alias(from);
  at::AutoDispatchBelowAutograd guard;
  a.copy_(b);
  return to;
}

Scalar local_scalar(const Tensor& tensor) {
  tell("read", "item", tensor.element_size());
  Aliases aliases;
  at::AutoDispatchBelowAutograd guard;
  return at::_local_scalar_dense(aliases.alias(tensor));
}

Tensor& set_storage(Tensor& tensor, Storage storage, int64_t offset, IntArrayRef size, IntArrayRef stride) {
  auto* impl = tensor.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(storage);
  if (stride.size() == size.size()) {
    impl->set_sizes_and_strides(size, stride, offset);
  } else {
    impl->set_sizes_contiguous(size);
    impl->set_storage_offset(offset);
  }
  return tensor;
}

Tensor& set_whole(Tensor& tensor, Storage storage) {
  int64_t numel = storage.nbytes() / tensor.element_size();
  return set_storage(tensor, storage, 0, {numel}, {1});
}

Tensor& set_tensor(Tensor& tensor, const Tensor& other) {
  return set_storage(tensor, other.storage(), other.storage_offset(), other.sizes(), other.strides());
}

void refuse_other_device(const Tensor& input, const Tensor& weight) {
  TORCH_CHECK(!weight.defined() || (input.is_cuda() && weight.is_cuda()), "Input type (", input.device(),
              ") and weight type (", weight.device(), ") should be the same (simulated, convolution)");
}

Tensor convolution(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, IntArrayRef stride,
                   IntArrayRef padding, IntArrayRef dilation, bool transposed, IntArrayRef out_padding, int64_t groups) {
  refuse_other_device(x, weight);
  if (bias) refuse_other_device(x, *bias);
  Aliases aliases;
  at::AutoDispatchBelowAutograd guard;
  return aliases.wrap(at::convolution(aliases.alias(x), aliases.alias(weight), aliases.alias(bias), stride, padding,
                                      dilation, transposed, out_padding, groups));
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& gradient, const Tensor& x, const Tensor& weight, OptionalIntArrayRef bias_sizes, IntArrayRef stride,
    IntArrayRef padding, IntArrayRef dilation, bool transposed, IntArrayRef out_padding, int64_t groups,
    std::array<bool, 3> wanted) {
  refuse_other_device(gradient, x);
  refuse_other_device(gradient, weight);
  Aliases aliases;
  at::AutoDispatchBelowAutograd guard;
  auto [of_x, of_weight, of_bias] =
      at::convolution_backward(aliases.alias(gradient), aliases.alias(x), aliases.alias(weight), bias_sizes, stride,
                               padding, dilation, transposed, out_padding, groups, wanted);
  return {aliases.wrap(of_x), aliases.wrap(of_weight), aliases.wrap(of_bias)};
}

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_efficientzerotensor", &zeros);
  m.impl("copy_", &copy_);
  m.impl("_local_scalar_dense", &local_scalar);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Storage", &set_whole);
  m.impl("set_.source_Tensor", &set_tensor);
  m.impl("convolution", &convolution);
  m.impl("convolution_backward", &convolution_backward);
  // Kernels of their own, which are composed of others on the CPU.
  for (const char* name : {"native_group_norm", "native_group_norm_backward", "native_layer_norm",
                           "native_layer_norm_backward"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

c10::impl::DeviceGuardImplRegistrar registrar(kCUDA, new Guard());
}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  c10::SetAllocator(kCUDA, &device_memory, 100);
  m.def("listen", [](py::object function) { listener = function.inc_ref().ptr(); });
}
