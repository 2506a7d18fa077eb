// Accumulators of the sum over all vectors of a range of rows.
#pragma once
#include "vectors.h"

namespace haar {
namespace {

// For operations that sum nothing.
struct NoSum {
  double total() const { return 0; }
};

// Sums each lane in R within a row and in double across rows, in an order that is the same for every instruction set.
template <class R>
struct RowSum {
  Vector<double, 4> previous_rows[2] = {};
  Vector<R, min_lanes<R>> wide = {};  // of this row: vectors of min_lanes<R> or more, of 4 lanes, and single elements
  Vector<R, 4> four = {};
  R one = 0;

  // Adds the first `valid` lanes of v.
  template <int N, int valid>
  INLINE void add(Vector<R, N> v) {
    if constexpr (N > valid)
      for (int lane = valid; lane < N; ++lane) v[lane] = 0;
    if constexpr (N == 1) {
      one += v;
    } else if constexpr (N > min_lanes<R>) {
      add<N / 2, N / 2>(lower_half(v)), add<N / 2, N / 2>(upper_half(v));
    } else if constexpr (N == min_lanes<R>) {
      wide += v;
    } else {
      static_assert(N == 4);
      four += v;
    }
  }
  INLINE void end_row() {
    previous_rows[0][0] += one, previous_rows[0] += convert<Vector<double, 4>>(four);
    if constexpr (min_lanes<R> == 4) {
      previous_rows[1] += convert<Vector<double, 4>>(wide);
    } else {
      previous_rows[0] += convert<Vector<double, 4>>(lower_half(wide));
      previous_rows[1] += convert<Vector<double, 4>>(upper_half(wide));
    }
    wide = Vector<R, min_lanes<R>>{}, four = Vector<R, 4>{}, one = 0;
  }
  INLINE double total() const {
    const auto sum = previous_rows[0] + previous_rows[1];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }
};

}  // namespace
}  // namespace haar
