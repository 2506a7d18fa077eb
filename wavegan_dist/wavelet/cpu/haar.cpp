// The Haar kernels: one pass over memory for each operation. This file is compiled once per instruction set (build.py),
// with INSTRUCTIONS as the name of the resulting table; operators.cpp chooses the table at run time.
#include "haar.h"

#include "operations.h"

namespace haar {
namespace {

// From this many bytes moved on, no cache holds the operands: stores bypass the caches and image loads prefetch.
constexpr int64_t NONTEMPORAL_BYTES = 16 << 20;

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Processes the blocks [x, end), fewer than 2 * N: one vector of N lanes if it fits, then one of N / 2 and so on down
// to min_lanes<T>, then single blocks. All instruction sets end up with the same partial sums.
template <class T, class Layout, int N, class Rows>
INLINE void process_tail(Rows& rows, const Offsets& start, int64_t x, int64_t end) {
  if constexpr (N < min_lanes<T>) {
    for (; x < end; ++x) rows.template process<Layout, 1>(Layout::advance(start, x));
  } else {
    if (x + N <= end) rows.template process<Layout, N>(Layout::advance(start, x)), x += N;
    process_tail<T, Layout, N / 2>(rows, start, x, end);
  }
}

// Processes the blocks [0, end) from `start` on, in vectors of max_lanes<T> and a tail.
template <class T, class Layout, class Rows>
INLINE void process_blocks(Rows& rows, const Offsets& start, int64_t end) {
  constexpr int N = max_lanes<T>;
  int64_t x = 0;
  for (; x + N <= end; x += N) rows.template process<Layout, N>(Layout::advance(start, x));
  if (x < end) process_tail<T, Layout, N / 2>(rows, start, x, end);
}

constexpr int ANY_WIDTH = 0;

// Processes a row of one channel. `lanes`: the width is a multiple of it, so that no code for a tail stands between
// rows; ANY_WIDTH makes no such promise.
template <class T, class Layout, int lanes, class Rows>
INLINE void process_contiguous_row(Rows& rows, int64_t width) {
  if constexpr (lanes == ANY_WIDTH) {
    process_blocks<T, Layout>(rows, {}, width);
  } else {
    for (int64_t x = 0; x < width; x += lanes) rows.template process<Layout, lanes>(Layout::advance({}, x));
  }
}

// Processes a row of all channels, block by block.
template <class T, class Rows>
INLINE void process_channels_last_row(Rows& rows, int64_t width, int64_t channels) {
  int64_t x = 0;
  if (channels == 3)
    for (; x + 1 < width; ++x) rows.template process<ChannelsLastRgb, 4>({6 * x, 3 * x, 9 * x, 3});
  for (; x < width; ++x)
    process_blocks<T, ChannelsLast>(rows, {2 * x * channels, x * channels, 3 * x * channels, channels}, channels);
}

enum class Path { contiguous, nontemporal, channels_last };

template <class T, Path path, int lanes, class Operation>
double for_each_row(const Operation& operation, int64_t first, int64_t last) {
  const Shape& shape = operation.shape;
  double sum = 0;
  for (int64_t row = first; row < last;) {  // one image, or one channel of it, after the other
    const int64_t plane = row / shape.height, y = row % shape.height, end = smaller(last, row + shape.height - y);
    const int64_t channels = path == Path::channels_last ? 1 : shape.channels;
    auto rows = operation.rows(plane / channels, plane % channels, y);
    for (; row < end; ++row, rows.next_row()) {
      if constexpr (path == Path::channels_last) process_channels_last_row<T>(rows, shape.width, shape.channels);
      else process_contiguous_row<T, Contiguous<path == Path::nontemporal>, lanes>(rows, shape.width);
    }
    sum += rows.total();
  }
  if (path == Path::nontemporal) nontemporal_fence();
  return sum;
}

template <class T, Path path, class Operation>
double dispatch_width(const Operation& operation, int64_t first, int64_t last) {
  constexpr int N = max_lanes<T>;
  if (operation.shape.width % N == 0) return for_each_row<T, path, N>(operation, first, last);
  if constexpr (N > min_lanes<T>)
    if (operation.shape.width % (N / 2) == 0) return for_each_row<T, path, N / 2>(operation, first, last);
  return for_each_row<T, path, ANY_WIDTH>(operation, first, last);
}

template <class T, class Operation>
double run(const Operation& operation, int64_t first, int64_t last) {
  if (operation.shape.channels_last) return for_each_row<T, Path::channels_last, ANY_WIDTH>(operation, first, last);
  if (Operation::images_moved * operation.shape.image_bytes >= NONTEMPORAL_BYTES && operation.is_aligned())
    return dispatch_width<T, Path::nontemporal>(operation, first, last);
  return dispatch_width<T, Path::contiguous>(operation, first, last);
}

// Calls function(T()) with the element type T of `dtype`.
template <class Function>
double dispatch_dtype(DType dtype, const Function& function) {
  switch (dtype) {
    case DType::float32: return function(float());
    case DType::float64: return function(double());
    default: return function(BFloat16());
  }
}

void dwt(DType dtype, const Shape& shape, const Image& x, const Bands& out, int64_t first, int64_t last) {
  dispatch_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    return run<T>(Transform<T, Image, Bands>{shape, x, out}, first, last);
  });
}

void idwt(DType dtype, const Shape& shape, const Bands& bands, const Image& out, int64_t first, int64_t last) {
  dispatch_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    return run<T>(Transform<T, Bands, Image>{shape, bands, out}, first, last);
  });
}

void fuse(DType dtype, const Shape& shape, const Image& base, const Bands& bands, double lam, const Image& out,
          int64_t first, int64_t last) {
  dispatch_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    return run<T>(Fuse<T>{shape, base, bands, out, opmath_t<T>(lam), opmath_t<T>(1 - lam)}, first, last);
  });
}

double fuse_backward(DType dtype, const Shape& shape, const FuseBackwardArgs& args, int64_t first, int64_t last) {
  return dispatch_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    return run<T>(FuseBackward<T>{shape, args, opmath_t<T>(args.lam), opmath_t<T>(1 - args.lam)}, first, last);
  });
}

}  // namespace

const Kernels INSTRUCTIONS = {dwt, idwt, fuse, fuse_backward};

}  // namespace haar
