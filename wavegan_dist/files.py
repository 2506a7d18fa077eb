"""Files that are either complete or absent (write under a temporary name, fsync, rename), and locks between processes."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SAFETENSORS_DTYPES = {"torch.float32": "F32", "torch.int64": "I64"}


@contextmanager
def atomic_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that appears at `path` only when the block ends without an error; an OSError names `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _blaming(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open(mode) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` (replacing what was there) when the block ends without an error;
    an OSError names `path`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _blaming(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            replace_dir(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def replace_dir(temporary: Path, path: Path) -> None:
    """Make a finished folder appear at `path`, replacing what was there, once all in it is on the disk."""
    for entry in (temporary, *temporary.rglob("*")):
        fsync(entry)
    replaced = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        path.rename(replaced)
    temporary.rename(path)
    fsync(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Delete what writers that were killed left under temporary names, at any depth; no writer may be at work there."""
    for name in (*folder.rglob(".*.tmp"), *folder.rglob(".*.old")):
        if name.is_dir():
            shutil.rmtree(name, ignore_errors=True)
        else:
            name.unlink(missing_ok=True)


@contextmanager
def _blaming(path: Path, temporary: Path) -> Iterator[None]:
    """Make an OSError name what was to be written, not its temporary name or, as that of a full disk does, nothing."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename).startswith(str(temporary))):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def save_tensors(layout: "Mapping[str, Tensor]", values: "Iterable[tuple[str, Tensor]]", path: Path) -> None:
    """Write a safetensors file, one tensor at a time: never more than one of `values` is held.

    Args:
        layout: what is to come, by name; only shapes and dtypes are looked at.
        values: the tensors, in any order.
        path: the file.

    Raises:
        OSError: the disk is full.
    """
    import torch

    places, begins, end = {}, {}, 0
    for name in sorted(layout, key=lambda name: (-layout[name].element_size(), name)):  # so that all are aligned
        begin, end = end, end + layout[name].nbytes
        dtype = SAFETENSORS_DTYPES[str(layout[name].dtype)]
        places[name] = {"dtype": dtype, "shape": list(layout[name].shape), "data_offsets": [begin, end]}
        begins[name] = begin
    header = json.dumps(places).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
        for name, value in values:
            file.seek(8 + len(header) + begins[name])
            file.write(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


_held: set[int] = set()  # descriptors of the locks that this process holds


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` while the block runs. The file is created if it does not exist, and stays.

    The lock excludes other threads and other processes, on NFS those of other machines too. It ends with the process that holds
    it, however that process ends: forked children do not share it. On a file system without locks nothing is excluded.

    Args:
        path: the lock file; its folder must exist.
        wait: wait for the present holder; False raises BlockingIOError instead.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        _held.add(descriptor)
        try:
            _flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_open_at(path, descriptor):  # otherwise the former holder renamed or removed the file
                yield
                return
        finally:
            if descriptor in _held:
                _held.remove(descriptor)
                os.close(descriptor)


def _flock(descriptor: int, operation: int) -> None:
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        raise
    except OSError:  # the file system has no locks
        pass


def _is_open_at(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False


def _close_held() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_held)  # flock belongs to the open file, which a forked child would keep open


def fsync(path: Path) -> None:
    """Make a file's content, or the names inside a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
