"""Atomic writes (write to a temporary name, fsync, rename), locks between processes, digests."""

import fcntl
import getpass
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from wavegan_dist.errors import UsageError, WaveganError

if TYPE_CHECKING:
    from torch import Tensor

# An extension that is meant for a file.
_FILE_NAME = re.compile(
    r"\.(7z|avif|bmp|bz2|csv|gif|gz|h5|hdf5|heic|heif|html?|jpe?g|jsonl?|jxl|log|md|np[yz]|onnx|pdf|pickle|pkl|png|pt2?|pth|rar|"
    r"safetensors|svg|tar|tgz|tiff?|txt|webp|xz|ya?ml|zip|zst)",
    re.IGNORECASE,
)
NO_HOME = "/nonexistent"  # Debian's home of users that have none
FSYNC_THREADS = 16  # most of a file's fsync is waiting for the disk, which flushes several files at once
SAFETENSORS_DTYPES = {"torch.float32": "F32", "torch.float64": "F64", "torch.int64": "I64"}


@contextmanager
def atomic_file(path: Path, mode: str = "w", permissions: int = 0o666) -> Iterator[IO[Any]]:
    """Open a temporary file that replaces `path` when the block ends without an error; otherwise `path` stays as it was.

    The file is synced to the disk before it replaces `path`. Creates the parent folders. An OSError about the temporary file,
    or without a file name (as of a full disk), names `path` instead.

    Args:
        path: the file.
        mode: "w" or "wb". Text is UTF-8; bytes of names that are not are written as \\udcNN.
        permissions: of the file from its creation on, less the umask.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace"}
    with errors_naming(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.unlink(missing_ok=True)  # a killed process of the same id may have left it with other permissions
            with open(temporary, mode, opener=lambda name, flags: os.open(name, flags, permissions), **text) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `path` when the block ends without an error.

    After an error in the block, `path` stays as it was. Files and folders are synced to the disk first. Creates the parent
    folders. An OSError about the temporary folder, or without a file name (as of a full disk), names `path` instead.

    Args:
        path: the folder.
        overwrite: replace an existing folder; False: raise OSError if the existing folder is not empty.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with errors_naming(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            replace_dir(temporary, path, overwrite=overwrite)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def check_folder(path: Path, name: str) -> None:
    """Check that `path` is a folder, or can become one, before work is done whose results go there.

    Args:
        path: the folder.
        name: what the message calls it, for example "--out DIR".

    Raises:
        UsageError: `path`, or the part of it that exists, is not a folder, or may not be written to; or `path` does not exist
            and has the name of a file.
    """
    path = path.absolute()
    if not path.exists() and is_file_name(path):
        raise UsageError(f"{name}: the result is a folder, and {path.name} is the name of a file; leave out {path.suffix}")
    existing = next(folder for folder in (path, *path.parents) if folder.exists() or folder.is_symlink())
    if not existing.is_dir():
        raise UsageError(f"{name}: {existing} is not a folder; choose another name")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"{name}: you may not write to the folder {existing}; choose another name")


def is_file_name(path: Path) -> bool:
    """Return whether a name has an extension that is meant for a file, such as .zip or .html."""
    return _FILE_NAME.fullmatch(path.suffix) is not None


def replace_dir(temporary: Path, path: Path, *, overwrite: bool = True) -> None:
    """Fsync all files and folders in `temporary`, then rename the folder to `path`, and fsync the parent folder.

    An existing `path` is renamed first and deleted at the end. After a kill between the two renames, no `path` exists.

    Args:
        temporary: a folder on the same file system as `path`.
        path: the new name.
        overwrite: replace an existing folder; False: raise OSError if the existing folder is not empty.
    """
    folders, files = [temporary], list[Path]()
    for entry in temporary.rglob("*"):
        (folders if entry.is_dir() else files).append(entry)
    with ThreadPoolExecutor(FSYNC_THREADS) as pool:
        for _ in pool.map(fsync, files):  # raises the error of a file
            pass
    for folder in folders:
        fsync(folder)
    replaced = path.with_name(f".{path.name}.{os.getpid()}.old")
    if overwrite and path.is_dir():  # a file stays, and the next line raises NotADirectoryError
        path.rename(replaced)
    temporary.rename(path)
    fsync(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def user_cache() -> Path:
    """Return the path of the user's cache folder: $XDG_CACHE_HOME/wavegan, else ~/.cache/wavegan. It may not exist.

    The folder is safe to delete.

    Raises:
        WaveganError: XDG_CACHE_HOME is not set and the user has no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wavegan"
    except RuntimeError as error:
        raise WaveganError("no home folder to keep cached files in; set XDG_CACHE_HOME") from error


