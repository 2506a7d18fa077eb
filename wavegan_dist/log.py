"""The logger `wavegan`: what the program reports while it runs, on stderr and in the run's log.txt.

Modules write `from wavegan_dist.log import log` and call `log.info` and its siblings. The command line calls `configure`; a
program that uses this package as a library must configure the logger itself to see records. Passwords of URLs are left out.
On a terminal a record is its message alone, with "wavegan: warning:" before a warning. In a pipe or a file every record has its
time, level and rank. The results of a command are not log records: commands print them to stdout.
"""

import logging
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm
from typing_extensions import override

from wavegan_dist.errors import EXIT_INTERRUPTED, EXIT_REQUEUE, WaveganError
from wavegan_dist.redact import redacted

LEVELS = ("debug", "info", "warning", "error")
PLAIN = "%(asctime)s %(levelname)s rank %(rank)s: %(message)s"
TIME = "%Y-%m-%dT%H:%M:%S%z"

log = logging.getLogger("wavegan")
log.addHandler(logging.NullHandler())  # without a handler, Python prints warnings to stderr itself


class StderrHandler(logging.Handler):
    """Writes records to stderr, above a progress bar if one is shown."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            with tqdm.external_write_mode(file=sys.stderr):
                print(self.format(record), file=sys.stderr, flush=True)
        except Exception:  # as logging.StreamHandler does: a record that cannot be written must not stop the program
            self.handleError(record)


class TerminalFormatter(logging.Formatter):
    """Formats debug and info records as their message, warnings and errors as "wavegan: LEVEL: MESSAGE".

    Records of other ranks than 0 have "[rank N]" before the message. Passwords of URLs are left out.
    """

    @override
    def format(self, record: logging.LogRecord) -> str:
        level = f"wavegan: {record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        rank = f"[rank {launcher_rank()}] " if launcher_rank() else ""
        return printable(redacted(f"{level}{rank}{super().format(record)}"))


class PlainFormatter(logging.Formatter):
    """Formats records as "TIME LEVEL rank N: MESSAGE" without passwords of URLs, for pipes and files."""

    def __init__(self) -> None:
        super().__init__(PLAIN, TIME)

    @override
    def format(self, record: logging.LogRecord) -> str:
        record.rank = launcher_rank()
        return printable(redacted(super().format(record)))


class LogFile(logging.FileHandler):
    """Appends records to a file until writing fails: a full disk ends the log file, with a warning, and not the run."""

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        log.removeHandler(self)
        log.warning("%s: %s; the log file ends here", self.baseFilename, error.strerror)

    @override
    def close(self) -> None:
        with suppress(OSError):  # the buffer still holds the record that could not be written
            super().close()


def configure(level: str = "info") -> None:
    """Write records of `level` and above to stderr and to the files of `copied_to`. A later call replaces an earlier one.

    Args:
        level: "debug", "info", "warning" or "error", in any case.

    Raises:
        ValueError: `level` is not the name of a level.
    """
    handler = StderrHandler()
    handler.setFormatter(TerminalFormatter() if sys.stderr.isatty() else PlainFormatter())
    log.handlers = [handler, *(other for other in log.handlers if isinstance(other, LogFile))]
    log.setLevel(level.upper())
    log.propagate = False  # a library that configures the root logger would write every record a second time


@contextmanager
def copied_to(path: Path) -> Iterator[None]:
    """Append the logger's records to the file `path` while the block runs, and the error that ends the block, if one does.

    If the file cannot be opened, for example because its folder does not exist, logs a warning and runs the block without it.
    """
    try:
        handler = LogFile(path, encoding="utf-8")
    except OSError as error:
        log.warning("%s: %s; this run has no log file", path, error.strerror)
        yield
        return
    handler.setFormatter(PlainFormatter())
    log.addHandler(handler)
    try:
        yield
    except BaseException as error:
        if handler in log.handlers:
            handler.handle(_record_of(error))
        raise
    finally:
        log.removeHandler(handler)
        handler.close()


def _record_of(error: BaseException) -> logging.LogRecord:
    """Make a record of an error that the command line reports on stderr; unexpected errors keep their traceback."""
    is_expected = isinstance(error, WaveganError | OSError | KeyboardInterrupt)
    trace = None if is_expected else (type(error), error, error.__traceback__)
    was_requested = getattr(error, "exit_code", 1) in (EXIT_REQUEUE, EXIT_INTERRUPTED)
    level = logging.WARNING if was_requested else logging.ERROR
    return log.makeRecord(log.name, level, __file__, 0, "%s", (str(error) or type(error).__name__,), trace)


def printable(text: str) -> str:
    """Return a text in which characters that a terminal would obey or hide are escaped: \\x1b for ESC.

    Line breaks, tabs, spaces of any kind and joiners (of emoji, for example) stay. Names of files and classes may come from
    anywhere.
    """
    return "".join(c if c.isprintable() or _harmless(c) else c.encode("unicode_escape").decode() for c in text)


def _harmless(character: str) -> bool:
    return character in "\n\t\u200c\u200d" or unicodedata.category(character) == "Zs"


def launcher_rank() -> int:
    """Return the rank that the launcher gave this process in the environment variable RANK; 0 if RANK holds no number."""
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdecimal() else 0
