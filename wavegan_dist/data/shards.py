"""The shards of a dataset in little memory: an index may list 100,000 of them, and every worker process holds it."""

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Self, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema
from typing_extensions import override

_PART = 1000  # shards that are validated at once


class IndexModel(BaseModel):
    """Base class of the index's models: unknown keys are errors, and instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Shard(IndexModel):
    """One tar of the dataset."""

    file: str = Field(description="name of the tar, in the folder of index.json or below the index's `source`")
    images: int = Field(ge=1, le=2**40)
    bytes: int = Field(ge=1, le=2**50)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Shards(Sequence[Shard]):
    """An immutable sequence of shards, stored by column: 100,000 objects would take 100 MB. A `Shard` is made when asked for.

    Attributes:
        files: `Shard.file` of each shard.
        images: `Shard.images` of each shard, int64 [shards].
    """

    def __init__(self, shards: Iterable[Shard]) -> None:
        self.files: list[str] = []
        images, sizes, digests = array("q"), array("q"), bytearray()
        for shard in shards:
            self.files.append(shard.file)
            images.append(shard.images)
            sizes.append(shard.bytes)
            digests += bytes.fromhex(shard.sha256)
        self.images: NDArray[np.int64] = np.frombuffer(images, dtype=np.int64)
        self._sizes, self._digests = sizes, bytes(digests)

    @override
    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, number: int) -> Shard: ...

    @overload
    def __getitem__(self, number: slice) -> list[Shard]: ...

    @override
    def __getitem__(self, number: int | slice) -> Shard | list[Shard]:
        if isinstance(number, slice):
            return [self[one] for one in range(len(self))[number]]
        number = range(len(self))[number]
        sha256 = self._digests[32 * number : 32 * number + 32].hex()
        return Shard(file=self.files[number], images=int(self.images[number]), bytes=self._sizes[number], sha256=sha256)

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shards) and self._columns() == other._columns()

    __hash__ = None  # type: ignore[assignment]

    def total_bytes(self) -> int:
        """Return the size of all shards in bytes."""
        return sum(self._sizes)

    def _columns(self) -> tuple[object, ...]:
        return self.files, self.images.tobytes(), self._sizes, self._digests

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        dump = core_schema.plain_serializer_function_ser_schema(lambda shards: [shard.model_dump() for shard in shards])
        listed = handler.generate_schema(Annotated[list[Shard], Field(min_length=1)])
        return core_schema.no_info_wrap_validator_function(cls._validate, listed, serialization=dump)

    @classmethod
    def _validate(cls, value: Any, validated: Callable[[Any], list[Shard]]) -> Self:
        if isinstance(value, cls):
            return value
        if not isinstance(value, list) or not value:
            return cls(validated(value))
        parts = (value[first : first + _PART] for first in range(0, len(value), _PART))
        try:
            return cls(shard for part in parts for shard in validated(part))
        except ValidationError:
            return cls(validated(value))  # raises the same errors, with the positions of the shards in the whole list
