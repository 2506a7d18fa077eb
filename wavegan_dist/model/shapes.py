"""Image and feature-map sizes that the generators and the discriminators share."""

from wavegan_dist.config import RESOLUTIONS
from wavegan_dist.errors import UsageError

IMAGE_CHANNELS = 3  # RGB


def check_resolution(resolution: int) -> None:
    """Check that the networks can be built for images of `resolution` x `resolution` pixels.

    Raises:
        UsageError: `resolution` is not one of `config.RESOLUTIONS`.
    """
    if resolution not in RESOLUTIONS:
        raise UsageError(f"resolution {resolution} is not a power of two from {RESOLUTIONS[0]} to {RESOLUTIONS[-1]}")


def feature_map_sizes(resolution: int) -> list[int]:
    """Heights (= widths) of a network's feature maps in pixels, in ascending order: [4, 8, ..., resolution / 2]."""
    return [2**n for n in range(2, resolution.bit_length() - 1)]


def feature_map_channels(size: int, resolution: int, width: int) -> int:
    """Number of channels of the feature map of `size` x `size` pixels in a network for images of `resolution` pixels.

    The largest feature map (resolution / 2) has `width` channels. Each halving of the size doubles the number of channels, up
    to 8 * `width`.
    """
    return width * min(resolution // (2 * size), 8)
