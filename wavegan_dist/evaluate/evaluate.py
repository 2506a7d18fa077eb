"""Evaluation of one snapshot: each image is generated once and used by all metrics."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wavegan_dist import __version__
from wavegan_dist.data import Index
from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.accumulate import BATCH, ImageSource, batch_size, compute_statistics
from wavegan_dist.evaluate.code_digest import code_digest
from wavegan_dist.evaluate.metric import Metric, MetricResult
from wavegan_dist.evaluate.per_class import ClassMetrics, check_classes, class_metrics
from wavegan_dist.evaluate.real_images import (
    compute_floors,
    draw_subsets,
    load_real_images,
    real_labels,
    real_statistics,
)
from wavegan_dist.evaluate.registry import (
    DEFAULT_METRICS,
    PACKAGED_WEIGHTS,
    ExtractorWeights,
    build_metrics,
    check_counts,
    check_names,
    metrics_for_count,
)
from wavegan_dist.evaluation_result import ClassResult, EvaluationProtocol, EvaluationResult
from wavegan_dist.model.generate import batch_that_fills_a_gpu, uses_exact_mode
from wavegan_dist.model.snapshot import Snapshot, labels_of_images, load_snapshot, snapshot_images
from wavegan_dist.processes import Group, join, on_all_ranks, report_lost_ranks
from wavegan_dist.provenance import git_commit

DEFAULT_COUNT = 5000


def evaluate_snapshot(
    snapshot_dir: Path,
    data: str | Path,
    metrics: Sequence[str] | None = None,
    count: int | None = None,
    seed: int = 0,
    weights: ExtractorWeights = PACKAGED_WEIGHTS,
    *,
    exact: bool = False,
    per_class: int | None = None,
    cache: Path | None = None,
) -> EvaluationResult | None:
    """Compare images of a snapshot's EMA generator with real images. Collective: every process of the launch must call it.

    Joins the process group of the launcher (`processes.join`); the caller leaves it. Classes of generated images are drawn
    with the frequencies of the training data. Computes on GPUs if there are any. The values do not depend on the number of
    processes.

    Args:
        snapshot_dir: the snapshot folder.
        data: location of the index of the real images (`Index.load`).
        metrics: names from `METRICS`; None: the metrics of DEFAULT_METRICS for which `count` is enough.
        count: number of images in each set, at least 1; None: 5000, or half of the real images if that is less, so that there
            are floors.
        seed: seed of the latents, of the choice of real images, of KID's subsets and of the bootstrap: at least 0 and below
            2**63.
        weights: the extractor of fd, kid and prc, and weight files.
        exact: generate images in exact mode (`model.generate`), which CPUs always use.
        per_class: also compute the metrics that use no trained network for each class that has at least this number of images
            in both sets; None: no metrics of classes.
        cache: folder for shards that are not on this machine; None: `data.cache` of the snapshot's run.

    Returns:
        The result on rank 0, None on other ranks.

    Raises:
        UsageError: before images are generated or read: a metric is unknown, the launcher's environment variables are wrong,
            the snapshot or the index is missing or invalid, the image sizes differ, there are too few images, weights or
            packages are missing, or `per_class` is given for a snapshot or data without classes, or with other ones.
        WaveganError: the process group did not form, the snapshot or a shard is damaged, a generated image is not finite,
            another process of the launch has ended, or, on rank 0 only, a value of a metric is not finite.
    """
    names = None if metrics is None else check_names(metrics)
    group = join()
    read = "reading the snapshot and the index"
    snapshot, index = on_all_ranks(group, lambda: _load(snapshot_dir, data, cache), read)
    count = _check_images(snapshot, index, data, count)
    selected = on_all_ranks(group, lambda: _select_metrics(names, index, count, seed, weights, group))
    labels = labels_of_images(snapshot, seed)
    classes = None if labels is None else labels(range(count))
    by_class = on_all_ranks(group, lambda: _class_metrics(snapshot, index, count, seed, selected, classes, per_class))
    features = list({metric.feature.name: metric.feature for metric in selected.values()}.values())
    class_features = [feature for metrics_of_class in by_class for feature in metrics_of_class.features]
    exact = uses_exact_mode(group.device, exact)
    with report_lost_ranks(group):
        subsets = real_statistics(index, count, seed, features, group, class_features)
        source = _generated_source(snapshot, seed, group.device, exact)
        generated = compute_statistics(source, count, [*features, *class_features], group, "generated images", classes)
    if not group.is_main_process:
        return None
    compared = list(selected.values())
    results = [metric.compare(subsets[0][metric.feature.name], generated[metric.feature.name]) for metric in compared]
    protocols = {name: metric.protocol for metric, result in zip(compared, results, strict=True) for name in result.metrics}
    floors = compute_floors(compared, subsets, index, count, seed, group)
    class_results = [metrics_of_class.result(subsets[0], generated) for metrics_of_class in by_class]
    return _combine(results, floors, class_results, _protocol(snapshot, index, count, seed, group, exact, protocols))


def _load(snapshot_dir: Path, data: str | Path, cache: Path | None) -> tuple[Snapshot, Index]:
    snapshot = load_snapshot(snapshot_dir)
    return snapshot, load_real_images(data, snapshot.config.data, cache)


def _class_metrics(
    snapshot: Snapshot,
    index: Index,
    count: int,
    seed: int,
    metrics: dict[str, Metric[Any]],
    generated: Tensor | None,
    minimum: int | None,
) -> list[ClassMetrics]:
    """Select the metrics of each class by `class_metrics`, with at least `minimum` images; an empty list if `minimum` is None.

    `generated` holds the classes of the generated images, int64 [count]; None for a snapshot without classes.

    Raises:
        UsageError: the snapshot or the real images have no classes, their classes differ (`check_classes`), or no metric can be
            measured per class.
    """
    if minimum is None:
        return []
    if snapshot.classes is None or generated is None:
        raise UsageError(f"--per-class: {snapshot.path} was trained without classes (model.num_classes = 0); leave it out")
    real = real_labels(index, draw_subsets(index, count, seed)[0])
    check_classes(snapshot.classes, index, real)
    return class_metrics(metrics, snapshot.classes, real, generated, minimum)


def _select_metrics(
    names: Sequence[str] | None, index: Index, count: int, seed: int, weights: ExtractorWeights, group: Group
) -> dict[str, Metric[Any]]:
    """Build the named metrics or, if `names` is None, those of DEFAULT_METRICS for which `count` is enough.

    Raises:
        UsageError: weights or packages are missing, a metric does not support the image size, or `count` is too small.
    """
    metrics = build_metrics(names or DEFAULT_METRICS, index.size, count, seed, weights, group.device)
    if names is None:
        metrics = metrics_for_count(metrics, count, warn=group.is_main_process)
    check_counts(metrics, count, index.count)
    return metrics


def _combine(
    results: Sequence[MetricResult], floors: dict[str, float], classes: list[ClassResult], protocol: EvaluationProtocol
) -> EvaluationResult:
    return EvaluationResult(
        metrics={name: value for result in results for name, value in result.metrics.items()},
        floors=floors,
        intervals={name: interval for result in results for name, interval in result.intervals.items()},
        tables={name: table for result in results for name, table in result.tables.items()},
        protocol=protocol,
        classes=classes,
    )


def _protocol(
    snapshot: Snapshot, index: Index, count: int, seed: int, group: Group, exact: bool, metrics: dict[str, dict[str, Any]]
) -> EvaluationProtocol:
    return EvaluationProtocol(
        nimg=snapshot.nimg,
        snapshot=str(snapshot.path),
        snapshot_sha256=snapshot.weights_sha256,
        images_real=count,
        images_generated=count,
        image_size=index.size,
        seed=seed,
        ema=True,
        ema_half_life_kimg=snapshot.half_life_kimg,
        index_digest=index.digest,
        wavegan_dist=__version__,
        git_commit=git_commit(),
        code_digest=code_digest(),
        torch=torch.__version__,
        device=group.device.type,
        exact=exact,
        metrics=metrics,
        class_counts=[] if snapshot.classes is None else list(snapshot.classes.counts),
    )


def _check_images(snapshot: Snapshot, index: Index, data: str | Path, count: int | None) -> int:
    resolution = snapshot.config.model.resolution
    if index.size != resolution:
        raise UsageError(
            f"{snapshot.path} makes images of {resolution} px but {data} holds {index.size} px; "
            f"write shards with --size {resolution}"
        )
    if count is None:
        return min(max(index.count // 2, 1), DEFAULT_COUNT)
    if count > index.count:
        raise UsageError(f"--count {count} is more than the {index.count} images of {data}; give {index.count} or less")
    return count


def _generated_source(snapshot: Snapshot, seed: int, device: torch.device, exact: bool) -> ImageSource:
    model = snapshot.config.model
    smallest = batch_size(model.resolution)
    size = smallest if exact else max(batch_that_fills_a_gpu(model.resolution, model.width), smallest)

    def source(numbers: range) -> Iterator[Tensor]:
        # Outside exact mode one forward computes up to a whole segment, whatever the number of processes.
        for images in snapshot_images(snapshot, numbers, seed, size, device, exact=exact):
            yield from images.split(BATCH)

    return source
