"""What a training run logs to MLflow: events that go into the run's spool, which the run's sidecar process delivers.

Only `MlflowTracker.close` waits for MLflow.
"""

import signal
import subprocess
import sys
from collections import deque
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path

from typing_extensions import override

from wavegan_dist.config import Experiment
from wavegan_dist.files import locked
from wavegan_dist.log import log
from wavegan_dist.redact import redacted
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking.spool import Event, Spool, file_event, format_counts, image_event, metrics_event
from wavegan_dist.tracking.tracking_info import TrackingInfo

FINISH_TIMEOUT = 30  # seconds that a finished run waits for the delivery of its last events
ABORT_TIMEOUT = 10  # the same for a run that was interrupted or failed
RUN_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Tracker:
    """Receives what a training run logs, on rank 0 only.

    The methods of this class, for `tracking.enabled: false`, discard everything. Their docstrings say what `MlflowTracker`
    does: only `close` waits for MLflow, and errors of the disk and of MLflow are logged as warnings. A path that is not inside
    the run folder raises ValueError.
    """

    def log_metrics(self, values: dict[str, float], nimg: int) -> None:
        """Log each value at step `nimg`. Only the first call for an `nimg` counts, over all starts of the run.

        A resumed run that reaches the step again therefore logs no value a second time.
        """

    def log_image(self, path: Path, name: str, nimg: int) -> None:
        """Log the image file at `path`, inside the run folder, under `name` at step `nimg`.

        Only the first call for a `name` and an `nimg` counts, over all starts of the run.
        """

    def log_file(self, path: Path, under: str | None = None) -> None:
        """Log the file or folder at `path`, inside the run folder, as an artifact.

        Args:
            path: the file, or the folder with everything in it.
            under: artifact folder, into which `path` is logged only by the first call; None: MLflow's top artifact folder,
                where each call replaces the earlier artifact of the same name.
        """

    def close(self, status: str) -> None:
        """End tracking with MLflow's run status FINISHED, FAILED, KILLED or SCHEDULED (preempted: the run will resume)."""


