"""The index of a dataset: `index.json` describes its shards, `members.npy` the position and label of every image."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from wavegan_dist.config import FileKind
from wavegan_dist.data.formats import TARS
from wavegan_dist.data.order import Order, RowIndices
from wavegan_dist.data.storage import Storage, locate
from wavegan_dist.errors import UsageError
from wavegan_dist.files import atomic_file, sha256

INDEX_FILE = "index.json"
MEMBERS_FILE = "members.npy"
INDEX = FileKind(
    "index of shards",
    "write the dataset again with `wavegan shards write`, or index its tars with `wavegan shards index`",
    json.loads,
    always_advise=True,
)
_MEMBERS_ADVICE = "copy it again, or create it again with `wavegan shards index`"

Members = NDArray[np.int64]  # [images, 3]; columns: offset of the encoded image in its shard, size in bytes, label or -1


class IndexModel(BaseModel):
    """Base class of the index's models: unknown keys are errors, and instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Shard(IndexModel):
    """One tar of the dataset."""

    file: str = Field(description="name of the tar, in the folder of index.json")
    images: int = Field(ge=1)
    bytes: int = Field(ge=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @field_validator("file")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if Path(value).name != value:
            raise ValueError(f"'{value}' is not the plain name of a file beside index.json")
        return value


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
    size: int = Field(ge=2, description="image side in pixels")
    channels: Literal[3] = 3
    count: int = Field(ge=1, description="images in all shards")
    encoding: Literal["png", "jpg", "webp", "mixed"]
    classes: list[str] = Field([], description="names of the labels 0, 1, ...; empty if unknown")
    band_std: BandStd
    deeper_band_std: list[BandStd] = Field([], description="of levels 2, 3, ...; empty in an index of an older version")
    selection: Selection | None = Field(None, description="of some images of the tars; null: the dataset has all of them")
    members_sha256: str = Field(pattern="^[0-9a-f]{64}$", description="digest of members.npy")
    shards: list[Shard] = Field(min_length=1)
    _storage: Storage = PrivateAttr(default=Storage(".", None, 0))

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = sum(shard.images for shard in self.shards)
        if total != self.count:
            raise ValueError(f"count is {self.count} but the shards list {total} images")
        return self

    @classmethod
    def load(cls, location: str | Path, cache: Path | None = None, cache_bytes: int = 0) -> "Index":
        """Read the index of a dataset, `index.json`. It is never taken from the cache, which is for the other files.

        Args:
            location: path of the index or of its folder, the URL of either, or pipe:COMMAND; {file} stands for a file name.
            cache: folder on this node for the files of a remote dataset, which needs one; see `Storage`.
            cache_bytes: largest size of the cache; a larger file is refused. Not used for a local dataset.

        Raises:
            UsageError: a local index is missing, the content is not JSON, a key is missing, unknown or has an impossible value,
                a remote dataset has no cache, or a pipe lacks {file}.
            WaveganError: a remote index cannot be read, for example because it is missing.
        """
        storage, name = locate(location, cache, cache_bytes)
        path = f"{storage.base}/{name}"
        try:
            content = storage.read(name)
        except OSError as error:
            raise UsageError(f"cannot read the index {path}: {error.strerror}{_advice(error, Path(storage.base))}") from error
        index = INDEX.validate(cls, INDEX.parse(content, path), path)
        index._storage = storage
        return index

    def save(self, folder: Path) -> None:
        """Write `index.json` atomically into the folder of the shards."""
        with atomic_file(folder / INDEX_FILE) as file:
            file.write(json.dumps(self.content(), indent=1) + "\n")

    def content(self) -> dict[str, Any]:
        """Return the content of `index.json`. Fields that an index of an older version lacks are left out if they are empty."""
        return self.model_dump(exclude={name for name in ("deeper_band_std", "selection") if not getattr(self, name)})

    def band_std_by_level(self) -> list[BandStd]:
        """Return the standard deviations of the bands of levels 1, 2, ..., as many as were measured."""
        return [self.band_std, *self.deeper_band_std]

    @property
    def folder(self) -> Path:
        """Folder of the shards. Only for a local dataset: the path of a remote one (`storage.is_remote`) has no meaning."""
        return Path(self.storage.base)

    @property
    def storage(self) -> Storage:
        """Access to the files of the dataset."""
        return self._storage

    @property
    def digest(self) -> str:
        """SHA-256 of the index's content. Datasets with equal digests hold the same images in the same order."""
        canonical = json.dumps(self.content(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Row of each shard's first image in `members`, followed by `count`: int64 [shards + 1]."""
        return np.cumsum([0, *(shard.images for shard in self.shards)], dtype=np.int64)

    @cached_property
    def members(self) -> Members:
        """Position and label of each image: int64 [count, 3], memory-mapped from `members.npy`.

        Columns: offset of the encoded image in its shard in bytes, size in bytes, label (-1 if the image has none). Rows follow
        the order of `shards` and, within a shard, of its tar. The digest is checked by `wavegan shards verify` only.

        Raises:
            UsageError: members.npy is missing, not a NumPy array, or has another shape or dtype.
        """
        path = self.storage.local(MEMBERS_FILE, None, self.members_sha256)
        try:
            rows: Members = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}; {_MEMBERS_ADVICE}") from error
        except (ValueError, EOFError) as error:
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
        """Return the order of the images in training."""
        return Order(self.starts, seed)

    def entries(self, rows: RowIndices) -> Members:
        """Return the rows of `members` of some images: int64 [len(rows), 3]."""
        return self.members[rows]

    def locate_shard(self, number: int) -> tuple[Storage, Shard, str]:
        """Return the storage of a shard, the shard, and its name in messages."""
        shard = self.shards[number]
        return self.storage, shard, shard.file

    def images_shown(self, nimg: int) -> dict[str, float]:
        """Return the number of images of each set among the first `nimg`, as metrics; none, because there is one set."""
        return {}

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()  # without `members`: the unpickling process maps the file itself
        return {**state, "__dict__": {name: value for name, value in state["__dict__"].items() if name != "members"}}


def _advice(error: OSError, folder: Path) -> str:
    """Say how to get an index that does not exist."""
    if not isinstance(error, FileNotFoundError):
        return ""
    command = f"index {folder}" if any(path.is_file() for path in folder.glob(TARS)) else "write"
    return f"; write it with `wavegan shards {command}`"


def save_members(rows: Members, folder: Path) -> str:
    """Write `members.npy` atomically into the folder of the shards and return its SHA-256 digest for the index."""
    with atomic_file(folder / MEMBERS_FILE, "wb") as file:
        np.save(file, rows)
    return sha256(folder / MEMBERS_FILE)
