"""The logger `wavegan`: what the program reports while it runs, on stderr and in the run's log.txt.

Modules write `from wavegan_dist.log import log` and call it; only the command line and the run writer configure it. On a
terminal a record is its message alone, with `wavegan: warning:` before warnings; anywhere else, and in a file, every record
carries its time, its level and its rank. Results of a command are not log records: they are printed to stdout.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from wavegan_dist.errors import WaveganError

LEVELS = ("debug", "info", "warning", "error")
PLAIN = "%(asctime)s %(levelname)s rank %(rank)s: %(message)s"
TIME = "%Y-%m-%dT%H:%M:%S%z"

log = logging.getLogger("wavegan")


class StderrHandler(logging.Handler):
    """Writes records to stderr, above a progress bar if one is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, which is one line."""
        with tqdm.external_write_mode(file=sys.stderr):
            print(self.format(record), file=sys.stderr, flush=True)


class TerminalFormatter(logging.Formatter):
    """The message alone for debug and info records, `wavegan: LEVEL: message` for warnings and errors."""

    def format(self, record: logging.LogRecord) -> str:
        """The line that stands on the terminal."""
        level = f"wavegan: {record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        rank = f"[rank {rank_of_process()}] " if rank_of_process() else ""
        return f"{level}{rank}{super().format(record)}"


class PlainFormatter(logging.Formatter):
    """Time, level, rank and message: for files and pipes."""

    def __init__(self) -> None:
        super().__init__(PLAIN, TIME)

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        record.rank = rank_of_process()
        return super().format(record)


def configure(level: str = "info") -> None:
    """Write records of this level and above to stderr; a later call replaces an earlier one.

    Args:
        level: one of `LEVELS`.
    """
    handler = StderrHandler()
    handler.setFormatter(TerminalFormatter() if sys.stderr.isatty() else PlainFormatter())
    log.handlers = [handler]
    log.setLevel(level.upper())
    log.propagate = False


class LogFile(logging.FileHandler):
    """Appends records to a file until one cannot be written: a full disk ends the log file, not the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Stop writing to the file."""
        log.removeHandler(self)


@contextmanager
def copied_to(path: Path) -> Iterator[None]:
    """Also append records, and the error that ends the block, to the file `path` while the block runs.

    Warns once if the file cannot be written.
    """
    try:
        handler = LogFile(path)
    except OSError as error:
        log.warning("%s: %s; this run keeps no log file", path, error.strerror)
        yield
        return
    handler.setFormatter(PlainFormatter())
    log.addHandler(handler)
    try:
        yield
    except Exception as error:  # the command line reports the error on stderr
        is_expected = isinstance(error, WaveganError | OSError)
        trace = None if is_expected else (type(error), error, error.__traceback__)
        handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, "%s", (error,), trace))
        raise
    finally:
        log.removeHandler(handler)
        handler.close()


def rank_of_process() -> int:
    """This process's rank as its launcher says, 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))
