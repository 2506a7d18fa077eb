// Short vectors of any element type through the compiler's own (GCC, Clang): AVX-512, AVX2, SSE, NEON or plain code by target;
// intrinsics where the compiler's code for a conversion or a shuffle is far from the best.
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

template <class V>
struct Twice {  // a vector of two registers; the compiler's own would go through memory
  V first, second;
  friend INLINE Twice operator+(Twice x, Twice y) { return {x.first + y.first, x.second + y.second}; }
  friend INLINE Twice operator-(Twice x, Twice y) { return {x.first - y.first, x.second - y.second}; }
  friend INLINE Twice operator*(Twice x, Twice y) { return {x.first * y.first, x.second * y.second}; }
  friend INLINE Twice operator-(Twice x, float y) { return {x.first - y, x.second - y}; }
  friend INLINE Twice operator*(Twice x, float y) { return {x.first * y, x.second * y}; }
  friend INLINE Twice operator*(float x, Twice y) { return y * x; }
  friend INLINE Twice operator/(Twice x, float y) { return {x.first / y, x.second / y}; }
};
#if defined(__AVX512F__)
template <>
struct VectorOf<float, 32> {
  using type = Twice<VectorOf<float, 16>::type>;
};
#endif
template <class T, int N>
using Vector = typename VectorOf<std::remove_const_t<T>, N>::type;

template <class V>
constexpr bool is_twice = false;
template <class V>
constexpr bool is_twice<Twice<V>> = true;

template <class T>
constexpr int narrow = 32 / sizeof(Real<T>);
// Lanes at once: of float two registers, as a band's two cache lines beside each other were measured faster than one.
#if defined(__AVX512F__)
template <class T>
constexpr int widest = sizeof(Real<T>) == 4 ? 32 : 8;
#else
template <class T>
constexpr int widest = narrow<T>;
#endif

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

// a + b / 2 and a - b / 2; halves are exact, so one rounding or two make no difference.
template <class V>
INLINE V plus_half(V a, V b) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<V, Vector<float, 16>>)
    return bit_cast<V>(_mm512_fmadd_ps(bit_cast<__m512>(b), _mm512_set1_ps(0.5f), bit_cast<__m512>(a)));
#endif
  return a + b / 2;
}

template <class V>
INLINE V minus_half(V a, V b) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<V, Vector<float, 16>>)
    return bit_cast<V>(_mm512_fnmadd_ps(bit_cast<__m512>(b), _mm512_set1_ps(0.5f), bit_cast<__m512>(a)));
#endif
  return a - b / 2;
}

template <class V>
INLINE Twice<V> plus_half(Twice<V> a, Twice<V> b) { return {plus_half(a.first, b.first), plus_half(a.second, b.second)}; }
template <class V>
INLINE Twice<V> minus_half(Twice<V> a, Twice<V> b) { return {minus_half(a.first, b.first), minus_half(a.second, b.second)}; }

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

// To bfloat16; AVX-512's own instruction takes numbers below 2^-126 for 0.
template <int N>
INLINE Vector<uint16_t, N> narrowed(Vector<float, N> v) {
#if defined(__AVX512BF16__)
  if constexpr (N == 32)
    return bit_cast<Vector<uint16_t, N>>(_mm512_cvtne2ps_pbh(bit_cast<__m512>(v.second), bit_cast<__m512>(v.first)));
  if constexpr (N == 16) return bit_cast<Vector<uint16_t, N>>(_mm512_cvtneps_pbh(bit_cast<__m512>(v)));
  if constexpr (N == 8) return bit_cast<Vector<uint16_t, N>>(_mm256_cvtneps_pbh(bit_cast<__m256>(v)));
#endif
#if defined(__AVX2__)
  if constexpr (N == 8) {  // GCC 12 makes a dozen instructions of the conversion below
    auto bits = bit_cast<__m256i>(rounded<N>(v) >> 16);
    auto packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(bits, bits), 0x08);
    return bit_cast<Vector<uint16_t, N>>(_mm256_castsi256_si128(packed));
  }
