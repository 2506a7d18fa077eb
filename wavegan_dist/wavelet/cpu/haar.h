// The interface of the Haar kernels, which know nothing of PyTorch. All strides count elements. An image is
// [batch, channels, 2 * height, 2 * width]; `height` and `width` are those of its bands.
#pragma once
#include <cstdint>

namespace haar {

enum class DType { float32, float64, bfloat16 };

struct Shape {
  int64_t batch, channels, height, width;  // of the low band
  bool channels_last;                      // channels are adjacent in memory; otherwise the columns of a row are
  int64_t image_bytes;  // of one full-resolution image batch; decides whether stores bypass the caches
  // The units of work that threads share: rows of a band, of all channels at once when `channels_last`.
  int64_t num_rows() const { return batch * height * (channels_last ? 1 : channels); }
};

struct Strides {
  int64_t batch, channel, row;
};

struct Image {
  void* data;
  Strides strides;
};

struct Bands {  // high has 3 * channels: LH of all channels, then HL, then HH
  void *low, *high;
  Strides low_strides, high_strides;
};

struct FuseBackwardArgs {
  Image grad, base;
  Bands bands;
  double lam;
  Image grad_base;
  Bands grad_bands;
};

// The kernels of one instruction set. Each call processes the rows [first, last) of `shape.num_rows()`.
struct Kernels {
  void (*dwt)(DType, const Shape&, const Image& x, const Bands& out, int64_t first, int64_t last);
  void (*idwt)(DType, const Shape&, const Bands& bands, const Image& out, int64_t first, int64_t last);
  void (*fuse)(DType, const Shape&, const Image& base, const Bands& bands, double lam, const Image& out, int64_t first,
               int64_t last);
  // Returns what these rows contribute to the gradient of lam, <dwt(grad), bands> - <grad, base>, summed in double.
  double (*fuse_backward)(DType, const Shape&, const FuseBackwardArgs&, int64_t first, int64_t last);
};

extern const Kernels baseline;
#if defined(__x86_64__)
extern const Kernels avx2, avx512;
#endif

}  // namespace haar
