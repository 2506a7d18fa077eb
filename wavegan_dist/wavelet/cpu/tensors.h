// Converts tensors to the kernels' plain pointers, after the checks that keep every access in bounds.
#pragma once
#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <string>

#include "haar.h"

namespace haar {

using at::Tensor;

// Whether x is channels last and not also contiguous.
inline bool is_channels_last(const Tensor& x) {
  return x.is_contiguous(at::MemoryFormat::ChannelsLast) && !x.is_contiguous();
}

// x itself if its rows are dense in memory (or it is channels last, where that is wanted), otherwise a copy.
inline Tensor with_dense_rows(const Tensor& x, bool channels_last) {
  if (channels_last) return x.contiguous(at::MemoryFormat::ChannelsLast);
  return x.size(3) <= 1 || x.stride(3) == 1 ? x : x.contiguous();
}

// For error messages: "torch.float32 on cpu".
inline std::string dtype_and_device(const Tensor& x) {
  return c10::str("torch.", c10::getDtypeNames(x.scalar_type()).first, " on ", x.device());
}

// The checks raise ValueError with the messages of checks.py. `name` is the operation.
inline void check_dense(const char* name, const Tensor& x) {
  TORCH_CHECK_VALUE(x.dim() == 4 && x.layout() == at::kStrided && x.is_cpu(), name,
                    ": expected a dense [B, C, H, W] tensor, got ", dtype_and_device(x), " ", x.sizes());
}

inline void check_even(const char* name, const Tensor& x) {
  check_dense(name, x);
  TORCH_CHECK_VALUE(x.size(2) % 2 == 0 && x.size(3) % 2 == 0, name, ": height and width must be even, got ", x.size(2),
                    "x", x.size(3), "; crop or pad the image");
}

inline void check_same_kind(const char* name, const char* a_name, const Tensor& a, const char* b_name,
                            const Tensor& b) {
  TORCH_CHECK_VALUE(a.scalar_type() == b.scalar_type() && a.device() == b.device(), name, ": ", a_name, " is ",
                    dtype_and_device(a), ", ", b_name, " is ", dtype_and_device(b), "; make them equal");
}

inline void check_bands(const char* name, const Tensor& low, const Tensor& high) {
  check_dense(name, low), check_dense(name, high), check_same_kind(name, "low", low, "high", high);
  const at::IntArrayRef s = low.sizes();
  const int64_t expected[] = {s[0], 3 * s[1], s[2], s[3]};
  TORCH_CHECK_VALUE(high.sizes() == at::IntArrayRef(expected), name, ": low ", s, " needs high ",
                    at::IntArrayRef(expected), ", got ", high.sizes());
}

inline void check_image(const char* name, const char* image_name, const Tensor& image, const Tensor& low) {
  check_dense(name, image), check_same_kind(name, image_name, image, "low", low);
  const at::IntArrayRef s = low.sizes();
  const int64_t expected[] = {s[0], s[1], 2 * s[2], 2 * s[3]};
  TORCH_CHECK_VALUE(image.sizes() == at::IntArrayRef(expected), name, ": ", image_name, " is ", image.sizes(),
                    " but the bands rebuild ", at::IntArrayRef(expected), "; they must be equal");
}

inline DType dtype_of(const char* name, const Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat: return DType::float32;
    case at::kDouble: return DType::float64;
    case at::kBFloat16: return DType::bfloat16;
    default: TORCH_CHECK_VALUE(false, name, ": expected float32, float64 or bfloat16, got ", dtype_and_device(x));
  }
}

inline Strides strides_of(const Tensor& x, bool channels_last) {
  return {x.stride(0), channels_last ? 1 : x.stride(1), x.stride(2)};
}

inline Image image_of(const Tensor& x, bool channels_last) {
  return {const_cast<void*>(x.const_data_ptr()), strides_of(x, channels_last)};
}

inline Bands bands_of(const Tensor& low, const Tensor& high, bool channels_last) {
  return {const_cast<void*>(low.const_data_ptr()), const_cast<void*>(high.const_data_ptr()),
          strides_of(low, channels_last), strides_of(high, channels_last)};
}

// at::empty without the cost of the dispatcher. `scale`: 1 for a band, 2 for an image.
inline Tensor empty(const Shape& s, int64_t channels, int64_t scale, at::ScalarType dtype) {
  const int64_t sizes[] = {s.batch, channels, scale * s.height, scale * s.width};
  const auto format = s.channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  return at::detail::empty_cpu(sizes, dtype, false, format);
}

inline Tensor empty_image(const Shape& s, at::ScalarType dtype) { return empty(s, s.channels, 2, dtype); }

inline std::pair<Tensor, Tensor> empty_bands(const Shape& s, at::ScalarType dtype) {
  return {empty(s, s.channels, 1, dtype), empty(s, 3 * s.channels, 1, dtype)};
}

constexpr int64_t GRAIN_SIZE = 32768;  // pixels; a thread is not worth its start-up for fewer

// Calls function(first, last) for ranges that cover all rows, on PyTorch's threads.
template <class Function>
void parallel_for_rows(const Shape& s, const Function& function) {
  const int64_t rows = s.width && s.channels ? s.num_rows() : 0;
  if (!rows) return;
  const int64_t pixels_per_row = 4 * s.width * (s.channels_last ? s.channels : 1);
  at::parallel_for(0, rows, std::max<int64_t>(1, GRAIN_SIZE / pixels_per_row), function);
}

}  // namespace haar
