"""Groups of runs: runs whose configurations differ only in the seed repeat one experiment."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wavegan_dist.compare.runs import LoadedRun
from wavegan_dist.config import may_change_on_resume

NO_DIFFERENCE = {"seed", *may_change_on_resume()} - {"train.total_kimg"}


@dataclass(frozen=True)
class RunGroup:
    """Runs of one configuration, which differ only in the seed and in what may change on resume (`group_runs`).

    Args:
        label: the name under which the page shows the runs: that of the first run, and their number if there are several; with
            a number if another group has the same name.
        runs: the runs, at least one.
    """

    label: str
    runs: list[LoadedRun]


def group_runs(runs: Sequence[LoadedRun]) -> list[RunGroup]:
    """Group the runs of one configuration: their settings differ only in the seed and in what may change on resume.

    `train.total_kimg` counts as a difference although it may change on resume. Groups are in the order of their first runs.
    """
    groups: dict[str, list[LoadedRun]] = {}
    for run in runs:
        settings = {key: value for key, value in run.settings.items() if key not in NO_DIFFERENCE}
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append(run)
    labels = [_label(members) for members in groups.values()]
    return [
        RunGroup(f"{label} #{labels[: number + 1].count(label)}" if labels.count(label) > 1 else label, members)
        for number, (label, members) in enumerate(zip(labels, groups.values(), strict=True))
    ]


def differing_settings(groups: Sequence[RunGroup]) -> dict[str, list[Any]]:
    """Return the settings that are not the same in all groups: dotted key to the value of each group, in their order.

    The values are those of a group's first run. Settings in which the runs of a group may differ are left out.
    """
    first = [group.runs[0].settings for group in groups]
    keys = [key for key in first[0] if key not in NO_DIFFERENCE]
    values = {key: [settings.get(key) for settings in first] for key in keys}
    return {key: of_groups for key, of_groups in values.items() if any(value != of_groups[0] for value in of_groups)}


def _label(runs: Sequence[LoadedRun]) -> str:
    return runs[0].name if len(runs) == 1 else f"{runs[0].name} ({len(runs)} runs)"
