// One pass over memory for each operation. Compiled once for each of INSTRUCTIONS (build.py); the processor decides at run time.
// No templates of the standard library: the linker may keep the copy that was compiled for the newest processor.
#include "haar.h"
#include "vectors.h"

namespace haar {
namespace {

constexpr int64_t AHEAD = 2048;         // bytes from a load to the prefetch beside it, at least: never a row that is being read
constexpr int64_t STREAMED = 16 << 20;  // bytes moved from which no cache holds them: results go past the caches, images are prefetched

template <class T>
struct ImageRow {  // two rows of pixels; `next`: elements to those below
  T *top, *bottom;
  int64_t next;
  INLINE void advance() { top += next, bottom += next; }
};

template <class T>
struct BandsRow {
  T *ll, *lh, *hl, *hh;
  int64_t low_next, high_next;
  INLINE void advance() { ll += low_next, lh += high_next, hl += high_next, hh += high_next; }
};

// Whether every row can be written in pieces of 16 bytes.
template <class T>
bool aligned(const void* data, const Strides& strides) {
  return !((uintptr_t(data) | uintptr_t((strides.batch | strides.channel | strides.row) * int64_t(sizeof(T)))) & 15);
}

template <class T>
bool aligned(const Image& image) { return aligned<T>(image.data, image.strides); }

template <class T>
bool aligned(const Bands& bands) { return aligned<T>(bands.low, bands.low_strides) && aligned<T>(bands.high, bands.high_strides); }

INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

struct Sumless {
  double total() const { return 0; }
};

struct At {  // offsets within a row, in elements; `step` from a left pixel to its right neighbour when interleaved
  int64_t image, low, high, step;
};

template <class T>
INLINE ImageRow<T> row_of(const Image& image, int64_t b, int64_t c, int64_t y) {
  T* top = static_cast<T*>(image.data) + b * image.strides.batch + c * image.strides.channel + 2 * y * image.strides.row;
  return {top, top + image.strides.row, 2 * image.strides.row};
}

template <class T>
INLINE BandsRow<T> row_of(const Bands& bands, const Shape& shape, int64_t b, int64_t c, int64_t y) {
  const Strides &low = bands.low_strides, &high = bands.high_strides;
  T* ll = static_cast<T*>(bands.low) + b * low.batch + c * low.channel + y * low.row;
  T* lh = static_cast<T*>(bands.high) + b * high.batch + c * high.channel + y * high.row;
  const int64_t next = shape.channels * high.channel;
  return {ll, lh, lh + next, lh + 2 * next, low.row, high.row};
}

template <bool streamed>
struct Planar {
  template <int N>
  static constexpr bool streams = streamed && N > 1;
  template <int N>
  static constexpr bool prefetches = streams<N>;
  static INLINE At after(const At& at, int64_t n) { return {at.image + 2 * n, at.low + n, at.high + n, at.step}; }
  template <int N>
  static constexpr int valid = N;
  template <int N, class T>
  static INLINE void load(const T* p, int64_t, Vector<Real<T>, N>& left, Vector<Real<T>, N>& right) {
    load_pairs<N>(p, left, right);
  }
  template <int N, class T>
  static INLINE void store(T* p, int64_t, Vector<Real<T>, N> left, Vector<Real<T>, N> right) {
    store_pairs<N, streams<N>>(p, left, right);
  }
};

struct Interleaved {
  template <int N>
  static constexpr bool streams = false;
  template <int N>
  static constexpr bool prefetches = N > 1;
  static INLINE At after(const At& at, int64_t n) { return {at.image + n, at.low + n, at.high + n, at.step}; }
  template <int N>
  static constexpr int valid = N;
  template <int N, class T>
  static INLINE void load(const T* p, int64_t step, Vector<Real<T>, N>& left, Vector<Real<T>, N>& right) {
    left = load_lanes<N>(p), right = load_lanes<N>(p + step);
  }
  template <int N, class T>
  static INLINE void store(T* p, int64_t step, Vector<Real<T>, N> left, Vector<Real<T>, N> right) {
    store_lanes<N>(p, left), store_lanes<N>(p + step, right);
  }
};

// Three colours in four lanes: the fourth belongs to what the next store writes over.
struct Colours : Interleaved {
  template <int N>
  static constexpr int valid = 3;
};

template <class V>
struct Four {  // of a 2x2 block, or of its bands
  V a, b, c, d;
};

// A block's (LL, LH, HL, HH), where b is the right neighbour and c the one below; and of these the block again.
template <class V>
INLINE Four<V> transform(const Four<V>& block) {
  V top = (block.a + block.b) / 2, top_difference = (block.a - block.b) / 2;
  V bottom = block.c + block.d, bottom_difference = block.c - block.d;
  return {plus_half(top, bottom), minus_half(top, bottom), plus_half(top_difference, bottom_difference),
          minus_half(top_difference, bottom_difference)};
}

template <class Layout, int N, class T>
INLINE Four<Vector<Real<T>, N>> load(const ImageRow<T>& row, const At& at) {
  if constexpr (Layout::template prefetches<N>) {
    const int64_t ahead = larger(AHEAD, row.next * int64_t(sizeof(T)));
    const char *top = reinterpret_cast<const char*>(row.top + at.image) + ahead, *bottom = reinterpret_cast<const char*>(row.bottom + at.image) + ahead;
    for (unsigned line = 0; line < 2 * N * sizeof(T); line += 64) __builtin_prefetch(top + line), __builtin_prefetch(bottom + line);
  }
  Four<Vector<Real<T>, N>> block;
  Layout::template load<N>(row.top + at.image, at.step, block.a, block.b);
  Layout::template load<N>(row.bottom + at.image, at.step, block.c, block.d);
  return block;
}

template <class Layout, int N, class T>
INLINE void store(const ImageRow<T>& row, const At& at, const Four<Vector<Real<T>, N>>& block) {
  Layout::template store<N>(row.top + at.image, at.step, block.a, block.b);
  Layout::template store<N>(row.bottom + at.image, at.step, block.c, block.d);
}

template <int N, class T>
INLINE Four<Vector<Real<T>, N>> load(const BandsRow<T>& row, const At& at) {
  return {load_lanes<N>(row.ll + at.low), load_lanes<N>(row.lh + at.high), load_lanes<N>(row.hl + at.high),
          load_lanes<N>(row.hh + at.high)};
}

template <class Layout, int N, class T>
INLINE void store(const BandsRow<T>& row, const At& at, const Four<Vector<Real<T>, N>>& bands) {
  constexpr bool streams = Layout::template streams<N>;
  store_lanes<N, streams>(row.ll + at.low, bands.a), store_lanes<N, streams>(row.lh + at.high, bands.b);
  store_lanes<N, streams>(row.hl + at.high, bands.c), store_lanes<N, streams>(row.hh + at.high, bands.d);
}

template <class T>
struct Dwt {
  static constexpr int images = 2;  // read and written
  Shape shape;
  Image x;
  Bands out;
  struct Row : Sumless {
    ImageRow<const T> x;
    BandsRow<T> out;
    template <class Layout, int N>
    INLINE void run(const At& at) {
      store<Layout, N>(out, at, transform(load<Layout, N>(x, at)));
    }
    INLINE void advance() { x.advance(), out.advance(); }
  };
  INLINE bool aligned() const { return haar::aligned<T>(out); }
  INLINE Row row(int64_t b, int64_t c, int64_t y) const {
    return {{}, row_of<const T>(x, b, c, y), row_of<T>(out, shape, b, c, y)};
  }
};

template <class T>
struct Idwt {
  static constexpr int images = 2;  // read and written
  Shape shape;
  Bands bands;
  Image out;
  struct Row : Sumless {
    BandsRow<const T> bands;
    ImageRow<T> out;
    template <class Layout, int N>
    INLINE void run(const At& at) {
      store<Layout, N>(out, at, transform(load<N>(bands, at)));
    }
    INLINE void advance() { bands.advance(), out.advance(); }
  };
  INLINE bool aligned() const { return haar::aligned<T>(out); }
  INLINE Row row(int64_t b, int64_t c, int64_t y) const {
    return {{}, row_of<const T>(bands, shape, b, c, y), row_of<T>(out, b, c, y)};
  }
};

template <class T>
struct Fuse {
  static constexpr int images = 3;  // read and written
  Shape shape;
  Image base;
  Bands bands;
  Image out;
  Real<T> lam, rest;
  struct Row : Sumless {
    ImageRow<const T> base;
    BandsRow<const T> bands;
    ImageRow<T> out;
    Real<T> lam, rest;
    template <class Layout, int N>
    INLINE void run(const At& at) {
      auto detail = transform(load<N>(bands, at));
      auto old = load<Layout, N>(base, at);
      store<Layout, N>(out, at, {rest * old.a + lam * detail.a, rest * old.b + lam * detail.b,
                                 rest * old.c + lam * detail.c, rest * old.d + lam * detail.d});
    }
    INLINE void advance() { base.advance(), bands.advance(), out.advance(); }
  };
  INLINE bool aligned() const { return haar::aligned<T>(out); }
  INLINE Row row(int64_t b, int64_t c, int64_t y) const {
    return {{}, row_of<const T>(base, b, c, y), row_of<const T>(bands, shape, b, c, y), row_of<T>(out, b, c, y), lam, rest};
  }
};

template <class T>
struct FuseGradients {
  static constexpr int images = 5;  // read and written
  Shape shape;
  FuseBackward of;
  Real<T> lam, rest;
  struct Row : Summing<Real<T>> {
    ImageRow<const T> grad, base;
    BandsRow<const T> bands;
    ImageRow<T> grad_base;
    BandsRow<T> grad_bands;
    Real<T> lam, rest;
    template <class Layout, int N>
    INLINE void run(const At& at) {
      auto g = load<Layout, N>(grad, at), old = load<Layout, N>(base, at);
      auto band = load<N>(bands, at), g_band = transform(g);
      store<Layout, N>(grad_base, at, {rest * g.a, rest * g.b, rest * g.c, rest * g.d});
      store<Layout, N>(grad_bands, at, {lam * g_band.a, lam * g_band.b, lam * g_band.c, lam * g_band.d});
      auto detail = g_band.a * band.a + g_band.b * band.b + (g_band.c * band.c + g_band.d * band.d);
      auto image = g.a * old.a + g.b * old.b + (g.c * old.c + g.d * old.d);
      this->template add<N, Layout::template valid<N>>(detail - image);
    }
    INLINE void advance() { this->end_row(), grad.advance(), base.advance(), bands.advance(), grad_base.advance(), grad_bands.advance(); }
  };
  INLINE bool aligned() const { return haar::aligned<T>(of.grad_base) && haar::aligned<T>(of.grad_bands); }
  INLINE Row row(int64_t b, int64_t c, int64_t y) const {
    return {{}, row_of<const T>(of.grad, b, c, y), row_of<const T>(of.base, b, c, y), row_of<const T>(of.bands, shape, b, c, y),
            row_of<T>(of.grad_base, b, c, y), row_of<T>(of.grad_bands, shape, b, c, y), lam, rest};
  }
};

struct Analyse {
  static constexpr int images = 2;  // read and written
  Shape shape;
  Image x, image;
  Bands out;
  const float* scale;
  struct Row : Sumless {
    ImageRow<const uint8_t> x;
    ImageRow<float> image;
    BandsRow<float> out;
    const float* scale;
    template <class Layout, int N>
    INLINE void run(const At& at) {
      auto byte = load<Layout, N>(x, at);
      store<Layout, N>(image, at, {byte.a / 127.5f - 1, byte.b / 127.5f - 1, byte.c / 127.5f - 1, byte.d / 127.5f - 1});
      auto band = transform(byte);  // exact; only the low one keeps the shift by 1 of each pixel, 2 in all
      store<Layout, N>(out, at, {(band.a - 255) * scale[0], band.b * scale[1], band.c * scale[2], band.d * scale[3]});
    }
    INLINE void advance() { x.advance(), image.advance(), out.advance(); }
  };
  INLINE bool aligned() const { return haar::aligned<float>(image) && haar::aligned<float>(out); }
  INLINE Row row(int64_t b, int64_t c, int64_t y) const {
    return {{}, row_of<const uint8_t>(x, b, c, y), row_of<float>(image, b, c, y), row_of<float>(out, shape, b, c, y), scale};
  }
};

// Results [x, end) of a row from `start` on, fewer than 2 N: N at once if there are, then half as many and so on down to
// narrow<T>, then one by one; the same pieces with all instructions, as sums depend on them.
template <class T, class Layout, int N, class Row>
INLINE void last_pieces(Row& row, const At& start, int64_t x, int64_t end) {
  if constexpr (N < narrow<T>) {
    for (; x < end; ++x) row.template run<Layout, 1>(Layout::after(start, x));
  } else {
    if (x + N <= end) row.template run<Layout, N>(Layout::after(start, x)), x += N;
    last_pieces<T, Layout, N / 2>(row, start, x, end);
  }
}

template <class T, class Layout, class Row>
INLINE void pieces(Row& row, const At& start, int64_t end) {
  int64_t x = 0;
  for (; x + widest<T> <= end; x += widest<T>) row.template run<Layout, widest<T>>(Layout::after(start, x));
  if (x < end) last_pieces<T, Layout, widest<T> / 2>(row, start, x, end);
}

constexpr int ANY = 0;  // instead of a step that the width is a multiple of, which leaves fewer instructions between rows

template <class T, class Layout, int step, class Row>
INLINE void planar_row(Row& row, int64_t width) {
  if constexpr (step == ANY) {
    pieces<T, Layout>(row, {}, width);
  } else {
    for (int64_t x = 0; x < width; x += step) row.template run<Layout, step>(Layout::after({}, x));
  }
}

template <class T, class Row>
INLINE void interleaved_row(Row& row, int64_t width, int64_t channels) {
  int64_t x = 0;
  if (channels == 3)
    for (; x + 1 < width; ++x) row.template run<Colours, 4>({6 * x, 3 * x, 9 * x, 3});
  for (; x < width; ++x) pieces<T, Interleaved>(row, {2 * x * channels, x * channels, 3 * x * channels, channels}, channels);
}

enum class Path { planar, streamed, interleaved };

template <class T, Path path, int step, class Operation>
double rows(const Operation& operation, int64_t first, int64_t last) {
  const Shape& shape = operation.shape;
  double sum = 0;
  for (int64_t at = first; at < last;) {
    const int64_t plane = at / shape.height, y = at % shape.height, next = smaller(last, at + shape.height - y);
    const int64_t channels = path == Path::interleaved ? 1 : shape.channels;
    auto row = operation.row(plane / channels, plane % channels, y);
    for (; at < next; ++at, row.advance()) {
      if constexpr (path == Path::interleaved) interleaved_row<T>(row, shape.width, shape.channels);
      else planar_row<T, Planar<path == Path::streamed>, step>(row, shape.width);
    }
    sum += row.total();
  }
  if (path == Path::streamed) flush();
  return sum;
}

template <class T, Path path, class Operation>
double by_width(const Operation& operation, int64_t first, int64_t last) {
  constexpr int N = widest<T>;
  if (operation.shape.width % N == 0) return rows<T, path, N>(operation, first, last);
  if constexpr (N > narrow<T>)
    if (operation.shape.width % (N / 2) == 0) return rows<T, path, N / 2>(operation, first, last);
  return rows<T, path, ANY>(operation, first, last);
}

template <class T, class Operation>
double run(const Operation& operation, int64_t first, int64_t last) {
  if (operation.shape.interleaved) return rows<T, Path::interleaved, ANY>(operation, first, last);
  if (Operation::images * operation.shape.bytes >= STREAMED && operation.aligned()) return by_width<T, Path::streamed>(operation, first, last);
  return by_width<T, Path::planar>(operation, first, last);
}

template <template <class> class Operation, class... Parts>
double by_type(Type type, int64_t first, int64_t last, const Parts&... parts) {
  switch (type) {
    case Type::f32: return run<float>(Operation<float>{parts...}, first, last);
    case Type::f64: return run<double>(Operation<double>{parts...}, first, last);
    default: return run<BFloat16>(Operation<BFloat16>{parts...}, first, last);
  }
}

template <template <class> class Operation, class... Parts>
double by_type_with(double lam, Type type, int64_t first, int64_t last, const Parts&... parts) {
  const float lam_f32 = float(lam), rest_f32 = float(1 - lam);
  switch (type) {
    case Type::f32: return run<float>(Operation<float>{parts..., lam_f32, rest_f32}, first, last);
    case Type::f64: return run<double>(Operation<double>{parts..., lam, 1 - lam}, first, last);
    default: return run<BFloat16>(Operation<BFloat16>{parts..., lam_f32, rest_f32}, first, last);
  }
}

void dwt(Type type, const Shape& shape, const Image& x, const Bands& out, int64_t first, int64_t last) {
  by_type<Dwt>(type, first, last, shape, x, out);
}

void idwt(Type type, const Shape& shape, const Bands& bands, const Image& out, int64_t first, int64_t last) {
  by_type<Idwt>(type, first, last, shape, bands, out);
}

void fuse(Type type, const Shape& shape, const Image& base, const Bands& bands, double lam, const Image& out, int64_t first, int64_t last) {
  by_type_with<Fuse>(lam, type, first, last, shape, base, bands, out);
}

double fuse_backward(Type type, const Shape& shape, const FuseBackward& of, int64_t first, int64_t last) {
  return by_type_with<FuseGradients>(of.lam, type, first, last, shape, of);
}

void analyse(const Shape& shape, const Image& x, const float* scale, const Image& image, const Bands& out, int64_t first, int64_t last) {
  run<float>(Analyse{shape, x, image, out, scale}, first, last);
}

}  // namespace

const Kernels INSTRUCTIONS = {dwt, idwt, fuse, fuse_backward, analyse};

}  // namespace haar
