// The operators `wavegan_cpu::*` on CPU tensors: checks, layouts, threads.
#include "tensors.h"

#include <ATen/Version.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace haar {
namespace {

const Kernels* kernels = &baseline;

// The processor's best, but for what PyTorch does not use either: ATEN_CPU_CAPABILITY lowers it.
std::string select_instruction_set() {
#if defined(__x86_64__)
  const std::string level = at::get_cpu_capability();
  if (level == "AVX512" && __builtin_cpu_supports("avx512bf16")) return kernels = &avx512, "AVX-512";
  if (level == "AVX512" || level == "AVX2") return kernels = &avx2, "AVX2";
#endif
  return kernels = &baseline, "baseline";
}

Shape shape_of_image(const Tensor& x, int64_t item_size) {
  return {x.size(0), x.size(1), x.size(2) / 2, x.size(3) / 2, is_interleaved(x), x.numel() * item_size};
}

Shape shape_of_image(const Tensor& x) { return shape_of_image(x, x.element_size()); }

Shape shape_of_bands(const Tensor& low) {
  return {low.size(0), low.size(1), low.size(2), low.size(3), is_interleaved(low), 4 * low.numel() * int64_t(low.element_size())};
}

double value_of(const Tensor& lam) {
  TORCH_CHECK_VALUE(lam.dim() == 0 && lam.is_cpu() && at::isFloatingType(lam.scalar_type()), "fuse: lam wants a floating scalar on cpu, got ",
                    kind_of(lam), " ", lam.sizes(), "; move or cast it");
  const double value = lam.scalar_type() == at::kFloat ? *lam.const_data_ptr<float>() : lam.item<double>();
  return std::isnan(value) ? std::numeric_limits<double>::quiet_NaN() : value;  // without a payload: see rounded()
}

Tensor scalar(double value, at::ScalarType dtype) {
  Tensor x = at::detail::empty_cpu({}, dtype);
  if (dtype == at::kFloat) *x.mutable_data_ptr<float>() = float(value);
  else x.fill_(value);
  return x;
}

std::tuple<Tensor, Tensor> dwt_cpu(const Tensor& x) {
  at::AutoDispatchBelowADInplaceOrView guard;
  const Type type = type_of("dwt", x);
  check_even("dwt", x);
  const Shape shape = shape_of_image(x);
  const Tensor in = laid_out(x, shape.interleaved);
  auto [low, high] = empty_bands(shape, x.scalar_type());
  const Image image = image_of(in, shape.interleaved);
  const Bands out = bands_of(low, high, shape.interleaved);
  over_rows(shape, [&](int64_t first, int64_t last) { kernels->dwt(type, shape, image, out, first, last); });
  return {low, high};
}

Tensor idwt_cpu(const Tensor& low, const Tensor& high) {
  at::AutoDispatchBelowADInplaceOrView guard;
  const Type type = type_of("idwt", low);
  check_bands("idwt", low, high);
  const Shape shape = shape_of_bands(low);
  const Tensor low_in = laid_out(low, shape.interleaved), high_in = laid_out(high, shape.interleaved);
  Tensor x = empty_image(shape, low.scalar_type());
  const Bands bands = bands_of(low_in, high_in, shape.interleaved);
  const Image out = image_of(x, shape.interleaved);
  over_rows(shape, [&](int64_t first, int64_t last) { kernels->idwt(type, shape, bands, out, first, last); });
  return x;
}

Tensor fuse_cpu(const Tensor& base, const Tensor& low, const Tensor& high, const Tensor& lam) {
  at::AutoDispatchBelowADInplaceOrView guard;
  const Type type = type_of("fuse", base);
  check_bands("fuse", low, high), check_image("fuse", "base", base, low);
  const double mix = value_of(lam);
  const Shape shape = shape_of_image(base);
  const bool interleaved = shape.interleaved;
  const Tensor base_in = laid_out(base, interleaved), low_in = laid_out(low, interleaved), high_in = laid_out(high, interleaved);
  Tensor x = empty_image(shape, base.scalar_type());
  const Image image = image_of(base_in, interleaved), out = image_of(x, interleaved);
  const Bands bands = bands_of(low_in, high_in, interleaved);
  over_rows(shape, [&](int64_t first, int64_t last) { kernels->fuse(type, shape, image, bands, mix, out, first, last); });
  return x;
}

// The sum of `part(first, last)` over all rows in fixed pieces, added in order: the same with any number of threads.
template <class Part>
double sum_over_rows(const Shape& shape, const Part& part) {
  constexpr int64_t pieces = 64;
  const int64_t rows = shape.width && shape.channels ? shape.rows() : 0, pixels = 4 * shape.batch * shape.channels * shape.height * shape.width;
  if (pixels <= GRAIN) return rows ? part(0, rows) : 0;
  double sums[pieces];
  at::parallel_for(0, pieces, std::max<int64_t>(1, GRAIN * pieces / pixels), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) sums[i] = part(i * rows / pieces, (i + 1) * rows / pieces);
  });
  double sum = 0;
  for (double each : sums) sum += each;
  return sum;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> fuse_backward_cpu(const Tensor& grad, const Tensor& base, const Tensor& low,
                                                             const Tensor& high, const Tensor& lam) {
  at::AutoDispatchBelowADInplaceOrView guard;
  const at::ScalarType dtype = base.scalar_type();
  const Type type = type_of("fuse", base);
  check_bands("fuse", low, high), check_image("fuse", "base", base, low), check_image("fuse", "the gradient", grad, low);
  const Shape shape = shape_of_image(base);
  const bool interleaved = shape.interleaved;
  const Tensor grad_in = laid_out(grad, interleaved), base_in = laid_out(base, interleaved);
  const Tensor low_in = laid_out(low, interleaved), high_in = laid_out(high, interleaved);
  Tensor grad_base = empty_image(shape, dtype);
  auto [grad_low, grad_high] = empty_bands(shape, dtype);
  const FuseBackward of = {image_of(grad_in, interleaved),    image_of(base_in, interleaved),
                           bands_of(low_in, high_in, interleaved), value_of(lam),
                           image_of(grad_base, interleaved),  bands_of(grad_low, grad_high, interleaved)};
  const double sum = sum_over_rows(shape, [&](int64_t first, int64_t last) { return kernels->fuse_backward(type, shape, of, first, last); });
  return {grad_base, grad_low, grad_high, scalar(sum, lam.scalar_type())};
}

