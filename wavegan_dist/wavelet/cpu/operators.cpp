// The operators wavegan_cpu::* on CPU tensors: they check arguments, allocate results and run the kernels on threads.
#include <ATen/Version.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tensors.h"

namespace haar {
namespace {

const Kernels* kernels = &baseline;

// Chooses the kernels for this processor and returns the name of their instruction set. Never exceeds the level that
// PyTorch itself uses, so that the environment variable ATEN_CPU_CAPABILITY lowers both.
std::string select_instruction_set() {
#if defined(__x86_64__)
  const std::string level = at::get_cpu_capability();
  if (level == "AVX512" && __builtin_cpu_supports("avx512bf16")) return kernels = &avx512, "AVX-512";
  if (level == "AVX512" || level == "AVX2") return kernels = &avx2, "AVX2";
#endif
  return kernels = &baseline, "baseline";
}

Shape shape_of_image(const Tensor& x) {
  const int64_t image_bytes = x.numel() * int64_t(x.element_size());
  return {x.size(0), x.size(1), x.size(2) / 2, x.size(3) / 2, is_channels_last(x), image_bytes};
}

Shape shape_of_bands(const Tensor& low) {
  const int64_t image_bytes = 4 * low.numel() * int64_t(low.element_size());
  return {low.size(0), low.size(1), low.size(2), low.size(3), is_channels_last(low), image_bytes};
}

double value_of(const Tensor& lam) {
  TORCH_CHECK_VALUE(lam.dim() == 0 && lam.is_cpu() && at::isFloatingType(lam.scalar_type()),
                    "fuse: lam must be a floating-point scalar on cpu, got ", dtype_and_device(lam), " ", lam.sizes(),
                    "; move or cast it");
  const double value = lam.scalar_type() == at::kFloat ? *lam.const_data_ptr<float>() : lam.item<double>();
  // A NaN with set lower bits would not survive round_to_upper_half().
  return std::isnan(value) ? std::numeric_limits<double>::quiet_NaN() : value;
}

Tensor scalar_tensor(double value, at::ScalarType dtype) {
  Tensor x = at::detail::empty_cpu({}, dtype);
  if (dtype == at::kFloat) *x.mutable_data_ptr<float>() = float(value);  // fill_ would go through the dispatcher
  else x.fill_(value);
  return x;
}

std::tuple<Tensor, Tensor> dwt_cpu(const Tensor& x) {
  at::AutoDispatchBelowADInplaceOrView guard;
  const DType dtype = dtype_of("dwt", x);
  check_even("dwt", x);
  const Shape shape = shape_of_image(x);
  const Tensor x_dense = with_dense_rows(x, shape.channels_last);
  auto [low, high] = empty_bands(shape, x.scalar_type());
  const Image image = image_of(x_dense, shape.channels_last);
  const Bands out = bands_of(low, high, shape.channels_last);
  parallel_for_rows(shape, [&](int64_t first, int64_t last) { kernels->dwt(dtype, shape, image, out, first, last); });
  return {low, high};
}

Tensor idwt_cpu(const Tensor& low, const Tensor& high) {
  at::AutoDispatchBelowADInplaceOrView guard;
  const DType dtype = dtype_of("idwt", low);
  check_bands("idwt", low, high);
  const Shape shape = shape_of_bands(low);
  const Tensor low_dense = with_dense_rows(low, shape.channels_last);
  const Tensor high_dense = with_dense_rows(high, shape.channels_last);
  Tensor x = empty_image(shape, low.scalar_type());
  const Bands bands = bands_of(low_dense, high_dense, shape.channels_last);
  const Image out = image_of(x, shape.channels_last);
  parallel_for_rows(shape, [&](int64_t first, int64_t last) { kernels->idwt(dtype, shape, bands, out, first, last); });
  return x;
}

Tensor fuse_cpu(const Tensor& base, const Tensor& low, const Tensor& high, const Tensor& lam) {
  at::AutoDispatchBelowADInplaceOrView guard;
  const DType dtype = dtype_of("fuse", base);
  check_bands("fuse", low, high), check_image("fuse", "base", base, low);
  const double lam_value = value_of(lam);
  const Shape shape = shape_of_image(base);
  const bool channels_last = shape.channels_last;
  const Tensor base_dense = with_dense_rows(base, channels_last);
  const Tensor low_dense = with_dense_rows(low, channels_last), high_dense = with_dense_rows(high, channels_last);
  Tensor x = empty_image(shape, base.scalar_type());
  const Image image = image_of(base_dense, channels_last), out = image_of(x, channels_last);
  const Bands bands = bands_of(low_dense, high_dense, channels_last);
  parallel_for_rows(shape, [&](int64_t first, int64_t last) {
    kernels->fuse(dtype, shape, image, bands, lam_value, out, first, last);
  });
  return x;
}

// Adds up function(first, last) over fixed ranges of rows, in order, so that the result does not depend on the number
// of threads.
template <class Function>
double sum_over_rows(const Shape& shape, const Function& function) {
  constexpr int64_t chunks = 64;
  const int64_t rows = shape.width && shape.channels ? shape.num_rows() : 0;
  const int64_t pixels = 4 * shape.batch * shape.channels * shape.height * shape.width;
  if (pixels <= GRAIN_SIZE) return rows ? function(0, rows) : 0;
  double sums[chunks];
  at::parallel_for(0, chunks, std::max<int64_t>(1, GRAIN_SIZE * chunks / pixels), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) sums[i] = function(i * rows / chunks, (i + 1) * rows / chunks);
  });
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> fuse_backward_cpu(const Tensor& grad, const Tensor& base, const Tensor& low,
                                                             const Tensor& high, const Tensor& lam) {
  at::AutoDispatchBelowADInplaceOrView guard;
  const at::ScalarType scalar_type = base.scalar_type();
  const DType dtype = dtype_of("fuse", base);
  check_bands("fuse", low, high);
  check_image("fuse", "base", base, low), check_image("fuse", "the gradient", grad, low);
  const Shape shape = shape_of_image(base);
  const bool channels_last = shape.channels_last;
  const Tensor grad_dense = with_dense_rows(grad, channels_last), base_dense = with_dense_rows(base, channels_last);
  const Tensor low_dense = with_dense_rows(low, channels_last), high_dense = with_dense_rows(high, channels_last);
  Tensor grad_base = empty_image(shape, scalar_type);
  auto [grad_low, grad_high] = empty_bands(shape, scalar_type);
  const FuseBackwardArgs args = {
      .grad = image_of(grad_dense, channels_last),
      .base = image_of(base_dense, channels_last),
      .bands = bands_of(low_dense, high_dense, channels_last),
      .lam = value_of(lam),
      .grad_base = image_of(grad_base, channels_last),
      .grad_bands = bands_of(grad_low, grad_high, channels_last),
  };
  const double grad_lam = sum_over_rows(
      shape, [&](int64_t first, int64_t last) { return kernels->fuse_backward(dtype, shape, args, first, last); });
  return {grad_base, grad_low, grad_high, scalar_tensor(grad_lam, lam.scalar_type())};
}

}  // namespace

TORCH_LIBRARY(wavegan_cpu, library) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag, at::Tag::needs_fixed_stride_order};
  library.def("dwt(Tensor x) -> (Tensor low, Tensor high)", tags);
  library.def("idwt(Tensor low, Tensor high) -> Tensor", tags);
  library.def("fuse(Tensor base, Tensor low, Tensor high, Tensor lam) -> Tensor", tags);
  library.def(
      "fuse_backward(Tensor grad, Tensor base, Tensor low, Tensor high, Tensor lam)"
      " -> (Tensor, Tensor, Tensor, Tensor)",
      tags);
  library.def("select_instruction_set() -> str");
}

TORCH_LIBRARY_IMPL(wavegan_cpu, CPU, library) {
  library.impl("dwt", dwt_cpu);
  library.impl("idwt", idwt_cpu);
  library.impl("fuse", fuse_cpu);
  library.impl("fuse_backward", fuse_backward_cpu);
}

TORCH_LIBRARY_IMPL(wavegan_cpu, CompositeExplicitAutograd, library) {
  library.impl("select_instruction_set", select_instruction_set);
}

}  // namespace haar
