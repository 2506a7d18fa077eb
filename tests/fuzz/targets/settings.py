"""Files that users write: experiments with overrides, Slurm profiles and hardware files."""

from functools import cached_property
from pathlib import Path
from random import Random

import yaml
from typing_extensions import override

from tests.fuzz.harness import Target
from tests.fuzz.mutate import Files
from tests.helpers import ROOT
from wavegan_dist import config
from wavegan_dist.cluster.executor import batch_script
from wavegan_dist.cluster.job import TrainJob
from wavegan_dist.cluster.profile import load_profile
from wavegan_dist.config.passwords import check_passwords
from wavegan_dist.plan import format_plan, load_hardware, plan_json
from wavegan_dist.plan.count import StepCounter
from wavegan_dist.plan.network import Network
from wavegan_dist.plan.predict import _predict_one

OVERRIDES = (
    "train.batch_size=32\nmodel.width=16", "seed=3\ndata.workers=0\ntracking.enabled=false", "ema.half_life_kimg=[1, 2.5]",
    "data.index=[{index: a, weight: 0.25}, {index: 'pipe:cat b/{file}', weight: 3}]", "tracking.uri=sqlite:///a.db",
    "model.attention_at=[8, 16]\nmodel.levels=2", "tracking.uri=http://name:word@host:5000", "train.deepspeed=null",
)  # fmt: skip


class Configs(Target):
    """A config file and overrides. What is accepted must be the same experiment after it was written and read again."""

    @override
    def seeds(self, scratch: Path) -> list[Files]:
        files = [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.yaml"))]
        seeds = [{"config.yaml": file, "overrides": b""} for file in files]
        short = b"data: {index: a}\nmodel: {width: 8, num_classes: 3}\n"  # PyYAML reads a longer one in 10 ms
        return seeds + 10 * [{"config.yaml": short, "overrides": overrides.encode()} for overrides in OVERRIDES]

    @override
    def mutated(self, files: Files, rng: Random) -> Files:
        changed = super().mutated(files, rng)
        return {"config.yaml": b"", "overrides": b"", **changed}

    @override
    def read(self, folder: Path) -> None:
        overrides = (folder / "overrides").read_bytes().decode(errors="surrogateescape").splitlines()
        experiment = config.load(folder / "config.yaml", overrides)
        check_passwords(experiment)
        again = config.parse(yaml.safe_load(experiment.to_yaml()), "the same")
        assert again.flat() == experiment.flat()


class Profiles(Target):
    """A Slurm profile. What is accepted must give a batch script, and a job that is the same after it was written and read."""

    @override
    def seeds(self, scratch: Path) -> list[Files]:
        files = [path.read_bytes() for path in sorted((ROOT / "launchers" / "slurm").glob("*.yaml"))]
        return [{"profile.yaml": file} for file in files]

    @override
    def read(self, folder: Path) -> None:
        profile = load_profile(str(folder / "profile.yaml"))
        job = TrainJob(run_dir=folder / "run", profile=profile, arguments=["--config", "a.yaml"])
        batch_script(job, "train-run", ["wavegan", "train"])
        assert TrainJob.read(job.save()) == job


class HardwareFiles(Target):
    """A hardware file. What is accepted must give a plan."""

    @override
    def seeds(self, scratch: Path) -> list[Files]:
        files = [path.read_bytes() for path in sorted((ROOT / "launchers" / "hardware").glob("*.yaml"))]
        return [{"hardware.yaml": file} for file in files]

    @cached_property
    def counter(self) -> StepCounter:
        """Counts of the operators of a small model, which take a second."""
        model = {"width": 4, "z_dim": 8}
        self.experiment = config.parse({"data": {"index": "none"}, "model": model, "train": {"batch_size": 64}}, "test")
        return StepCounter(self.experiment)

    @override
    def read(self, folder: Path) -> None:
        hardware, counter = load_hardware(str(folder / "hardware.yaml")), self.counter
        predictions = [
            _predict_one(self.experiment, counter, Network(hardware, devices), strategy, 1000.0)
            for devices, strategy in ((1, "ddp"), (hardware.gpus_per_node, "zero3"))
            if devices <= 64 and 64 % devices == 0
        ]
        format_plan(predictions, hardware)
        plan_json(predictions, hardware)
