// The Haar transform's kernels, without PyTorch. Strides count elements; images are [batch, channels, 2 height, 2 width].
#pragma once
#include <cstdint>

namespace haar {

enum class Type { f32, f64, bf16 };

// `interleaved`: channels lie beside each other (channels last, dense pixels); else columns do, and `channel` is a stride.
struct Shape {
  int64_t batch, channels, height, width;  // of a band
  bool interleaved;
  int64_t bytes;  // of an image that is written or transformed
  int64_t rows() const { return batch * height * (interleaved ? 1 : channels); }
};

struct Strides {
  int64_t batch, channel, row;
};

struct Image {
  void* data;
  Strides strides;
};

struct Bands {  // high: [LH of all channels, HL of all, HH of all]
  void *low, *high;
  Strides low_strides, high_strides;
};

struct FuseBackward {
  Image grad, base;
  Bands bands;
  double lam;
  Image grad_base;
  Bands grad_bands;
};

// Each works on rows [first, last) of `shape.rows()`, so that threads share them.
struct Kernels {
  void (*dwt)(Type, const Shape&, const Image& x, const Bands& out, int64_t first, int64_t last);
  void (*idwt)(Type, const Shape&, const Bands& bands, const Image& out, int64_t first, int64_t last);
  void (*fuse)(Type, const Shape&, const Image& base, const Bands& bands, double lam, const Image& out, int64_t first, int64_t last);
  // Returns these rows' share of the gradient of lam, <dwt(grad), bands> - <grad, base>, summed in double.
  double (*fuse_backward)(Type, const Shape&, const FuseBackward&, int64_t first, int64_t last);
  // uint8 x -> float32 image = x / 127.5 - 1 and its bands; `scale` is 1 / 127.5 over the standard deviation of each.
  void (*analyse)(const Shape&, const Image& x, const float* scale, const Image& image, const Bands& out, int64_t first, int64_t last);
};

// By the instructions that they use.
extern const Kernels baseline;
#if defined(__x86_64__)
extern const Kernels avx2, avx512;
#endif

}  // namespace haar
