"""Find the files in a folder and its subfolders, and decide which of them are pictures."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from wavegan_dist.data.formats import HEAD_BYTES, is_picture, is_raw, is_tar, picture_extensions
from wavegan_dist.data.index import INDEX_FILE, MEMBERS_FILE
from wavegan_dist.data.left_out import HIDDEN, LEFT_OUT_FILE, NOT_REGULAR, LeftOut

LOOP = "a link to a folder that contains the link"
ARCHIVE = "an archive inside the folder; unpack it, or write it as a SOURCE"
BESIDE_TARS = "beside tars, which alone are read; move the tars or these files to another folder"
LOWER_TAR = "a tar that is not at the top level; write its folder as a SOURCE, or unpack it"
COMPRESSED = "a compressed tar; decompress it"
UNKNOWN = "neither by its name nor by its first bytes a picture"

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
_ARCHIVES = (".zip", ".7z", ".rar")


def files_in(folder: Path, left_out: list[LeftOut]) -> list[str]:
    """List the files of a folder and its subfolders by their relative names, sorted by folder and name.

    Follows links. Appends what is skipped to `left_out`: hidden files and folders (`is_hidden`), links to a path that does not
    exist or to a folder that contains the link, and everything that is neither a file nor a folder.

    Raises:
        OSError: a folder cannot be read.
    """
    return sorted(_files(folder, "", frozenset(), left_out), key=lambda name: PurePosixPath(name).parts)


def _files(folder: Path, prefix: str, above: frozenset[tuple[int, int]], left_out: list[LeftOut]) -> Iterator[str]:
    status = folder.stat()
    above |= {(status.st_dev, status.st_ino)}
    with os.scandir(folder) as entries:
        for entry in entries:
            name, path = prefix + entry.name, str(folder / entry.name)
            if is_hidden(entry.name):
                left_out += [LeftOut(path, HIDDEN, files)] if (files := _count(entry)) else []
            elif _leads_nowhere(entry):
                left_out.append(LeftOut(path, NOT_REGULAR))
            elif not entry.is_dir():
                if entry.is_file():
                    yield name
                else:
                    left_out.append(LeftOut(path, NOT_REGULAR))
            elif (entry.stat().st_dev, entry.stat().st_ino) in above:
                left_out.append(LeftOut(path, LOOP))
            else:
                yield from _files(folder / entry.name, f"{name}/", above, left_out)


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a link to a path that does not exist, or to itself."""
    if not entry.is_symlink():
        return False
    try:
        entry.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        if error.errno == errno.ELOOP:
            return True
        raise
    return False


def is_hidden(name: str) -> bool:
    """Return whether a file or folder with this name, without its folder, is skipped: it begins with a dot or is __MACOSX."""
    return name.startswith(".") or name == "__MACOSX"


def select_pictures(
    names: Iterable[str], source: str, read_head: Callable[[str], bytes], left_out: list[LeftOut]
) -> Iterator[str]:
    """Yield the names with an extension of `picture_extensions`, and those of other files that begin as pictures do.

    Raw photographs (`is_raw`) are left out. Files with an extension of `picture_extensions` are not opened.

    Args:
        names: relative names of files; the result has their order.
        source: the folder or zip of these files, for the entries of `left_out`.
        read_head: returns the first HEAD_BYTES of the file with a name; its errors are passed on.
        left_out: each file that is not a picture is appended to this list when it is reached.
    """
    extensions = picture_extensions()
    for name in names:
        extension = _extension(name)
        if extension in extensions or (not is_raw(extension) and is_picture(read_head(name))):
            yield name
        else:
            left_out.append(LeftOut(f"{source}/{name}", reason_without_picture(name)))


def reason_without_picture(name: str) -> str:
    """Return the reason to leave out a file that is not a picture, from its name alone: the same for all of an extension."""
    if name.lower().endswith(_COMPRESSED):
        return COMPRESSED
    if is_tar(name):
        return LOWER_TAR
    if name.lower().endswith(_ARCHIVES):
        return ARCHIVE
    extension = _extension(name)
    return f"no picture that Pillow reads (.{extension})" if extension.isalnum() and len(extension) <= 5 else UNKNOWN


def tars_in(folder: Path, left_out: list[LeftOut]) -> list[Path]:
    """Return the paths of the tars at the top level of a folder, in alphabetical order, without the hidden ones.

    If there are tars, everything else in the folder and its subfolders, except the files of an index, is appended to
    `left_out`, which is then sorted. Without tars, `left_out` stays as it is.

    Raises:
        OSError: a folder cannot be read.
    """
    others: list[LeftOut] = []
    names = files_in(folder, others)
    tars = [name for name in names if "/" not in name and is_tar(name)]
    if tars:
        left_out += others
        for name in set(names).difference(tars, (INDEX_FILE, MEMBERS_FILE, LEFT_OUT_FILE)):
            compressed = name.lower().endswith(_COMPRESSED)
            left_out.append(LeftOut(f"{folder}/{name}", COMPRESSED if compressed else BESIDE_TARS))
        left_out.sort()
    return [folder / name for name in tars]


def head_of(path: Path) -> bytes:
    """Return the first HEAD_BYTES of a file, all of a shorter one; b"" if `path` does not exist or is not a regular file.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _extension(name: str) -> str:
    return PurePosixPath(name).suffix[1:].lower()


def _count(entry: os.DirEntry[str]) -> int:
    """Return the number of files in a hidden folder, 1 for a file. Links are not followed."""
    if not entry.is_dir(follow_symlinks=False):
        return 1
    return sum(len(files) for _, _, files in os.walk(entry.path))