#endif
  return convert<Vector<uint16_t, N>>(rounded<N>(v) >> 16);
}

template <int... lane>
INLINE Vector<uint16_t, 32> numbered(int (*number)(int), std::integer_sequence<int, lane...>) {
  return Vector<uint16_t, 32>{uint16_t(number(lane))...};
}

// From bfloat16.
template <int N>
INLINE Vector<float, N> widened(Vector<uint16_t, N> v) {
#if defined(__AVX512BF16__)
  if constexpr (N == 16) {  // each into the upper half of its lane, in one instruction
    const auto places = bit_cast<__m512i>(numbered([](int lane) { return lane / 2; }, std::make_integer_sequence<int, 32>()));
    return bit_cast<Vector<float, N>>(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, places, _mm512_castsi256_si512(bit_cast<__m256i>(v))));
  }
#endif
#if defined(__AVX2__)
  if constexpr (N == 8) return bit_cast<Vector<float, N>>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bit_cast<__m128i>(v)), 16));
#endif
  return bit_cast<Vector<float, N>>(convert<Vector<uint32_t, N>>(v) << 16);
}

// To bfloat16, neighbours in one lane of 32 bits.
template <int N>
INLINE Vector<uint32_t, N> narrowed_pairs(Vector<float, N> even, Vector<float, N> odd) {
#if defined(__AVX512BF16__)
  if constexpr (N == 16) {
    const auto places = bit_cast<__m512i>(numbered([](int lane) { return lane / 2 + lane % 2 * 16; }, std::make_integer_sequence<int, 32>()));
    return bit_cast<Vector<uint32_t, N>>(_mm512_permutexvar_epi16(places, bit_cast<__m512i>(_mm512_cvtne2ps_pbh(bit_cast<__m512>(odd), bit_cast<__m512>(even)))));
  }
#endif
  return rounded<N>(even) >> 16 | (rounded<N>(odd) & 0xffff0000u);
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
  if constexpr (is_twice<Vector<Real<T>, N>>)
    return {load_lanes<N / 2>(p), load_lanes<N / 2>(p + N / 2)};
  else if constexpr (std::is_same_v<std::remove_const_t<T>, BFloat16>)
    return widened<N>(load_raw<Vector<uint16_t, N>>(p));
  else if constexpr (std::is_same_v<std::remove_const_t<T>, uint8_t>)
    return convert<Vector<float, N>>(convert<Vector<int32_t, N>>(load_raw<Vector<uint8_t, N>>(p)));
  else
    return load_raw<Vector<T, N>>(p);
}

template <int N, bool streams = false, class T>
INLINE void store_lanes(T* p, Vector<Real<T>, N> v) {
  if constexpr (std::is_same_v<T, BFloat16>)
    write<streams>(p, narrowed<N>(v));
  else if constexpr (is_twice<Vector<Real<T>, N>>)
    store_lanes<N / 2, streams>(p, v.first), store_lanes<N / 2, streams>(p + N / 2, v.second);
  else
    write<streams>(p, v);
}

template <class V>
INLINE V lower_half(Twice<V> v) { return v.first; }
template <class V>
INLINE V upper_half(Twice<V> v) { return v.second; }

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

template <class V, int... lane>
INLINE void every_other(V left, V right, V& even, V& odd, std::integer_sequence<int, lane...>) {
#if defined(__AVX2__)
  if constexpr (std::is_same_v<V, Vector<float, 8>>) {  // GCC 12 needs six instructions for what takes four
    const auto l = bit_cast<__m256>(left), r = bit_cast<__m256>(right);
    even = bit_cast<V>(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(l, r, 0x88)), 0xd8));
    odd = bit_cast<V>(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(l, r, 0xdd)), 0xd8));
    return;
  }
#endif
  even = LANES(left, right, 2 * lane...), odd = LANES(left, right, 2 * lane + 1 ...);
}

