"""Triton kernels that compute several levels of the transform in one pass over memory.

The low bands between the levels stay in registers, in float32; passes of one level would round them to the dtype of the image.
A thread computes a block of 2**LEVELS image rows and 2 * PARTS * VECTOR image columns. It computes the blocks of all levels
inside this block, so threads exchange no data. To the compiler, the tile of a band is a tensor [ROWS, TILE_H, TILE_W, COLUMNS].
Its two middle dimensions have as many elements as the program has threads, so a thread holds ROWS rows of COLUMNS elements in
registers. ROWS and COLUMNS halve from each level to the next.

Images are loaded and stored as pairs, as in `kernels`: in each row, a thread makes PARTS accesses of VECTOR pairs, 128 bits
wide. Its accesses to the bands are 32 bits wide at the last level and twice as wide at each finer level.

Arguments of both kernels: the image `x` as pairs, the low band of the last level and a tuple of the high bands of all levels,
the coarsest first. `rows` and `ch` are those of `kernels` for the last low band; `width` is the width of the first low band.
"""

import triton
import triton.language as tl
from triton import jit

from wavegan_dist.wavelet.triton.kernels import WARPS, high_offsets, pack, transform, unpack

MAX_LEVELS = 3


def tile(width: int, levels: int, item_size: int, warp_size: int) -> tuple[int, int, int, int]:
    """Choose the tile of one Triton program.

    With PARTS = 1, a warp's accesses to an image row are contiguous; this suffices for two levels. Three levels need twice the
    columns: a 2x2 block of the third level covers 8 image columns, and 4 float32 pixels are 128 bits.

    Args:
        width: width of the first low band in elements, half the width of the image.
        levels: number of levels, 2 to MAX_LEVELS.
        item_size: size of the dtype in bytes, 2 or 4.
        warp_size: 32 on NVIDIA GPUs, 64 on AMD GPUs.

    Returns:
        (TILE_H, TILE_W, PARTS, VECTOR): the rows and columns of threads, the accesses of a thread to an image row, and the
        pairs of one access. TILE_H * TILE_W is the number of threads.
    """
    parts, vector = levels - 1, 8 // item_size
    columns = min(triton.next_power_of_2(triton.cdiv(width, parts * vector)), warp_size * WARPS)
    return warp_size * WARPS // columns, columns, parts, vector


