"""Warnings when the reported metrics show mode collapse or a discriminator that has won."""

from torch import Tensor
from torch.nn import functional as F

MIN_DIVERSITY = 0.1
MAX_SHARE = 0.99  # of saturated logits, or of pairs whose real image has the larger logit
# What it means that a share of `losses.OBJECTIVES` is near 1, by name of the share.
WON = {
    "saturation": "classifies {:.1%} of the images beyond its hinge margin",
    "pair_accuracy": "gives the real image the larger logit in {:.1%} of the pairs",
}
WARMUP_FRACTION = 0.05  # fraction of the run without warnings: untrained networks look collapsed, too


def coarse(images: Tensor) -> Tensor:
    """Average images, float [B, 3, R, R], down to 8x8 pixels: float32 [B, 3, 8, 8]."""
    return F.adaptive_avg_pool2d(images.float(), 8)


def diversity(coarse_images: Tensor) -> float:
    """Measure how much the coarse content of images differs within a batch.

    Args:
        coarse_images: what `coarse` returns for B > 1 images.

    Returns:
        Standard deviation over the batch, then the mean over pixels and channels. Near 0 if all images are alike, which is mode
        collapse.
    """
    return coarse_images.std(dim=0).mean().item()


class CollapseWarnings:
    """Turns reported metrics into warnings; repeats a warning only after its condition has cleared.

    Args:
        total_kimg: length of the run, in thousands of images.
    """

    def __init__(self, total_kimg: float) -> None:
        self.warmup_kimg = WARMUP_FRACTION * total_kimg
        self._active: set[str] = set()

    def warnings(self, metrics: dict[str, float]) -> list[str]:
        """Return the warnings whose condition is new in this report, each as one line of text; logs nothing.

        Args:
            metrics: reported metrics: `kimg` and, if they were measured, `watch/diversity` (that of samples divided by that of
                real images) and `watch/saturation_*` or `watch/pair_accuracy_*`. Below 5 % of the length of the run, there are
                no warnings.
        """
        if metrics["kimg"] < self.warmup_kimg:
            return []
        active = {}
        if (ratio := metrics.get("watch/diversity", 1)) < MIN_DIVERSITY:
            active["diversity"] = f"samples differ only {ratio:.1%} as much as real images do: mode collapse"
        for name, value in metrics.items():
            for share, verdict in WON.items():
                if name.startswith(f"watch/{share}_") and value > MAX_SHARE:
                    network = name.removeprefix(f"watch/{share}_")
                    active[name] = f"discriminator.{network} {verdict.format(value)}: it has won"
        new = [text for name, text in active.items() if name not in self._active]
        self._active = set(active)
        return new
