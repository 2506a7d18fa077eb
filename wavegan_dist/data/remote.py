"""Read remote files: http(s)://, `pipe:COMMAND` as in WebDataset, and every protocol of fsspec (s3://, gs://, ...)."""

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

RETRY_DELAYS = (0.5, 2.0, 8.0)  # seconds before the second, third and fourth attempt
READ_TIMEOUT = 60.0  # seconds without a byte of an http(s) response
BLOCK_BYTES = 1 << 20

# Not retried: these errors would occur again, and so would HTTP status 4xx, with the exceptions below.
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError, ImportError, ValueError)
_TRANSIENT_STATUS = (408, 425, 429)  # Request Timeout, Too Early, Too Many Requests

Result = TypeVar("Result")


class TransferError(Exception):
    """A failed attempt to read a remote file.

    Args:
        message: the cause, for the user.
        transient: whether another attempt may succeed.
    """

    def __init__(self, message: str, transient: bool = True) -> None:
        super().__init__(message)
        self.transient = transient


def is_remote(base: str) -> bool:
    """Whether `base` is a URL or a pipe rather than a path."""
    return base.startswith("pipe:") or "://" in base


def read(url: str, consume: Callable[[Iterator[bytes]], Result]) -> Result:
    """Read a remote file, with up to three retries after transient failures.

    Args:
        url: a URL or `pipe:COMMAND`.
        consume: called with an iterator over the content, in blocks, in each attempt; it may raise TransferError as well.

    Returns:
        The result of `consume`.

    Raises:
        WaveganError: the file cannot be read.
    """
    for attempt, delay in enumerate((*RETRY_DELAYS, None), 1):
        try:
            with closing(_blocks(url)) as blocks:
                return consume(blocks)
        except TransferError as failure:
            if delay is None or not failure.transient:
                reason = f"{failure}, {attempt} times" if delay is None else str(failure)
                raise WaveganError(f"cannot read {url} ({reason}); check the address and its read permissions") from failure
            time.sleep(delay)
    raise AssertionError  # the last attempt returns or raises


def _blocks(url: str) -> Generator[bytes, None, None]:
    try:
        with _open(url) as stream:
            while block := stream.read(BLOCK_BYTES):
                yield block
    except TransferError:
        raise
    except HTTPError as error:
        transient = error.code >= 500 or error.code in _TRANSIENT_STATUS
        raise TransferError(f"HTTP {error.code} {error.reason}", transient) from error
    except Exception as error:  # every fsspec file system has its own exceptions
        message = " ".join(f"{type(error).__name__}: {error}".split())
        raise TransferError(message, transient=not isinstance(error, _PERMANENT)) from error


def _open(url: str) -> AbstractContextManager[IO[bytes]]:
    if url.startswith("pipe:"):
        return _pipe(url.removeprefix("pipe:"))
    if url.startswith(("http://", "https://")):
        response: AbstractContextManager[IO[bytes]] = urlopen(url, timeout=READ_TIMEOUT)
        return response
    import fsspec  # imported late: local datasets do not need it

    file: AbstractContextManager[IO[bytes]] = fsspec.open(url, "rb")
    return file


@contextmanager
def _pipe(command: str) -> Iterator[IO[bytes]]:
    """Yield the standard output of a shell command; kill the command and its children if the block raises."""
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
            last = next((line.strip() for line in reversed(lines) if line.strip()), "no error message")
            raise TransferError(f"exit code {status}: {last}")
