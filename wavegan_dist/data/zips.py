"""Read zips: open them, list their files, refuse unsafe ones, read the first bytes of a file."""

import os
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from stat import S_IFMT, S_IFREG

from wavegan_dist.data.formats import HEAD_BYTES
from wavegan_dist.data.tars import read_at, refuse_unsafe
from wavegan_dist.errors import WaveganError

_END = b"PK\5\6"  # begins the last record of a zip
_END_BYTES = 22 + 2**16  # largest size of that record, with its comment


def files_in_zip(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the files of a zip, without its folders, by name, in the order of the zip's directory.

    Raises:
        OSError: the zip cannot be read.
        WaveganError: the zip is damaged, holds a name twice, or follows another zip in the same file; or a file in it is
            unsafe (see `refuse_unsafe`), or compressed by another method than deflate.
    """
    entries: dict[str, zipfile.ZipInfo] = {}
    archive = open_zip(path)
    for entry in archive.infolist():
        regular = S_IFMT(entry.external_attr >> 16) in (0, S_IFREG)
        if not entry.filename.endswith("/"):  # not is_dir(), which raises IndexError for an empty name
            refuse_unsafe(f"{entry.filename} in {path}", entry.filename, regular=regular)
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others are decompressed without a limit
                message = "is not compressed by deflate; unpack the zip and give the folder"
                raise WaveganError(f"{entry.filename} in {path} {message}")
            if entry.filename in entries:
                raise WaveganError(f"{path} holds {entry.filename} twice; write the zip again")
            entries[entry.filename] = entry
    _refuse_earlier_zip(path, archive.infolist())
    return entries


def read_head_in_zip(path: Path, name: str, size: int = HEAD_BYTES) -> bytes:
    """Return the first `size` bytes of a file of a zip, all of a shorter one.

    Raises:
        WaveganError: the zip is damaged, or the file is, or is encrypted.
        OSError: the zip cannot be read.
        KeyError: the zip has no file `name`.
    """
    archive = open_zip(path)
    entry = archive.getinfo(name)
    try:
        with archive.open(entry) as file:
            return file.read(size)
    except MemoryError:
        raise
    except Exception as error:  # zipfile and its decompressors raise exceptions of almost any type
        if isinstance(error, OSError) and error.errno:  # of the file system; that of bz2 has no number
            raise
        raise WaveganError(f"{name} in {path} cannot be read ({error}); unpack the zip and give the folder") from error


@cache
def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip for reading, once in each process. All callers share the result, so none may close it.

    Raises:
        WaveganError: the zip is damaged.
        OSError: the zip cannot be opened.
    """
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise WaveganError(f"{path} is a damaged zip ({error}); copy it again") from error


os.register_at_fork(after_in_child=open_zip.cache_clear)  # otherwise processes would share a file position


def _refuse_earlier_zip(path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Raise WaveganError if a whole zip precedes the first of `entries`: readers start at the end of the file."""
    start = min((entry.header_offset for entry in entries), default=0)
    if start < 0:
        raise WaveganError(f"{path} is a damaged zip (a file begins at byte {start:,}); copy it again")
    before = max(start - _END_BYTES, 0)
    if _END in read_at(path, before, start - before):
        raise WaveganError(
            f"{path} holds another zip before byte {start:,}, which is never read (two joined by `cat`?); separate them with "
            f"`head -c {start}` and `tail -c +{start + 1}`"
        )
