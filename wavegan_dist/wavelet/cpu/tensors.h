// From tensors to the kernels' plain pointers, after every check that keeps them inside memory.
#pragma once
#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <string>

#include "haar.h"

namespace haar {

using at::Tensor;

inline bool is_interleaved(const Tensor& x) {
  return x.is_contiguous(at::MemoryFormat::ChannelsLast) && !x.is_contiguous();
}

// The tensor itself where rows are dense in memory, else a contiguous copy.
inline Tensor laid_out(const Tensor& x, bool interleaved) {
  if (interleaved) return x.contiguous(at::MemoryFormat::ChannelsLast);
  return x.size(3) <= 1 || x.stride(3) == 1 ? x : x.contiguous();
}

// "torch.float32 on cpu"
inline std::string kind_of(const Tensor& x) {
  return c10::str("torch.", c10::getDtypeNames(x.scalar_type()).first, " on ", x.device());
}

// The checks say what those of checks.py say, in its words.
inline void check_dense(const char* name, const Tensor& x) {
  TORCH_CHECK_VALUE(x.dim() == 4 && x.layout() == at::kStrided && x.is_cpu(), name, ": wants a dense [B, C, H, W] tensor, got ",
                    kind_of(x), " ", x.sizes());
}

inline void check_even(const char* name, const Tensor& x) {
  check_dense(name, x);
  TORCH_CHECK_VALUE(x.size(2) % 2 == 0 && x.size(3) % 2 == 0, name, ": height and width must be even, got ", x.size(2), "x", x.size(3),
                    "; crop or pad the image");
}

inline void check_alike(const char* name, const char* first, const Tensor& a, const char* second, const Tensor& b) {
  TORCH_CHECK_VALUE(a.scalar_type() == b.scalar_type() && a.device() == b.device(), name, ": ", first, " is ", kind_of(a), ", ", second,
                    " is ", kind_of(b), "; make them equal");
}

inline void check_bands(const char* name, const Tensor& low, const Tensor& high) {
  check_dense(name, low), check_dense(name, high), check_alike(name, "low", low, "high", high);
  const at::IntArrayRef s = low.sizes();
  const int64_t wanted[] = {s[0], 3 * s[1], s[2], s[3]};
  TORCH_CHECK_VALUE(high.sizes() == at::IntArrayRef(wanted), name, ": low ", s, " needs high ", at::IntArrayRef(wanted), ", got ", high.sizes());
}

inline void check_image(const char* name, const char* what, const Tensor& image, const Tensor& low) {
  check_dense(name, image), check_alike(name, what, image, "low", low);
  const at::IntArrayRef s = low.sizes();
  const int64_t wanted[] = {s[0], s[1], 2 * s[2], 2 * s[3]};
  TORCH_CHECK_VALUE(image.sizes() == at::IntArrayRef(wanted), name, ": ", what, " is ", image.sizes(), " but the bands rebuild ",
                    at::IntArrayRef(wanted), "; they must be equal");
}

inline Type type_of(const char* name, const Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat: return Type::f32;
    case at::kDouble: return Type::f64;
    case at::kBFloat16: return Type::bf16;
    default: TORCH_CHECK_VALUE(false, name, ": wants float32, float64 or bfloat16, got ", kind_of(x));
  }
}

inline Strides strides_of(const Tensor& x, bool interleaved) {
  return {x.stride(0), interleaved ? 1 : x.stride(1), x.stride(2)};
}

inline Image image_of(const Tensor& x, bool interleaved) {
  return {const_cast<void*>(x.const_data_ptr()), strides_of(x, interleaved)};
}

inline Bands bands_of(const Tensor& low, const Tensor& high, bool interleaved) {
  return {const_cast<void*>(low.const_data_ptr()), const_cast<void*>(high.const_data_ptr()), strides_of(low, interleaved),
          strides_of(high, interleaved)};
}

inline at::MemoryFormat format(bool interleaved) {
  return interleaved ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

inline Tensor empty(const Shape& s, int64_t channels, int64_t scale, at::ScalarType dtype) {
  const int64_t sizes[] = {s.batch, channels, scale * s.height, scale * s.width};
  return at::detail::empty_cpu(sizes, dtype, false, format(s.interleaved));  // at::empty without the way through the dispatcher
}

inline Tensor empty_image(const Shape& s, at::ScalarType dtype) { return empty(s, s.channels, 2, dtype); }

inline std::pair<Tensor, Tensor> empty_bands(const Shape& s, at::ScalarType dtype) {
  return {empty(s, s.channels, 1, dtype), empty(s, 3 * s.channels, 1, dtype)};
}

constexpr int64_t GRAIN = 32768;  // pixels from which on threads are worth it

// `work(first, last)` over all rows, shared among PyTorch's threads where they are worth it.
template <class Work>
void over_rows(const Shape& s, const Work& work) {
  const int64_t rows = s.width && s.channels ? s.rows() : 0;
  if (!rows) return;
  const int64_t row = 4 * s.width * (s.interleaved ? s.channels : 1);
  at::parallel_for(0, rows, std::max<int64_t>(1, GRAIN / row), work);
}

}  // namespace haar
