"""Which numbers may stand in one column: those of one metric under one protocol."""

import csv
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wavegan_dist.compare.groups import RunGroup
from wavegan_dist.compare.runs import LoadedRun
from wavegan_dist.evaluate.result import EvaluationResult
from wavegan_dist.files import atomic_file


@dataclass(frozen=True)
class Column:
    """A metric under one protocol. `label` numbers the protocols where the metric has several."""

    metric: str
    label: str
    protocol: dict[str, Any]

    def results(self, run: LoadedRun) -> list[EvaluationResult]:
        """The run's results that belong here, by ascending image number."""
        return [
            result
            for result in run.evaluations
            if self.metric in result.metrics and result.conditions(self.metric) == self.protocol
        ]

    def curve(self, run: LoadedRun) -> dict[float, float]:
        """kimg -> value."""
        return {result.kimg: result.metrics[self.metric] for result in self.results(run)}

    def final(self, group: RunGroup) -> list[float]:
        """The newest value of each run that has one."""
        return [list(curve.values())[-1] for curve in map(self.curve, group.runs) if curve]

    def floor(self, groups: Sequence[RunGroup]) -> float | None:
        """Between real images; equal for equal protocols."""
        every = (result for group in groups for run in group.runs for result in self.results(run))
        return next((result.floors[self.metric] for result in every if self.metric in result.floors), None)


def find_columns(runs: Sequence[LoadedRun]) -> list[Column]:
    """All metrics of all runs, each under each of its protocols, in the order in which they appear."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for result in run.evaluations:
            for metric in result.metrics:
                protocols = found.setdefault(metric, [])
                if (how := result.conditions(metric)) not in protocols:
                    protocols.append(how)
    return [
        Column(metric, metric if len(protocols) == 1 else f"{metric} [{number}]", how)
        for metric, protocols in found.items()
        for number, how in enumerate(protocols, 1)
    ]


def why_apart(columns: Sequence[Column]) -> dict[str, list[str]]:
    """Why metrics have more than one column: what differs -> the columns' labels, each against the metric's first."""
    reasons: dict[str, list[str]] = {}
    first: dict[str, Column] = {}
    for column in columns:
        if first.setdefault(column.metric, column) is not column:
            texts = list(_changes(first[column.metric].protocol, column.protocol))
            reasons.setdefault("; ".join(texts), []).append(column.label)
    return reasons


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and sample standard deviation where there is more than one."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def write_csv(groups: Sequence[RunGroup], columns: Sequence[Column], path: Path) -> None:
    """A line for each number of each result of each run."""
    with atomic_file(path) as file:
        lines = csv.writer(file)
        lines.writerow(["configuration", "run", "seed", "kimg", "metric", "value", "floor", "low", "high", "protocol"])
        lines.writerows(_lines(groups, columns))


def _lines(groups: Sequence[RunGroup], columns: Sequence[Column]) -> Iterator[list[Any]]:
    for group in groups:
        for run in group.runs:
            for column in columns:
                for result in column.results(run):
                    metric, kimg = column.metric, result.kimg
                    floor = result.floors.get(metric, "")
                    low, high = result.intervals.get(metric, ("", ""))
                    value, seed = result.metrics[metric], run.settings["seed"]
                    how = json.dumps(column.protocol, sort_keys=True)
                    yield [group.label, run.name, seed, kimg, column.label, value, floor, low, high, how]


def _changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield f"{key}: {before.get(key)} / {after.get(key)}"
