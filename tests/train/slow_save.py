"""Runs poisoned.py, with its arguments, where a checkpoint takes two seconds until it is complete."""

import runpy
import time
from pathlib import Path

from wavegan_dist.train import checkpoint

replace_dir = checkpoint.replace_dir


def slow(source: Path, target: Path) -> None:
    time.sleep(2)
    replace_dir(source, target)


checkpoint.replace_dir = slow
runpy.run_path(str(Path(__file__).with_name("poisoned.py")), run_name="__main__")
