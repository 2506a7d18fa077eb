"""Where shards lie: in a local folder, or elsewhere with a local cache that all processes of a node share.

The cache holds whole, checked files only, and needs no server: a download goes into a `.part` file, whose lock makes one
process fetch while the others wait, and is renamed when its size and hash are right. A process that is killed leaves a
`.part` without a lock, which the next one takes over or removes. What was handed out longest ago is deleted when room is
needed, perhaps while somebody reads it: on POSIX an open file can be read, and takes space, until it is closed.
"""

import fcntl
import hashlib
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO
from urllib.parse import quote

from wavegan_dist.data import remote
from wavegan_dist.errors import UsageError, WaveganError

GRACE = 30.0  # seconds from handing out a path, in which it is opened, to when its file may be deleted

_OURS = "[0-9a-f]" * 16 + "-*"  # nothing else in the folder is touched


def locate(location: str | Path, cache: Path | None = None, cache_bytes: int = 0) -> tuple["Storage", str]:
    """The storage of a set and the name of its index there.

    Args:
        location: a folder or the index.json in it, a URL of either, or pipe:COMMAND with {file}.
        cache: as of `Storage`.
        cache_bytes: as of `Storage`.
    """
    base, name = str(location), "index.json"
    if base.endswith(".json") and not base.startswith("pipe:"):
        base, _, name = base.rpartition("/") if "/" in base else (".", "", base)
    if not remote.is_remote(base):
        base = str(Path(base).absolute())
    return Storage(base, cache, cache_bytes), name