@jit
def wavedec(
    x, low, highs, rows, width, ch,
    LEVELS: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr, PARTS: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = low.dtype.element_ty
    width = _as_multiple(width, LEVELS)
    offset, mask = _pair_offsets(rows, width, 2**LEVELS, TILE_H, TILE_W, PARTS, VECTOR)
    pairs = tl.permute(tl.load(x + offset, mask=mask, other=0), (0, 2, 3, 1, 4))
    top, bottom = _split_rows(tl.reshape(pairs, (2**LEVELS, TILE_H, TILE_W, PARTS * VECTOR)))
    a, b = unpack(top, dtype)
    c, d = unpack(bottom, dtype)
    bands = transform(a, b, c, d)
    _store_high(bands, highs[LEVELS - 1], rows, width, ch << (LEVELS - 1), 1)
    for level in tl.static_range(2, LEVELS + 1):
        top, bottom = _split_rows(bands[0])
        a, b = _split_columns(top)
        c, d = _split_columns(bottom)
        bands = transform(a, b, c, d)
        _store_high(bands, highs[LEVELS - level], rows, width, ch << (LEVELS - level), level)
    row, column, mask = _band_indices(rows, width, LEVELS, bands[0].shape)
    tl.store(low + row * (width >> (LEVELS - 1)) + column, bands[0].to(dtype), mask=mask)


@jit
def waverec(
    low, highs, x, rows, width, ch,
    LEVELS: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr, PARTS: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = low.dtype.element_ty
    width = _as_multiple(width, LEVELS)
    shape: tl.constexpr = (1, TILE_H, TILE_W, PARTS * VECTOR >> (LEVELS - 1))
    row, column, mask = _band_indices(rows, width, LEVELS, shape)
    ll = tl.load(low + row * (width >> (LEVELS - 1)) + column, mask=mask, other=0).to(tl.float32)
    for i in tl.static_range(LEVELS):
        a, b, c, d = _load_and_transform(ll, highs[i], rows, width, ch << i, LEVELS - i)
        if i < LEVELS - 1:
            ll = _join_rows(_join_columns(a, b), _join_columns(c, d))
    pairs = _join_rows(pack(a, b, dtype), pack(c, d, dtype))
    offset, mask = _pair_offsets(rows, width, 2**LEVELS, TILE_H, TILE_W, PARTS, VECTOR)
    pairs = tl.reshape(pairs, (2**LEVELS, TILE_H, TILE_W, PARTS, VECTOR))
    tl.store(x + offset, tl.permute(pairs, (0, 3, 1, 2, 4)), mask=mask)


@jit
def _load_and_transform(ll, high, rows, width, ch, LEVEL: tl.constexpr):
    """Load the high bands of a level and compute the 2x2 blocks of the next finer low band, or of the image."""
    row, column, mask = _band_indices(rows, width, LEVEL, ll.shape)
    offset, band = high_offsets(row, column, width >> (LEVEL - 1), ch)
    lh = tl.load(high + offset, mask=mask, other=0).to(tl.float32)
    hl = tl.load(high + offset + band, mask=mask, other=0).to(tl.float32)
    hh = tl.load(high + offset + 2 * band, mask=mask, other=0).to(tl.float32)
    return transform(ll, lh, hl, hh)


@jit
def _store_high(bands, high, rows, width, ch, LEVEL: tl.constexpr):
    """Store the high bands (LH, HL, HH) of a level."""
    row, column, mask = _band_indices(rows, width, LEVEL, bands[0].shape)
    offset, band = high_offsets(row, column, width >> (LEVEL - 1), ch)
    dtype: tl.constexpr = high.dtype.element_ty
    tl.store(high + offset, bands[1].to(dtype), mask=mask)
    tl.store(high + offset + band, bands[2].to(dtype), mask=mask)
    tl.store(high + offset + 2 * band, bands[3].to(dtype), mask=mask)


@jit
def _as_multiple(width, LEVELS: tl.constexpr):
    """Return the same width, of which the compiler then knows that it is a multiple of 2 ** (LEVELS - 1)."""
    return (width >> (LEVELS - 1)) << (LEVELS - 1)


@jit
def _pair_offsets(
    rows, width, ROWS: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr, PARTS: tl.constexpr, VECTOR: tl.constexpr
):  # fmt: skip
    """Offsets [ROWS, PARTS, TILE_H, TILE_W, VECTOR] of the tile's pairs in the image, and the mask of those inside it."""
    thread = (tl.program_id(0).to(tl.int64) * TILE_H + tl.arange(0, TILE_H))[None, None, :, None, None]
    row = thread * ROWS + tl.arange(0, ROWS)[:, None, None, None, None]
    part = tl.arange(0, PARTS)[None, :, None, None, None]
    column = (tl.program_id(1) * TILE_W + tl.arange(0, TILE_W))[None, None, None, :, None] * PARTS + part
    column = column * VECTOR + tl.arange(0, VECTOR)[None, None, None, None, :]
    return row * width + column, (thread < rows) & (column < width)


@jit
def _band_indices(rows, width, LEVEL: tl.constexpr, SHAPE: tl.constexpr):
    """Row and column indices of the tile SHAPE [ROWS, TILE_H, TILE_W, COLUMNS] in a band, and the mask of those inside it."""
    thread = (tl.program_id(0).to(tl.int64) * SHAPE[1] + tl.arange(0, SHAPE[1]))[None, :, None, None]
    row = thread * SHAPE[0] + tl.arange(0, SHAPE[0])[:, None, None, None]
    column = (tl.program_id(1) * SHAPE[2] + tl.arange(0, SHAPE[2]))[None, None, :, None] * SHAPE[3]
    column += tl.arange(0, SHAPE[3])[None, None, None, :]
    return row, column, (thread < rows) & (column < (width >> (LEVEL - 1)))


@jit
def _split_rows(x):
    """[ROWS, TILE_H, TILE_W, COLUMNS] -> even rows, odd rows [ROWS / 2, TILE_H, TILE_W, COLUMNS]."""
    x = tl.reshape(x, (x.shape[0] // 2, 2, x.shape[1], x.shape[2], x.shape[3]))
    return tl.split(tl.permute(x, (0, 2, 3, 4, 1)))


@jit
def _split_columns(x):
    """[ROWS, TILE_H, TILE_W, COLUMNS] -> even columns, odd columns [ROWS, TILE_H, TILE_W, COLUMNS / 2]."""
    return tl.split(tl.reshape(x, (x.shape[0], x.shape[1], x.shape[2], x.shape[3] // 2, 2)))


@jit
def _join_rows(even, odd):
    """The inverse of `_split_rows`."""
    x = tl.permute(tl.join(even, odd), (0, 4, 1, 2, 3))
    return tl.reshape(x, (2 * even.shape[0], even.shape[1], even.shape[2], even.shape[3]))


@jit
def _join_columns(even, odd):
    """The inverse of `_split_columns`."""
    return tl.reshape(tl.join(even, odd), (even.shape[0], even.shape[1], even.shape[2], 2 * even.shape[3]))
