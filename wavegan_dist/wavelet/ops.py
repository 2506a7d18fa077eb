"""The transform's public functions. Each dispatches to the implementation for the device and dtype of its first argument.

All functions are differentiable to any order, in eager mode and in functions that `torch.compile(fullgraph=True)` compiles
together with the differentiation. Inside `torch.func` transforms and in `torch.export.export(strict=False)` they run the
reference, which consists of PyTorch's own operators. With compiled kernels, `torch.autograd.forward_ad` raises
NotImplementedError, and `torch.compile` cannot trace `torch.func` transforms of these functions.

Nothing is cast, not even under autocast: tensors of different dtypes are an error. The compiled kernels return contiguous
results; on CPUs they are channels last if the first argument is. The memory format of the reference's results is that of
PyTorch's operators. The kernels first copy tensors whose rows are not dense in memory.

The first call for a device type loads its implementation, which on CPUs may compile kernels for about 20 s (`choice.choose`).
"""

from collections.abc import Sequence

from torch import Tensor

from wavegan_dist.wavelet.choice import kernel_for


def dwt(x_bchw: Tensor) -> tuple[Tensor, Tensor]:
    """Apply one level of the orthonormal 2D Haar wavelet transform (Mallat 1989).

    Each 2x2 block [[a, b], [c, d]] of a channel gives one coefficient in each of four bands:

        LL = (a + b + c + d) / 2      LH = (a + b - c - d) / 2
        HL = (a - b + c - d) / 2      HH = (a - b - c + d) / 2

    The bands are those of `pywt.dwt2(x, "haar")`: LL is PyWavelets' cA, and LH, HL, HH are its cH, cV, cD. The transform
    preserves the sum of squares, and its backward is `idwt`.

    Args:
        x_bchw: floating-point image batch [B, C, H, W] with even H and W, on any device.

    Returns:
        The low band [B, C, H/2, W/2], which is LL, and the high bands [B, 3C, H/2, W/2], stacked by band, then by channel:
        LH of all C channels, then HL, then HH. Both have the dtype and device of the input.

    Raises:
        ValueError: the input is not a dense floating-point 4D tensor, H or W is odd, or the environment variable
            WAVEGAN_KERNELS is set to something other than "reference".
    """
    return kernel_for(x_bchw).dwt(x_bchw)


def idwt(low: Tensor, high: Tensor) -> Tensor:
    """Apply the inverse of `dwt`, so that `idwt(*dwt(x))` equals x up to rounding.

    Each 2x2 block of the result is

        a = (LL + LH + HL + HH) / 2      b = (LL + LH - HL - HH) / 2
        c = (LL - LH + HL - HH) / 2      d = (LL - LH - HL + HH) / 2

    As the transform is orthonormal, its inverse is its transpose, and the backward of `idwt` is `dwt`.

    Args:
        low: floating-point low band [B, C, h, w].
        high: high bands [B, 3C, h, w] in the order of `dwt`, of the same dtype and device as low.

    Returns:
        The image batch [B, C, 2h, 2w] in the dtype of the bands.

    Raises:
        ValueError: low is not a dense floating-point 4D tensor, high does not match it in shape, dtype or device, or the
            environment variable WAVEGAN_KERNELS is set to something other than "reference".
    """
    return kernel_for(low).idwt(low, high)


def wavedec(x_bchw: Tensor, levels: int) -> tuple[Tensor, list[Tensor]]:
    """Apply `dwt` repeatedly, each time to the low band of the previous level, as `pywt.wavedec2(x, "haar")` does.

    Args:
        x_bchw: floating-point image batch [B, C, H, W] with H and W multiples of 2**levels.
        levels: number of levels, at least 1.

    Returns:
        The low band of the last level [B, C, H / 2**levels, W / 2**levels], and the high bands of all levels in the order
        of `dwt`, the coarsest level first: [B, 3C, H / 2**levels, W / 2**levels], ..., [B, 3C, H/2, W/2]. All have the dtype
        and device of the input.

    Raises:
        ValueError: the input is not a dense floating-point 4D tensor, levels is less than 1, H or W is not a multiple of
            2**levels, or the environment variable WAVEGAN_KERNELS is set to something other than "reference".
    """
    return kernel_for(x_bchw).wavedec(x_bchw, levels)


def waverec(low: Tensor, highs: Sequence[Tensor]) -> Tensor:
    """Apply the inverse of `wavedec`, so that `waverec(*wavedec(x, levels))` equals x up to rounding.

    Args:
        low: floating-point low band of the coarsest level [B, C, h, w].
        highs: high bands of every level in the order of `dwt`, of the same dtype and device, the coarsest level first:
            [B, 3C, h, w], [B, 3C, 2h, 2w], [B, 3C, 4h, 4w], ...

    Returns:
        The image batch [B, C, h * 2**len(highs), w * 2**len(highs)] in the dtype of the bands; `low` itself without `highs`.

    Raises:
        ValueError: low is not a dense floating-point 4D tensor, the shapes, dtypes or devices do not match, or the environment
            variable WAVEGAN_KERNELS is set to something other than "reference".
    """
    return kernel_for(low).waverec(low, highs)


def fuse(base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> Tensor:
    """Compute the generator's output `(1 - lam) * base + lam * idwt(low, high)` (patent CN 111275640 B).

    The compiled kernels take one pass over memory, and sum the gradient of lam in a fixed order: it does not depend on the
    number of threads.

    Args:
        base: floating-point image batch [B, C, H, W].
        low: low band [B, C, H/2, W/2] of the same dtype and device.
        high: high bands [B, 3C, H/2, W/2] in the order of `dwt`, of the same dtype and device.
        lam: 0-dimensional tensor of any floating-point dtype on the same device. Use float32 with bfloat16 images: in
            bfloat16, `1 - lam` would round to 1 for a small lam.

    Returns:
        The image batch [B, C, H, W] in the dtype of base.

    Raises:
        ValueError: low is not a dense floating-point 4D tensor, base or high does not match it in shape, dtype or device, lam
            is not a floating-point scalar on its device, or the environment variable WAVEGAN_KERNELS is set to something other
            than "reference".
    """
    return kernel_for(base).fuse(base, low, high, lam)