@dataclass(frozen=True)
class Storage:
    """The files of one set of shards.

    Args:
        base: a folder, the URL of one (http(s)://, s3://, gs://, ... through fsspec), or `pipe:COMMAND` that prints the
            file whose name takes the place of {file}: `pipe:aws s3 cp s3://bucket/set/{file} -`.
        cache: a folder on this node for files from elsewhere; other processes, runs and sets may share it.
        cache_bytes: as much may lie in the cache; what is being fetched or was handed out just now stays besides.

    Raises:
        UsageError: a pipe without {file}, or no cache for a base that is elsewhere.
    """

    base: str
    cache: Path | None
    cache_bytes: int

    def __post_init__(self) -> None:
        if self.base.startswith("pipe:") and "{file}" not in self.base:
            raise UsageError(
                f"{self.base} lacks {{file}}, which stands for a file's name: pipe:curl -sf http://host/set/{{file}}"
            )
        if remote.is_remote(self.base) and self.cache is None:
            raise UsageError(f"{self.base} is not on this machine; give a folder for its cache")

    def read(self, file: str) -> bytes:
        """A small file, such as the index, as it is now: never from the cache.

        Raises:
            WaveganError: it cannot be read from elsewhere. OSError: from a local folder.
        """
        return remote.read(self._url(file), b"".join) if self.is_remote else Path(self.base, file).read_bytes()

    def open(self, file: str, size: int | None, sha256: str) -> BinaryIO:
        """The file, open for reading without a buffer: it can be read to its end whatever happens to the cache.

        Args and errors are those of `local`, and OSError where a local file cannot be opened.
        """
        while True:
            try:
                return self.local(file, size, sha256).open("rb", buffering=0)
            except FileNotFoundError:  # deleted in between, GRACE seconds or more after it was whole
                if not self.is_remote:
                    raise

    def local(self, file: str, size: int | None, sha256: str) -> Path:
        """The path of the whole file on this machine, fetched if need be; to be opened within GRACE seconds.

        Args:
            file: its plain name.
            size: in bytes, None where nobody knows.
            sha256: hex digest. Both are checked while fetching; a local folder is taken as it is.

        Raises:
            UsageError: the file is larger than the cache may be.
            WaveganError: it cannot be fetched, differs from what was said, or the cache cannot be written.
        """
        if not self.is_remote or self.cache is None:
            return Path(self.base, file)
        if (size or 0) > self.cache_bytes:
            raise UsageError(f"{file} of {size:,} bytes is larger than the cache may be ({self.cache_bytes:,}); allow more")
        path = self.cache / f"{sha256[:16]}-{file}"
        try:
            if not _is_whole(path, size):
                self._fetch(file, size, sha256, path)
        except OSError as error:
            raise WaveganError(
                f"cannot keep {file} in the cache {self.cache}: {error.strerror}; make room or move it"
            ) from error
        return path

    @property
    def is_remote(self) -> bool:
        """Whether the files are not in a local folder."""
        return remote.is_remote(self.base)

    def _url(self, file: str) -> str:
        if self.base.startswith("pipe:"):
            return self.base.replace("{file}", shlex.quote(file))
        name = quote(file) if self.base.startswith("http") else file
        return f"{self.base.rstrip('/')}/{name}"

    def _fetch(self, file: str, size: int | None, sha256: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.part")
        with _locked(unfinished) as part:
            try:
                if not _is_whole(path, size):  # nobody was faster
                    part.truncate(size or 0)  # counts at once as what it will be
                    self._make_room()
                    remote.read(self._url(file), lambda pieces: _save(pieces, part, f"{file} of {self.base}", size, sha256))
                    unfinished.rename(path)
            finally:
                if _is_at(unfinished, part):
                    unfinished.unlink()

    def _make_room(self) -> None:
        """Remove what killed processes left, then what was handed out longest ago, until `cache_bytes` is kept."""
        assert self.cache
        for unfinished in self.cache.glob(f".{_OURS}.part"):
            _remove_stale(unfinished)
        whole = [(path, status) for path in self.cache.glob(_OURS) if (status := _status(path))]
        parts = [status for path in self.cache.glob(f".{_OURS}.part") if (status := _status(path))]
        excess = sum(status.st_size for status in [*parts, *(status for _, status in whole)]) - self.cache_bytes
        for path, status in sorted(whole, key=lambda entry: entry[1].st_mtime_ns):
            if excess <= 0 or status.st_mtime > time.time() - GRACE:
                break
            path.unlink(missing_ok=True)
            excess -= status.st_size


def _save(pieces: Iterator[bytes], out: IO[bytes], name: str, size: int | None, sha256: str) -> None:
    """Write from the beginning and check. Raises Interrupted where bytes are missing, WaveganError where they differ."""
    found, digest = 0, hashlib.sha256()
    out.seek(0)
    for piece in pieces:
        found += len(piece)
        if size is not None and found > size:
            raise WaveganError(f"{name} has more bytes than the {size:,} of the index; {_ADVICE}")
        digest.update(piece)
        out.write(piece)
    out.truncate()
    out.flush()
    if size is not None and found < size:
        raise remote.Interrupted(f"{found:,} bytes came, the index says {size:,}")
    if digest.hexdigest() != sha256:
        raise WaveganError(f"{name} has the sha256 {digest.hexdigest()[:16]}..., the index says {sha256[:16]}...; {_ADVICE}")


def _is_whole(path: Path, size: int | None) -> bool:
    """Whether it is there (and, from now, the file that was handed out last)."""
    with suppress(FileNotFoundError):
        os.utime(path)
        return size is None or path.stat().st_size == size  # a power cut may leave less
    return False


@contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[IO[bytes]]:
    """The file, made if need be, open and locked against all other processes and threads.

    Raises:
        BlockingIOError: somebody has it, and `wait` is false.
    """
    while True:
        with open(path, "r+b", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o666)) as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(path, file):  # else it was renamed or removed while this waited
                yield file
                return


def _remove_stale(unfinished: Path) -> None:
    """Remove a download that nobody is at."""
    with suppress(BlockingIOError), _locked(unfinished, wait=False):
        unfinished.unlink()


def _is_at(path: Path, file: IO[bytes]) -> bool:
    status = _status(path)
    return status is not None and os.path.samestat(status, os.fstat(file.fileno()))


def _status(path: Path) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return path.stat()
    return None


_ADVICE = "copy the set there again, with its index"
