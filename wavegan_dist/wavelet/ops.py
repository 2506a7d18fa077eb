"""The functions that the other rooms call, done by the kernel for the device, which checks what it is given.

Derivatives of every order come from the kernels themselves, in eager mode and under `torch.compile(fullgraph=True)`. Under
`torch.func`'s transforms the reference works; `torch.autograd.forward_ad` raises NotImplementedError with the kernels.
Results are contiguous, or channels last where the first argument is; arguments of other strides than these two, or dense
rows, are copied first. Nothing is cast, by autocast neither.
"""

from collections.abc import Sequence

from torch import Tensor

from wavegan_dist.wavelet.checks import check_levels
from wavegan_dist.wavelet.choice import kernel_for


def dwt(x_bchw: Tensor) -> tuple[Tensor, Tensor]:
    """One level of the orthonormal 2D Haar transform.

    Args:
        x_bchw: floating [B, C, H, W] with H and W even.

    Returns:
        `low` [B, C, H/2, W/2] and `high` [B, 3C, H/2, W/2], stacked by band, then colour: [LH of all C, HL of all C,
        HH of all C]. Same dtype as the input.

    Raises:
        ValueError: the input is not a floating 4D tensor or H or W is odd.
    """
    return kernel_for(x_bchw).dwt(x_bchw)


def idwt(low: Tensor, high: Tensor) -> Tensor:
    """The inverse (and transpose) of `dwt`: `idwt(*dwt(x)) == x`.

    Args:
        low: floating [B, C, h, w].
        high: [B, 3C, h, w] of the same dtype and device.

    Returns:
        [B, C, 2h, 2w].

    Raises:
        ValueError: shapes, dtypes or devices do not go together.
    """
    return kernel_for(low).idwt(low, high)


def wavedec(x_bchw: Tensor, levels: int) -> tuple[Tensor, list[Tensor]]:
    """`levels` levels of `dwt`, each of the low band of the one before (PyWavelets' `wavedec2`).

    Args:
        x_bchw: floating [B, C, H, W] with H and W multiples of 2**levels.
        levels: at least 1.

    Returns:
        The last level's low band [B, C, H / 2**levels, W / 2**levels], and the high bands of all levels as `dwt` stacks them,
        the coarsest first.

    Raises:
        ValueError: not a floating 4D tensor, or sides that cannot be halved so often.
    """
    check_levels(x_bchw, levels)
    low, highs = x_bchw, []
    for _ in range(levels):
        low, high = dwt(low)
        highs.append(high)
    return low, highs[::-1]


def waverec(low: Tensor, highs: Sequence[Tensor]) -> Tensor:
    """The inverse (and transpose) of `wavedec`: `waverec(*wavedec(x, levels)) == x`.

    Args:
        low: floating [B, C, h, w].
        highs: [B, 3C, h, w], [B, 3C, 2h, 2w], ..., the coarsest first.

    Returns:
        [B, C, h * 2**len(highs), w * 2**len(highs)].

    Raises:
        ValueError: shapes, dtypes or devices do not go together.
    """
    for high in highs:
        low = idwt(low, high)
    return low


def fuse(base: Tensor, low: Tensor, high: Tensor, lam: Tensor) -> Tensor:
    """The generator's output, `(1 - lam) * base + lam * idwt(low, high)` (patent CN 111275640 B).

    The gradient of lam is a sum that does not depend on the number of threads.

    Args:
        base: floating [B, C, H, W].
        low: [B, C, H/2, W/2] of the same dtype and device.
        high: [B, 3C, H/2, W/2] of the same dtype and device.
        lam: 0-dimensional, of any floating dtype; float32 keeps `1 - lam` exact where base is bfloat16.

    Returns:
        [B, C, H, W] in base's dtype.

    Raises:
        ValueError: the bands do not rebuild an image like base.
    """
    return kernel_for(base).fuse(base, low, high, lam)


def analyse(images_bchw: Tensor, band_std: Sequence[float] = (1, 1, 1, 1)) -> tuple[Tensor, Tensor, Tensor]:
    """A real batch on its way to the discriminators: `from_uint8`, `dwt` and the bands' scale in one pass, no gradient.

    Args:
        images_bchw: uint8 [B, C, H, W] with H and W even.
        band_std: what to divide low, LH, HL and HH by.

    Returns:
        float32 image [B, C, H, W] in [-1, 1], low [B, C, H/2, W/2], high [B, 3C, H/2, W/2] as `dwt`'s.

    Raises:
        ValueError: not such images, or not four positive deviations.
    """
    return kernel_for(images_bchw).analyse(images_bchw, band_std)
