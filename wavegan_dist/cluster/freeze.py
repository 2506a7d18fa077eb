"""Code and configuration as they are at submission: editing the checkout does not change a job that waits."""

import hashlib
import shutil
from pathlib import Path

import wavegan_dist
from wavegan_dist.config import Experiment
from wavegan_dist.files import atomic_dir, atomic_file
from wavegan_dist.provenance import git_commit

PACKAGE = Path(wavegan_dist.__file__).parent


def freeze_code(folder: Path) -> Path:
    """Copy this package to `folder`/code/DIGEST, with the git commit beside it; returns the folder for PYTHONPATH.

    Equal code is copied once; a job that submits another one hands its own copy on.
    """
    if PACKAGE.is_relative_to(folder / "code"):
        return PACKAGE.parent
    digest = hashlib.sha256()
    for path in sorted(path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        digest.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes())
    frozen = folder / "code" / digest.hexdigest()[:16]
    if not frozen.exists():
        with atomic_dir(frozen) as copy:
            shutil.copytree(PACKAGE, copy / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
            (copy / "COMMIT").write_text(git_commit() + "\n")
    return frozen


def freeze_config(experiment: Experiment, folder: Path) -> Path:
    """Write the experiment as resolved now into `folder`, under a name that its content gives."""
    path = config_file(experiment, folder)
    with atomic_file(path) as file:
        file.write(experiment.to_yaml())
    return path


def config_file(experiment: Experiment, folder: Path) -> Path:
    """Where `freeze_config` puts it."""
    return folder / f"experiment-{hashlib.sha256(experiment.to_yaml().encode()).hexdigest()[:16]}.yaml"
