"""The GLCM score: the entropy of gray level co-occurrence matrices (Haralick 1973). Flat patches have little, textures much.

Zhang et al., "Diffusion-4K: Ultra-High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2025: gray images of 64
levels are cut into patches of 64 px. Entry (i, j) of a matrix is the share of the pixel pairs at one offset whose first pixel
has level i and whose second pixel has level j. The score is the mean entropy over patches and over the offsets of 1, 2, 3 and 4
pixels at 0, 45, 90 and 135 degrees.

The paper's formula is the entropy of the matrix, which we compute. The authors' code instead calls
skimage.measure.shannon_entropy, which is the entropy of the histogram of the matrix's entries; its values are not comparable.
"""

from typing import Any

import torch
from torch import Tensor

from wavegan_dist.evaluate.feature import Feature
from wavegan_dist.evaluate.per_image import PerImageMetric
from wavegan_dist.evaluate.statistics import FeatureRows
from wavegan_dist.evaluate.wavelet_distance import tiles

LEVELS = 64
PATCH = 64  # pixels
PART = 64  # patches whose matrices are counted at once: 2 MiB
DISTANCES = (1, 2, 3, 4)
LUMA = (299, 587, 114)  # thousandths of ITU-R BT.601
# (rows, columns) from the first to the second pixel; diagonal distances are rounded to whole pixels, as in scikit-image.
DIAGONALS = {distance: round(distance / 2**0.5) for distance in DISTANCES}
OFFSETS = [
    offset for d, diagonal in DIAGONALS.items() for offset in ((0, d), (diagonal, diagonal), (d, 0), (diagonal, -diagonal))
]


def glcm_metric(size: int, seed: int = 0) -> PerImageMetric:
    """Create the metric `glcm`: entropies in bits, and their mean, the GLCM score.

    Args:
        size: side of the images in pixels: up to 64, which are one patch, or a multiple of 64.
        seed: seed of the bootstrap.
    """
    settings: dict[str, Any] = {"levels": LEVELS, "patch": min(size, PATCH), "distances": list(DISTANCES), "entropy": "matrix"}
    return PerImageMetric(
        "glcm", "bits", Feature("glcm", entropies, settings, FeatureRows), "glcm_score", lambda bits: bits, seed
    )


def entropies(images: Tensor) -> Tensor:
    """Return the mean entropy of each image's matrices in bits: uint8 [B, 3, S, S] -> float64 [B, 1].

    S is from 5 to 64 or a multiple of 64.
    """
    parts = tiles(gray_levels(images), PATCH).squeeze(1).split(PART)
    means = [torch.stack([co_occurrence_entropy(part, *offset) for offset in OFFSETS]).mean(dim=0) for part in parts]
    return torch.cat(means).view(len(images), -1).mean(dim=1, keepdim=True)


def gray_levels(images: Tensor) -> Tensor:
    """Convert colors to luma in 64 levels: uint8 [B, 3, H, W] -> int64 [B, 1, H, W] in 0..63.

    Uses integers: in floating point, the order of the sum decides how x.5 is rounded, and it differs between processors.
    """
    weights = torch.tensor(LUMA, device=images.device).view(3, 1, 1)
    luma = ((images.long() * weights).sum(dim=1, keepdim=True) + 500) // 1000
    return luma // (256 // LEVELS)


def co_occurrence_entropy(patches: Tensor, rows: int, columns: int) -> Tensor:
    """Compute the entropy of the co-occurrence matrix of each patch at one offset.

    Args:
        patches: int64 [P, H, W], levels from 0 to LEVELS - 1.
        rows, columns: offset from the first to the second pixel of a pair in pixels; 0 <= rows < H, -W < columns < W.

    Returns:
        float64 [P], in bits.
    """
    height, width = patches.shape[-2:]
    left, right = max(-columns, 0), width - max(columns, 0)
    first = patches[:, : height - rows, left:right]
    second = patches[:, rows:, left + columns : right + columns]
    cells = LEVELS**2
    matrix = torch.arange(len(patches), device=patches.device).view(-1, 1, 1)
    pairs = ((matrix * LEVELS + first) * LEVELS + second).flatten(1)
    counts = torch.bincount(pairs.flatten(), minlength=len(patches) * cells)
    # The sum over the cells of p log(1 / p) is the mean over the pairs of log(1 / p).
    surprise = -(torch.arange(pairs.shape[1] + 1, dtype=torch.float64, device=patches.device) / pairs.shape[1]).log2()
    entropy: Tensor = surprise[counts[pairs]].mean(dim=1)
    return entropy
