"""`index.json`: what a set of shards holds, to the image and to the byte."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from wavegan_dist.errors import UsageError
from wavegan_dist.files import atomic_file

INDEX_FILE = "index.json"


class Entry(BaseModel):
    """A part of the index: unknown keys and later changes are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Shard(Entry):
    """One tar of the set."""

    file: str = Field(description="name beside index.json")
    images: int = Field(ge=1)
    bytes: int = Field(ge=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @field_validator("file")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if Path(value).name != value:
            raise ValueError(f"'{value}' is not the plain name of a file beside index.json")
        return value


class BandStd(Entry):
    """Standard deviations of the Haar bands of the images scaled to [-1, 1], over all images and colours."""

    low: float
    lh: float
    hl: float
    hh: float


class Index(Entry):
    """A set of shards: images are uint8 RGB, `size` x `size` pixels."""

    version: Literal[1] = 1
    size: int = Field(ge=2, description="image side in pixels")
    channels: Literal[3] = 3
    count: int = Field(ge=1, description="images in all shards")
    encoding: Literal["png", "jpg"]
    band_std: BandStd
    shards: list[Shard] = Field(min_length=1)
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = sum(shard.images for shard in self.shards)
        if total != self.count:
            raise ValueError(f"count is {self.count} but the shards list {total} images")
        return self

    @classmethod
    def load(cls, path: Path) -> "Index":
        """Read `index.json`, given by its own path or by its folder.

        Raises:
            UsageError: it is missing, not JSON, or a key is missing, unknown or impossible.
        """
        path = path / INDEX_FILE if path.is_dir() else path
        try:
            index = cls.model_validate(json.loads(path.read_text()))
        except OSError as error:
            raise UsageError(f"cannot read the index {path}: {error.strerror}; write it with `wavegan shards write`") from error
        except ValidationError as error:
            raise UsageError(f"{path} is not an index of shards: {_explain(error)}; {_ADVICE}") from error
        except ValueError as error:
            raise UsageError(f"{path} is not valid JSON ({error}); {_ADVICE}") from error
        index._folder = path.parent.absolute()
        return index

    def save(self, folder: Path) -> None:
        """Write `index.json` into the folder of the shards, whole or not at all."""
        with atomic_file(folder / INDEX_FILE) as file:
            file.write(json.dumps(self.model_dump(), indent=1) + "\n")

    @property
    def folder(self) -> Path:
        """Where the shards lie."""
        return self._folder

    @property
    def digest(self) -> str:
        """Sha256 of the content: two sets of the same digest hold the same images in the same order."""
        canonical = json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


_ADVICE = "write the set again with `wavegan shards write`"


def _explain(error: ValidationError) -> str:
    return "; ".join(f"{_key(detail['loc'])}{_reason(dict(detail))}" for detail in error.errors())


def _key(place: Sequence[int | str]) -> str:
    return f"'{'.'.join(str(part) for part in place)}' " if place else ""


def _reason(detail: dict[str, Any]) -> str:
    known = {"missing": "is missing", "extra_forbidden": "is unknown"}
    return known.get(detail["type"], str(detail["msg"]).removeprefix("Value error, "))
