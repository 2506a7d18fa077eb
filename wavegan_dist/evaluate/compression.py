"""The compression ratio: how many bytes does an image take as a JPEG file? Smooth images take few, noise takes many.

Zhang et al., "Diffusion-4K: Ultra-High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2025, divide the bytes of
all pixels by the bytes of all JPEG files of quality 95. We leave out the header, which is equal in all files: its 623 bytes are
more than the compressed pixels of a photograph of 32 px, and less than 0.1% of the file of a picture of 4096 px.
"""

from importlib.metadata import version
from typing import Any

import imagecodecs
import numpy as np
import torch
from torch import Tensor

from wavegan_dist.evaluate.feature import Feature
from wavegan_dist.evaluate.per_image import PerImageMetric
from wavegan_dist.evaluate.statistics import FeatureRows

QUALITY = 95
SUBSAMPLING = "420"
BITS_OF_PIXEL = 24
START_OF_SCAN = b"\xff\xda"


def compression_metric(seed: int = 0) -> PerImageMetric:
    """Create the metric `compression`: bits per pixel (bpp) of JPEG files, and the compression ratio, 24 / bpp.

    `seed` is the seed of the bootstrap.
    """
    settings: dict[str, Any] = {
        "jpeg": QUALITY,
        "subsampling": SUBSAMPLING,
        "header": "left out",
        "imagecodecs": version("imagecodecs"),
    }
    feature = Feature("compression", bits_per_pixel, settings, FeatureRows)
    return PerImageMetric("compression", "bpp", feature, "compression_ratio", lambda bpp: BITS_OF_PIXEL / bpp, seed)


def bits_per_pixel(images: Tensor) -> Tensor:
    """Return bits per pixel of each image's JPEG file without its header: uint8 [B, 3, S, S] -> float64 [B, 1] on the CPU."""
    pixels = images.shape[-2] * images.shape[-1]
    sizes = [8 * compressed_bytes(image) / pixels for image in images.permute(0, 2, 3, 1).contiguous().cpu().numpy()]
    return torch.tensor(sizes, dtype=torch.float64).unsqueeze(1)


def compressed_bytes(image: np.ndarray[Any, np.dtype[np.uint8]]) -> int:
    """Encode an image, uint8 [H, W, 3], as JPEG of quality 95; return the number of bytes after the file's header."""
    file = bytes(imagecodecs.jpeg8_encode(image, level=QUALITY, subsampling=SUBSAMPLING))
    length = file.index(START_OF_SCAN) + len(START_OF_SCAN)  # position of the 16-bit length of the header's last segment
    return len(file) - length - int.from_bytes(file[length : length + 2], "big")
