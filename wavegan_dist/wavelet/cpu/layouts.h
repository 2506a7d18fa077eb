// Where the 2x2 blocks of an image and their four band coefficients are in memory, for each memory format.
#pragma once
#include "haar.h"
#include "memory.h"

namespace haar {
namespace {

// Minimum distance in bytes from a load to the prefetch issued with it. The distance is also at least the stride to the
// next two rows, so that a prefetch never targets a row that is being read.
constexpr int64_t PREFETCH_DISTANCE = 2048;

// The two image rows that hold a row of 2x2 blocks.
template <class T>
struct ImageRows {
  T *top, *bottom;
  int64_t stride;  // to the next two rows
  INLINE void next_row() { top += stride, bottom += stride; }
};

// The corresponding row of each band.
template <class T>
struct BandRows {
  T *ll, *lh, *hl, *hh;
  int64_t low_stride, high_stride;
  INLINE void next_row() { ll += low_stride, lh += high_stride, hl += high_stride, hh += high_stride; }
};

// The rows of image b, channel c and band row y.
template <class T>
INLINE ImageRows<T> rows_at(const Image& image, const Shape&, int64_t b, int64_t c, int64_t y) {
  T* top =
      static_cast<T*>(image.data) + b * image.strides.batch + c * image.strides.channel + 2 * y * image.strides.row;
  return {top, top + image.strides.row, 2 * image.strides.row};
}

template <class T>
INLINE BandRows<T> rows_at(const Bands& bands, const Shape& shape, int64_t b, int64_t c, int64_t y) {
  const Strides &low = bands.low_strides, &high = bands.high_strides;
  T* ll = static_cast<T*>(bands.low) + b * low.batch + c * low.channel + y * low.row;
  T* lh = static_cast<T*>(bands.high) + b * high.batch + c * high.channel + y * high.row;
  const int64_t band = shape.channels * high.channel;
  return {ll, lh, lh + band, lh + 2 * band, low.row, high.row};
}

// Offsets within a row, in elements. In channels-last images, `right` leads from a left pixel to its right neighbor.
struct Offsets {
  int64_t image, low, high, right;
};

// Columns are adjacent in memory. With `nontemporal_rows`, vector stores bypass the caches and image loads prefetch.
template <bool nontemporal_rows>
struct Contiguous {
  template <int N>
  static constexpr bool nontemporal = nontemporal_rows && N > 1;
  template <int N>
  static constexpr bool prefetch = nontemporal<N>;
  template <int N>
  static constexpr int valid_lanes = N;
  static INLINE Offsets advance(const Offsets& at, int64_t n) {
    return {at.image + 2 * n, at.low + n, at.high + n, at.right};
  }
  template <int N, class T>
  static INLINE void load(const T* p, int64_t, Vector<opmath_t<T>, N>& left, Vector<opmath_t<T>, N>& right) {
    load_deinterleaved<N>(p, left, right);
  }
  template <int N, class T>
  static INLINE void store(T* p, int64_t, Vector<opmath_t<T>, N> left, Vector<opmath_t<T>, N> right) {
    store_interleaved<N, nontemporal<N>>(p, left, right);
  }
};

// Channels are adjacent in memory.
struct ChannelsLast {
  template <int N>
  static constexpr bool nontemporal = false;
  template <int N>
  static constexpr bool prefetch = N > 1;
  template <int N>
  static constexpr int valid_lanes = N;
  static INLINE Offsets advance(const Offsets& at, int64_t n) {
    return {at.image + n, at.low + n, at.high + n, at.right};
  }
  template <int N, class T>
  static INLINE void load(const T* p, int64_t to_right, Vector<opmath_t<T>, N>& left, Vector<opmath_t<T>, N>& right) {
    left = load_lanes<N>(p), right = load_lanes<N>(p + to_right);
  }
  template <int N, class T>
  static INLINE void store(T* p, int64_t to_right, Vector<opmath_t<T>, N> left, Vector<opmath_t<T>, N> right) {
    store_lanes<N>(p, left), store_lanes<N>(p + to_right, right);
  }
};

// Three channels in vectors of four lanes. The fourth lane reads and writes the first channel of the next pixel, which
// that pixel's own store overwrites later. The last block of a row has no next pixel and must use ChannelsLast.
struct ChannelsLastRgb : ChannelsLast {
  template <int N>
  static constexpr int valid_lanes = 3;
};

// The pixels [[a, b], [c, d]] of 2x2 blocks, or their coefficients LL, LH, HL, HH in this order.
template <class V>
struct Quad {
  V a, b, c, d;
};

template <class Layout, int N, class T>
INLINE Quad<Vector<opmath_t<T>, N>> load(const ImageRows<T>& rows, const Offsets& at) {
  if constexpr (Layout::template prefetch<N>) {
    const int64_t row_bytes = rows.stride * int64_t(sizeof(T));
    const int64_t ahead = row_bytes > PREFETCH_DISTANCE ? row_bytes : PREFETCH_DISTANCE;
    const char* top = reinterpret_cast<const char*>(rows.top + at.image) + ahead;
    const char* bottom = reinterpret_cast<const char*>(rows.bottom + at.image) + ahead;
    for (unsigned line = 0; line < 2 * N * sizeof(T); line += 64)
      __builtin_prefetch(top + line), __builtin_prefetch(bottom + line);
  }
  Quad<Vector<opmath_t<T>, N>> block;
  Layout::template load<N>(rows.top + at.image, at.right, block.a, block.b);
  Layout::template load<N>(rows.bottom + at.image, at.right, block.c, block.d);
  return block;
}

template <class Layout, int N, class T>
INLINE void store(const ImageRows<T>& rows, const Offsets& at, const Quad<Vector<opmath_t<T>, N>>& block) {
  Layout::template store<N>(rows.top + at.image, at.right, block.a, block.b);
  Layout::template store<N>(rows.bottom + at.image, at.right, block.c, block.d);
}

template <class Layout, int N, class T>
INLINE Quad<Vector<opmath_t<T>, N>> load(const BandRows<T>& rows, const Offsets& at) {
  return {load_lanes<N>(rows.ll + at.low), load_lanes<N>(rows.lh + at.high), load_lanes<N>(rows.hl + at.high),
          load_lanes<N>(rows.hh + at.high)};
}

template <class Layout, int N, class T>
INLINE void store(const BandRows<T>& rows, const Offsets& at, const Quad<Vector<opmath_t<T>, N>>& bands) {
  constexpr bool nontemporal = Layout::template nontemporal<N>;
  store_lanes<N, nontemporal>(rows.ll + at.low, bands.a), store_lanes<N, nontemporal>(rows.lh + at.high, bands.b);
  store_lanes<N, nontemporal>(rows.hl + at.high, bands.c), store_lanes<N, nontemporal>(rows.hh + at.high, bands.d);
}

// Whether every row starts at a multiple of 16 bytes.
template <class T>
bool is_aligned(const void* data, const Strides& strides) {
  return !((uintptr_t(data) | uintptr_t((strides.batch | strides.channel | strides.row) * int64_t(sizeof(T)))) & 15);
}

template <class T>
bool is_aligned(const Image& image) {
  return is_aligned<T>(image.data, image.strides);
}

template <class T>
bool is_aligned(const Bands& bands) {
  return is_aligned<T>(bands.low, bands.low_strides) && is_aligned<T>(bands.high, bands.high_strides);
}

}  // namespace
}  // namespace haar
