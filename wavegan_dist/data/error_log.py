"""The account of the bad: every shard and every image that cannot be read is named once and counted."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DataError:
    """Something that could not be read.

    `row` is the image's in the index and `image` its key; both are None where the shard as a whole is meant.
    """

    shard: str
    reason: str
    row: int | None = None
    image: str | None = None

    def __str__(self) -> str:
        return f"{self.shard}{f': {self.image}' if self.image else ''} {self.reason}"


@dataclass
class Account:
    """What was found so far, each thing once; an image that comes again in the next epoch is not counted again."""

    findings: dict[tuple[str, int | None], DataError] = field(default_factory=dict)

    def add(self, findings: Iterable[DataError]) -> list[DataError]:
        """Take these in; returns those that are new."""
        new = {(finding.shard, finding.row): finding for finding in findings}
        new = {key: finding for key, finding in new.items() if key not in self.findings}
        self.findings |= new
        return list(new.values())

    @property
    def images(self) -> int:
        """How many images could not be read."""
        return sum(row is not None for _, row in self.findings)

    @property
    def shards(self) -> int:
        """How many shards are missing, of the wrong size or damaged as a whole."""
        return sum(row is None for _, row in self.findings)
