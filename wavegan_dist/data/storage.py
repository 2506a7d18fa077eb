"""Access to the files of a dataset: in a local folder, or remote with a cache that all processes of a node share.

The cache needs no server and holds only complete, verified files. A download is written to a `.part` file under a lock, so one
process downloads while the others wait, and is renamed once its size and hash are correct and its content is on the disk. A
killed process leaves a `.part` file without a lock, which the next process of this user takes over or removes. On a file system
without locks, each process downloads to a file of its own, and a `.part` file is removed when nothing was written to it for an
hour. A process that may not lock the `.part` file of another user downloads to a file of its own, too. To free space, the least
recently requested files that this user may delete are deleted, even while they are being read: on POSIX, an open file stays
readable, and occupies space, until it is closed.
"""

import errno
import hashlib
import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, TypeVar
from urllib.parse import quote
from uuid import uuid4

from wavegan_dist.data import remote
from wavegan_dist.data.remote import Answer
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import locked

LARGEST_READ = 2**28  # bytes of index.json, of which 100,000 shards take 20 MB
GRACE = 30.0  # seconds for which the file of a returned path is not deleted, so that the caller can open it
NAME_BYTES = 192  # of a file's name that are part of its name in the cache: `.part` files have up to 56 more, of 255 at most
UNFINISHED = 3600.0  # seconds without a write after which a `.part` file is removed if the file system has no locks

_CACHED = "[0-9a-f]" * 16 + "-*"  # pattern of the names of cached files; no other file in the folder is touched
_ADVICE = "copy the dataset there again with its index, or index it again with `wavegan shards index`"

Result = TypeVar("Result")


def locate(location: str | Path, cache: Path | None = None, cache_bytes: int = 0) -> tuple["Storage", str]:
    """Resolve the location of a dataset.

    Args:
        location: a folder or the path of its index, a URL of either, or pipe:COMMAND with {file}.
        cache: see `Storage`.
        cache_bytes: see `Storage`.

    Returns:
        The storage and the file name of the index in it. No file is opened.

    Raises:
        UsageError: a pipe without {file}.
    """
    base, name = str(location), "index.json"
    if base.endswith(".json") and not base.startswith("pipe:"):
        base, _, name = base.rpartition("/") if "/" in base else (".", "", base)
    if not remote.is_remote(base):
        base = str(Path(base or "/").absolute())
    return Storage(base, cache, cache_bytes), name


