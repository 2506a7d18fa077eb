"""What a run says to MLflow: appended to its spool, delivered by its sidecar. Nothing here waits for MLflow but `end`."""

import signal
import subprocess
import sys
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path

from wavegan_dist.config import Experiment
from wavegan_dist.tracking.record import Record
from wavegan_dist.tracking.spool import Event, Spool, told

FINISH_TIMEOUT = 30  # seconds that the end of a run waits for its last points to be delivered
ABORT_TIMEOUT = 10  # the same for a run that was interrupted or failed
FOR_THE_RUN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Tracker:
    """The tracking of a run; only rank 0 makes one.

    Args:
        run: the run folder; must have a tracking.json.
        uri: MLflow's store.
    """

    def __init__(self, run: Path, uri: str) -> None:
        self.run, self.uri = run, uri
        self.spool = Spool(run / "tracking" / "train.jsonl")
        self.spool.open()
        self.said = {identity(event) for event in self.spool.events()} - {None}
        self.failed = False
        self.sidecar = self._start()

    @classmethod
    def open(cls, run: Path, experiment: Experiment) -> "Tracker":
        """Go on in the MLflow run of this folder, or have one made as soon as MLflow is there."""
        run = run.absolute()
        record = Record.of(run)
        if record is None:
            record = Record.new(run, experiment)
            record.save(run)
        tracker = cls(run, record.uri)
        tracker._say({"kind": "params", "values": experiment.flat()})
        tracker._say({"kind": "status", "status": "RUNNING"})
        return tracker

    def metrics(self, point: dict[str, float], nimg: int) -> None:
        """Log each value at step `nimg`, once: a resumed run comes by the same image again."""
        self._say({"kind": "metrics", "nimg": nimg, "values": point})

    def picture(self, path: Path, name: str, nimg: int) -> None:
        """Log an image file of the run folder under `name` at step `nimg`, once."""
        self._say({"kind": "picture", "path": self._inside(path), "name": name, "nimg": nimg})

    def file(self, path: Path, under: str | None = None) -> None:
        """Log a file of the run folder, or a folder with all in it, as an artifact; once if `under` places it."""
        self._say({"kind": "file", "path": self._inside(path), "under": under})

    def end(self, status: str) -> None:
        """Close the MLflow run as FINISHED, FAILED, KILLED or SCHEDULED (it was preempted and will go on).

        Waits for what is not delivered, 30 s at most if FINISHED, else 10 s, and says on stderr what could not be.
        """
        self._say({"kind": "status", "status": status})
        seconds = FINISH_TIMEOUT if status == "FINISHED" else ABORT_TIMEOUT
        if self.sidecar is not None:
            with suppress(subprocess.TimeoutExpired):
                self.sidecar.communicate(f"{seconds}\n", timeout=seconds + 1)
        if left := self.spool.left():
            _warn(f"{told(left)} could not be sent to {self.uri}; `wavegan track sync {self.run}` sends them")
        if refused := self.spool.progress()[1]:
            _warn(f"{self.uri} refused {refused} values or files; {self.spool.path.with_suffix('.log')} has the reasons")

    def _say(self, event: Event) -> None:
        key = identity(event)
        if key in self.said:
            return
        try:
            self.spool.append(event)
        except OSError as error:
            if not self.failed:
                _warn(f"{self.spool.path}: {error.strerror}; training goes on, MLflow will miss points")
            self.failed = True
        else:
            self.said |= {key} - {None}

    def _inside(self, path: Path) -> str:
        return str(path.absolute().relative_to(self.run))

    def _start(self) -> "subprocess.Popen[str] | None":
        command = [sys.executable, "-m", "wavegan_dist.tracking.sidecar", str(self.spool.path), str(FINISH_TIMEOUT)]
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_RUN)  # inherited: the sidecar sees none of them
        try:
            with self.spool.path.with_suffix(".log").open("a") as log:
                return subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True, start_new_session=True
                )
        except OSError as error:
            _warn(f"no process to deliver to MLflow could be started: {error}; training goes on")
            return None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def identity(event: Event) -> Hashable | None:
    """What makes an event one that a run says once; None for one that it may say again."""
    match event:
        case {"kind": "metrics", "nimg": nimg}:
            return "metrics", nimg
        case {"kind": "picture", "name": name, "nimg": nimg}:
            return "picture", name, nimg
        case {"kind": "file", "under": str(under), "path": path}:
            return "file", under, path
        case {"kind": "params"}:
            return "params"
    return None


def _warn(message: str) -> None:
    print(f"wavegan: {message}", file=sys.stderr)
