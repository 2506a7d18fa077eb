"""Where a result came from: versions, commit, command."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "accelerate", "imagecodecs", "simplejpeg", "mlflow", "safetensors", "numpy", "torch-fidelity", "deepspeed")


def provenance() -> dict[str, object]:
    """Versions of what matters, the source's git commit ("unknown" outside a checkout) and the command line."""
    return {
        "wavegan-dist": version("wavegan-dist"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git_commit": git_commit(),
        "command": sys.argv,
    }


def git_commit() -> str:
    """The commit of the checkout that this package is run from, with "+" when files differ from it; else "unknown"."""
    try:
        _git("ls-files", "--error-unmatch", __file__)  # an installed copy may lie inside somebody else's checkout
        return _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
