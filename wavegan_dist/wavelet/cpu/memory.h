// Loads and stores of vectors: elements of type T in memory, opmath_t<T> in registers.
#pragma once
#include "vectors.h"

namespace haar {
namespace {

// Adds half a unit of bfloat16 so that the upper 16 bits are v rounded to nearest even. A NaN whose lower 16 bits are
// zero, as every NaN computed from bfloat16 inputs has, stays a NaN.
template <int N>
INLINE Vector<uint32_t, N> round_to_upper_half(Vector<float, N> v) {
  auto bits = bit_cast<Vector<uint32_t, N>>(v);
  return bits + 0x7fffu + ((bits >> 16) & 1u);
}

// Rounds to bfloat16. The AVX-512 instruction flushes numbers below 2^-126 to zero.
template <int N>
INLINE Vector<uint16_t, N> to_bfloat16(Vector<float, N> v) {
#if defined(__AVX512BF16__)
  if constexpr (N == 32)
    return bit_cast<Vector<uint16_t, N>>(_mm512_cvtne2ps_pbh(bit_cast<__m512>(v.second), bit_cast<__m512>(v.first)));
  if constexpr (N == 16) return bit_cast<Vector<uint16_t, N>>(_mm512_cvtneps_pbh(bit_cast<__m512>(v)));
  if constexpr (N == 8) return bit_cast<Vector<uint16_t, N>>(_mm256_cvtneps_pbh(bit_cast<__m256>(v)));
#endif
#if defined(__AVX2__)
  if constexpr (N == 8) {  // GCC 12 generates a dozen instructions for convert() below
    auto bits = bit_cast<__m256i>(round_to_upper_half<N>(v) >> 16);
    auto packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(bits, bits), 0x08);
    return bit_cast<Vector<uint16_t, N>>(_mm256_castsi256_si128(packed));
  }
#endif
  return convert<Vector<uint16_t, N>>(round_to_upper_half<N>(v) >> 16);
}

// The lane numbers index(0), index(1), ... index(31) of a 16-bit permutation.
template <int... lane>
INLINE Vector<uint16_t, 32> permutation(int (*index)(int), std::integer_sequence<int, lane...>) {
  return Vector<uint16_t, 32>{uint16_t(index(lane))...};
}

template <int N>
INLINE Vector<float, N> from_bfloat16(Vector<uint16_t, N> v) {
#if defined(__AVX512BF16__)
  if constexpr (N == 16) {  // one instruction moves every element to the upper half of its 32-bit lane
    const auto index =
        bit_cast<__m512i>(permutation([](int lane) { return lane / 2; }, std::make_integer_sequence<int, 32>()));
    return bit_cast<Vector<float, N>>(
        _mm512_maskz_permutexvar_epi16(0xaaaaaaaa, index, _mm512_castsi256_si512(bit_cast<__m256i>(v))));
  }
#endif
#if defined(__AVX2__)
  if constexpr (N == 8)
    return bit_cast<Vector<float, N>>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bit_cast<__m128i>(v)), 16));
#endif
  return bit_cast<Vector<float, N>>(convert<Vector<uint32_t, N>>(v) << 16);
}

// Rounds to bfloat16 and interleaves: each 32-bit lane holds an even element in its lower half and an odd one in its
// upper half.
template <int N>
INLINE Vector<uint32_t, N> interleave2_bfloat16(Vector<float, N> even, Vector<float, N> odd) {
#if defined(__AVX512BF16__)
  if constexpr (N == 16) {
    const auto index = bit_cast<__m512i>(
        permutation([](int lane) { return lane / 2 + lane % 2 * 16; }, std::make_integer_sequence<int, 32>()));
    const auto both = bit_cast<__m512i>(_mm512_cvtne2ps_pbh(bit_cast<__m512>(odd), bit_cast<__m512>(even)));
    return bit_cast<Vector<uint32_t, N>>(_mm512_permutexvar_epi16(index, both));
  }
#endif
  return round_to_upper_half<N>(even) >> 16 | (round_to_upper_half<N>(odd) & 0xffff0000u);
}

