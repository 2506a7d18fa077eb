"""Plots of a comparison, each a PNG file, by Matplotlib's object interface: no display and no global state."""

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

TRAINING = (
    "lam", "loss/d_image", "loss/d_low", "loss/d_high", "loss/g_image", "grad_share/g_base", "grad_share/g_low",
    "grad_share/g_high", "std_low/base", "std_low/branches", "std_low/fused", "std_high/base", "std_high/branches",
    "std_high/fused", "speed/images_per_second",
)  # fmt: skip
HEADLINES = (
    "fwd", "fwd_db2", "swd", "spectrum_db", "bands_db", "bands_kurtosis", "glcm_bits", "compression_bpp", "fd_", "kid_",
    "precision_", "recall_", "fid",
)  # fmt: skip
PER_ROW = 3


def draw_all(groups: Sequence[RunGroup], columns: Sequence[Column], out: Path) -> dict[str, Path]:
    """Plot metrics, spectra, distances of wavelet packets and training curves to PNG files, as far as the runs have data.

    Args:
        groups: the runs, grouped by configuration.
        columns: the metrics.
        out: folder of the PNG files.

    Returns:
        Heading to PNG file, in the order of the page; empty if the runs have neither metrics nor training curves.

    Raises:
        UsageError: there is something to plot, and the extra `eval` is not installed.
        OSError: a file cannot be written.
    """
    shown = [column for column in columns if column.metric in HEADLINES or column.metric.startswith(("fd_", "kid_"))]
    shown += [column for column in columns if column.metric.startswith(("precision_", "recall_"))]
    trained = [
        name for name in TRAINING if any(name in point for group in groups for run in group.runs for point in run.points)
    ]
    plots: dict[str, Any] = {}
    if shown:
        plots["Metrics over training"] = _curves(groups, [(c.label, c.curve, c.floor(groups)) for c in shown])
    for column in columns:
        if column.metric == "spectrum_db":
            plots[f"Spectrum{_number(column)}"] = _spectra(groups, column)
        if column.metric in ("fwd", "fwd_db2", "swd"):
            plots[f"Packets of {column.label}"] = _heat_maps(groups, column)
    if trained:
        plots["Training"] = _curves(groups, [(name, lambda run, name=name: _history(run, name), None) for name in trained])
    return {heading: _save(figure, out / f"{_file_stem(heading)}.png") for heading, figure in plots.items()}


def _curves(groups: Sequence[RunGroup], plots: Sequence[tuple[str, Any, float | None]]) -> "Figure":
    """Draw a plot for each (title, function from a run to its curve, floor or None) in `plots`, with one line per group.

    A curve maps kimg to a value. A line is the mean over the runs of the group, with a band of one standard deviation.
    """
    figure, axes = _figure(len(plots), 3.0)
    for axis, (title, curve, floor) in zip(axes, plots, strict=False):
        for number, group in enumerate(groups):
            kimg, mean, std = _mean_curve([curve(run) for run in group.runs])
            if not kimg:
                continue
            axis.plot(kimg, mean, "o-", markersize=3, color=f"C{number}", label=_plain(group.label))
            axis.fill_between(kimg, np.subtract(mean, std), np.add(mean, std), color=f"C{number}", alpha=0.2, linewidth=0)
        if floor is not None:
            axis.axhline(floor, color="gray", linestyle="--", linewidth=1, label="floor")
        axis.set(title=_plain(title), xlabel="kimg")
        axis.grid(alpha=0.3)
    shown = [axis.get_legend_handles_labels() for axis in axes]
    lines = {label: line for handles, labels in shown for line, label in zip(handles, labels, strict=True)}
    axes[0].legend(lines.values(), lines.keys(), fontsize=7)  # of all plots: a group may have no values in the first
    return figure


def _mean_curve(curves: Sequence[dict[float, float]]) -> tuple[list[float], list[float], list[float]]:
    """Return sorted x, and at each x the mean and sample standard deviation of the curves that have a value there.

    The deviation of a single value is 0.
    """
    xs = sorted({x for curve in curves for x in curve})
    values = [[curve[x] for curve in curves if x in curve] for x in xs]
    return (
        xs,
        [statistics.fmean(at_x) for at_x in values],
        [statistics.stdev(at_x) if len(at_x) > 1 else 0.0 for at_x in values],
    )


def _spectra(groups: Sequence[RunGroup], column: Column) -> "Figure":
    """Plot the difference of generated to real spectra in dB over frequency, one line per group that has results.

    A line is the mean over the runs of the group, each with its newest result; `column` is one of the metric `spectrum_db`.
    """
    figure, (axis, *_) = _figure(1, 4.0)
    for group in groups:
        tables = list(_newest(group, column, "spectrum"))
        if tables:
            errors = [np.subtract(table["generated_db"], table["real_db"]) for table in tables]
            axis.plot(tables[0]["frequency"], np.mean(errors, axis=0), label=_plain(group.label))
    axis.axhline(0, color="black", linewidth=1)
    axis.set(xlabel="frequency / Nyquist", ylabel="generated - real, dB", title="below 0: too smooth")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    return figure


def _heat_maps(groups: Sequence[RunGroup], column: Column) -> "Figure":
    """Plot the distance of each packet in the frequency plane: one map per group that has results, one color scale for all.

    A map is the mean over the runs of the group, each with its newest result. `column` is one of fwd, fwd_db2 and swd.
    """
    from matplotlib.colors import LogNorm

    tables = {group.label: list(_newest(group, column, f"{column.metric}_packets")) for group in groups}
    maps = {
        label: np.mean([frequency_map(table) for table in of_group], axis=0) for label, of_group in tables.items() if of_group
    }
    figure, axes = _figure(len(maps), 3.4)
    lowest = max(min(float(plane.min()) for plane in maps.values()), 1e-9)
    norm = LogNorm(lowest, max(float(plane.max()) for plane in maps.values()) * (1 + 1e-9) + 1e-9)
    for axis, (label, plane) in zip(axes, maps.items(), strict=False):
        image = axis.imshow(plane.clip(min=lowest), norm=norm, cmap="viridis")
        axis.set(title=_plain(label), xlabel="horizontal frequency", ylabel="vertical frequency", xticks=[], yticks=[])
        figure.colorbar(image, ax=axis, shrink=0.8)
    return figure


def _newest(group: RunGroup, column: Column, table: str) -> Iterator[dict[str, Any]]:
    for run in group.runs:
        if results := column.results(run):
            yield results[-1].tables[table]


def _history(run: LoadedRun, name: str) -> dict[float, float]:
    """Return the metric `name` over training: kimg to value. Empty for other EMAs than the first: their curve is the same."""
    return {point["kimg"]: point[name] for point in run.points if name in point} if run.is_first else {}


def _figure(plots: int, height: float) -> "tuple[Figure, list[Axes]]":
    """Create a figure with axes for `plots` plots, `PER_ROW` in a row, each `height` inches high; spare axes are invisible.

    Raises UsageError if matplotlib is not installed.
    """
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


def _plain(text: str) -> str:
    """Return the text of a label: without mathematics between $, and not hidden from the legend by a leading underscore."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def _number(column: Column) -> str:
    return column.label.removeprefix(column.metric)


def _file_stem(heading: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in heading.lower()).strip("-")
