"""The drawings of a comparison, each a PNG. Matplotlib's object interface: no display and no global state."""

import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wavegan_dist.compare.columns import Column
from wavegan_dist.compare.groups import RunGroup
from wavegan_dist.compare.heat_map import frequency_map
from wavegan_dist.compare.runs import LoadedRun
from wavegan_dist.errors import UsageError
from wavegan_dist.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAINING = ("lam", "loss/d_image", "loss/d_low", "loss/d_high", "loss/g_image", "std_high/fused", "speed/images_per_second")
HEADLINES = ("fwd", "fwd_db2", "spectrum_db", "bands_db", "bands_kurtosis", "fd_", "kid_", "precision_", "recall_", "fid")
PER_ROW = 3


def draw_all(groups: Sequence[RunGroup], columns: Sequence[Column], out: Path) -> dict[str, Path]:
    """Heading -> PNG in `out`, for all that the runs have anything to draw for. UsageError without the extra `eval`."""
    shown = [column for column in columns if column.metric in HEADLINES or column.metric.startswith(("fd_", "kid_"))]
    shown += [column for column in columns if column.metric.startswith(("precision_", "recall_"))]
    trained = [
        name for name in TRAINING if any(name in point for group in groups for run in group.runs for point in run.points)
    ]
    drawings: dict[str, Any] = {}
    if shown:
        drawings["Metrics over training"] = _curves(groups, [(c.label, c.curve, c.floor(groups)) for c in shown])
    for column in columns:
        if column.metric == "spectrum_db":
            drawings[f"Spectrum{_mark(column)}"] = _spectra(groups, column)
        if column.metric in ("fwd", "fwd_db2"):
            drawings[f"Packets of {column.label}"] = _heat_maps(groups, column)
    if trained:
        drawings["Training"] = _curves(groups, [(name, lambda run, name=name: _history(run, name), None) for name in trained])
    return {heading: _save(figure, out / f"{_file(heading)}.png") for heading, figure in drawings.items()}


def _curves(groups: Sequence[RunGroup], plots: Sequence[tuple[str, Any, float | None]]) -> "Figure":
    """A plot for each (title, curve of a run, floor): mean over the runs of a group, and one standard deviation around it."""
    figure, axes = _figure(len(plots), 3.0)
    for axis, (title, curve, floor) in zip(axes, plots, strict=False):
        for number, group in enumerate(groups):
            kimg, mean, std = _over_runs([curve(run) for run in group.runs])
            axis.plot(kimg, mean, "o-", markersize=3, color=f"C{number}", label=group.label)
            axis.fill_between(kimg, np.subtract(mean, std), np.add(mean, std), color=f"C{number}", alpha=0.2, linewidth=0)
        if floor is not None:
            axis.axhline(floor, color="grey", linestyle="--", linewidth=1, label="floor")
        axis.set(title=title, xlabel="kimg")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    return figure


def _over_runs(curves: Sequence[dict[float, float]]) -> tuple[list[float], list[float], list[float]]:
    """Sorted x, mean and standard deviation (0 of one) of the curves that have that x."""
    at = sorted({x for curve in curves for x in curve})
    values = [[curve[x] for curve in curves if x in curve] for x in at]
    return (
        at,
        [statistics.fmean(each) for each in values],
        [statistics.stdev(each) if len(each) > 1 else 0.0 for each in values],
    )


def _spectra(groups: Sequence[RunGroup], column: Column) -> "Figure":
    """Error of every group's newest spectra in dB, mean over its runs."""
    figure, (axis, *_) = _figure(1, 4.0)
    for group in groups:
        tables = list(_newest(group, column, "spectrum"))
        if tables:
            errors = [np.subtract(table["generated_db"], table["real_db"]) for table in tables]
            axis.plot(tables[0]["frequency"], np.mean(errors, axis=0), label=group.label)
    axis.axhline(0, color="black", linewidth=1)
    axis.set(xlabel="frequency / Nyquist", ylabel="generated - real, dB", title="below 0: too smooth")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    return figure


def _heat_maps(groups: Sequence[RunGroup], column: Column) -> "Figure":
    """Distance of each packet at its place in the plane of frequencies, a map for each group, one scale of colours."""
    from matplotlib.colors import LogNorm

    tables = {group.label: list(_newest(group, column, f"{column.metric}_packets")) for group in groups}
    maps = {label: np.mean([frequency_map(table) for table in found], axis=0) for label, found in tables.items() if found}
    figure, axes = _figure(len(maps), 3.4)
    least = max(min(float(each.min()) for each in maps.values()), 1e-9)
    norm = LogNorm(least, max(float(each.max()) for each in maps.values()) * (1 + 1e-9) + 1e-9)
    for axis, (label, each) in zip(axes, maps.items(), strict=False):
        image = axis.imshow(each.clip(min=least), norm=norm, cmap="viridis")
        axis.set(title=label, xlabel="horizontal frequency", ylabel="vertical frequency", xticks=[], yticks=[])
        figure.colorbar(image, ax=axis, shrink=0.8)
    return figure


def _newest(group: RunGroup, column: Column, table: str) -> Iterator[dict[str, Any]]:
    for run in group.runs:
        if results := column.results(run):
            yield results[-1].tables[table]


def _history(run: LoadedRun, name: str) -> dict[float, float]:
    return {point["kimg"]: point[name] for point in run.points if name in point}


def _figure(plots: int, height: float) -> "tuple[Figure, list[Axes]]":
    """A figure with room for so many plots."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("compare needs matplotlib: pip install 'wavegan-dist[eval]'") from error
    rows, columns = math.ceil(plots / PER_ROW), min(plots, PER_ROW)
    figure = Figure(figsize=(4.2 * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flatten())
    for spare in axes[plots:]:
        spare.set_axis_off()
    return figure, axes


def _save(figure: "Figure", path: Path) -> Path:
    with atomic_file(path, "wb") as file:
        figure.savefig(file, format="png", dpi=100)
    return path


def _mark(column: Column) -> str:
    return column.label.removeprefix(column.metric)


def _file(heading: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in heading.lower()).strip("-")
