"""The targets, by the names that the command line takes."""

from tests.fuzz.harness import Target
from tests.fuzz.targets.datasets import Indexes, Pictures, Tars, Zips
from tests.fuzz.targets.mlflow import MlflowAnswers
from tests.fuzz.targets.models import Checkpoints, Snapshots
from tests.fuzz.targets.runs import Runs
from tests.fuzz.targets.settings import Configs, HardwareFiles, Profiles
from tests.fuzz.targets.slurm import Slurm

TARGETS: dict[str, type[Target]] = {
    "configs": Configs,
    "profiles": Profiles,
    "hardware": HardwareFiles,
    "indexes": Indexes,
    "tars": Tars,
    "zips": Zips,
    "pictures": Pictures,
    "snapshots": Snapshots,
    "checkpoints": Checkpoints,
    "runs": Runs,
    "mlflow": MlflowAnswers,
    "slurm": Slurm,
}
