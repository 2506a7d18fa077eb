"""How a start of a training job ended, and whether another start may help."""

import time
from pathlib import Path

from wavegan_dist.files import append_json_lines, read_json_lines
from wavegan_dist.run_folder import RunExit, RunFolder, nimg_of


def exit_since(run_dir: Path, since: float) -> RunExit:
    """Return how the trainer that was started at time `since` (seconds since 1970) ended. Only after its end.

    This is the content of exit.json. If exit.json is missing, damaged or older than `since`, the trainer was killed: the result
    then has the state `died`, the `nimg` of the newest checkpoint, 0 without a checkpoint, and the present time.
    """
    run = RunFolder(run_dir)
    end = run.read_exit()
    if end is not None and end.time >= since:
        return end
    checkpointed = max(map(nimg_of, run.checkpoints()), default=0)
    return RunExit("died", checkpointed, "it ended without writing exit.json; see the end of the job's log", time.time())


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
