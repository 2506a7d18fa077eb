"""`wavegan shards verify` and `wavegan shards info`: check a dataset against its index, and describe it."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from wavegan_dist.classes import Classes
from wavegan_dist.data.folders import is_hidden
from wavegan_dist.data.formats import TARS
from wavegan_dist.data.index import MEMBERS_FILE, BandStd, Index, Members, Selection, Shard
from wavegan_dist.data.indexing import TRAINING_EXTENSIONS
from wavegan_dist.data.labels import count_classes
from wavegan_dist.data.left_out import left_out_by_reason, summary
from wavegan_dist.data.loader import real_images
from wavegan_dist.data.selection import chosen_samples
from wavegan_dist.data.tars import Member, key_at, pair_labels, walk
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import sha256
from wavegan_dist.images import images_in_grid, save_grid
from wavegan_dist.processes import parallel_map

SHEET_IMAGES = 64
CLASSES_SHOWN = 20
_UNKNOWN_ADVICE = "move it elsewhere, or index the folder again with `wavegan shards index`"


def verify_shards(path: Path, *, workers: int = 1) -> list[str]:
    """Check a local dataset against its index: every shard's size and digest, and the position and label of every image.

    A tar in the folder that the index does not list is a problem, too.

    Args:
        path: the folder of the shards or its index.json.
        workers: number of worker processes.

    Returns:
        One line for each problem; empty if there is none.

    Raises:
        UsageError: index.json cannot be read or is inconsistent.
    """
    index = Index.load(path)
    problems = []
    try:
        if sha256(index.folder / MEMBERS_FILE) != index.members_sha256:
            problems.append(f"{MEMBERS_FILE}: sha256 differs from the index: bytes have changed")
        members: Members | None = index.members
    except (UsageError, OSError) as error:
        problems.append(f"{MEMBERS_FILE}: {error}")
        members = None
    rows_of_shards = np.split(members, index.starts[1:-1]) if members is not None else [None] * len(index.shards)
    jobs = [
        _ShardCheck(index.folder / shard.file, shard, rows, index.selection)
        for shard, rows in zip(index.shards, rows_of_shards, strict=True)
    ]
    problems += [f"{name}: not in the index, so training does not read it; {_UNKNOWN_ADVICE}" for name in unknown_tars(index)]
    results = tqdm(parallel_map(_problems, jobs, workers), "verify", len(jobs), unit="shard", disable=None)
    return problems + [f"{job.shard.file}: {problem}" for job, lines in zip(jobs, results, strict=True) for problem in lines]


def unknown_tars(index: Index) -> list[str]:
    """List the tars in the folder of a dataset that its index does not know; none if the dataset is remote."""
    if index.storage.is_remote:
        return []
    tars = {path.name for path in index.folder.glob(TARS) if not is_hidden(path.name) and path.is_file()}
    unused = index.selection.unused_tars if index.selection else []
    return sorted(tars - {shard.file for shard in index.shards} - set(unused))


def info(index: Index) -> dict[str, Any]:
    """Return what `wavegan shards info --json` prints: the content of index.json, the total size in bytes, the digest, the
    number of images of each class, the number of files of the source that are not in the dataset by reason, and the tars that
    the index does not know."""
    return index.content() | {
        "bytes": sum(shard.bytes for shard in index.shards),
        "digest": index.digest,
        "class_counts": count_classes(index),
        "left_out": left_out_by_reason(index.folder),
        "unknown_tars": unknown_tars(index),
    }


def info_table(index: Index) -> str:
    """Format the index as `wavegan shards info` prints it."""
    total = sum(shard.bytes for shard in index.shards)
    shape = f"{index.count:,} RGB images of {index.size}x{index.size} px ({index.encoding})"
    head = (
        f"{shape} in {len(index.shards)} shards, {total:,} bytes",
        *([f"chosen from the {index.selection.images:,} images of the tars"] if index.selection else []),
        f"labels: {_labels(index)}",
        *_class_lines(index),
        *(
            f"standard deviation of the Haar bands of level {level}: {_bands(std)}"
            for level, std in enumerate(index.band_std_by_level(), start=1)
        ),
        f"digest {index.digest}",
        f"{'shard':<20} {'images':>8} {'bytes':>14}  sha256",
    )
    rows = [f"{shard.file:<20} {shard.images:>8,} {shard.bytes:>14,}  {shard.sha256[:16]}" for shard in index.shards]
    notes = [f"left out: {line}" for line in summary(left_out_by_reason(index.folder))]
    notes += [f"not in the index: {name}; {_UNKNOWN_ADVICE}" for name in unknown_tars(index)]
    return "\n".join((*head, *rows, *notes))


def save_sheet(index: Index, path: Path) -> None:
    """Write a PNG grid of SHEET_IMAGES images, fewer above 512 px, always the same ones. Raises the errors of `real_images`."""
    cells = images_in_grid(SHEET_IMAGES, index.size)
    count = min(cells, index.count)
    save_grid(next(real_images(index, count, 0, count)), path, columns=math.isqrt(cells))


class _ShardCheck(NamedTuple):
    """A shard to check, and what the index says about it."""

    path: Path
    shard: Shard
    members: Members | None  # rows of the shard; None if members.npy cannot be read
    selection: Selection | None


def _labels(index: Index) -> str:
    counts = count_classes(index)
    labeled, used = sum(counts), len(counts) - counts.count(0)
    names = ", ".join(index.classes[:5]) + (", ..." if len(index.classes) > 5 else "")
    partial = "" if labeled == index.count else f", on {labeled:,} images"
    return f"{used} classes{partial}{f' ({names})' if names else ''}" if labeled else "none"


def _class_lines(index: Index) -> list[str]:
    """Format the number of images of each class, the most frequent CLASSES_SHOWN of them."""
    counts = count_classes(index)
    frequent = sorted(range(len(counts)), key=lambda label: (-counts[label], label))
    classes, labeled = Classes(counts, index.classes), sum(counts)
    lines = [
        f"  class {label}{f' ({classes.name(label)})' if index.classes else ''}: {counts[label]:,} images, "
        f"{counts[label] / labeled:.1%}"
        for label in frequent[:CLASSES_SHOWN]
        if labeled
    ]
    return lines + ([f"  and {len(counts) - CLASSES_SHOWN} more classes"] if len(counts) > CLASSES_SHOWN else [])


def _bands(std: BandStd) -> str:
    return ", ".join(f"{band} {value:.4f}" for band, value in std)


def _problems(job: _ShardCheck) -> list[str]:
    path, shard = job.path, job.shard
    if not path.is_file():
        return ["missing"]
    problems = []
    size = path.stat().st_size
    try:
        if size != shard.bytes:
            problems.append(f"{size:,} bytes, the index says {shard.bytes:,}")
        elif sha256(path) != shard.sha256:
            problems.append("sha256 differs from the index: bytes have changed")
        return problems + _content_problems(job, size)
    except OSError as error:
        return [*problems, f"cannot be read: {(error.strerror or str(error)).lower()}"]


def _content_problems(job: _ShardCheck, size: int) -> list[str]:
    """Walk through the tar and compare its images with members.npy."""
    problems = []
    complete: list[Member] = []
    try:
        for member in walk(job.path):
            complete += [member] * (member.offset + member.size <= size)
    except WaveganError as error:
        problems.append(str(error))
    try:
        samples = pair_labels(job.path, complete, TRAINING_EXTENSIONS)
    except WaveganError as error:
        return [*problems, str(error)]
    if job.selection is not None:
        if job.members is None:
            return problems
        samples = chosen_samples(samples, job.selection, job.members)
    if len(samples) != job.shard.images:
        problems.append(f"{len(samples):,} complete images, the index says {job.shard.images:,}")
    elif job.members is not None:
        rows = np.array([(image.offset, image.size, label) for image, label in samples], dtype=np.int64)
        wrong = np.flatnonzero((rows != job.members).any(axis=1)).tolist()
        if wrong:
            key = key_at(job.path, int(rows[wrong[0], 0]))
            problems.append(f"{len(wrong):,} images differ from {MEMBERS_FILE} in position or label, first {key}")
    return problems