template <class V, int... lane>
INLINE void alternating(V even, V odd, V& left, V& right, std::integer_sequence<int, lane...>) {
  constexpr int N = sizeof...(lane);
  left = LANES(even, odd, lane / 2 + lane % 2 * N...), right = LANES(even, odd, (lane + N) / 2 + lane % 2 * N...);
}

// N pairs of neighbours: p[0], p[2], ... and p[1], p[3], ...
template <int N, class T>
INLINE void load_pairs(const T* p, Vector<Real<T>, N>& even, Vector<Real<T>, N>& odd) {
  using Element = std::remove_const_t<T>;
  if constexpr (N == 1) {
    even = load_lanes<1>(p), odd = load_lanes<1>(p + 1);
  } else if constexpr (is_twice<Vector<Real<T>, N>>) {
    load_pairs<N / 2>(p, even.first, odd.first), load_pairs<N / 2>(p + N, even.second, odd.second);
  } else if constexpr (std::is_same_v<Element, BFloat16>) {
    auto both = load_raw<Vector<uint32_t, N>>(p);  // little-endian: the even one is the lower half
    even = bit_cast<Vector<float, N>>(both << 16), odd = bit_cast<Vector<float, N>>(both & 0xffff0000u);
  } else if constexpr (std::is_same_v<Element, uint8_t>) {
    auto both = load_raw<Vector<uint16_t, N>>(p);
    even = convert<Vector<float, N>>(convert<Vector<int32_t, N>>(both & uint16_t(0xff)));
    odd = convert<Vector<float, N>>(convert<Vector<int32_t, N>>(both >> 8));
  } else {
    auto left = load_lanes<N>(p), right = load_lanes<N>(p + N);
    every_other(left, right, even, odd, std::make_integer_sequence<int, N>());
  }
}

template <int N, bool streams, class T>
INLINE void store_pairs(T* p, Vector<Real<T>, N> even, Vector<Real<T>, N> odd) {
  if constexpr (N == 1) {
    store_lanes<1>(p, even), store_lanes<1>(p + 1, odd);
  } else if constexpr (is_twice<Vector<Real<T>, N>>) {
    store_pairs<N / 2, streams>(p, even.first, odd.first), store_pairs<N / 2, streams>(p + N, even.second, odd.second);
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    write<streams>(p, narrowed_pairs<N>(even, odd));
  } else {
    Vector<T, N> left, right;
    alternating(even, odd, left, right, std::make_integer_sequence<int, N>());
    write<streams>(p, left), write<streams>(p + N, right);
  }
}

// Sums over rows: in R by lane within one, in double over all, in an order that does not depend on how wide the vectors are.
template <class R>
struct Summing {
  Vector<double, 4> sums[2] = {};  // of the rows before this one
  Vector<R, narrow<R>> wide = {};
  Vector<R, 4> four = {};
  R one = 0;

  // The first `valid` lanes of v.
  template <int N, int valid>
  INLINE void add(Vector<R, N> v) {
    if constexpr (N > valid)
      for (int lane = valid; lane < N; ++lane) v[lane] = 0;
    if constexpr (N == 1) {
      one += v;
    } else if constexpr (N > narrow<R>) {
      add<N / 2, N / 2>(lower_half(v)), add<N / 2, N / 2>(upper_half(v));
    } else if constexpr (N == narrow<R>) {
      wide += v;
    } else {
      static_assert(N == 4);
      four += v;
    }
  }
  INLINE void end_row() {
    sums[0][0] += one, sums[0] += convert<Vector<double, 4>>(four);
    if constexpr (narrow<R> == 4) sums[1] += convert<Vector<double, 4>>(wide);
    else sums[0] += convert<Vector<double, 4>>(lower_half(wide)), sums[1] += convert<Vector<double, 4>>(upper_half(wide));
    wide = Vector<R, narrow<R>>{}, four = Vector<R, 4>{}, one = 0;
  }
  INLINE double total() const {
    const auto sum = sums[0] + sums[1];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }
};

}  // namespace
}  // namespace haar
