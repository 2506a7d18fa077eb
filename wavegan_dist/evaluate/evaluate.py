"""One snapshot against real images: every image is made once and shown to every metric."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from wavegan_dist import __version__
from wavegan_dist.data import Index, real_images
from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.features import FeatureDistance, efflite0, inception
from wavegan_dist.evaluate.generate import generated_images
from wavegan_dist.evaluate.metric import Metric
from wavegan_dist.evaluate.spectrum import SpectrumError
from wavegan_dist.evaluate.wavelet_distance import WaveletDistance
from wavegan_dist.model.snapshot import Snapshot, load_snapshot
from wavegan_dist.provenance import git_commit

METRICS = ("fwd", "spectrum", "fd", "kid", "fid")
DEFAULT_METRICS = ("fwd", "spectrum", "fd", "kid")
DEFAULT_COUNT = 5000


def evaluate_snapshot(
    snapshot_dir: Path,
    data_index_path: Path,
    metrics: Sequence[str] = DEFAULT_METRICS,
    count: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    inception_weights: Path | None = None,
) -> dict[str, Any]:
    """Measure a snapshot's EMA generator against real images, on a GPU if there is one.

    Args:
        snapshot_dir: folder of the snapshot.
        data_index_path: index.json of the real images.
        metrics: names out of `METRICS`.
        count: images of each kind; default 5000, or all the real ones if there are fewer.
        seed: of the latents, of the choice of real images and of KID's subsets.
        batch_size: images at a time; the result does not depend on it beyond float rounding.
        inception_weights: file for `fid`; default in torch.hub's folder.

    Returns:
        {"metrics": name -> number, "tables": per packet and per frequency, "protocol": all that the numbers depend on}.

    Raises:
        UsageError: before any work: an unknown metric, sizes that differ, too few images, weights that are missing.
    """
    names = check_names(metrics)
    snapshot, index = load_snapshot(snapshot_dir), Index.load(data_index_path)
    count = _check_images(snapshot, index, data_index_path, count)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    measures = build_metrics(names, index.size, count, seed, inception_weights, device)
    _feed(measures, snapshot, index, count, seed, batch_size, device)
    outcomes = {measure.name: measure.result() for measure in measures}
    protocol = {
        "images_real": count,
        "images_generated": count,
        "image_size": index.size,
        "seed": seed,
        "ema": True,
        "nimg": snapshot.nimg,
        "snapshot": str(snapshot_dir),
        "snapshot_sha256": snapshot.weights_sha256,
        "index_digest": index.digest,
        "wavegan_dist": __version__,
        "git_commit": git_commit(),
        "torch": torch.__version__,
        "device": device.type,
        "metrics": {name: outcome.protocol for name, outcome in outcomes.items()},
    }
    return {
        "metrics": {name: value for outcome in outcomes.values() for name, value in outcome.metrics.items()},
        "tables": {name: table for outcome in outcomes.values() for name, table in outcome.tables.items()},
        "protocol": protocol,
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
    names: Sequence[str], size: int, count: int, seed: int, inception_weights: Path | None, device: torch.device
) -> list[Metric]:
    """Fresh metrics for images of `size` pixels; UsageError where `count` is too small or weights are missing."""
    metrics: list[Metric] = []
    if "fwd" in names:
        metrics.append(WaveletDistance(size, device))
    if "spectrum" in names:
        metrics.append(SpectrumError(size, device))
    if "fd" in names or "kid" in names:
        extractor = efflite0(device)
        frechet, kernel = (f"{name}_{extractor.name}" if name in names else None for name in ("fd", "kid"))
        metrics.append(FeatureDistance(extractor, frechet, kernel, seed))
    if "fid" in names:
        metrics.append(FeatureDistance(inception(inception_weights, device), "fid", None, seed))
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
        return min(index.count, DEFAULT_COUNT)
    if count > index.count:
        raise UsageError(f"--count {count} is more than the {index.count} images of {index_path}; give {index.count} or less")
    return count


def _feed(
    metrics: Sequence[Metric], snapshot: Snapshot, index: Index, count: int, seed: int, batch_size: int, device: torch.device
) -> None:
    generator = snapshot.generator.to(device)
    with tqdm(total=2 * count, unit="img", desc="evaluate", disable=None, leave=False) as bar:
        for images in real_images(index, count, seed, batch_size):
            for metric in metrics:
                metric.real.update(images.to(device))
            bar.update(len(images))
        for images in generated_images(generator, count, seed, batch_size, generator.z_dim, device):
            for metric in metrics:
                metric.generated.update(images)
            bar.update(len(images))
