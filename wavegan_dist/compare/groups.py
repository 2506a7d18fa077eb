"""Runs of one configuration that differ in the seed only are one experiment, seen several times."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wavegan_dist.compare.runs import LoadedRun
from wavegan_dist.config import may_change_on_resume

NO_DIFFERENCE = {"seed", *may_change_on_resume()} - {"train.total_kimg"}


@dataclass(frozen=True)
class RunGroup:
    """Runs of one configuration."""

    label: str
    runs: list[LoadedRun]


def group_runs(runs: Sequence[LoadedRun]) -> list[RunGroup]:
    """Groups in the order of their first runs."""
    found: dict[str, list[LoadedRun]] = {}
    for run in runs:
        settings = {key: value for key, value in run.settings.items() if key not in NO_DIFFERENCE}
        found.setdefault(json.dumps(settings, sort_keys=True), []).append(run)
    return [RunGroup(_label(members), members) for members in found.values()]


def differences(groups: Sequence[RunGroup]) -> dict[str, list[Any]]:
    """Settings that are not the same in all groups: key -> value in each."""
    first = [group.runs[0].settings for group in groups]
    keys = [key for key in first[0] if key not in NO_DIFFERENCE]
    rows = {key: [settings.get(key) for settings in first] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def _label(runs: Sequence[LoadedRun]) -> str:
    return runs[0].name if len(runs) == 1 else f"{runs[0].name} ({len(runs)} runs)"
