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
    """Versions of Python and of the packages that affect results, the git commit as `git_commit` gives it, the command line."""
    return {
        "wavegan-dist": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git_commit": git_commit(),
        "command": [redacted(word) for word in sys.argv],
    }


def git_commit() -> str:
    """The git commit of the running package, with "+" appended if the package has uncommitted changes.

    A frozen copy of the package reports the commit of the checkout that it was copied from. An installed package
    reports "unknown".
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
