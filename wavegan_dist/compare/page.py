"""The page of a comparison: a self-contained HTML file with embedded plots and without scripts."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from wavegan_dist.compare.columns import Column, mean_and_std, protocol_differences
from wavegan_dist.compare.groups import RunGroup, differing_settings
from wavegan_dist.evaluation_result import CLASS_COLUMNS, EvaluationResult
from wavegan_dist.html_page import document, figure, picture, table


def page(groups: Sequence[RunGroup], columns: Sequence[Column], pictures: dict[str, Path], samples: dict[str, Path]) -> str:
    """Return the page of a comparison, a complete HTML document.

    Args:
        groups: the runs, grouped by configuration.
        columns: the metrics.
        pictures: heading to PNG file of each plot; the files are read and embedded.
        samples: caption to PNG file of each sample grid, likewise.
    """
    sections = [
        ("Results", _results(groups, columns)),
        ("Why a metric has several columns", _protocols(columns)),
        ("Classes", _classes(groups, columns)),
        ("Configurations", _configurations(groups)),
        ("Cost", _cost(groups)),
        ("Samples from the same latents", _samples(samples)),
        *((heading, picture(path.read_bytes(), heading)) for heading, path in pictures.items()),
    ]
    return document(" / ".join(group.label for group in groups), sections)


def _results(groups: Sequence[RunGroup], columns: Sequence[Column]) -> str:
    """Return HTML: a row per metric, with mean and standard deviation over the runs of each configuration, then the floor."""
    if not columns:
        return "<p>None of these runs has been evaluated: run <code>wavegan evaluate</code>.</p>"
    evaluated = [_kimg([run.evaluations[-1] for run in group.runs if run.evaluations]) for group in groups]
    head = ["metric", *(f"{group.label}, {kimg}" for group, kimg in zip(groups, evaluated, strict=True)), "floor"]
    rows = []
    for column in columns:
        floor = column.floor(groups)
        cells = [_result_cell(column, group, kimg, floor) for group, kimg in zip(groups, evaluated, strict=True)]
        rows.append([column.label, *cells, "-" if floor is None else f"{floor:.4g}"])
    note = (
        "<p>The newest value of each run, measured at the kimg of the heading unless the cell names others; &plusmn; is the "
        "standard deviation over runs. Floor: the same metric between two "
        "disjoint sets of as many real images, which is what a perfect generator would get; x floor: value / floor.</p>"
    )
    return table(head, rows) + note + _commits(groups)


def _commits(groups: Sequence[RunGroup]) -> str:
    """Return HTML: which commits computed the results. Commits do not separate columns; the digest of the code does."""
    commits: dict[str, list[str]] = {}
    for run in (run for group in groups for run in group.runs):
        for commit in dict.fromkeys(result.protocol.git_commit for result in run.evaluations):
            commits.setdefault(commit, []).append(run.name)
    notes = [f"<code>{escape(commit)}</code> ({escape(', '.join(runs))})" for commit, runs in commits.items()]
    return f"<p>Evaluated at commit {'; '.join(notes)}.</p>"


def _kimg(results: Sequence[EvaluationResult]) -> str:
    """Return the kimg of results, for example "16 kimg" or "8 to 16 kimg"; "not evaluated" if there are none."""
    if not results:
        return "not evaluated"
    first, last = min(result.kimg for result in results), max(result.kimg for result in results)
    return f"{first:g} kimg" if first == last else f"{first:g} to {last:g} kimg"


def _result_cell(column: Column, group: RunGroup, evaluated: str, floor: float | None) -> str:
    """Return the newest values of a group, and where they differ from the heading: their kimg (`evaluated`), number of runs."""
    newest = column.newest(group)
    parts = [_cell([result.metrics[column.metric] for result in newest], floor)]
    if newest and (kimg := _kimg(newest)) != evaluated:
        parts.append(f"at {kimg}")
    if 0 < len(newest) < len(group.runs):
        parts.append(f"{len(newest)} of {len(group.runs)} runs")
    return ", ".join(parts)


def _cell(values: Sequence[float], floor: float | None = None) -> str:
    if not values:
        return "-"
    mean, std = mean_and_std(values)
    spread = "" if std is None else f" ± {std:.2g}"
    return f"{mean:.4g}{spread}" + (f" ({abs(mean / floor):.3g} x floor)" if floor else "")


def _classes(groups: Sequence[RunGroup], columns: Sequence[Column]) -> str:
    """Return HTML with one table for each of `columns` that has values per class; empty if none has.

    Rows are classes, columns are configurations (`groups`); a cell is the mean and standard deviation over the runs.
    """
    parts = []
    for column in (column for column in columns if column.metric in CLASS_COLUMNS):
        of_groups = [column.of_classes(group) for group in groups]
        names = {name: None for values in of_groups for name in values}
        rows = [[name, *(_cell(values.get(name, ())) for values in of_groups)] for name in names]
        if rows:
            head = ["class", *(group.label for group in groups)]
            parts.append(f"<h3>{escape(column.label)}</h3>{table(head, rows)}")
    note = "<p>Compare the same class of two configurations, not two classes: their numbers of images differ.</p>"
    return note + "".join(parts) if parts else ""


def _protocols(columns: Sequence[Column]) -> str:
    reasons = protocol_differences(columns)
    lines = [f"<li>{escape(', '.join(labels))}: {escape(reason)}</li>" for reason, labels in reasons.items()]
    if not lines:
        return ""
    return f"<p>Numbers of different protocols cannot be compared. Against the protocol [1]:</p><ul>{''.join(lines)}</ul>"


def _configurations(groups: Sequence[RunGroup]) -> str:
    if len(groups) == 1:
        return ""
    changed = differing_settings(groups)
    return table(["setting", *(group.label for group in groups)], [[key, *map(str, row)] for key, row in changed.items()])


def _cost(groups: Sequence[RunGroup]) -> str:
    head = ["run", "seed", "kimg", "hours", "images/s", "processes", "device"]
    rows = [
        [
            run.name, str(run.settings["seed"]), f"{run.kimg:g}", f"{run.hours:.3g}",
            f"{run.kimg * 1000 / (run.hours * 3600):.4g}" if run.hours else "-",
            str(run.environment.get("world_size", "-")), str(run.environment.get("device", "-")),
        ]
        for group in groups
        for run in group.runs
        if run.is_first
    ]  # fmt: skip
    return table(head, rows)


def _samples(samples: dict[str, Path]) -> str:
    figures = [figure(path.read_bytes(), text) for text, path in samples.items()]
    return f'<div class="samples">{"".join(figures)}</div>' if figures else ""
