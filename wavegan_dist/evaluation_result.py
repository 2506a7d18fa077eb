"""The result of an evaluation. No other module knows the fields of the JSON file.

Imports neither torch nor torch-fidelity, so that jobs and commands which only read results start quickly.
"""

import json
from collections.abc import Container
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from wavegan_dist.errors import WaveganError
from wavegan_dist.files import atomic_file, parse_json

# Fields of the protocol that identify the snapshot. All other fields describe the measurement.
SUBJECT = {"nimg", "snapshot", "snapshot_sha256", "ema_half_life_kimg", "class_counts"}
CLASSES_SHOWN = 10  # largest number of classes in a line
# Metrics in the table of classes.
CLASS_COLUMNS = ("fwd", "swd", "spectrum_db", "bands_db", "glcm_bits", "compression_bpp")


SCORES = ("glcm_score", "compression_ratio")  # the best value is that of the real images


def optimum(metric: str) -> float | None:
    """Return the best value of a metric by its name: 1 for `precision_...` and `recall_...`, 0 for every other metric.

    None for glcm_score and compression_ratio, whose best value is that of the real images.
    """
    if metric in SCORES:
        return None
    return 1.0 if metric.startswith(("precision_", "recall_")) else 0.0


VALUES = {  # the values of each metric; {} stands for the name of the extractor
    **{metric: (metric, f"{metric}_low", f"{metric}_high") for metric in ("fwd", "fwd_db2", "swd")},
    "spectrum": tuple(f"spectrum_db{part}{sign}" for part in ("", "_top_half", "_top_quarter") for sign in ("", "_signed")),
    "bands": ("bands_db", "bands_db_signed", "bands_kurtosis"),
    "glcm": ("glcm_bits", "glcm_bits_signed", "glcm_score"),
    "compression": ("compression_bpp", "compression_bpp_signed", "compression_ratio"),
    "fd": ("fd_{}",),
    "kid": ("kid_{}",),
    "prc": ("precision_{}", "recall_{}"),
    "fid": ("fid",),
}
# The names of each `--extractor`: that of dinov2 depends on the checkpoint.
EXTRACTOR_NAMES = {
    "efflite0": ("efflite0@128",),
    "inception": ("inception-v3-compat",),
    "dinov2": ("dinov2_vits14@224", "dinov2_vitb14@224", "dinov2_vitl14@224"),
}


def value_names(metric: str, extractor: str) -> list[str]:
    """Return the names of the values that a metric may have in `EvaluationResult.metrics`.

    Args:
        metric: a metric of `--metrics`.
        extractor: the network of `--extractor`.
    """
    return list(dict.fromkeys(value.format(name) for value in VALUES[metric] for name in EXTRACTOR_NAMES[extractor]))


class EvaluationProtocol(BaseModel):
    """What was measured, and everything that the metrics depend on.

    Args:
        nimg: real images shown to the discriminators before the snapshot was taken.
        snapshot: path of the snapshot folder.
        snapshot_sha256: hash of the snapshot's weights.
        images_real, images_generated: number of images in each set.
        image_size: side of the images in pixels.
        seed: seed of the latents, of the choice of real images, of KID's subsets and of the bootstrap.
        ema: whether the weights are an exponential moving average; always true.
        ema_half_life_kimg: half-life of the EMA, in thousands of images; None in results of older versions.
        index_digest: SHA-256, in hex digits, of the index of the real data set.
        wavegan_dist: version of this package.
        git_commit: see `provenance.git_commit`; compared only if `code_digest` is empty.
        code_digest: digest of the source files that the metrics depend on; empty in results of older versions.
        torch: version of PyTorch.
        device: type of the device, `cpu` or `cuda`.
        exact: whether the images were generated in exact mode (`model.generate`), as on CPUs and in all older versions.
        metrics: for each metric, everything that only this metric depends on.
        class_counts: number of training images of each class: the frequencies with which classes were drawn; empty for a
            snapshot without classes.
    """

    model_config = ConfigDict(frozen=True, extra="allow")  # `conditions` includes fields that a later version has added

    nimg: int
    snapshot: str
    snapshot_sha256: str
    images_real: int
    images_generated: int
    image_size: int
    seed: int
    ema: bool
    ema_half_life_kimg: float | None = None
    index_digest: str
    wavegan_dist: str
    git_commit: str
    code_digest: str = ""
    torch: str
    device: str
    exact: bool = True
    metrics: dict[str, dict[str, Any]]
    class_counts: list[int] = []