@dataclass(frozen=True)
class Storage:
    """The files of one dataset.

    Args:
        base: a folder, the URL of one (http(s)://, s3://, gs://, ... through fsspec), a URL with {file} for the name of a file,
            or `pipe:COMMAND`, a shell command that prints the file whose name replaces {file}:
            `pipe:aws s3 cp s3://bucket/set/{file} -`.
        cache: a folder on this node for downloaded files; other processes, runs and datasets may use the same folder. None:
            remote files can be read by `read` and `stream` only.
        cache_bytes: largest total size of the cache in bytes; it is exceeded only by running downloads and files requested
            within the last GRACE seconds.

    Raises:
        UsageError: a pipe without {file}.
    """

    base: str
    cache: Path | None = None
    cache_bytes: int = 0

    def __post_init__(self) -> None:
        if self.base.startswith("pipe:") and "{file}" not in self.base:
            raise UsageError(
                f"{self.base} lacks {{file}}, which stands for a file's name: pipe:curl -sf http://host/set/{{file}}"
            )

    @property
    def is_remote(self) -> bool:
        """Whether `base` is a URL or a pipe: the files must be downloaded."""
        return remote.is_remote(self.base)

    def read(self, file: str) -> bytes:
        """Read a small file, such as the index, in its current version: the cache is not used.

        Raises:
            WaveganError: a remote file cannot be read, or the file is larger than LARGEST_READ.
            OSError: a local file cannot be read.
        """
        return self.stream(file, lambda answer: _joined(answer, f"{file} of {self.base}"))

    def stream(self, file: str, consume: Callable[[Answer], Result]) -> Result:
        """Read a file from its beginning, in its current version: the cache is not used.

        Args:
            file: file name.
            consume: see `remote.read`; called only once for a local file.

        Returns:
            The result of `consume`.

        Raises:
            WaveganError: a remote file cannot be read.
            OSError: a local file cannot be read.
        """
        if self.is_remote:
            return remote.read(self.url(file), consume)
        with Path(self.base, file).open("rb", buffering=0) as opened:
            return consume(Answer(iter(lambda: opened.read(remote.BLOCK_BYTES), b""), os.fstat(opened.fileno()).st_size, ""))

    def version(self, file: str) -> str:
        """Return `Answer.version` of a file without reading it; empty if unknown. Only for remote files.

        Raises:
            WaveganError: the store does not answer, or does not support such a request.
        """
        return remote.version(self.url(file))

    def check_cache(self) -> Path:
        """Return `cache`, a folder that need not exist yet. Raises UsageError if `cache` is None."""
        if self.cache is None:
            raise UsageError(f"{self.base} is not on this machine; give a folder for its files: data.cache or --cache")
        return self.cache

    def open(self, file: str, size: int | None, sha256: str) -> BinaryIO:
        """Open a file for unbuffered reading. The open file stays readable even if the cache deletes it.

        Takes the arguments of `local` and raises its errors, and OSError if the file on this machine cannot be opened.
        """
        while True:
            try:
                return self.local(file, size, sha256).open("rb", buffering=0)
            except FileNotFoundError:  # the cache deleted the file before it was opened, after GRACE seconds or more
                if not self.is_remote:
                    raise

    def local(self, file: str, size: int | None, sha256: str) -> Path:
        """Return the path of a file on this machine; a remote file is downloaded into the cache unless it is there.

        The path of a local file is returned without a check, even if the file does not exist. Open a remote file within GRACE
        seconds; later, the cache may delete it.

        Args:
            file: file name.
            size: expected size in bytes; None if unknown. Not used for a local file.
            sha256: expected hex digest, which is checked after a download only.

        Raises:
            UsageError: the file is larger than `cache_bytes`, or a remote dataset has no cache.
            WaveganError: the file cannot be downloaded, does not have the expected content, or the cache is not writable.
        """
        if not self.is_remote:
            return Path(self.base, file)
        cache = self.check_cache()
        if (size or 0) > self.cache_bytes:
            raise UsageError(f"{file} of {size:,} bytes exceeds the cache limit, {self.cache_bytes:,} bytes; raise the limit")
        path = cache / f"{sha256[:16]}-{os.fsdecode(os.fsencode(PurePosixPath(file).name)[-NAME_BYTES:])}"
        try:
            if not _is_complete(path, size):
                self._fetch(file, size, sha256, path)
        except OSError as error:
            raise WaveganError(
                f"cannot keep {file} in the cache {cache}: {error.strerror}; free space or move the cache"
            ) from error
        return path

    def url(self, file: str) -> str:
        """Return the URL of a file, or pipe:COMMAND with the command that prints it; for a local file, its path."""
        if not self.is_remote:
            return str(Path(self.base, file))
        if self.base.startswith("pipe:"):
            return self.base.replace("{file}", shlex.quote(file))
        name = quote(file) if self.base.startswith("http") else file
        return self.base.replace("{file}", name) if "{file}" in self.base else f"{self.base.rstrip('/')}/{name}"

    def _fetch(self, file: str, size: int | None, sha256: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _unfinished(path) as part:
            if _is_complete(path, size):  # another process has downloaded the file while this one waited for the lock
                part.unlink(missing_ok=True)
                return
            try:
                self._download(file, size, sha256, part)
                part.rename(path)
            except BaseException as error:
                part.unlink(missing_ok=True)
                # Another user may have downloaded the file meanwhile, and in a sticky folder it cannot be replaced.
                if not (isinstance(error, PermissionError) and _is_complete(path, size)):
                    raise

    def _download(self, file: str, size: int | None, sha256: str, part: Path) -> None:
        with part.open("wb") as out:
            out.truncate(size or 0)  # reserves the space: other processes count the file with its final size
            self._make_room()
            name = f"{file} of {self.base}"
            self.stream(file, lambda answer: _save(answer, out, name, size, sha256, self.cache_bytes))
            os.fsync(out.fileno())  # before the file gets its name: a power cut would leave zeros under it

    def _make_room(self) -> None:
        """Delete files that killed processes left behind, then the least recently requested files, until the cache fits.

        Files that were requested within the last GRACE seconds are kept, even if the cache is then too large.
        """
        assert self.cache
        for part in self.cache.glob(f".{_CACHED}.part"):
            _remove_stale(part)
        complete = [(path, status) for path in self.cache.glob(_CACHED) if (status := _status(path))]
        parts = [status for path in self.cache.glob(f".{_CACHED}.part") if (status := _status(path))]
        excess = sum(status.st_size for status in [*parts, *(status for _, status in complete)]) - self.cache_bytes
        for path, status in sorted(complete, key=lambda entry: entry[1].st_mtime_ns):
            if excess > 0 and abs(time.time() - status.st_mtime) >= GRACE:  # far below 0: the clock was set back since then
                with suppress(PermissionError):  # another user's file in a sticky folder
                    path.unlink(missing_ok=True)
                    excess -= status.st_size


def _joined(answer: Answer, name: str) -> bytes:
    content = bytearray()
    for block in answer.blocks:
        content += block
        if len(content) > LARGEST_READ:
            raise WaveganError(f"{name} has more than {LARGEST_READ:,} bytes, which is no index; {_ADVICE}")
    return bytes(content)


def _save(answer: Answer, out: IO[bytes], name: str, size: int | None, sha256: str, largest: int) -> None:
    """Write a download from the start of `out` and verify it.

    Args:
        answer: the download.
        out: the file; what it held before is replaced.
        name: what error messages call the download.
        size: expected size in bytes; None if unknown.
        sha256: expected hex digest.
        largest: largest size in bytes if `size` is unknown.

    Raises:
        TransferError: the connection failed, or bytes are missing.
        WaveganError: the file has another size, or the digest differs.
        OSError: `out` cannot be written.
    """
    if None not in (size, answer.size) and size != answer.size:
        raise WaveganError(f"{name} has {answer.size:,} bytes, the index says {size:,}: it has changed; {_ADVICE}")
    received, digest = 0, hashlib.sha256()
    out.seek(0)
    for block in answer.blocks:
        received += len(block)
        if size is None and received > largest:
            raise WaveganError(f"{name} has more than the {largest:,} bytes of the cache; raise the limit")
        if size is not None and received > size:
            raise WaveganError(f"{name} has more bytes than the {size:,} of the index: it has changed; {_ADVICE}")
        digest.update(block)
        out.write(block)
    out.truncate()
    out.flush()
    if size is not None and received < size:
        raise remote.TransferError(f"received {received:,} bytes, the index says {size:,}")
    if digest.hexdigest() != sha256:
        found = f"{digest.hexdigest()[:16]}..., the index says {sha256[:16]}..."
        raise WaveganError(f"{name} has the sha256 {found}: it has changed; {_ADVICE}")


def _is_complete(path: Path, size: int | None) -> bool:
    """Return whether a cached file exists and has `size` bytes (None: any size); its digest is not checked.

    A file that exists, complete or not, is marked as the most recently requested.
    """
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):  # another user's file, or a read-only cache
            raise
    status = _status(path)
    return status is not None and size in (None, status.st_size)  # the repair of a file system may cut a file short


@contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """Yield the locked `.part` file into which to download `path`, for which other processes wait.

    If the file system has no locks, or the file is another user's, who may be using it, yield a file of this process alone.
    """
    part, shared = path.with_name(f".{path.name}.part"), False
    with ExitStack() as locks:
        with suppress(PermissionError):
            shared = locks.enter_context(locked(part))
            if not shared:
                part.unlink(missing_ok=True)
        if not shared:
            part = part.with_name(f"{part.stem}.{uuid4().hex}.part")
            locks.enter_context(locked(part))  # so that other processes do not take it for an unfinished one
        yield part


def _remove_stale(part: Path) -> None:
    """Delete an unfinished download unless a process holds its lock; without locks, if its last write was long ago.

    A file of another user, which this one may not lock or delete, stays.
    """
    other = (BlockingIOError, FileNotFoundError, PermissionError)
    with suppress(*other), locked(part, wait=False, create=False) as exclusive:
        if exclusive or abs(time.time() - part.stat().st_mtime) >= UNFINISHED:
            part.unlink()


def _status(path: Path) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return path.stat()
    return None
