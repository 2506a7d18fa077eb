// SIMD vectors on top of the vector extensions of GCC and Clang, which the compiler lowers to AVX-512, AVX2, SSE, NEON
// or scalar code. Intrinsics are used only where the compiler's own conversion or shuffle is much slower.
//
// Everything is in an anonymous namespace and avoids std function templates: this file is compiled once per instruction
// set, and the linker must not merge those copies.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace haar {
namespace {

struct BFloat16 {
  uint16_t bits;
};

// The type in which arithmetic on elements of type T is done, like at::opmath_type.
template <class T>
struct OpMath {
  using type = T;
};
template <>
struct OpMath<BFloat16> {
  using type = float;
};
template <class T>
using opmath_t = typename OpMath<std::remove_const_t<T>>::type;

template <class T, int N>
struct VectorOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <class T>
struct VectorOf<T, 1> {
  using type = T;
};

// A vector in two registers. GCC passes a vector_size type wider than a register through memory, so it is spelled out.
template <class V>
struct VectorPair {
  V first, second;
  friend INLINE VectorPair operator+(VectorPair x, VectorPair y) { return {x.first + y.first, x.second + y.second}; }
  friend INLINE VectorPair operator-(VectorPair x, VectorPair y) { return {x.first - y.first, x.second - y.second}; }
  friend INLINE VectorPair operator*(VectorPair x, VectorPair y) { return {x.first * y.first, x.second * y.second}; }
  friend INLINE VectorPair operator*(float x, VectorPair y) { return {y.first * x, y.second * x}; }
  friend INLINE VectorPair operator/(VectorPair x, float y) { return {x.first / y, x.second / y}; }
};
#if defined(__AVX512F__)
template <>
struct VectorOf<float, 32> {
  using type = VectorPair<VectorOf<float, 16>::type>;
};
#endif

// N lanes of T; T itself if N is 1.
template <class T, int N>
using Vector = typename VectorOf<std::remove_const_t<T>, N>::type;

template <class V>
constexpr bool is_pair = false;
template <class V>
constexpr bool is_pair<VectorPair<V>> = true;

// Lanes of the narrowest vector for elements of type T: 256 bits of opmath_t<T>.
template <class T>
constexpr int min_lanes = 32 / sizeof(opmath_t<T>);

// Lanes of the widest vector. With AVX-512, float uses two registers, which was measured to be faster than one: a store
// to a band then fills two adjacent cache lines.
#if defined(__AVX512F__)
template <class T>
constexpr int max_lanes = sizeof(opmath_t<T>) == 4 ? 32 : 8;
#else
template <class T>
constexpr int max_lanes = min_lanes<T>;
#endif

// std::bit_cast, always inlined.
template <class To, class From>
INLINE To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

template <class V, class T>
INLINE V load_unaligned(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof(V));
  return v;
}

template <class To, class From>
INLINE To convert(From v) {
  if constexpr (std::is_arithmetic_v<To>) return To(v);
  else return __builtin_convertvector(v, To);
}

// sum = a + b / 2 and difference = a - b / 2. Halving is exact, so fusing it with the addition changes no bit (except
// below 2^-125, where halving a float32 may round).
template <class V>
INLINE void add_and_subtract_half(V a, V b, V& sum, V& difference) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<V, Vector<float, 16>>) {
    const auto half = _mm512_set1_ps(0.5f);
    sum = bit_cast<V>(_mm512_fmadd_ps(bit_cast<__m512>(b), half, bit_cast<__m512>(a)));
    difference = bit_cast<V>(_mm512_fnmadd_ps(bit_cast<__m512>(b), half, bit_cast<__m512>(a)));
    return;
  }
#endif
  sum = a + b / 2, difference = a - b / 2;
}

template <class V>
INLINE void add_and_subtract_half(VectorPair<V> a, VectorPair<V> b, VectorPair<V>& sum, VectorPair<V>& difference) {
  add_and_subtract_half(a.first, b.first, sum.first, difference.first);
  add_and_subtract_half(a.second, b.second, sum.second, difference.second);
}

template <class V>
INLINE V lower_half(VectorPair<V> v) {
  return v.first;
}
template <class V>
INLINE V upper_half(VectorPair<V> v) {
  return v.second;
}

template <class V>
INLINE auto lower_half(V v) {
  using Half = Vector<std::remove_reference_t<decltype(v[0])>, sizeof(V) / sizeof(v[0]) / 2>;
  Half half;
  std::memcpy(&half, &v, sizeof half);
  return half;
}

template <class V>
INLINE auto upper_half(V v) {
  decltype(lower_half(v)) half;
  std::memcpy(&half, reinterpret_cast<const char*>(&v) + sizeof half, sizeof half);
  return half;
}

// Selects lanes by number from the concatenation of a and b. GCC has __builtin_shufflevector only since version 12.
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) \
  __builtin_shuffle(       \
      a, b, Vector<std::conditional_t<sizeof(a[0]) == 4, int32_t, int64_t>, sizeof(a) / sizeof(a[0])>{__VA_ARGS__})
#endif

// even = lanes 0, 2, 4, ... and odd = lanes 1, 3, 5, ... of the concatenation of left and right.
template <class V, int... lane>
INLINE void deinterleave2(V left, V right, V& even, V& odd, std::integer_sequence<int, lane...>) {
#if defined(__AVX2__)
  if constexpr (std::is_same_v<V, Vector<float, 8>>) {  // four instructions; GCC 12 generates six
    const auto l = bit_cast<__m256>(left), r = bit_cast<__m256>(right);
    even = bit_cast<V>(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(l, r, 0x88)), 0xd8));
    odd = bit_cast<V>(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(l, r, 0xdd)), 0xd8));
    return;
  }
#endif
  even = SHUFFLE(left, right, 2 * lane...), odd = SHUFFLE(left, right, 2 * lane + 1 ...);
}

// The inverse of deinterleave2.
template <class V, int... lane>
INLINE void interleave2(V even, V odd, V& left, V& right, std::integer_sequence<int, lane...>) {
  constexpr int N = sizeof...(lane);
  left = SHUFFLE(even, odd, lane / 2 + lane % 2 * N...), right = SHUFFLE(even, odd, (lane + N) / 2 + lane % 2 * N...);
}

}  // namespace
}  // namespace haar
