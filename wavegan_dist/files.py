"""Files that are either whole or not there: write under a temporary name, fsync, rename."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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
            swap_in(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def swap_in(temporary: Path, path: Path) -> None:
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