std::tuple<Tensor, Tensor, Tensor> analyse_cpu(const Tensor& x, at::ArrayRef<double> band_std) {
  at::AutoDispatchBelowADInplaceOrView guard;
  TORCH_CHECK_VALUE(x.scalar_type() == at::kByte, "analyse: wants a uint8 [B, C, H, W] tensor, got ", kind_of(x));
  check_even("analyse", x);
  TORCH_CHECK_VALUE(band_std.size() == 4 && std::all_of(band_std.begin(), band_std.end(), [](double std) { return std > 0; }),
                    "analyse: wants four positive standard deviations (low, LH, HL, HH), got ", band_std);
  float scale[4];
  for (int band = 0; band < 4; ++band) scale[band] = float(1 / (127.5 * band_std[band]));
  const Shape shape = shape_of_image(x, sizeof(float));
  const Tensor in = laid_out(x, shape.interleaved);
  Tensor image = empty_image(shape, at::kFloat);
  auto [low, high] = empty_bands(shape, at::kFloat);
  const Image bytes = image_of(in, shape.interleaved), pixels = image_of(image, shape.interleaved);
  const Bands out = bands_of(low, high, shape.interleaved);
  over_rows(shape, [&](int64_t first, int64_t last) { kernels->analyse(shape, bytes, scale, pixels, out, first, last); });
  return {image, low, high};
}

}  // namespace

TORCH_LIBRARY(wavegan_cpu, library) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag, at::Tag::needs_fixed_stride_order};
  library.def("dwt(Tensor x) -> (Tensor low, Tensor high)", tags);
  library.def("idwt(Tensor low, Tensor high) -> Tensor", tags);
  library.def("fuse(Tensor base, Tensor low, Tensor high, Tensor lam) -> Tensor", tags);
  library.def("fuse_backward(Tensor grad, Tensor base, Tensor low, Tensor high, Tensor lam) -> (Tensor, Tensor, Tensor, Tensor)", tags);
  library.def("analyse(Tensor images, float[] band_std) -> (Tensor image, Tensor low, Tensor high)", tags);
  library.def("select_instruction_set() -> str");
}

TORCH_LIBRARY_IMPL(wavegan_cpu, CPU, library) {
  library.impl("dwt", dwt_cpu);
  library.impl("idwt", idwt_cpu);
  library.impl("fuse", fuse_cpu);
  library.impl("fuse_backward", fuse_backward_cpu);
  library.impl("analyse", analyse_cpu);
}

TORCH_LIBRARY_IMPL(wavegan_cpu, CompositeExplicitAutograd, library) {
  library.impl("select_instruction_set", select_instruction_set);
}

}  // namespace haar
