"""How a start of a training job ended, and whether that is a reason to start it again."""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunExit:
    """What the run folder tells.

    Args:
        state: `finished`, `interrupted` (it has saved itself), `failed`, or `died` when the trainer could say nothing.
        nimg: the image at which that was; for `died` that of the newest checkpoint.
        reason: one line.
    """

    state: str
    nimg: int
    reason: str


def read_exit(run_dir: Path, since: float) -> RunExit:
    """How the trainer that started after `since` (seconds since 1970) ended."""
    with suppress(OSError, ValueError):
        told = json.loads((run_dir / "exit.json").read_text())
        if told["time"] >= since:
            return RunExit(told["state"], told["nimg"], told["reason"])
    return RunExit("died", _checkpointed(run_dir), "it ended without a word; the log has its last lines")


def _checkpointed(run_dir: Path) -> int:
    states = [state for path in run_dir.glob("checkpoints/kimg-*") if (state := path / "state.json").exists()]
    return max((int(json.loads(state.read_text())["nimg"]) for state in states), default=0)


class CrashLog:
    """RUN/cluster/crashes.jsonl: a line for each crash. A job may crash again only further on than ever before.

    Args:
        folder: of the run's jobs.
        job_id: whose crashes count; a new submission starts with a clean sheet.
    """

    def __init__(self, folder: Path, job_id: str) -> None:
        self.file, self.job_id = folder / "crashes.jsonl", job_id

    def add(self, crash: RunExit) -> bool:
        """Note a crash; whether the job got further than in all its former ones, so that another start may help."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        before = [entry["nimg"] for entry in map(json.loads, lines) if entry["job"] == self.job_id]
        entry = {"job": self.job_id, "nimg": crash.nimg, "reason": crash.reason, "time": time.time()}
        with self.file.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        return not before or crash.nimg > max(before)