def ensure_home() -> None:
    """Set the environment variables HOME and USER if Python cannot find out the user's home folder or name. MLflow needs both.

    Such a user is, for example, a container's user id that is not in /etc/passwd. HOME becomes /nonexistent, USER the user id.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = NO_HOME
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())


def sweep(folder: Path) -> None:
    """Delete what killed processes left of `atomic_file`, `atomic_dir` and `replace_dir` in a folder and below it.

    These are all files and folders whose names match .*.tmp or .*.old. No other process may write there at the same time. Does
    nothing if the folder does not exist.
    """
    for path in (*folder.rglob(".*.tmp"), *folder.rglob(".*.old")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def errors_naming(path: Path, temporary: Path) -> Iterator[None]:
    """Re-raise an OSError of the block with `path` as its file if its file is `temporary` or none, as when the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename).startswith(str(temporary))):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def save_tensors(layout: "Mapping[str, Tensor]", values: "Iterable[tuple[str, Tensor]]", path: Path) -> None:
    """Write a safetensors file one tensor at a time, so that only one of `values` needs to be in memory.

    Args:
        layout: tensors of the shapes and dtypes to write, by name; they may be on the meta device.
        values: pairs of name and tensor, each name of `layout` once, in any order; on any device. Shapes and dtypes must be
            those of `layout`, which is not checked.
        path: the file, which is not written atomically; its folder must exist.

    Raises:
        KeyError: a dtype other than float32, float64 and int64, or a name that is not in `layout`.
        OSError: the file cannot be written.
    """
    import torch

    header, begins, end = {}, {}, 0
    for name in sorted(layout, key=lambda name: (-layout[name].element_size(), name)):  # large elements first: all are aligned
        begin, end = end, end + layout[name].nbytes
        dtype = SAFETENSORS_DTYPES[str(layout[name].dtype)]
        header[name] = {"dtype": dtype, "shape": list(layout[name].shape), "data_offsets": [begin, end]}
        begins[name] = begin
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.truncate(8 + len(encoded) + end)
        for name, value in values:
            file.seek(8 + len(encoded) + begins[name])
            file.write(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def parse_json(content: str | bytes) -> Any:
    """Decode JSON. Raises ValueError for everything that cannot be decoded, also where `json.loads` raises RecursionError."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects in a file of one object per line, in order; an empty list if the file does not exist.

    Skips lines that are damaged or hold another JSON value.
    """
    objects = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with suppress(ValueError):
            objects.append(parse_json(line))
    return [entry for entry in objects if isinstance(entry, dict)]


def append_json_lines(path: Path, objects: Iterable[Mapping[str, Any]]) -> None:
    """Append JSON objects to a file, one per line; begin a new line if a kill or a full disk cut the last one short.

    Creates the file in an existing folder. Neither locks the file nor syncs it to the disk.
    """
    with errors_naming(path, path), path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")
        file.writelines(json.dumps(entry).encode() + b"\n" for entry in objects)


_lock_descriptors: set[int] = set()  # file descriptors of the locks that this process holds or waits for


@contextmanager
def locked(path: Path, *, wait: bool = True, create: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on the file `path` while the block runs, and leave the file.

    Yields whether the lock is held: on a file system without locks, the block runs unprotected.

    The lock excludes other threads and other processes, including those on other machines if `path` is on NFS. The lock is
    released when its process ends in any way, even by SIGKILL: forked children do not inherit the lock.

    Args:
        path: the lock file; its folder must exist.
        wait: wait until the lock is free; False: raise BlockingIOError if it is not. A thread that waits for a lock that it
            holds itself waits forever.
        create: create the file if it does not exist; False: raise FileNotFoundError.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
        _lock_descriptors.add(descriptor)
        try:
            held = _flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_open_at(path, descriptor):  # otherwise another process renamed or removed the file: lock the new one
                yield held
                return
        finally:
            if descriptor in _lock_descriptors:  # not in a forked child
                _lock_descriptors.remove(descriptor)
                os.close(descriptor)


def _flock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        raise
    except OSError:  # the file system has no locks
        return False
    return True


def _is_open_at(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False


def _close_inherited_locks() -> None:
    for descriptor in _lock_descriptors:
        os.close(descriptor)
    _lock_descriptors.clear()


# A flock is held until every copy of the file descriptor is closed, including the copies in forked children.
os.register_at_fork(after_in_child=_close_inherited_locks)


def fsync(path: Path) -> None:
    """Flush the content of a file, or the entries of a folder, to the disk, so that they survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Return the hex SHA-256 digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