class MlflowTracker(Tracker):
    """Appends events to the spool of a run folder and starts the sidecar process that delivers the spool.

    Args:
        folder: the run folder, with an absolute path and a tracking.json.
        uri: MLflow's tracking URI without its password, for messages.

    Raises:
        OSError: the spool cannot be opened. If the sidecar cannot be started, only a warning is logged.
    """

    def __init__(self, folder: RunFolder, uri: str) -> None:
        self.folder, self.uri = folder, uri
        self.spool = Spool(folder.spool("train"))
        self.spool.open()
        self.logged = {unique_key(event) for event in self.spool.events()} - {None}
        self.waiting: deque[Event] = deque()  # events that the disk had no room for
        self.sidecar_failed = False
        self.sidecar = self._start_sidecar()

    @classmethod
    def open(cls, run_dir: Path, experiment: Experiment) -> "MlflowTracker":
        """Return the tracker of a run that starts or resumes, after logging its settings and the status RUNNING.

        Writes tracking.json. The sidecar creates the MLflow run, if there is none yet, as soon as MLflow is available.

        Raises:
            UsageError, WaveganError: see `TrackingInfo.for_start`.
            OSError: tracking.json or the spool cannot be written.
        """
        folder = RunFolder(run_dir.absolute())
        TrackingInfo.for_start(folder, experiment)  # an error leaves no files
        folder.tracking_lock.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.tracking_lock):  # against the sidecar of an earlier start
            info = TrackingInfo.for_start(folder, experiment)
            info.save(folder)
        tracker = cls(folder, redacted(info.uri))
        tracker._append({"kind": "params", "values": experiment.flat()})
        tracker._append({"kind": "status", "status": "RUNNING"})
        return tracker

    @override
    def log_metrics(self, values: dict[str, float], nimg: int) -> None:
        self._append(metrics_event(values, nimg))
        self._check_sidecar()

    @override
    def log_image(self, path: Path, name: str, nimg: int) -> None:
        self._append(image_event(self._relative(path), name, nimg))

    @override
    def log_file(self, path: Path, under: str | None = None) -> None:
        self._append(file_event(self._relative(path), under))

    @override
    def close(self, status: str) -> None:
        """End the MLflow run with `status` and wait for the delivery of the last events.

        Waits about 30 s at most for the status FINISHED, else 10 s, and warns of events that were not delivered by then.
        """
        self._append({"kind": "status", "status": status})
        seconds = FINISH_TIMEOUT if status == "FINISHED" else ABORT_TIMEOUT
        if self.sidecar is not None:
            with suppress(subprocess.TimeoutExpired):
                self.sidecar.communicate(f"{seconds}\n", timeout=seconds + 1)
        try:
            self._warn_of_missing()
        except OSError as error:
            log.warning("cannot find out what was sent to %s: %s: %s", self.uri, self.spool.path, error.strerror)

    def _warn_of_missing(self) -> None:
        if self.waiting:
            log.warning("%s: no room for %d entries; the next start of this run adds them", self.spool.path, len(self.waiting))
        if missing := self.spool.count_undelivered():
            message = "%s could not be sent to %s; `%s` sends them; %s has the reason"
            log.warning(message, format_counts(missing), self.uri, self._sync_command, self._log_file)
        if rejected := self.spool.delivered()[1]:
            log.warning("%s refused %d values or files; %s has the reasons", self.uri, rejected, self._log_file)

    @property
    def _log_file(self) -> Path:
        return self.spool.path.with_suffix(".log")

    @property
    def _sync_command(self) -> str:
        return f"wavegan track sync {self.folder.path}"

    def _check_sidecar(self) -> None:
        if self.sidecar_failed or self.sidecar is None or self.sidecar.poll() is None:
            return
        self.sidecar_failed = True
        message = "the process that delivers to MLflow has ended (exit code %d, %s); training continues, `%s` sends the rest"
        log.warning(message, self.sidecar.returncode, self._log_file, self._sync_command)

    def _append(self, event: Event) -> None:
        key = unique_key(event)
        if key in self.logged:
            return
        self.logged |= {key} - {None}
        self.waiting.append(event)
        try:
            while self.waiting:
                self.spool.append(self.waiting[0])
                self.waiting.popleft()
        except OSError as error:
            if len(self.waiting) == 1:
                message = "%s: %s; training continues, MLflow gets the points when there is room for them"
                log.warning(message, self.spool.path, error.strerror)

    def _relative(self, path: Path) -> str:
        return str(path.absolute().relative_to(self.folder.path))

    def _start_sidecar(self) -> "subprocess.Popen[str] | None":
        from wavegan_dist.processes import signals_blocked  # imports PyTorch, which the sidecar must not load

        command = [sys.executable, "-m", "wavegan_dist.tracking.sidecar", str(self.spool.path), str(FINISH_TIMEOUT)]
        try:
            # The sidecar inherits the signal mask: a signal to the run's process group does not end the sidecar.
            with signals_blocked(*RUN_SIGNALS), self._log_file.open("a") as output:
                return subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=output, stderr=output, text=True, start_new_session=True
                )
        except OSError as error:
            log.warning("cannot start the process that delivers to MLflow: %s; training continues", error)
            return None


def open_tracker(run_dir: Path, experiment: Experiment) -> Tracker:
    """Return the tracker of a run folder: one that discards everything if `tracking.enabled` is false.

    Called on rank 0 when training starts or resumes. Raises the errors of `MlflowTracker.open`.
    """
    return MlflowTracker.open(run_dir, experiment) if experiment.tracking.enabled else Tracker()


def unique_key(event: Event) -> Hashable | None:
    """Return the key by which an event is logged only once per run; None for an event that may be repeated."""
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
