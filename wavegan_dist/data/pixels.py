"""Turn source pictures into uint8 RGB images of one size: center crops or patches. `codec.to_rgb` converts color modes."""

import warnings
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from wavegan_dist.data.formats import HEAD_BYTES, describe_content, formats
from wavegan_dist.data.metadata import split_metadata

Pixels = NDArray[np.uint8]

# Patches whose gray levels (0..255) have a smaller standard deviation are skipped: skies, blank walls and black borders are
# dropped, shaded and textured surfaces are kept.
MIN_PATCH_STD = 12.0


def open_picture(content: bytes) -> Image.Image:
    """Open an encoded picture without decoding its pixels. `split_metadata` drops the metadata first, with the orientation.

    Raises:
        ValueError: Pillow does not recognize the bytes as a picture of one of `formats`; the message says what they are.
        Exception: of almost any type, from Pillow, if the bytes are broken.
        Image.DecompressionBombWarning: the picture has more pixels than Pillow's limit; Pillow alone would only warn.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(BytesIO(split_metadata(content).pixels), formats=formats())
        except UnidentifiedImageError as error:
            raise ValueError(describe_content(content[:HEAD_BYTES])) from error


def center_crop(image: Image.Image, size: int) -> Pixels:
    """Crop the largest centered square of an RGB image and resize it with a Lanczos filter to uint8 [size, size, 3]."""
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS))


def patches(image: Image.Image, size: int, stride: int) -> Iterator[Pixels]:
    """Cut an RGB image into patches, uint8 [size, size, 3], in row-major order.

    Leaves out flat patches (standard deviation of the gray levels 0..255 below MIN_PATCH_STD) and what remains at the right and
    bottom edge. An image that is smaller than a patch in either direction gives none.

    Args:
        image: a Pillow image of mode RGB.
        size: height and width of a patch in pixels.
        stride: distance between neighboring patches in pixels.
    """
    pixels_hwc = np.asarray(image)
    height, width = pixels_hwc.shape[:2]
    if width < size:
        return
    for top in range(0, height - size + 1, stride):
        strip = pixels_hwc[top : top + size]
        windows = np.lib.stride_tricks.sliding_window_view(strip.mean(2, dtype=np.float32), size, axis=1)[:, ::stride]
        for column in np.flatnonzero(windows.std(axis=(0, 2)) >= MIN_PATCH_STD):
            yield strip[:, column * stride : column * stride + size]
