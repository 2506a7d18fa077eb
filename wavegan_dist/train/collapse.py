"""Signs that a GAN is dying, in numbers, with a warning when one begins to show."""

from torch import Tensor
from torch.nn import functional as F

LEAST_DIVERSITY = 0.1
MOST_SATURATION = 0.99
SETTLED = 0.05  # share of the run before which nothing is made of it: fresh networks look dead too


def diversity(images: Tensor) -> float:
    """How much images differ from one another in their coarse content.

    Args:
        images: float [B, 3, R, R], B > 1.

    Returns:
        Standard deviation over the batch of the images averaged down to 8x8, mean over pixels and colours: near 0 when
        all images are alike (mode collapse).
    """
    return F.adaptive_avg_pool2d(images.float(), 8).std(dim=0).mean().item()


class CollapseWarnings:
    """Tells when a run begins to look dead; says each thing once, until it was well again.

    Args:
        total_kimg: the run's length.
    """

    def __init__(self, total_kimg: float) -> None:
        self.settled_kimg = SETTLED * total_kimg
        self._warned: set[str] = set()

    def warnings(self, point: dict[str, float]) -> list[str]:
        """Warnings that a report gives rise to.

        Args:
            point: with `kimg`, `watch/diversity` (of samples, as a share of that of real images) and `watch/saturation_*`.
        """
        if point["kimg"] < self.settled_kimg:
            return []
        signs = {}
        if point["watch/diversity"] < LEAST_DIVERSITY:
            signs["diversity"] = f"samples differ only {point['watch/diversity']:.1%} as much as real images do: mode collapse"
        for name, value in point.items():
            if name.startswith("watch/saturation_") and value > MOST_SATURATION:
                network = name.removeprefix("watch/saturation_")
                signs[name] = f"discriminator.{network} tells {value:.1%} of the images apart beyond its margin: it has won"
        new = [text for name, text in signs.items() if name not in self._warned]
        self._warned = set(signs)
        return new
