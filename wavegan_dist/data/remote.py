"""Bytes from elsewhere: http(s)://, pipe:COMMAND as WebDataset writes it, and all that fsspec knows (s3://, gs://, ...)."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from tempfile import TemporaryFile
from typing import IO, Any, TypeVar
from urllib.error import HTTPError
from urllib.request import urlopen

from wavegan_dist.errors import WaveganError

PAUSES = (0.5, 2.0, 8.0)  # seconds before the second, third and fourth try
READ_TIMEOUT = 60.0  # seconds without a byte of an http(s) answer
PIECE = 1 << 20

# A second try would meet these again, and HTTP's 4xx but for those that ask to come later.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError, ImportError, ValueError)
_LATER = (408, 425, 429)

Result = TypeVar("Result")


class Interrupted(Exception):  # noqa: N818 - not an error yet
    """The bytes did not come, in the words for the user; whether that may pass."""

    def __init__(self, message: str, may_pass: bool = True) -> None:
        super().__init__(message)
        self.may_pass = may_pass


def is_remote(base: str) -> bool:
    """Whether this is a URL or a pipe, not a path."""
    return base.startswith("pipe:") or "://" in base


def read(url: str, take: Callable[[Iterator[bytes]], Result]) -> Result:
    """What `take` makes of the bytes of `url`, which come in pieces, from first to last.

    After a failure that may pass, also where `take` raises Interrupted, all begins again, three times at most.

    Raises:
        WaveganError: in one line, why they cannot be read.
    """
    for tries, pause in enumerate((*PAUSES, None), 1):
        try:
            with closing(_pieces(url)) as pieces:
                return take(pieces)
        except Interrupted as failure:
            if pause is None or not failure.may_pass:
                reason = f"{failure}, {tries} times" if pause is None else str(failure)
                raise WaveganError(f"cannot read {url} ({reason}); check the address and who may read it") from failure
            time.sleep(pause)
    raise AssertionError  # the last try returns or raises


def _pieces(url: str) -> Generator[bytes, None, None]:
    try:
        with _open(url) as stream:
            while piece := stream.read(PIECE):
                yield piece
    except Interrupted:
        raise
    except HTTPError as error:
        raise Interrupted(f"HTTP {error.code} {error.reason}", error.code >= 500 or error.code in _LATER) from error
    except Exception as error:  # every store of fsspec has errors of its own
        message = " ".join(f"{type(error).__name__}: {error}".split())
        raise Interrupted(message, may_pass=not isinstance(error, _FINAL)) from error


def _open(url: str) -> AbstractContextManager[IO[bytes]]:
    if url.startswith("pipe:"):
        return _pipe(url.removeprefix("pipe:"))
    if url.startswith(("http://", "https://")):
        answer: AbstractContextManager[IO[bytes]] = urlopen(url, timeout=READ_TIMEOUT)
        return answer
    import fsspec  # not at the top: local sets do without

    file: AbstractContextManager[IO[bytes]] = fsspec.open(url, "rb")
    return file


@contextmanager
def _pipe(command: str) -> Iterator[IO[bytes]]:
    """What a shell command prints; it is killed, with its children, where the reader stops early."""
    settings: dict[str, Any] = {"shell": True, "stdin": subprocess.DEVNULL, "start_new_session": True}
    with TemporaryFile() as stderr, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, **settings) as process:
        assert process.stdout
        try:
            yield process.stdout
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        if status := process.wait():
            stderr.seek(0)
            lines = stderr.read().decode(errors="replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
            raise Interrupted(f"exit code {status}: {last}")
