"""Output of Slurm's commands, its environment variables, and exit codes."""

import os
import stat
from pathlib import Path
from random import Random
from unittest.mock import patch

from typing_extensions import override

from tests.fuzz.harness import Target
from tests.fuzz.mutate import Files, mutated_bytes
from wavegan_dist.cluster import slurm
from wavegan_dist.cluster.evaluation_queue import submit_pending
from wavegan_dist.cluster.executor import _executor, submit
from wavegan_dist.cluster.job import EvaluateJob
from wavegan_dist.cluster.profile import Profile
from wavegan_dist.cluster.slurm import Allocation
from wavegan_dist.cluster.snapshot_watcher import run_over
from wavegan_dist.cluster.train_job import script_profile

COMMANDS = ("squeue", "scontrol", "sbatch")
VARIABLES = {"SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_GPUS_ON_NODE": "4"}


class Slurm(Target):
    """Commands named as Slurm's that print anything: the allocation, the queue, and a submission."""

    @override
    def seeds(self, scratch: Path) -> list[Files]:
        for name in COMMANDS:
            path = scratch / name
            path.write_text(f'#!/bin/sh\ncat "$FUZZ_OUTPUTS/{name}"; exit "$(cat "$FUZZ_OUTPUTS/{name}.code")"\n')
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self.commands = scratch
        outputs = {
            "squeue": b"12_0\n12_1\n13\n", "scontrol": b"n1\nn2\n", "sbatch": b"Submitted batch job 12\n",
            **{f"{name}.code": b"0" for name in COMMANDS},
            **{f"environment/{name}": value.encode() for name, value in VARIABLES.items()},
            "cluster/evaluations.json": b'{"kimg-000001": "12_0", "kimg-000002": "11_0"}',
            "exit.json": b'{"state": "failed", "nimg": 2000, "reason": "", "time": 1.5e9}',
            "snapshots/kimg-000001/snapshot.json": b"{}", "snapshots/kimg-000002/snapshot.json": b"{}",
        }  # fmt: skip
        allocation = {**outputs, "squeue": b"1-12:00:00\n", "step": b"allocation"}
        return [allocation, *({**outputs, "step": step} for step in (b"queue", b"submission"))]

    @override
    def mutated(self, files: Files, rng: Random) -> Files:
        changed = dict(files)
        for name in rng.sample(sorted(files), rng.choice((1, 1, 2))):
            if name.endswith(".code"):
                changed[name] = b"%d" % rng.choice((1, 2, 127))
            else:
                changed[name] = mutated_bytes(changed[name], rng)
        changed["step"] = rng.choice((b"allocation", b"queue", b"queue", b"submission"))
        return changed

    @override
    def read(self, folder: Path) -> None:
        variables = {name: (folder / "environment" / name).read_bytes().replace(b"\0", b"") for name in VARIABLES}
        variables |= {"PATH": f"{self.commands}:{os.environ['PATH']}".encode(), "FUZZ_OUTPUTS": str(folder).encode()}
        with patch.dict(os.environ, {name: os.fsdecode(value) for name, value in variables.items()}):
            profile = Profile(time=60, nodes=2, gpus_per_node=4)
            job = EvaluateJob(run_dir=folder, profile=profile, arguments=[])
            steps = {"allocation": self._allocation, "queue": self._queue, "submission": self._submission}
            steps[(folder / "step").read_text()](job)

    def _allocation(self, job: EvaluateJob) -> None:
        allocation = Allocation.from_environment()
        allocation.check(job.profile)
        assert 20000 <= allocation.port < 32000
        slurm.is_running(allocation.job_id)
        script_profile("gpu8")

    def _queue(self, job: EvaluateJob) -> None:
        submit_pending(job)
        run_over(job)

    def _submission(self, job: EvaluateJob) -> None:
        executor = _executor(job, "evaluate", job.folder / "code")
        submit(lambda: [executor.submit(print, "x")])
