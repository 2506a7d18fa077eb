"""The index of a dataset: `index.json` describes its shards, `members.npy` the position and label of every image."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, field_validator, model_validator

from wavegan_dist.config import RESOLUTIONS, FileKind
from wavegan_dist.config.explain import shown
from wavegan_dist.data.formats import TARS
from wavegan_dist.data.order import Order, RowIndices
from wavegan_dist.data.remote import is_remote
from wavegan_dist.data.shards import IndexModel, Shard, Shards
from wavegan_dist.data.storage import Storage, locate
from wavegan_dist.errors import UsageError
from wavegan_dist.files import atomic_file, fsync, locked, parse_json, sha256
from wavegan_dist.redact import holds_password

INDEX_FILE = "index.json"
MEMBERS_FILE = "members.npy"
LONGEST_PATH, LONGEST_PART = 1024, 255  # bytes of the name of a shard, as in S3, and of its parts between slashes
INDEX = FileKind(
    "index of shards",
    "write the dataset again with `wavegan shards write`, or index its tars with `wavegan shards index`",
    parse_json,
    always_advise=True,
)
_TEMPORARY, _LOCK = ".index.*.tmp", "lock"  # the folders of `new_index`, and the file in them that it locks
_MEMBERS_ADVICE = "copy it again, or create it again with `wavegan shards index`"

Members = NDArray[np.int64]  # [images, 3]; columns: offset of the encoded image in its shard, size in bytes, label or -1


class BandStd(IndexModel):
    """Standard deviations of the Haar bands of one level over all images and colors, for pixels scaled to [-1, 1].

    Level 1 decomposes the images, level n + 1 the low bands of level n.
    """

    low: float
    lh: float
    hl: float
    hh: float


class Selection(IndexModel):
    """Which images of its tars a dataset has, if not all of them."""

    images: int = Field(ge=1, description="images in the tars")
    labels: list[int] = Field(
        [], description="label n of the dataset is labels[n] in the tars; empty: labels are those of the tars"
    )
    classes: list[str] = Field([], description="names of the labels 0, 1, ... in the tars; empty if unknown")
    unused_tars: list[str] = Field([], description="tars without a chosen image")


class Index(IndexModel):
    """The content of `index.json`, with access to the dataset's files. Images are uint8 RGB, `size` x `size` pixels."""

    version: Literal[2] = 2
    size: int = Field(ge=2, le=RESOLUTIONS[-1], description="image side in pixels")
    channels: Literal[3] = 3
    count: int = Field(ge=1, description="images in all shards")
    encoding: Literal["png", "jpg", "webp", "mixed"]
    classes: list[str] = Field([], description="names of the labels 0, 1, ...; empty if unknown")
    band_std: BandStd
    deeper_band_std: list[BandStd] = Field([], description="of levels 2, 3, ...; empty in an index of an older version")
    selection: Selection | None = Field(None, description="of some images of the tars; null: the dataset has all of them")
    members_sha256: str = Field(pattern="^[0-9a-f]{64}$", description="digest of members.npy")
    source: str | None = Field(
        None,
        description="where the shards are if not beside index.json: URL of their folder, or a URL or pipe:COMMAND with {file}",
    )
    shards: Shards
    _home: Storage = PrivateAttr(default=Storage("."))  # of index.json and members.npy

    @field_validator("source")
    @classmethod
    def _check_source(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if holds_password(value):
            raise ValueError("the address of the shards holds a password")
        if not is_remote(value):
            raise ValueError(f"'{value}' is neither a URL nor pipe:COMMAND")
        return Storage(value).base

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = int(self.shards.images.sum())
        if total != self.count:
            raise ValueError(f"count is {self.count} but the shards list {total} images")
        return self

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for file in self.shards.files:
            parts = file.split("/")
            if not {"", ".", ".."}.isdisjoint(parts):
                raise ValueError(f"shards: '{file}' is not the plain name of a file")
            if "\0" in file or not _is_encodable(file) or _is_too_long(file):
                raise ValueError(f"shards: {shown(file)} cannot be the name of a file")
            if len(parts) > 1 and self.source is None:
                raise ValueError(f"shards: '{file}' is not the plain name of a file beside index.json")
        return self

    @classmethod
    def load(cls, location: str | Path, cache: Path | None = None, cache_bytes: int = 0) -> "Index":
        """Read the index of a dataset, `index.json`. It is never taken from the cache, which is for the other files.

        Args:
            location: path of the index or of its folder, the URL of either, or pipe:COMMAND; {file} stands for a file name.
            cache: folder on this node for remote files; see `Storage`. Only index.json and local files can be read without one.
            cache_bytes: largest size of the cache in bytes; `Storage.local` raises UsageError for a larger file. Not used
                without remote files.

        Raises:
            UsageError: a local index is missing or cannot be read, the content is not JSON, a key is missing, unknown or has an
                impossible value, a remote index gives a shell command as its source, or a pipe lacks {file}.
            WaveganError: a remote index cannot be read, for example because it is missing.
        """
        storage, name = locate(location, cache, cache_bytes)
        path = f"{storage.base}/{name}"
        try:
            content = storage.read(name)
        except OSError as error:
            raise UsageError(f"cannot read the index {path}: {error.strerror}{_advice(error, Path(storage.base))}") from error
        index = INDEX.validate(cls, INDEX.parse(content, path), path)
        if storage.is_remote and (index.source or "").startswith("pipe:"):
            raise UsageError(
                f"{path} gets its shards from a shell command, which only an index on this machine may do; read its `source`, "
                "copy the index here and give its folder"
            )
        index._home = storage
        return index

    def save(self, folder: Path) -> None:
        """Write `index.json` atomically into `folder`; `save_members` writes the other file of an index.

        Raises:
            OSError: the file cannot be written.
        """
        with atomic_file(folder / INDEX_FILE) as file:
            file.write(json.dumps(self.content(), indent=1) + "\n")

    def content(self) -> dict[str, Any]:
        """Return the content of `index.json`, as JSON values.

        `deeper_band_std`, `selection` and `source`, which older versions did not write, are left out if they are empty.
        """
        return self.model_dump(exclude={name for name in ("deeper_band_std", "selection", "source") if not getattr(self, name)})

    def band_std_by_level(self) -> list[BandStd]:
        """Return the standard deviations of the bands of levels 1, 2, ..., as many as were measured."""
        return [self.band_std, *self.deeper_band_std]

    @property
    def location(self) -> str:
        """Folder of index.json, URL of the folder, or pipe:COMMAND; for messages."""
        return self._home.base

    @property
    def folder(self) -> Path:
        """Folder of index.json on this machine; for a remote index, a path without meaning. For the shards, see `storage`."""
        return Path(self._home.base)

    @property
    def storage(self) -> Storage:
        """Access to the shards, which are in the folder of index.json unless `source` names another place."""
        return self._home if self.source is None else replace(self._home, base=self.source)

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of the index's content without `source`.

        Datasets with equal digests hold the same images in the same order, wherever their shards are.
        """
        content = {name: value for name, value in self.content().items() if name != "source"}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Row of each shard's first image in `members`, followed by `count`: int64 [shards + 1]."""
        return np.concatenate(([0], np.cumsum(self.shards.images)))

    @cached_property
    def members(self) -> Members:
        """Position and label of each image: int64 [count, 3], memory-mapped read-only from `members.npy`.

        Columns: offset of the encoded image in its shard in bytes, size in bytes, label (-1 if the image has none). Rows follow
        the order of `shards` and, within a shard, of its tar. A remote members.npy is downloaded into the cache and its digest
        is checked then; that of a local file is checked by `wavegan shards verify` only.

        Raises:
            UsageError: members.npy is missing, not a NumPy array, or has another shape or dtype; or it is remote, and there is
                no cache.
            WaveganError: a remote members.npy cannot be downloaded, has another digest, or the cache is not writable.
        """
        path = self._home.local(MEMBERS_FILE, None, self.members_sha256)
        try:
            rows: Members = np.lib.format.open_memmap(path, mode="r")  # reads arrays only, no archives and no pickles
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}; {_MEMBERS_ADVICE}") from error
        except Exception as error:  # NumPy raises exceptions of almost any type on a damaged header
            raise UsageError(f"{path} is not a NumPy array; {_MEMBERS_ADVICE}") from error
        if rows.shape != (self.count, 3) or rows.dtype != np.int64:
            actual = f"{rows.dtype} {list(rows.shape)}"
            raise UsageError(f"{path} is {actual} but the index says int64 [{self.count}, 3]; {_MEMBERS_ADVICE}")
        return rows

    # The methods below are those of a `Mixture`, so that training treats one dataset as it treats several.

    @property
    def sets(self) -> Sequence["Index"]:
        """The datasets: only this one."""
        return (self,)

    def order(self, seed: int) -> Order:
        """Return the order in which training with `seed` sees the images, as rows of `members`."""
        return Order(self.starts, seed)

    def entries(self, rows: RowIndices) -> Members:
        """Return a copy of `members` at `rows`, in this order: int64 [len(rows), 3]. Raises the errors of `members`."""
        return self.members[rows]

    def locate_shard(self, number: int) -> tuple[Storage, Shard, str]:
        """Return the storage of shard `number` of `shards`, this shard, and its name in messages."""
        shard = self.shards[number]
        return self.storage, shard, shard.file

    def images_shown(self, nimg: int) -> dict[str, float]:
        """Return no metrics, an empty dict: only several datasets report how many of the first `nimg` images are of each."""
        return {}

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()  # without `members`: the unpickling process maps the file itself
        return {**state, "__dict__": {name: value for name, value in state["__dict__"].items() if name != "members"}}


