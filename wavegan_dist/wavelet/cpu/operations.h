// The operations on one row of blocks. Each is a struct with the members that haar.cpp loops over:
//   shape            the shape of the bands
//   images_moved     how many images' worth of bytes the operation reads and writes
//   is_aligned()     whether its outputs allow nontemporal stores
//   rows(b, c, y)    a Rows object for image b, channel c and band row y, with
//     process<Layout, N>(at)   to compute the N blocks at these offsets
//     next_row()               to move to the row below
//     total()                  the sum over everything processed; 0 unless the operation has a reduction
#pragma once
#include "layouts.h"
#include "sums.h"

namespace haar {
namespace {

// The orthonormal transform of 2x2 blocks [[a, b], [c, d]] to (LL, LH, HL, HH). It is its own inverse.
template <class V>
INLINE Quad<V> transform(const Quad<V>& block) {
  const V top_sum = (block.a + block.b) / 2, top_difference = (block.a - block.b) / 2;
  const V bottom_sum = block.c + block.d, bottom_difference = block.c - block.d;
  Quad<V> bands;
  add_and_subtract_half(top_sum, bottom_sum, bands.a, bands.b);
  add_and_subtract_half(top_difference, bottom_difference, bands.c, bands.d);
  return bands;
}

// dwt is Transform<T, Image, Bands>, idwt is Transform<T, Bands, Image>.
template <class T, class Input, class Output>
struct Transform {
  static constexpr int images_moved = 2;
  Shape shape;
  Input in;
  Output out;
  struct Rows : NoSum {
    decltype(rows_at<const T>(Input(), Shape(), 0, 0, 0)) in;
    decltype(rows_at<T>(Output(), Shape(), 0, 0, 0)) out;
    template <class Layout, int N>
    INLINE void process(const Offsets& at) {
      store<Layout, N>(out, at, transform(load<Layout, N>(in, at)));
    }
    INLINE void next_row() { in.next_row(), out.next_row(); }
  };
  INLINE bool is_aligned() const { return haar::is_aligned<T>(out); }
  INLINE Rows rows(int64_t b, int64_t c, int64_t y) const {
    return {{}, rows_at<const T>(in, shape, b, c, y), rows_at<T>(out, shape, b, c, y)};
  }
};

// out = (1 - lam) * base + lam * idwt(bands)
template <class T>
struct Fuse {
  static constexpr int images_moved = 3;
  Shape shape;
  Image base;
  Bands bands;
  Image out;
  opmath_t<T> lam, one_minus_lam;
  struct Rows : NoSum {
    ImageRows<const T> base;
    BandRows<const T> bands;
    ImageRows<T> out;
    opmath_t<T> lam, one_minus_lam;
    template <class Layout, int N>
    INLINE void process(const Offsets& at) {
      const auto detail = transform(load<Layout, N>(bands, at));
      const auto x = load<Layout, N>(base, at);
      store<Layout, N>(out, at,
                       {one_minus_lam * x.a + lam * detail.a, one_minus_lam * x.b + lam * detail.b,
                        one_minus_lam * x.c + lam * detail.c, one_minus_lam * x.d + lam * detail.d});
    }
    INLINE void next_row() { base.next_row(), bands.next_row(), out.next_row(); }
  };
  INLINE bool is_aligned() const { return haar::is_aligned<T>(out); }
  INLINE Rows rows(int64_t b, int64_t c, int64_t y) const {
    return {{},
            rows_at<const T>(base, shape, b, c, y),
            rows_at<const T>(bands, shape, b, c, y),
            rows_at<T>(out, shape, b, c, y),
            lam,
            one_minus_lam};
  }
};

// grad_base = (1 - lam) * grad and grad_bands = lam * dwt(grad); sums <dwt(grad), bands> - <grad, base>.
template <class T>
struct FuseBackward {
  static constexpr int images_moved = 5;
  Shape shape;
  FuseBackwardArgs args;
  opmath_t<T> lam, one_minus_lam;
  struct Rows : RowSum<opmath_t<T>> {
    ImageRows<const T> grad, base;
    BandRows<const T> bands;
    ImageRows<T> grad_base;
    BandRows<T> grad_bands;
    opmath_t<T> lam, one_minus_lam;
    template <class Layout, int N>
    INLINE void process(const Offsets& at) {
      const auto g = load<Layout, N>(grad, at), x = load<Layout, N>(base, at);
      const auto band = load<Layout, N>(bands, at), g_band = transform(g);
      store<Layout, N>(grad_base, at,
                       {one_minus_lam * g.a, one_minus_lam * g.b, one_minus_lam * g.c, one_minus_lam * g.d});
      store<Layout, N>(grad_bands, at, {lam * g_band.a, lam * g_band.b, lam * g_band.c, lam * g_band.d});
      const auto of_bands = g_band.a * band.a + g_band.b * band.b + (g_band.c * band.c + g_band.d * band.d);
      const auto of_base = g.a * x.a + g.b * x.b + (g.c * x.c + g.d * x.d);
      this->template add<N, Layout::template valid_lanes<N>>(of_bands - of_base);
    }
    INLINE void next_row() {
      this->end_row();
      grad.next_row(), base.next_row(), bands.next_row(), grad_base.next_row(), grad_bands.next_row();
    }
  };
  INLINE bool is_aligned() const { return haar::is_aligned<T>(args.grad_base) && haar::is_aligned<T>(args.grad_bands); }
  INLINE Rows rows(int64_t b, int64_t c, int64_t y) const {
    return {{},
            rows_at<const T>(args.grad, shape, b, c, y),
            rows_at<const T>(args.base, shape, b, c, y),
            rows_at<const T>(args.bands, shape, b, c, y),
            rows_at<T>(args.grad_base, shape, b, c, y),
            rows_at<T>(args.grad_bands, shape, b, c, y),
            lam,
            one_minus_lam};
  }
};

}  // namespace
}  // namespace haar
