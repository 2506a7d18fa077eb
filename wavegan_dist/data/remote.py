"""Read remote files: http(s)://, `pipe:COMMAND` as in WebDataset, and every protocol of fsspec (s3://, gs://, ...)."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryFile
from typing import IO, Any, Literal, NamedTuple, Protocol, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from wavegan_dist.errors import WaveganError
from wavegan_dist.redact import redacted

RETRY_DELAYS = (0.5, 2.0, 8.0)  # seconds before the second, third and fourth attempt
READ_TIMEOUT = 60.0  # seconds without a byte of an http(s) response
BLOCK_BYTES = 1 << 20
# Bytes of a request to an object store. Each open file keeps the last response in memory; the default of s3fs is 50 MiB.
REQUEST_BYTES = 8 << 20

# Not retried: these errors would occur again, and so would HTTP status 501 and 4xx, with the exceptions below.
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError, ImportError, ValueError)
_TRANSIENT_STATUS = (408, 425, 429)  # Request Timeout, Too Early, Too Many Requests
_NOT_IMPLEMENTED = 501  # of a method
_ADVICE = "check the address and its read permissions"

Result = TypeVar("Result")


class TransferError(Exception):
    """A failed attempt to read a remote file.

    Args:
        message: the cause, for the user.
        transient: whether another attempt may succeed.
        advice: what the user can do.
    """

    def __init__(self, message: str, transient: bool = True, advice: str = _ADVICE) -> None:
        super().__init__(message)
        self.transient, self.advice = transient, advice


class Answer(NamedTuple):
    """A file that is being read.

    Iterating over the `blocks` of a remote file raises TransferError if the connection fails, or ends before `size` bytes;
    over those of a local file, OSError if the file cannot be read.
    """

    blocks: Iterator[bytes]  # the content
    size: int | None  # bytes of the file, if known
    version: str  # changes if the content changes, such as the ETag; empty if unknown


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def is_remote(base: str) -> bool:
    """Whether `base` is a URL or a pipe rather than a path."""
    return base.startswith("pipe:") or "://" in base


def read(url: str, consume: Callable[[Answer], Result]) -> Result:
    """Read a remote file, with up to three retries after transient failures, 0.5, 2 and 8 seconds later.

    Args:
        url: a URL or `pipe:COMMAND`.
        consume: called in each attempt with the file, which it need not read to its end. A TransferError that it raises counts
            as a failed attempt; its other errors are passed on.

    Returns:
        The result of `consume`.

    Raises:
        WaveganError: the file cannot be read.
    """
    return _retried(url, lambda connection: consume(_open(url, connection)))


def version(url: str) -> str:
    """Return `Answer.version` of a remote file without reading it; for a pipe, which would have to run, an empty text.

    Raises:
        WaveganError: the store does not answer, or does not support such a request.
    """
    return "" if url.startswith("pipe:") else _retried(url, lambda connection: _version(url, connection))


def _version(url: str, connection: ExitStack) -> str:
    try:
        return _open(url, connection, "HEAD").version
    except TransferError as failure:
        if failure.transient:
            raise
        return _open(url, connection).version  # some servers answer no HEAD; the content is not read


def _retried(url: str, attempt: Callable[[ExitStack], Result]) -> Result:
    for number, delay in enumerate((*RETRY_DELAYS, None), 1):
        try:
            with ExitStack() as connection:
                return attempt(connection)
        except TransferError as failure:
            if delay is None or not failure.transient:
                reason = f"{failure}, {number} times" if failure.transient else str(failure)
                raise WaveganError(redacted(f"cannot read {url} ({reason}); {failure.advice}")) from failure
            time.sleep(delay)
    raise AssertionError  # the last attempt returns or raises


def _open(url: str, connection: ExitStack, method: Literal["GET", "HEAD"] = "GET") -> Answer:
    """Start to read a remote file, or raise TransferError. Closing `connection` closes what was opened.

    `method` matters for http(s) only: the answer to HEAD has no content.
    """
    with _transfer_errors():
        if url.startswith("pipe:"):
            return Answer(_blocks(_Pipe(url.removeprefix("pipe:"), connection), None), None, "")
        if url.startswith(("http://", "https://")):
            return _open_http(Request(url, method=method), connection)
        return _open_fsspec(url, connection)


def _open_http(request: Request, connection: ExitStack) -> Answer:
    response = connection.enter_context(urlopen(request, timeout=READ_TIMEOUT))
    length = response.headers["Content-Length"]
    size = int(length) if length and length.isdigit() else None
    version = filter(None, (length, response.headers["ETag"] or response.headers["Last-Modified"]))
    return Answer(_blocks(response, size), size, " ".join(version))


def _open_fsspec(url: str, connection: ExitStack) -> Answer:
    import fsspec  # imported late: local datasets do not need it

    file_system, path = fsspec.core.url_to_fs(url)
    file = connection.enter_context(file_system.open(path, "rb", block_size=REQUEST_BYTES))
    size = getattr(file, "size", None)
    details = getattr(file, "details", None)  # of object stores: ETag or generation, time, ...
    return Answer(_blocks(file, size), size, fsspec.utils.tokenize(size, details) if size or details else "")


def _blocks(stream: _Stream, size: int | None) -> Iterator[bytes]:
    received = 0
    with _transfer_errors():
        while block := stream.read(BLOCK_BYTES):
            received += len(block)
            yield block
    if size is not None and received < size:
        raise TransferError(f"received {received:,} of {size:,} bytes")


@contextmanager
def _transfer_errors() -> Iterator[None]:
    """Turn every error of the block, whatever the protocol, into a TransferError."""
    try:
        yield
    except TransferError:
        raise
    except HTTPError as error:
        transient = (error.code >= 500 and error.code != _NOT_IMPLEMENTED) or error.code in _TRANSIENT_STATUS
        raise TransferError(f"HTTP {error.code} {error.reason}", transient) from error
    except Exception as error:  # every fsspec file system has its own exceptions
        message = " ".join(f"{type(error).__name__}: {error}".split())
        package = error.__cause__.name if isinstance(error.__cause__, ImportError) else None
        advice = f"pip install {package}" if package else _ADVICE
        raise TransferError(message, not isinstance(error, _PERMANENT), advice) from error


class _Pipe:
    """The standard output of a shell command.

    Args:
        command: the command.
        connection: when it is closed, the command and its children are killed if they still run.
    """

    def __init__(self, command: str, connection: ExitStack) -> None:
        settings: dict[str, Any] = {"shell": True, "stdin": subprocess.DEVNULL, "start_new_session": True}
        self._stderr: IO[bytes] = connection.enter_context(TemporaryFile())  # noqa: SIM115
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._stderr, **settings)
        self._process: subprocess.Popen[bytes] = connection.enter_context(process)
        connection.callback(self._kill)

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes, fewer only at the end. Raises TransferError at the end if the command has failed."""
        assert self._process.stdout
        block: bytes = self._process.stdout.read(size)
        if not block and (status := self._process.wait()):
            self._stderr.seek(0)
            lines = self._stderr.read().decode(errors="replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "no error message")
            raise TransferError(f"exit code {status}: {last}", advice="check the command")
        return block

    def _kill(self) -> None:
        if self._process.returncode is None:  # not waited for
            os.killpg(self._process.pid, signal.SIGKILL)