class ClassResult(BaseModel):
    """Metrics of the images of one class.

    Args:
        label: number of the class.
        name: name of the class, its number if the name is unknown.
        images_real, images_generated: number of images in each set.
        metrics: name to value.
        intervals: 95% bootstrap intervals [low, high] of those metrics that have one.
        left_out: metric to the reason why it was not computed for this class.
    """

    model_config = ConfigDict(frozen=True)

    label: int
    name: str
    images_real: int
    images_generated: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    left_out: dict[str, str]


class EvaluationResult(BaseModel):
    """Metrics of one snapshot, as `wavegan evaluate` writes them to JSON.

    Args:
        metrics: name to value.
        floors: the same metrics between two disjoint sets of real images; empty if the data set is too small for two.
        intervals: 95% bootstrap intervals [low, high] of those metrics that have one.
        tables: per-packet, per-band and per-frequency values that the metrics summarize.
        protocol: what was measured, and everything that the metrics depend on.
        classes: metrics of each class, if they were requested.
    """

    model_config = ConfigDict(frozen=True)

    metrics: dict[str, float]
    floors: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    tables: dict[str, Any]
    protocol: EvaluationProtocol
    classes: list[ClassResult] = []

    @property
    def kimg(self) -> float:
        """Real images shown to the discriminators before the snapshot was taken, in thousands."""
        return self.protocol.nimg / 1000

    def floor_ratio(self, metric: str) -> float | None:
        """Return |value| / |floor| of a metric in `metrics`; None if the metric has no floor or its floor is 0."""
        floor = self.floors.get(metric)
        return abs(self.metrics[metric] / floor) if floor else None

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read a result from JSON.

        Raises:
            WaveganError: the file is damaged or not an evaluation result.
            OSError: the file cannot be read.
        """
        try:
            return cls.model_validate(parse_json(Path(path).read_text()))
        except ValueError as error:
            raise WaveganError(f"{path} is damaged or not an evaluation result; delete it, or evaluate again") from error

    def write(self, path: Path) -> None:
        """Write the result to `path` as JSON, atomically. Raises ValueError if a number is not finite."""
        with atomic_file(path) as file:
            json.dump(self.model_dump(), file, indent=2, allow_nan=False)
            file.write("\n")

    def conditions(self, metric: str) -> dict[str, Any]:
        """Return what a metric's value depends on except the snapshot: values are comparable only under equal conditions.

        The conditions are fields of the protocol by name. They contain `code_digest`, which shows whether the code that matters
        has changed, and not the commit; a result without `code_digest` is comparable only with results of the same commit.
        """
        return {**self._shared_conditions(), **self.protocol.metrics.get(metric, {})}

    def _shared_conditions(self) -> dict[str, Any]:
        shared = self.protocol.model_dump(exclude=SUBJECT | {"metrics", "git_commit"})
        return {**shared, "code_digest": self.protocol.code_digest or f"unknown, commit {self.protocol.git_commit}"}

    def can_complete(self, other: Self) -> bool:
        """Return whether `other` is of the same snapshot under the same conditions, apart from those of single metrics."""
        same_weights = self.protocol.snapshot_sha256 == other.protocol.snapshot_sha256
        return same_weights and self._shared_conditions() == other._shared_conditions()

    def completed_by(self, earlier: Self) -> Self:
        """Return this result with the metrics of `earlier` that it lacks; `earlier.can_complete(self)` must be true."""
        metrics = {**earlier.protocol.metrics, **self.protocol.metrics}
        return self.model_copy(
            update={
                **_completed_values(self, earlier),
                "floors": {**_without(earlier.floors, self.metrics), **self.floors},
                "tables": {**earlier.tables, **self.tables},
                "protocol": self.protocol.model_copy(update={"metrics": metrics}),
                "classes": _completed_classes(self.classes, earlier.classes),
            }
        )

    def table(self) -> str:
        """Format the result, which must have a metric, as lines of text; no trailing newline.

        A line for each metric, a line for each class with the metrics CLASS_COLUMNS, which metrics were left out for which
        classes and why, the number of images, and what the floors are.
        """
        width = max(map(len, self.metrics))
        lines = [f"{'':<{width}}  {'value':>10}  {'floor':>10}  {'x floor':>8}  95% interval"]
        for name, value in self.metrics.items():
            floor = f"{self.floors[name]:>10.4g}" if name in self.floors else f"{'-':>10}"
            ratio = self.floor_ratio(name)
            times = f"{'-':>8}" if ratio is None else f"{ratio:>8.3g}"
            interval = "  {:.4g} .. {:.4g}".format(*self.intervals[name]) if name in self.intervals else ""
            lines.append(f"{name:<{width}}  {value:>10.4g}  {floor}  {times}{interval}")
        return "\n".join([*lines, *_class_lines(self.classes), self._protocol_line(), self._floor_line()])

    def _protocol_line(self) -> str:
        protocol = self.protocol
        return (
            f"{protocol.images_real} real and {protocol.images_generated} generated images of {protocol.image_size} px, "
            f"seed {protocol.seed}, EMA weights at {self.kimg:g} kimg; compare only equal protocols"
        )

    def _floor_line(self) -> str:
        count = self.protocol.images_real
        if self.floors:
            return f"floor: the same metric between two disjoint sets of {count} real images; x floor: value / floor"
        return f"no floors: they take {2 * count} real images, more than the data set holds; lower --count"


def _without(values: dict[str, Any], names: Container[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _completed_values(
    result: EvaluationResult | ClassResult, earlier: EvaluationResult | ClassResult
) -> dict[str, dict[str, Any]]:
    """Return the fields `metrics` and `intervals` of `result` with those of the metrics of `earlier` that it lacks."""
    return {
        "metrics": {**earlier.metrics, **result.metrics},
        "intervals": {**_without(earlier.intervals, result.metrics), **result.intervals},
    }


def _completed_classes(results: list[ClassResult], earlier: list[ClassResult]) -> list[ClassResult]:
    """Return the results of all classes, by ascending label; a metric is left out only if neither result has a value of it."""
    completed = {result.label: result for result in (*earlier, *results)}
    before = {result.label: result for result in earlier}
    for result in results:
        if (other := before.get(result.label)) is not None:
            values = _completed_values(result, other)
            reasons = {**other.left_out, **result.left_out}
            left_out = {
                metric: why for metric, why in reasons.items() if values["metrics"].keys().isdisjoint(VALUES.get(metric, ()))
            }
            completed[result.label] = result.model_copy(update={**values, "left_out": left_out})
    return [completed[label] for label in sorted(completed)]


def _class_lines(classes: list[ClassResult]) -> list[str]:
    """Return the lines of a table of the metrics CLASS_COLUMNS of each class, then which metrics are left out, and why."""
    names = [name for name in CLASS_COLUMNS if any(name in result.metrics for result in classes)]
    measured = [result for result in classes if result.metrics]
    width = max(5, *(len(result.name) for result in measured)) if measured else 5
    heads = "".join(f"  {name:>11}" for name in names)
    lines = [f"{'class':<{width}}  {'real':>6}  {'generated':>9}{heads}"] if names else []
    for result in measured:
        cells = [f"{result.metrics[name]:.4g}" if name in result.metrics else "-" for name in names]
        values = "".join(f"  {cell:>11}" for cell in cells)
        lines.append(f"{result.name:<{width}}  {result.images_real:>6}  {result.images_generated:>9}{values}")
    return lines + _left_out_lines(classes)


def _left_out_lines(classes: list[ClassResult]) -> list[str]:
    left_out: dict[str, list[str]] = {}
    for result in classes:
        for metric, reason in result.left_out.items():
            left_out.setdefault(f"{metric} ({reason})", []).append(result.name)
    return [
        f"left out: {metric} of {len(names)} classes: {', '.join(names[:CLASSES_SHOWN])}"
        + (", ..." if len(names) > CLASSES_SHOWN else "")
        for metric, names in left_out.items()
    ]
