"""Provenance of a result: versions, git commit, command line."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from wavegan_dist import __version__
from wavegan_dist.redact import redacted

PACKAGES = (
    "torch",
    "triton",
    "accelerate",
    "imagecodecs",
    "simplejpeg",
    "mlflow",
    "safetensors",
    "numpy",
    "torch-fidelity",
    "deepspeed",
)
PACKAGE_DIR = Path(__file__).parent
COMMIT_FILE = "COMMIT"  # beside a frozen copy of the package (cluster/freeze.py): the commit that was copied


def provenance() -> dict[str, object]:
    """Return what a result is recorded with: a dictionary that `json.dump` accepts, with these keys.

    "wavegan-dist", "python": versions. "platform": operating system and machine. "packages": the version, or "not installed",
    of each package in PACKAGES. "git_commit": see `git_commit`. "command": `sys.argv`, without passwords in URLs.
    """
    return {
        "wavegan-dist": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git_commit": git_commit(),
        "command": [redacted(word) for word in sys.argv],
    }


def git_commit() -> str:
    """Return the git commit of the running package: 40 hex digits, and "+" if a file of the package is changed or untracked.

    A copy that `cluster/freeze.py` made returns what its checkout returned when it was copied. A package that is installed from
    a wheel, or a machine without git, returns "unknown".
    """
    try:
        _git("ls-files", "--error-unmatch", __file__)  # an installed or frozen copy may be inside an unrelated checkout
        return _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return _frozen_commit()


def _frozen_commit() -> str:
    try:
        return (PACKAGE_DIR.parent / COMMIT_FILE).read_text().strip()
    except OSError:
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PACKAGE_DIR), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
