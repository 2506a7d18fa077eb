"""How a start of a training job ended, and whether another start may help."""

import time
from pathlib import Path

from wavegan_dist.files import append_json_lines, read_json_lines
from wavegan_dist.run_folder import RunExit, RunFolder, nimg_of


def exit_after(run_dir: Path, before: RunExit | None) -> RunExit:
    """Return how a trainer ended. Only after its end.

    Args:
        run_dir: the run folder.
        before: what `RunFolder.read_exit` returned before the trainer was started. Times are not compared: clocks jump.

    Returns:
        The content of exit.json if the trainer has written it. A killed trainer writes none: the state is `died` then,
        and `nimg` that of the newest checkpoint, 0 without a checkpoint.
    """
    end = RunFolder(run_dir).read_exit()
    if end is not None and end != before:
        return end
    reason = "it ended without writing exit.json; see the end of the job's log"
    return RunExit("died", checkpointed_nimg(run_dir), reason, time.time())


def checkpointed_nimg(run_dir: Path) -> int:
    """Return the number of images before the newest complete checkpoint of a run; 0 without a checkpoint."""
    return max(map(nimg_of, RunFolder(run_dir).checkpoints()), default=0)


class CrashLog:
    """RUN/cluster/crashes.jsonl, one line per crash. A job is restarted after a crash only if it got further than before.

    Args:
        folder: folder of the run's jobs.
        job_id: the job whose crashes count; crashes of earlier submissions are ignored.
    """

    def __init__(self, folder: Path, job_id: str) -> None:
        self.file, self.job_id = folder / "crashes.jsonl", job_id

    def add(self, crash: RunExit) -> bool:
        """Append a crash; return whether its `nimg` is larger than in all earlier crashes of the job, true for the first one.

        Raises:
            OSError: the file cannot be read or written.
        """
        crashes = [entry.get("nimg") for entry in read_json_lines(self.file) if entry.get("job") == self.job_id]
        earlier = [nimg for nimg in crashes if isinstance(nimg, int)]
        entry = {"job": self.job_id, "nimg": crash.nimg, "reason": crash.reason, "time": time.time()}
        append_json_lines(self.file, [entry])
        return not earlier or crash.nimg > max(earlier)
