"""A running job step: the batch script's process waits for the step and forwards Slurm's warning to it."""

import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from wavegan_dist.log import log

WARNING = signal.SIGUSR2  # not SIGUSR1, which NCCL uses
MARGIN_SECONDS = 15  # how long before the job's end to stop waiting for the step, so that the job can still be requeued
POLL_SECONDS = 0.5


class JobStep:
    """Starts a command and handles the signals of this process: WARNING is forwarded to the command, SIGTERM is ignored.

    Slurm sends SIGTERM to all processes of the job, so the command has received it already. The signal handlers stay in place
    when the command has ended. Only for the main thread, as Python's signal handlers require.

    Args:
        command: srun and its arguments.
        warn_seconds: seconds between the warning and the end of the job.

    Raises:
        OSError: the command cannot be started.
    """

    def __init__(self, command: Sequence[str], warn_seconds: int) -> None:
        self.warn_seconds, self.started, self.warned = warn_seconds, time.monotonic(), 0.0
        self.process: subprocess.Popen[bytes] | None = None
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        signal.signal(
            WARNING, self._handle_warning
        )  # first: the batch script ignores the signal, and the step would inherit that
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        if self.warned:
            self.process.send_signal(WARNING)

    def wait(self, poll: Callable[[], None]) -> None:
        """Return when the command has ended, or MARGIN_SECONDS before the job ends if the command runs on after a warning.

        Args:
            poll: called about every half second while the command runs; its errors are passed on.
        """
        assert self.process is not None
        logged = False
        while self.process.poll() is None:
            if self.warned and not logged:
                log.info("Slurm will end the job soon; asked the trainers to save and exit")
                logged = True
            if self.warned and time.monotonic() - self.warned > self.warn_seconds - MARGIN_SECONDS:
                return
            poll()
            time.sleep(POLL_SECONDS)

    def _handle_warning(self, _number: int, _frame: object) -> None:
        if not self.warned:
            self.warned = time.monotonic()
            if self.process is not None:
                self.process.send_signal(WARNING)  # srun forwards it to every process of the step
