"""Everything that the page of an explanation shows, as numbers and tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wavegan_dist.data import Index, images_at
from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.real_images import draw_subsets, real_labels
from wavegan_dist.explain.energy import Energies, energy_columns
from wavegan_dist.explain.parts import Parts, parts_of_images
from wavegan_dist.explain.scores import Discriminators, load_discriminators
from wavegan_dist.explain.spectra import spectra
from wavegan_dist.explain.swap import Swaps, swap
from wavegan_dist.images import from_uint8
from wavegan_dist.model.snapshot import Snapshot

STATISTICS_IMAGES, STATISTICS_PIXELS = 256, 2**20  # energies and spectra use at most so many images, of so many pixels in all
Scores = dict[str, dict[str, list[float]]]  # part -> discriminator -> logit of each image


@dataclass(frozen=True)
class RealImages:
    """Images of the training data.

    Attributes:
        images: uint8 [N, 3, R, R].
        labels: their classes, int64 [N]; None for a model without classes.
    """

    images: Tensor
    labels: Tensor | None

    def spread(self, count: int) -> "RealImages":
        """Return at most `count` of these images, equally spaced from the first one on, because a dataset may be sorted."""
        chosen = slice(None, None, -(-len(self.images) // count))
        return RealImages(self.images[chosen], None if self.labels is None else self.labels[chosen])


@dataclass(frozen=True)
class Explanation:
    """What each network of a snapshot contributes to its images.

    Attributes:
        snapshot: the snapshot.
        seed: seed of the latents.
        shown: the parts of the images that the page shows: images 0, 1, ..., `count` - 1.
        labels: the classes of these images, int64 [count]; None for a model without classes.
        real: at most as many real images, to show; None without training data.
        of_other_data: whether the real images are of another data set than the one that the run was trained on.
        statistics_images: number of generated images, shown or not, over which energies and spectra are means.
        energies: mean squares of the bands, by column of the table (`energy_columns`).
        spectra: power spectra in dB, by part (`spectra.spectra`).
        swaps: the swap experiments.
        scores: logits of the shown generated and real images, by part, then by discriminator network; empty without
            discriminators.
        scores_source: the checkpoint of the discriminators, or why there are no scores.
    """

    snapshot: Snapshot
    seed: int
    shown: Parts
    labels: Tensor | None
    real: RealImages | None
    of_other_data: bool
    statistics_images: int
    energies: dict[str, Energies]
    spectra: dict[str, Tensor]
    swaps: Swaps
    scores: Scores
    scores_source: str


def measure(snapshot: Snapshot, count: int, seed: int, classes: Sequence[int], index: Index | None) -> Explanation:
    """Compute an explanation on the CPU. Shows progress bars if stderr is a terminal.

    Args:
        snapshot: the snapshot, with its generator on the CPU.
        count: number of images to show.
        seed: seed of the latents, and of the choice of real images.
        classes: image i gets class `classes[i % len(classes)]`; empty: classes are drawn with the frequencies of the training
            data.
        index: the training data; None: nothing is compared with real images.

    Raises:
        UsageError: the training data cannot be used; see `read_real_images`.
        WaveganError: an image is not finite, or a real image cannot be read.
    """
    model = snapshot.config.model
    parts, labels = parts_of_images(snapshot, max(count, statistics_images(model.resolution)), seed, classes)
    statistics = len(parts.fused)
    real = None if index is None else read_real_images(snapshot, index, statistics, seed)
    all_real = None if real is None else real.images
    shown, labels = parts.first(count), None if labels is None else labels[:count]
    shown_real = None if real is None else real.spread(count)
    discriminators = load_discriminators(snapshot)
    return Explanation(
        snapshot=snapshot,
        seed=seed,
        shown=shown,
        labels=labels,
        real=shown_real,
        of_other_data=index is not None and index.digest != snapshot.index_digest,
        statistics_images=statistics,
        energies=energy_columns(parts, model.levels, all_real),
        spectra=spectra(parts, all_real),
        swaps=swap(snapshot, seed, None if labels is None else int(labels[0])),
        scores=_scores(discriminators, shown, labels, shown_real),
        scores_source=discriminators.source,
    )


def statistics_images(resolution: int) -> int:
    """Return the least number of images for energies and spectra: 256 up to 64 px, fewer above, 4 at 512 px."""
    return max(min(STATISTICS_IMAGES, STATISTICS_PIXELS // resolution**2), 1)


def read_real_images(snapshot: Snapshot, index: Index, count: int, seed: int) -> RealImages:
    """Read `count` random images of the training data, or all if there are fewer, in the order of the dataset.

    Args:
        snapshot: the snapshot that the images are compared with.
        index: the training data.
        count: number of images, at least 1.
        seed: seed of the choice of images.

    Raises:
        UsageError: the images are of another size than the snapshot's, the model has classes and an image has none of them, a
            shard is missing, or a remote dataset has no cache.
        WaveganError: an image cannot be read.
    """
    model, where = snapshot.config.model, f"--data {index.location}"
    if index.size != model.resolution:
        raise UsageError(
            f"{where} holds images of {index.size} px, but {snapshot.path} makes {model.resolution} px; give the run's data"
        )
    rows = draw_subsets(index, min(count, index.count), seed)[0]
    labels = real_labels(index, rows) if model.num_classes else None
    if labels is not None and not ((labels >= 0) & (labels < model.num_classes)).all():
        raise UsageError(f"{where} has images without one of the model's {model.num_classes} classes; give the run's data")
    return RealImages(torch.cat(list(images_at(index, rows, len(rows)))), labels)


def _scores(discriminators: Discriminators, shown: Parts, labels: Tensor | None, real: RealImages | None) -> Scores:
    images = {
        "fused": (shown.fused, labels),
        "base": (shown.base, labels),
        "inverse transform": (shown.wavelet_image(), labels),
    }
    if shown.low is None:
        del images["base"], images["inverse transform"]
    scores = {part: discriminators.scores(*arguments) for part, arguments in images.items()}
    if real is not None:
        scores["real"] = discriminators.scores(from_uint8(real.images), real.labels)
    return {part: of_part for part, of_part in scores.items() if of_part}