// Writes v to p. A nontemporal store bypasses the caches; p must then be aligned to 16 bytes.
template <bool nontemporal, class V>
INLINE void write(void* p, V v) {
#if defined(__SSE2__)
  if constexpr (nontemporal) {
    __m128i parts[sizeof(V) / 16];
    std::memcpy(parts, &v, sizeof v);
    for (unsigned i = 0; i < sizeof(V) / 16; ++i) _mm_stream_si128(static_cast<__m128i*>(p) + i, parts[i]);
    return;
  }
#endif
  std::memcpy(p, &v, sizeof v);
}

// Orders nontemporal stores before later stores, so that a thread that is notified afterwards sees the data.
INLINE void nontemporal_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// Loads p[0], ... p[N - 1].
template <int N, class T>
INLINE Vector<opmath_t<T>, N> load_lanes(const T* p) {
  if constexpr (is_pair<Vector<opmath_t<T>, N>>) return {load_lanes<N / 2>(p), load_lanes<N / 2>(p + N / 2)};
  else if constexpr (std::is_same_v<std::remove_const_t<T>, BFloat16>)
    return from_bfloat16<N>(load_unaligned<Vector<uint16_t, N>>(p));
  else return load_unaligned<Vector<T, N>>(p);
}

template <int N, bool nontemporal = false, class T>
INLINE void store_lanes(T* p, Vector<opmath_t<T>, N> v) {
  if constexpr (std::is_same_v<T, BFloat16>) write<nontemporal>(p, to_bfloat16<N>(v));
  else if constexpr (is_pair<Vector<opmath_t<T>, N>>)
    store_lanes<N / 2, nontemporal>(p, v.first), store_lanes<N / 2, nontemporal>(p + N / 2, v.second);
  else write<nontemporal>(p, v);
}

// Loads 2 * N adjacent elements: even = p[0], p[2], ... and odd = p[1], p[3], ...
template <int N, class T>
INLINE void load_deinterleaved(const T* p, Vector<opmath_t<T>, N>& even, Vector<opmath_t<T>, N>& odd) {
  if constexpr (N == 1) {
    even = load_lanes<1>(p), odd = load_lanes<1>(p + 1);
  } else if constexpr (is_pair<Vector<opmath_t<T>, N>>) {
    load_deinterleaved<N / 2>(p, even.first, odd.first), load_deinterleaved<N / 2>(p + N, even.second, odd.second);
  } else if constexpr (std::is_same_v<std::remove_const_t<T>, BFloat16>) {
    auto both = load_unaligned<Vector<uint32_t, N>>(p);  // little-endian: the even element is in the lower half
    even = bit_cast<Vector<float, N>>(both << 16), odd = bit_cast<Vector<float, N>>(both & 0xffff0000u);
  } else {
    auto left = load_lanes<N>(p), right = load_lanes<N>(p + N);
    deinterleave2(left, right, even, odd, std::make_integer_sequence<int, N>());
  }
}

// The inverse of load_deinterleaved.
template <int N, bool nontemporal, class T>
INLINE void store_interleaved(T* p, Vector<opmath_t<T>, N> even, Vector<opmath_t<T>, N> odd) {
  if constexpr (N == 1) {
    store_lanes<1>(p, even), store_lanes<1>(p + 1, odd);
  } else if constexpr (is_pair<Vector<opmath_t<T>, N>>) {
    store_interleaved<N / 2, nontemporal>(p, even.first, odd.first);
    store_interleaved<N / 2, nontemporal>(p + N, even.second, odd.second);
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    write<nontemporal>(p, interleave2_bfloat16<N>(even, odd));
  } else {
    Vector<T, N> left, right;
    interleave2(even, odd, left, right, std::make_integer_sequence<int, N>());
    write<nontemporal>(p, left), write<nontemporal>(p + N, right);
  }
}

}  // namespace
}  // namespace haar
