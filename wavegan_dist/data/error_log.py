"""Errors of shards and images that cannot be read, and the log of a run that lists each of these shards and images once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from wavegan_dist.data.mixture import TrainingData
from wavegan_dist.errors import WaveganError
from wavegan_dist.files import append_json_lines, read_json_lines
from wavegan_dist.processes import Group, on_main, together

SHARD_UNREADABLE = "is in a shard that cannot be read"  # reason of an image's error


@dataclass(frozen=True)
class DataError:
    """One shard or one image that cannot be read.

    Args:
        shard: file name of the shard; NAME_OF_SET/FILE if training mixes several datasets.
        reason: the error message without its subject, which is the image or the shard, such as "is cut short".
        row: row of the image in the index or the mixture; None if the error concerns the shard as a whole.
        image: key of the image; None if the error concerns the shard as a whole.
    """

    shard: str
    reason: str
    row: int | None = None
    image: str | None = None

    def __str__(self) -> str:
        return f"{self.shard}{f': {self.image}' if self.image else ''} {self.reason}"


class DataErrorLog:
    """Lists and counts the shards and images that any rank of a run could not read, each one once.

    Each rank passes `record` to `training_batches` as `on_errors`, and iterates in the context `listed`; all ranks together
    call `sync` whenever the run reports its metrics. An image that fails again in a later epoch is neither listed nor counted
    again. The lines of an existing file count, too: a resumed run continues its log; `recheck` takes out those that have been
    repaired.

    Args:
        group: the process group.
        path: the file to append to, one JSON object per line. Every rank reads it once, at construction; only rank 0 writes.
        index: the dataset or datasets.
        max_bad_fraction: largest fraction of the images of `index` that may be unreadable; `sync` checks it.

    Raises:
        OSError: an existing file cannot be read.
    """

    def __init__(self, group: Group, path: Path, index: TrainingData, max_bad_fraction: float) -> None:
        self.group, self.path, self.index, self.max_bad_fraction = group, path, index, max_bad_fraction
        self._listed: dict[tuple[str, int | None], DataError] = {}  # by shard and row, in the order of the file
        self._pending: list[DataError] = []
        self._add([error for entry in read_json_lines(path) if (error := _parse(entry)) is not None])

    def record(self, errors: Sequence[DataError]) -> None:
        """Store errors of this rank until the next `sync`. Not collective."""
        self._pending += errors

    @contextmanager
    def listed(self) -> Iterator[None]:
        """Context in which `record` is called: if a WaveganError ends it, rank 0 appends its own new errors to the file first.

        Not collective. If no image of a global batch can be read, which ends all ranks, each rank has recorded all its images.
        """
        try:
            yield
        except WaveganError:
            if self.group.is_main_process and self._pending:
                with suppress(OSError):  # of two errors, the first is raised
                    append_json_lines(self.path, map(asdict, self._add(self._pending)))
            raise

    def recheck(self, unreadable: Callable[[Sequence[int]], list[int]]) -> None:
        """If more images are listed than `max_bad_fraction` allows, uncount those that can be read by now. Collective.

        A run that unreadable images have stopped can thus be resumed once the dataset has been repaired. The file keeps the
        entries.

        Args:
            unreadable: called on rank 0; returns those of the given rows of the dataset that cannot be read.

        Raises:
            WaveganError: on all ranks, the errors of `unreadable`.
        """
        rows = [row for _, row in self._listed if row is not None]
        if len(rows) > self.max_bad_fraction * self.index.count:
            bad = set(on_main(self.group, lambda: unreadable(rows), "reading images that could not be read before"))
            shards = {shard for shard, row in self._listed if row in bad}
            still = {(shard, row) for shard, row in self._listed if row in bad or (row is None and shard in shards)}
            self._listed = {key: self._listed[key] for key in self._listed if key in still}

    def sync(self) -> dict[str, float]:
        """Gather the recorded errors of all ranks and append the new ones to the file. Collective.

        Returns:
            On all ranks, "data/bad_images" and "data/bad_shards": the number of unreadable images and of damaged or missing
            shards, those that the file listed at construction included.

        Raises:
            WaveganError: on all ranks, if more images than `max_bad_fraction` allows cannot be read, or rank 0 cannot write the
                file.
        """
        errors = gather_object(self._pending)
        self._pending = []
        if errors:
            with together(self.group, "listing unreadable images"):
                new = self._add(errors)
                if new and self.group.is_main_process:
                    append_json_lines(self.path, map(asdict, new))
        images = sum(row is not None for _, row in self._listed)
        if images > self.max_bad_fraction * self.index.count:
            last = list(self._listed.values())[-1]
            raise WaveganError(
                f"{images} of {self.index.count} images cannot be read, more than data.max_bad_fraction = "
                f"{self.max_bad_fraction:g} allows; last {cause(last, self._listed.values())}; {self.path} lists them; "
                "repair the dataset or raise the limit"
            )
        return {"data/bad_images": float(images), "data/bad_shards": float(len(self._listed) - images)}

    def _add(self, errors: Sequence[DataError]) -> list[DataError]:
        """Mark errors as listed; return those that were not listed before, the last one only of each image and each shard."""
        new = {(error.shard, error.row): error for error in errors if (error.shard, error.row) not in self._listed}
        self._listed |= new
        return list(new.values())


def cause(error: DataError, errors: Iterable[DataError]) -> DataError:
    """Return the error that explains `error`.

    If the reason of `error` is SHARD_UNREADABLE, this is the error of the whole shard among `errors`. For another reason, or if
    `errors` has no such error, it is `error`.
    """
    if error.reason != SHARD_UNREADABLE:
        return error
    return next((other for other in errors if other.row is None and other.shard == error.shard), error)


def _parse(entry: dict[str, Any]) -> DataError | None:
    """Return the error in a line of the file; None if the keys are not those of `DataError`: the error counts as not listed."""
    with suppress(TypeError):
        return DataError(**entry)
    return None
