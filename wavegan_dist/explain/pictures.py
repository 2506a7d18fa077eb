"""Pictures of images and bands as PNG files, with the range of values that black to white stands for."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from wavegan_dist.explain.energy import named_bands
from wavegan_dist.explain.parts import Parts
from wavegan_dist.images import encode_png, to_uint8

PERCENTILE = 99.5  # share of the values of a column that are not clipped
SMALLEST_RANGE = 1 / 127.5  # one gray level: smaller values are hardly more than rounding errors


@dataclass(frozen=True)
class PictureColumn:
    """Pictures of one part of several images, all in the same range.

    Args:
        name: name of the part.
        images: the values [B, 3, h, w].
        limit: black is -limit, gray 0, white +limit; values outside of this range are clipped.
    """

    name: str
    images: Tensor
    limit: float

    def png(self, number: int) -> bytes:
        """Return the picture of image `number` as a PNG file."""
        return encode_png(to_uint8(self.images[number] / self.limit))


def columns_of(parts: Parts) -> list[PictureColumn]:
    """Return the columns of the page's table of pictures, which has a row for each image.

    The columns are: base, the bands from coarse to fine, inverse transform, fused, difference.

    Images have the range of pixels, -1 to 1, and the low band of level j has that of the bands of such images, -2**j to 2**j.
    The high bands of each level, and the difference, have the range that holds `PERCENTILE` percent of their values. With
    `model.base_only`, `fused` is the only column.
    """
    fused, wavelet = PictureColumn("fused", parts.fused, 1.0), parts.wavelet_image()
    if parts.low is None or wavelet is None:
        return [fused]
    limits = [_limit(high) for high in parts.highs for _ in range(3)]
    bands = zip(named_bands(parts.low, parts.highs).items(), [2.0 ** len(parts.highs), *limits], strict=True)
    difference = parts.difference()
    return [
        PictureColumn("base", parts.base, 1.0),
        *(PictureColumn(name, band, limit) for (name, band), limit in bands),
        PictureColumn("inverse transform", wavelet, 1.0),
        fused,
        PictureColumn("fused - (1 - lam) * base", difference, _limit(difference)),
    ]


def _limit(values: Tensor) -> float:
    return max(float(np.percentile(values.abs().numpy(), PERCENTILE)), SMALLEST_RANGE)
