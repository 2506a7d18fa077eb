"""Columns of comparable values: those of one metric under one protocol."""

import csv
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wavegan_dist.compare.groups import RunGroup
from wavegan_dist.compare.runs import LoadedRun
from wavegan_dist.evaluation_result import EvaluationResult
from wavegan_dist.files import atomic_file


@dataclass(frozen=True)
class Column:
    """Comparable values of one metric: those measured under one protocol.

    Args:
        metric: name of the metric.
        label: the metric's name, followed by a number in brackets if the runs have the metric under several protocols.
        protocol: what `EvaluationResult.conditions` returns for every result of the column.
    """

    metric: str
    label: str
    protocol: dict[str, Any]

    def results(self, run: LoadedRun) -> list[EvaluationResult]:
        """Return the results of a run that belong to this column, by ascending image number."""
        return [
            result
            for result in run.evaluations
            if self.metric in result.metrics and result.conditions(self.metric) == self.protocol
        ]

    def curve(self, run: LoadedRun) -> dict[float, float]:
        """Return the metric of a run over training: kimg to value, in ascending order; empty if the run has no value."""
        return {result.kimg: result.metrics[self.metric] for result in self.results(run)}

    def newest(self, group: RunGroup) -> list[EvaluationResult]:
        """Return the newest result of each run of a group, in the order of the runs; runs without a result are left out."""
        return [results[-1] for results in map(self.results, group.runs) if results]

    def of_classes(self, group: RunGroup) -> dict[str, list[float]]:
        """Return the metric of each class: class name to a value for each run whose newest result has the class."""
        values: dict[str, list[float]] = {}
        for one in (one for result in self.newest(group) for one in result.classes if self.metric in one.metrics):
            values.setdefault(one.name, []).append(one.metrics[self.metric])
        return values

    def floor(self, groups: Sequence[RunGroup]) -> float | None:
        """Return the metric between two sets of real images, which is equal in all results of the column.

        None if no result of the groups has it.
        """
        results = (result for group in groups for run in group.runs for result in self.results(run))
        return next((result.floors[self.metric] for result in results if self.metric in result.floors), None)


def find_columns(runs: Sequence[LoadedRun]) -> list[Column]:
    """Return one column for each metric and protocol of the runs; metrics and protocols are in the order of appearance."""
    protocols: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for result in run.evaluations:
            for metric in result.metrics:
                of_metric = protocols.setdefault(metric, [])
                if (conditions := result.conditions(metric)) not in of_metric:
                    of_metric.append(conditions)
    return [
        Column(metric, metric if len(of_metric) == 1 else f"{metric} [{number}]", conditions)
        for metric, of_metric in protocols.items()
        for number, conditions in enumerate(of_metric, 1)
    ]


def protocol_differences(columns: Sequence[Column]) -> dict[str, list[str]]:
    """Compare the columns of each metric that has several, each with the metric's first column.

    Returns:
        A dict from "FIELD: FIRST / OTHER; ...", the fields of the protocol that differ from those of the first column, to the
        labels of the columns that differ so. Empty if no metric has several columns.
    """
    labels: dict[str, list[str]] = {}
    first: dict[str, Column] = {}
    for column in columns:
        if first.setdefault(column.metric, column) is not column:
            fields = list(_differing_fields(first[column.metric].protocol, column.protocol))
            labels.setdefault("; ".join(fields), []).append(column.label)
    return labels


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation of at least one value; the deviation of a single value is None."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def write_csv(groups: Sequence[RunGroup], columns: Sequence[Column], path: Path) -> None:
    """Write a CSV file, atomically: a line of headings, then a line for each result of each run in each column.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_file(path) as file:
        lines = csv.writer(file)
        lines.writerow(["configuration", "run", "seed", "kimg", "metric", "value", "floor", "low", "high", "protocol"])
        lines.writerows(_csv_rows(groups, columns))


def _csv_rows(groups: Sequence[RunGroup], columns: Sequence[Column]) -> Iterator[list[Any]]:
    for group in groups:
        for run in group.runs:
            for column in columns:
                protocol = json.dumps(column.protocol, sort_keys=True)
                for result in column.results(run):
                    metric = column.metric
                    floor = result.floors.get(metric, "")
                    low, high = result.intervals.get(metric, ("", ""))
                    value, seed = result.metrics[metric], run.settings["seed"]
                    yield [group.label, run.name, seed, result.kimg, column.label, value, floor, low, high, protocol]


def _differing_fields(first: dict[str, Any], second: dict[str, Any]) -> Iterator[str]:
    for key in sorted(first.keys() | second.keys()):
        if first.get(key) != second.get(key):
            yield f"{key}: {first.get(key)} / {second.get(key)}"
