"""Runs poisoned.py, with its arguments, where a checkpoint takes two seconds until it is complete."""

import runpy
import time
from pathlib import Path
from typing import Any

from wavegan_dist.files import replace_dir
from wavegan_dist.train import checkpoint


def slow(temporary: Path, path: Path, *, overwrite: bool = True) -> None:
    time.sleep(2)
    replace_dir(temporary, path, overwrite=overwrite)


module: Any = checkpoint
module.replace_dir = slow
runpy.run_path(str(Path(__file__).with_name("poisoned.py")), run_name="__main__")
