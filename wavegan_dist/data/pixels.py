"""From a picture as people keep it to uint8 RGB images of one size; `codec.to_rgb` has the rules for odd colours."""

import warnings
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]

# A patch is flat, and left out, where the standard deviation of its grey levels (of 0..255) is below this: skies,
# blank walls and black borders go, shaded and textured surfaces stay.
FLAT = 12.0


def open_picture(content: bytes) -> Image.Image:
    """The picture in `content`, not decoded yet.

    Raises whatever Pillow raises on broken bytes, and for more pixels than its limit against decompression bombs, where
    Pillow itself would warn up to twice that.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(BytesIO(content))


def centre(image: Image.Image, size: int) -> Pixels:
    """The largest centred square of an RGB image, resized by Lanczos: [size, size, 3]."""
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS))


def patches(image: Image.Image, size: int, stride: int) -> Iterator[Pixels]:
    """Patches [size, size, 3] of an RGB image, row by row, the flat ones left out; none of an image smaller than that."""
    pixels_hwc = np.asarray(image)
    height, width = pixels_hwc.shape[:2]
    if width < size:
        return
    for top in range(0, height - size + 1, stride):
        strip = pixels_hwc[top : top + size]
        windows = np.lib.stride_tricks.sliding_window_view(strip.mean(2, dtype=np.float32), size, axis=1)[:, ::stride]
        for column in np.flatnonzero(windows.std(axis=(0, 2)) >= FLAT):
            yield strip[:, column * stride : column * stride + size]
