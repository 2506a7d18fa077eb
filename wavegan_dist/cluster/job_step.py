"""A step of a job while it runs: the batch step's process waits for it and passes Slurm's warning on."""

import signal
import subprocess
import time
from collections.abc import Callable, Sequence

WARNING = signal.SIGUSR2  # NCCL has a use of its own for SIGUSR1
MARGIN = 15  # seconds before the end at which a step that has not left by then is given up
POLL = 0.5


class JobStep:
    """Start a command; from now on WARNING goes to it, and SIGTERM, which Slurm sends to its processes as well, does not.

    Args:
        command: srun and what it runs.
        warn_seconds: how long after the warning the job ends.
    """

    def __init__(self, command: Sequence[str], warn_seconds: int) -> None:
        self.warn_seconds, self.warned = warn_seconds, 0.0
        self.process: subprocess.Popen[bytes] | None = None
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        signal.signal(WARNING, self._hear)  # before the step starts: it would inherit that the signal is ignored so far
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        if self.warned:
            self.process.send_signal(WARNING)

    def wait(self, meanwhile: Callable[[], None]) -> int | None:
        """Its exit code; None when it was warned and has not left shortly before the job ends.

        Args:
            meanwhile: called every half second.
        """
        assert self.process is not None
        told = False
        while (code := self.process.poll()) is None:
            if self.warned and not told:
                print("wavegan: Slurm says that the job will end; the trainers are told to save and leave", flush=True)
                told = True
            if self.warned and time.monotonic() - self.warned > self.warn_seconds - MARGIN:
                return None
            meanwhile()
            time.sleep(POLL)
        return code

    def _hear(self, _number: int, _frame: object) -> None:
        if not self.warned:
            self.warned = time.monotonic()
            if self.process is not None:
                self.process.send_signal(WARNING)  # srun hands it to every process of the step