def _is_encodable(name: str) -> bool:
    """Return whether a text can be the name of a file: half of a surrogate pair can only stand for a byte that is not UTF-8."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def _is_too_long(name: str) -> bool:
    """Return whether a path has more than LONGEST_PATH bytes, or a part of it more than file systems allow."""
    encoded = os.fsencode(name)
    return len(encoded) > LONGEST_PATH or max(map(len, encoded.split(b"/"))) > LONGEST_PART


def _advice(error: OSError, folder: Path) -> str:
    """Return the end of an error message: how to get an index in `folder` that does not exist; empty for other errors."""
    if not isinstance(error, FileNotFoundError):
        return ""
    command = f"index {folder}" if any(path.is_file() for path in folder.glob(TARS)) else "write"
    return f"; write it with `wavegan shards {command}`"


@contextmanager
def new_index(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder for `save_members` and `Index.save`; their files move to `folder` when the block has ended.

    After an error in the block, the files in `folder` stay as they were. A kill while the files are moved leaves no index.json,
    which training refuses, rather than one beside the members.npy of another index. Creates `folder`.

    Raises:
        OSError: a file or folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prefix, suffix = _TEMPORARY.split("*")
    with TemporaryDirectory(prefix=prefix, suffix=suffix, dir=folder) as temporary, locked(Path(temporary, _LOCK)):
        yield Path(temporary)
        (folder / INDEX_FILE).unlink(missing_ok=True)
        for name in (MEMBERS_FILE, INDEX_FILE):
            fsync(folder)  # a power cut must not change the order
            Path(temporary, name).replace(folder / name)
        fsync(folder)


def remove_unfinished(folder: Path) -> None:
    """Delete the temporary folders of `new_index` in `folder` whose processes were killed. What cannot be deleted stays."""
    for temporary in folder.glob(_TEMPORARY):
        with suppress(OSError):
            with locked(temporary / _LOCK, wait=False, create=False) as exclusive:
                pass  # NFS keeps a deleted file until it is closed
            if exclusive:
                shutil.rmtree(temporary, ignore_errors=True)


def save_members(parts: Iterable[Members], folder: Path) -> str:
    """Write `members.npy` atomically into a folder and return its SHA-256 digest in hex, for `Index.members_sha256`.

    Args:
        parts: the rows of each shard, int64 [images, 3], in the order of the shards; only one of them is in memory at a time.
        folder: the folder.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_file(folder / MEMBERS_FILE, "wb") as file:
        count = 0
        _write_header(file, count)
        for rows in parts:
            file.write(np.ascontiguousarray(rows, dtype="<i8"))
            count += len(rows)
        file.seek(0)
        _write_header(file, count)  # NumPy pads headers so that they are equally long for any count
    return sha256(folder / MEMBERS_FILE)


def _write_header(file: IO[bytes], count: int) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (count, 3)})
