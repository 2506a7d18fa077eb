"""Run folders: compared, and the small files in them read."""

import json
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from typing_extensions import override

from tests.compare.helpers import evaluation, point
from tests.fuzz.harness import Target, write_files
from tests.fuzz.mutate import Files
from wavegan_dist.cluster.evaluation_queue import submitted_jobs
from wavegan_dist.cluster.run_exit import CrashLog, exit_after
from wavegan_dist.compare.columns import find_columns, protocol_differences, write_csv
from wavegan_dist.compare.groups import group_runs
from wavegan_dist.compare.page import page
from wavegan_dist.compare.pictures import draw_all
from wavegan_dist.compare.runs import read_run
from wavegan_dist.data.left_out import left_out_by_reason
from wavegan_dist.errors import WaveganError
from wavegan_dist.run_folder import RunExit, RunFolder
from wavegan_dist.tracking.best import best_metric
from wavegan_dist.tracking.spool import Spool
from wavegan_dist.tracking.tracking_info import TrackingInfo


class Runs(Target):
    """Two runs, of which one is damaged: compared, and in one of 300 inputs drawn. Then their states and logs are read."""

    @override
    def seeds(self, scratch: Path) -> list[Files]:
        files: dict[str, Any] = {
            "config.yaml": {"data": {"index": "x"}, "model": {"width": 4}},
            "environment.json": {"world_size": 2, "device": "cpu", "git_commit": "a" * 40},
            "evaluations/kimg-000001.json": evaluation(1000),
            "evaluations/kimg-000002.json": evaluation(2000),
            "best.json": {"snapshot": "kimg-000001", "metric": "fwd", "value": 0.5},
            "exit.json": {"state": "finished", "nimg": 2000, "reason": "", "time": 1.5e9},
            "tracking.json": {
                "uri": "sqlite:///x.db",
                "experiment": "e",
                "name": "n",
                "key": "k",
                "started": 1,
                "run_id": None,
            },
            "cluster/evaluations.json": {"kimg-000001": "12_0"},
            "tracking/train.sent": {"offset": 0, "refused": 0},
        }
        lines: dict[str, list[Any]] = {
            "metrics.jsonl": [point(nimg) for nimg in (500, 1000, 2000)],
            "cluster/crashes.jsonl": [{"job": "12", "nimg": 500, "reason": "killed", "time": 1.5e9}],
            "left_out.jsonl": [{"file": "a.txt", "reason": "no picture", "files": 2, "detail": "", "by": "index"}],
            "tracking/train.jsonl": [
                {"kind": "metrics", "nimg": 500, "values": {"lam": 0.5}, "time": 1},
                {"kind": "status", "status": "RUNNING", "time": 2},
            ],
        }
        run = {name: json.dumps(content).encode() for name, content in files.items()}
        run |= {name: b"".join(json.dumps(line).encode() + b"\n" for line in content) for name, content in lines.items()}
        self.scratch = scratch
        write_files(scratch / "other", run)
        return [run]

    @cached_property
    def other(self) -> list[Any]:
        """The undamaged run."""
        return read_run(str(self.scratch / "other"), self.scratch)

    @override
    def mutated(self, files: Files, rng: Random) -> Files:
        changed = super().mutated(files, rng)
        return {**changed, "draw": b""} if rng.random() < 0.003 else changed

    @override
    def read(self, folder: Path) -> None:
        run = RunFolder(folder)
        steps = (self._compare, self._states, self._spool)
        errors = []
        for step in steps:  # a damaged file of one step must not hide the files of the others
            try:
                step(run)
            except self.errors as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _compare(self, run: RunFolder) -> None:
        runs = [*read_run(str(run.path), self.scratch), *self.other]
        groups, columns = group_runs(runs), find_columns(runs)
        protocol_differences(columns)
        write_csv(groups, columns, self.scratch / "comparison.csv")
        drawn = draw_all(groups, columns, self.scratch) if (run.path / "draw").exists() else {}
        page(groups, columns, drawn, {}).encode()

    def _states(self, run: RunFolder) -> None:
        assert isinstance(run.read_exit(), RunExit | None)
        exit_after(run.path, None)
        best_metric(run)
        left_out_by_reason(run.path)
        CrashLog(run.cluster, "12").add(RunExit("died", 700, "", 0.0))
        submitted_jobs(run.path)
        run.forget_after(1000)
        run.reports()
        TrackingInfo.load(run)

    def _spool(self, run: RunFolder) -> None:
        spool = Spool(run.spool("train"))
        spool.open()
        spool.append({"kind": "status", "status": "FINISHED"})
        spool.count_undelivered()
        if not any(True for _ in spool.events()):
            raise WaveganError("an event that was appended is lost")
