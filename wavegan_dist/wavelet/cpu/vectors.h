// Short vectors of any element type through the compiler's own (GCC, Clang): AVX2, SSE, NEON or plain code by target.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace haar {

struct BFloat16 {
  uint16_t bits;
};

template <class T>
struct Arithmetic {
  using type = T;
};
template <>
struct Arithmetic<BFloat16> {
  using type = float;
};
template <>
struct Arithmetic<uint8_t> {
  using type = float;
};
template <class T>
using Real = typename Arithmetic<std::remove_const_t<T>>::type;

template <class T, int N>
struct VectorOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <class T>
struct VectorOf<T, 1> {
  using type = T;
};
template <class T, int N>
using Vector = typename VectorOf<std::remove_const_t<T>, N>::type;

template <class T>
constexpr int lanes = 32 / sizeof(Real<T>);  // of one AVX2 register

template <class To, class From>
INLINE To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

template <class V, class T>
INLINE V load_raw(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof(V));
  return v;
}

template <class To, class From>
INLINE To convert(From v) {
  if constexpr (std::is_arithmetic_v<To>) return To(v);
  else return __builtin_convertvector(v, To);
}

// Lanes by number out of two vectors joined; GCC knew no __builtin_shufflevector before version 12.
#if defined(__clang__)
#define LANES(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define LANES(a, b, ...) \
  __builtin_shuffle(a, b, Vector<std::conditional_t<sizeof(a[0]) == 4, int32_t, int64_t>, sizeof(a) / sizeof(a[0])>{__VA_ARGS__})
#endif

// Round to nearest even in the upper 16 bits. A NaN that arithmetic made of bfloat16 has zeros below them and stays one.
template <int N>
INLINE Vector<uint32_t, N> rounded(Vector<float, N> v) {
  auto bits = bit_cast<Vector<uint32_t, N>>(v);
  return bits + 0x7fffu + ((bits >> 16) & 1u);
}

// `streams`: past the caches, to memory that is aligned to 16 bytes.
template <bool streams, class V>
INLINE void write(void* p, V v) {
#if defined(__SSE2__)
  if constexpr (streams) {
    __m128i pieces[sizeof(V) / 16];
    std::memcpy(pieces, &v, sizeof v);
    for (unsigned i = 0; i < sizeof(V) / 16; ++i) _mm_stream_si128(static_cast<__m128i*>(p) + i, pieces[i]);
    return;
  }
#endif
  std::memcpy(p, &v, sizeof v);
}

// Makes streamed writes visible to the thread that is told of them.
INLINE void flush() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

template <int N, class T>
INLINE Vector<Real<T>, N> load_lanes(const T* p) {
  if constexpr (std::is_same_v<std::remove_const_t<T>, BFloat16>)
    return bit_cast<Vector<float, N>>(convert<Vector<uint32_t, N>>(load_raw<Vector<uint16_t, N>>(p)) << 16);
  else if constexpr (std::is_same_v<std::remove_const_t<T>, uint8_t>)
    return convert<Vector<float, N>>(convert<Vector<int32_t, N>>(load_raw<Vector<uint8_t, N>>(p)));
  else
    return load_raw<Vector<T, N>>(p);
}

template <int N, bool streams = false, class T>
INLINE void store_lanes(T* p, Vector<Real<T>, N> v) {
  if constexpr (std::is_same_v<T, BFloat16>)
    write<streams>(p, convert<Vector<uint16_t, N>>(rounded<N>(v) >> 16));
  else
    write<streams>(p, v);
}

// N pairs of neighbours: p[0], p[2], ... and p[1], p[3], ...
template <int N, class T>
INLINE void load_pairs(const T* p, Vector<Real<T>, N>& even, Vector<Real<T>, N>& odd) {
  using Element = std::remove_const_t<T>;
  if constexpr (N == 1) {
    even = load_lanes<1>(p), odd = load_lanes<1>(p + 1);
  } else if constexpr (std::is_same_v<Element, BFloat16>) {
    auto both = load_raw<Vector<uint32_t, N>>(p);  // little-endian: the even one is the lower half
    even = bit_cast<Vector<float, N>>(both << 16), odd = bit_cast<Vector<float, N>>(both & 0xffff0000u);
  } else if constexpr (std::is_same_v<Element, uint8_t>) {
    auto both = load_raw<Vector<uint16_t, N>>(p);
    even = convert<Vector<float, N>>(convert<Vector<int32_t, N>>(both & uint16_t(0xff)));
    odd = convert<Vector<float, N>>(convert<Vector<int32_t, N>>(both >> 8));
  } else {
    auto left = load_lanes<N>(p), right = load_lanes<N>(p + N);
    if constexpr (N == 8) {
      even = LANES(left, right, 0, 2, 4, 6, 8, 10, 12, 14);
      odd = LANES(left, right, 1, 3, 5, 7, 9, 11, 13, 15);
    } else {
      static_assert(N == 4);
      even = LANES(left, right, 0, 2, 4, 6), odd = LANES(left, right, 1, 3, 5, 7);
    }
  }
}

template <int N, bool streams, class T>
INLINE void store_pairs(T* p, Vector<Real<T>, N> even, Vector<Real<T>, N> odd) {
  if constexpr (N == 1) {
    store_lanes<1>(p, even), store_lanes<1>(p + 1, odd);
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    write<streams>(p, rounded<N>(even) >> 16 | (rounded<N>(odd) & 0xffff0000u));
  } else if constexpr (N == 8) {
    write<streams>(p, LANES(even, odd, 0, 8, 1, 9, 2, 10, 3, 11));
    write<streams>(p + N, LANES(even, odd, 4, 12, 5, 13, 6, 14, 7, 15));
  } else {
    static_assert(N == 4);
    write<streams>(p, LANES(even, odd, 0, 4, 1, 5));
    write<streams>(p + N, LANES(even, odd, 2, 6, 3, 7));
  }
}

// sums[lane] += v[lane] for the first `valid` lanes.
template <int N, int valid, class R>
INLINE void accumulate(double* sums, Vector<R, N> v) {
  if constexpr (N == 1) {
    sums[0] += v;
  } else {
    auto wide = convert<Vector<double, N>>(v);
    for (int lane = valid; lane < N; ++lane) wide[lane] = 0;
    auto sum = load_raw<Vector<double, N>>(sums) + wide;
    std::memcpy(sums, &sum, sizeof sum);
  }
}

}  // namespace haar
