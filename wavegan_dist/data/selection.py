"""Choose images of tars at the time of indexing, by class or by key: the tars are not changed."""

from collections.abc import Sequence, Set
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

from wavegan_dist.classes import Classes
from wavegan_dist.config import LARGEST_COUNT
from wavegan_dist.data.index import Members, Selection
from wavegan_dist.data.tars import Sample
from wavegan_dist.errors import UsageError


@cache  # worker processes are forked with the result
def read_keys(path: Path) -> frozenset[str]:
    """Read a list of keys, one a line; empty lines are ignored.

    The result is cached (`functools.cache`), also for forked processes: changes of the file are seen only after
    `read_keys.cache_clear()`.

    Raises:
        UsageError: the file has no key or cannot be read.
    """
    return frozenset(_lines(path, "keys"))


def read_class_names(path: Path) -> list[str]:
    """Read the names of the classes 0, 1, ..., one a line; empty lines are ignored.

    Raises:
        UsageError: the file cannot be read, has no name, or has a name twice.
    """
    names = _lines(path, "names of classes")
    if len(set(names)) < len(names):
        raise UsageError(f"{path} has the name {max(names, key=names.count)} twice; give each class its own")
    return names


def check_class_names(path: Path, names: Sequence[str], counts: Sequence[int]) -> None:
    """Check that each class has a name.

    Args:
        path: the file of the names, for the message.
        names: the names of the classes 0, 1, ...
        counts: number of images of each class 0, 1, ...

    Raises:
        UsageError: `counts` is longer than `names`.
    """
    if len(counts) > len(names):
        raise UsageError(
            f"{path} has {len(names)} names, but there are labels up to {len(counts) - 1}; name each class from 0 on"
        )


def _lines(path: Path, what: str) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the {what} in {path}: {getattr(error, 'strerror', None) or error}") from error
    if not any(lines):
        raise UsageError(f"{path} is empty; write {what} into it, one a line")
    return [line for line in lines if line]


def check_keys(path: Path, found: Set[str]) -> None:
    """Raise UsageError unless each key in the file `path` is in `found`, the keys of the images in the tars."""
    keys = read_keys(path)
    if missing := sorted(keys - found):
        raise UsageError(f"{len(missing)} of {len(keys)} keys in {path} are in no tar, first {missing[0]}; correct the list")


def parse_classes(text: str, counts: Sequence[int], names: Sequence[str]) -> list[int]:
    """Read a comma-separated list of classes, by number or name, as `Classes.parse` does.

    Args:
        text: the list.
        counts: number of images with each label 0, 1, ...
        names: names of the labels 0, 1, ...; empty if unknown.

    Returns:
        Each label once, in the order of the list.

    Raises:
        UsageError: there is no such class, no image has it, or no image has a label at all.
    """
    if not any(counts):
        raise UsageError(f"--classes {text}, but no image has a label; give each image a .cls member")
    counts = [*counts, *[0] * (len(names) - len(counts))]
    classes = Classes(counts, names)
    chosen = list(dict.fromkeys(classes.parse(text)))
    for label in chosen:
        if not counts[label]:
            raise UsageError(f"--classes {text}: no image has the class {classes.name(label)}; leave it out")
    return chosen


def expected_classes(text: str, names: Sequence[str]) -> list[int]:
    """Read a list of classes as `parse_classes` does before the labels are known: every possible label is taken for a class.

    Returns:
        Each label once, in the order of the list.

    Raises:
        UsageError: a part is neither a possible label nor one of `names`.
    """
    with suppress(UsageError):
        return list(dict.fromkeys(Classes(range(LARGEST_COUNT), names).parse(text)))
    if not names:
        raise UsageError(f"--classes {text}: the names of the classes are unknown; give numbers, or names with --class-names")
    return Classes(range(len(names)), names).parse(text)  # raises an error that tells the names


def choose_by_class(members: Members, chosen: Sequence[int]) -> Members:
    """Return a copy of the rows whose label is chosen, in their order, with the label's position in `chosen` as new label.

    Args:
        members: int64 [images, 3] as in `Index.members`.
        chosen: labels, at least one and each once.
    """
    labels = members[:, 2]
    positions = np.full(max(*chosen, int(labels.max(initial=0))) + 2, -1, dtype=np.int64)
    positions[list(chosen)] = np.arange(len(chosen))  # the last element stays -1, for images without a label
    return np.column_stack((members[:, :2], positions[labels]))[positions[labels] >= 0]


def chosen_samples(samples: Sequence[Sample], selection: Selection, members: Members) -> list[Sample]:
    """Return those images of a tar that are in a dataset, with the labels that the index should give them.

    Args:
        samples: all images of the tar, with their labels in the tar.
        selection: the choice of the dataset, which renumbers the labels unless `selection.labels` is empty.
        members: rows of this tar in the index, int64 [images, 3]; an image whose offset is in no row is left out.

    Returns:
        Samples in the order of `samples`; the label is -1 for a label that was not chosen.
    """
    offsets = set(members[:, 0].tolist())
    position = {label: number for number, label in enumerate(selection.labels)}
    return [
        Sample(image, position.get(label, -1) if position else label) for image, label in samples if image.offset in offsets
    ]
