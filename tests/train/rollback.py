"""Runs poisoned.py with a fault while the run rolls back: `rollback.py FAULT FIRST LAST_ATTEMPT train ...`.

damaged: the newest checkpoint is found damaged, and SIGUSR2 stops the run at the step after the rollback.
disk: rank 0 has written only a part of the last report, and cannot write metrics.jsonl again.
"""

import errno
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

from wavegan_dist.run_folder import RunFolder
from wavegan_dist.train import loop, resume

fault = sys.argv.pop(1)
forget_after = RunFolder.forget_after
module: Any = loop


def newest_intact(folder: RunFolder) -> Path | None:
    (folder.checkpoints()[-1] / "manifest.json").unlink()
    os.kill(os.getpid(), signal.SIGUSR2)
    return resume.newest_intact(folder)


def forget_after_start(folder: RunFolder, nimg: int) -> None:
    if nimg:
        with folder.metrics.open("a") as file:
            file.write('{"nimg": 19')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder.metrics))
    forget_after(folder, nimg)


if fault == "damaged":
    module.newest_intact = newest_intact
else:
    RunFolder.forget_after = forget_after_start  # type: ignore[assignment]
runpy.run_path(str(Path(__file__).with_name("poisoned.py")), run_name="__main__")
