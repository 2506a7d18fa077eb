"""Copies of code and configuration made at submission: later edits of the checkout do not change a pending job."""

import hashlib
import shutil
from pathlib import Path

from wavegan_dist.config import Experiment
from wavegan_dist.errors import UsageError
from wavegan_dist.files import atomic_dir, atomic_file
from wavegan_dist.provenance import COMMIT_FILE, PACKAGE_DIR, git_commit


def freeze_code(folder: Path) -> Path:
    """Copy this package to `folder`/code/DIGEST, with its git commit in a file beside it; return that folder, for PYTHONPATH.

    Equal code is copied once. If the running package is itself a frozen copy below `folder`, nothing is copied, and the result
    is the folder of this copy.

    Args:
        folder: `Job.folder` of the run.

    Raises:
        OSError: the copy cannot be written.
    """
    if PACKAGE_DIR.is_relative_to(folder):
        return PACKAGE_DIR.parent
    digest = hashlib.sha256()
    for path in sorted(path for path in PACKAGE_DIR.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        digest.update(f"{path.relative_to(PACKAGE_DIR)}\0".encode() + path.read_bytes())
    frozen = code_dir(folder, digest.hexdigest()[:16])
    if not frozen.exists():
        with atomic_dir(frozen) as copy:
            shutil.copytree(PACKAGE_DIR, copy / PACKAGE_DIR.name, ignore=shutil.ignore_patterns("__pycache__"))
            (copy / COMMIT_FILE).write_text(git_commit() + "\n")
    return frozen


def code_dir(folder: Path, digest: str) -> Path:
    """Return the path of the frozen code with this digest, which need not exist."""
    return folder / "code" / digest


def freeze_config(experiment: Experiment, folder: Path) -> Path:
    """Write the experiment, with all defaults filled in, to `config_file(experiment, folder)` and return that path.

    The file `train.deepspeed` is copied to `folder`, and the written experiment names the copy.

    Raises:
        UsageError: the file `train.deepspeed` cannot be read.
        OSError: a file cannot be written.
    """
    frozen, path = experiment, config_file(experiment, folder)
    if experiment.train.deepspeed is not None:
        copy = _copy_settings(experiment.train.deepspeed, folder)
        frozen = experiment.model_copy(update={"train": experiment.train.model_copy(update={"deepspeed": copy})})
    with atomic_file(path) as file:
        file.write(frozen.to_yaml())
    return path


def _copy_settings(path: Path, folder: Path) -> Path:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the DeepSpeed config {path}: {error.strerror}") from error
    copy = folder / f"deepspeed-{hashlib.sha256(content).hexdigest()[:16]}.json"
    with atomic_file(copy, "wb") as file:
        file.write(content)
    return copy


def config_file(experiment: Experiment, folder: Path) -> Path:
    """Return the path of a frozen experiment in `folder`; the file's name has a hash of `experiment`. Writes no file."""
    return folder / f"experiment-{hashlib.sha256(experiment.to_yaml().encode()).hexdigest()[:16]}.yaml"
