"""One snapshot against real images: every image is made once and shown to every metric."""

import difflib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wavegan_dist import __version__
from wavegan_dist.data import Index
from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.bands import BandStatistics
from wavegan_dist.evaluate.collect import BATCH, collect
from wavegan_dist.evaluate.extractors import Extractor, dinov2, efflite0, inception
from wavegan_dist.evaluate.features import FrechetFeatures, KernelDistance, PrecisionRecall
from wavegan_dist.evaluate.generate import generated_images
from wavegan_dist.evaluate.metric import Metric
from wavegan_dist.evaluate.real import floors, real_sides
from wavegan_dist.evaluate.spectrum import SpectrumError
from wavegan_dist.evaluate.wavelet_distance import WaveletDistance
from wavegan_dist.model.snapshot import Snapshot, load_snapshot
from wavegan_dist.processes import Group, join, on_each
from wavegan_dist.provenance import git_commit

METRICS = ("fwd", "fwd_db2", "spectrum", "bands", "fd", "kid", "prc", "fid")
DEFAULT_METRICS = METRICS[:-1]
EXTRACTORS = ("efflite0", "inception", "dinov2")
DEFAULT_COUNT = 5000


@dataclass(frozen=True)
class Weights:
    """Which network gives the features of fd, kid and prc, and where weights lie that come in no package."""

    extractor: str = "efflite0"
    inception: Path | None = None
    dinov2: Path | None = None


def evaluate_snapshot(
    snapshot_dir: Path,
    data_index_path: Path,
    metrics: Sequence[str] = DEFAULT_METRICS,
    count: int | None = None,
    seed: int = 0,
    weights: Weights = Weights(),
) -> dict[str, Any] | None:
    """Measure a snapshot's EMA generator against real images, with all processes of the launch, on GPUs if there are any.

    Args:
        snapshot_dir: folder of the snapshot.
        data_index_path: index.json of the real images.
        metrics: names out of `METRICS`.
        count: images of each kind; default 5000, or half of the real ones if that is less, so that there are floors.
        seed: of the latents, of the choice of real images, of KID's subsets and of the bootstrap.
        weights: the extractor of fd, kid and prc, and files of weights.

    Returns:
        On rank 0, {"metrics": name -> number, "floors": the same between two disjoint sets of as many real images (empty
        where there are not enough), "intervals": 95% bootstrap, "tables": per packet, band and frequency, "protocol": all
        that the numbers depend on}; None on other ranks. It does not depend on the number of processes.

    Raises:
        UsageError: before any work: an unknown metric, sizes that differ, too few images, weights that are missing.
        WaveganError: the snapshot or a shard is damaged.
    """
    names = check_names(metrics)
    group = join()
    snapshot, index = on_each(group, lambda: (load_snapshot(snapshot_dir), Index.load(data_index_path)))
    count = _check_images(snapshot, index, data_index_path, count)
    measures = on_each(group, lambda: build_metrics(names, index.size, count, seed, weights, group.device))
    quantities = list({measure.quantity.name: measure.quantity for measure in measures}.values())
    sides = real_sides(index, count, seed, quantities, group)
    kept = collect(_source(snapshot, seed, group.device), count, quantities, group, "generated images")
    if not group.is_main_process:
        return None
    generated = dict(zip((quantity.name for quantity in quantities), kept, strict=True))
    outcomes = [measure.compare(sides[0][measure.quantity.name], generated[measure.quantity.name]) for measure in measures]
    return {
        "metrics": {name: value for outcome in outcomes for name, value in outcome.metrics.items()},
        "floors": floors(measures, sides, index, count, seed),
        "intervals": {name: interval for outcome in outcomes for name, interval in outcome.intervals.items()},
        "tables": {name: table for outcome in outcomes for name, table in outcome.tables.items()},
        "protocol": protocol(snapshot, index, count, seed, group)
        | {"metrics": {name: m.protocol for m, o in zip(measures, outcomes, strict=True) for name in o.metrics}},
    }


def protocol(snapshot: Snapshot, index: Index, count: int, seed: int, group: Group) -> dict[str, Any]:
    """What was measured, and all that every metric depends on."""
    return {
        "nimg": snapshot.nimg,
        "snapshot": str(snapshot.path),
        "snapshot_sha256": snapshot.weights_sha256,
        "images_real": count,
        "images_generated": count,
        "image_size": index.size,
        "seed": seed,
        "ema": True,
        "index_digest": index.digest,
        "wavegan_dist": __version__,
        "git_commit": git_commit(),
        "torch": torch.__version__,
        "device": group.device.type,
    }


def check_names(names: Sequence[str]) -> list[str]:
    """The names without repeats; UsageError for none at all and for one that is not in `METRICS`."""
    for name in names:
        if name not in METRICS:
            close = difflib.get_close_matches(name, METRICS, 1, 0.4)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise UsageError(f"unknown metric '{name}'; {hint}there are {', '.join(METRICS)}")
    if not names:
        raise UsageError(f"no metric named; choose from {', '.join(METRICS)}")
    return list(dict.fromkeys(names))


def build_metrics(
    names: Sequence[str], size: int, count: int, seed: int, weights: Weights, device: torch.device
) -> list[Metric]:
    """The metrics of images of `size` pixels; UsageError where `count` is too small or weights are missing."""

    @functools.cache
    def extractor(name: str) -> Extractor:
        if name == "inception":
            return inception(weights.inception, device)
        return dinov2(weights.dinov2, device) if name == "dinov2" else efflite0(device)

    def frechet() -> Metric:
        features = extractor(weights.extractor)
        return FrechetFeatures(features, f"fd_{features.name}")

    makers: dict[str, Callable[[], Metric]] = {
        "fwd": lambda: WaveletDistance(size),
        "fwd_db2": lambda: WaveletDistance(size, "db2"),
        "spectrum": lambda: SpectrumError(size, seed),
        "bands": lambda: BandStatistics(size, seed),
        "fd": frechet,
        "kid": lambda: KernelDistance(extractor(weights.extractor), count, seed),
        "prc": lambda: PrecisionRecall(extractor(weights.extractor)),
        "fid": lambda: FrechetFeatures(extractor("inception"), "fid"),
    }
    metrics = [makers[name]() for name in names]
    for metric in metrics:
        if count < metric.minimum:
            raise UsageError(
                f"{metric.name} needs at least {metric.minimum} images, got {count}; raise --count or leave it out of --metrics"
            )
    return metrics


def _check_images(snapshot: Snapshot, index: Index, index_path: Path, count: int | None) -> int:
    resolution = snapshot.config.model.resolution
    if index.size != resolution:
        raise UsageError(
            f"{snapshot.path} makes images of {resolution} px but {index_path} holds {index.size} px; "
            f"write shards with --size {resolution}"
        )
    if count is None:
        return min(max(index.count // 2, 1), DEFAULT_COUNT)
    if count > index.count:
        raise UsageError(f"--count {count} is more than the {index.count} images of {index_path}; give {index.count} or less")
    return count


def _source(snapshot: Snapshot, seed: int, device: torch.device) -> Callable[[range], Iterator[Tensor]]:
    generator = snapshot.generator.to(device)
    return lambda numbers: generated_images(generator, numbers, seed, BATCH, generator.z_dim, device)
