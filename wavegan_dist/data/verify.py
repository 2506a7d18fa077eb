"""`wavegan shards verify` and `wavegan shards info`: check a dataset against its index, and describe it."""

import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from wavegan_dist.classes import Classes
from wavegan_dist.data.codec import DecodeError, decode
from wavegan_dist.data.folders import is_hidden
from wavegan_dist.data.formats import TARS
from wavegan_dist.data.forward_file import ForwardFile
from wavegan_dist.data.index import MEMBERS_FILE, BandStd, Index, Members, Selection
from wavegan_dist.data.labels import count_classes
from wavegan_dist.data.left_out import left_out_by_reason, summary
from wavegan_dist.data.loader import real_images
from wavegan_dist.data.remote import Answer
from wavegan_dist.data.scan import TRAINING_EXTENSIONS
from wavegan_dist.data.selection import chosen_samples
from wavegan_dist.data.shards import Shard
from wavegan_dist.data.storage import Storage
from wavegan_dist.data.tars import Contents
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import sha256
from wavegan_dist.images import images_in_grid, save_grid
from wavegan_dist.processes import parallel_map

SHEET_IMAGES = 64
CLASSES_SHOWN = 20
_UNKNOWN_ADVICE = "move it elsewhere, or index the folder again with `wavegan shards index`"


def verify_shards(path: Path, *, workers: int = 1) -> list[str]:
    """Check a dataset against its index: every shard's size and digest, and the position and label of every image.

    Each shard is read once; a remote one is read from where it is, and the cache is not used. A tar in the folder of a local
    dataset that the index does not list is a problem, too.

    Args:
        path: the folder of the index or its index.json.
        workers: number of worker processes.

    Returns:
        "FILE: PROBLEM" for each problem; empty if there is none.

    Raises:
        UsageError: index.json cannot be read or is inconsistent.
        WaveganError: a worker process died.
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
        _ShardCheck(index.storage, shard, rows, index.selection)
        for shard, rows in zip(index.shards, rows_of_shards, strict=True)
    ]
    problems += [f"{name}: not in the index, so training does not read it; {_UNKNOWN_ADVICE}" for name in unknown_tars(index)]
    results = tqdm(parallel_map(_problems, jobs, workers), "verify", len(jobs), unit="shard", disable=None)
    return problems + [f"{job.shard.file}: {problem}" for job, lines in zip(jobs, results, strict=True) for problem in lines]


def unknown_tars(index: Index) -> list[str]:
    """Return the names of the tars in the folder of a dataset that its index does not list, sorted; none for remote shards."""
    if index.storage.is_remote:
        return []
    tars = {path.name for path in index.folder.glob(TARS) if not is_hidden(path.name) and path.is_file()}
    unused = index.selection.unused_tars if index.selection else []
    return sorted(tars.difference(index.shards.files, unused))


def info(index: Index) -> dict[str, Any]:
    """Return what `wavegan shards info --json` prints, as JSON values.

    These are the content of index.json (`Index.content`), `bytes` (the size of all shards), `digest`, `class_counts` (the
    number of images of each class), `left_out` (see `left_out_by_reason`; empty for a remote index) and `unknown_tars` (names
    of the tars in the folder that the index does not list). Raises the errors of `Index.members`.
    """
    return index.content() | {
        "bytes": index.shards.total_bytes(),
        "digest": index.digest,
        "class_counts": count_classes(index),
        "left_out": left_out_by_reason(index.folder),
        "unknown_tars": unknown_tars(index),
    }


def info_table(index: Index) -> str:
    """Return the lines that `wavegan shards info` prints about a dataset, joined, without a newline at the end.

    Raises the errors of `Index.members`.
    """
    total = index.shards.total_bytes()
    shape = f"{index.count:,} RGB images of {index.size}x{index.size} px ({index.encoding})"
    head = (
        f"{shape} in {len(index.shards)} shards, {total:,} bytes",
        *([f"shards: {index.source}"] if index.source else []),
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
    """Write a PNG grid of SHEET_IMAGES images, fewer above 512 px or of a smaller dataset, always the same ones.

    If the shards are remote, the first images are shown, and no more than these are read. Otherwise, they are drawn from the
    whole dataset.

    Raises:
        UsageError: a local shard is missing, or members.npy is missing or malformed.
        WaveganError: an image cannot be read.
        OSError: the file cannot be written.
    """
    cells = images_in_grid(SHEET_IMAGES, index.size)
    count = min(cells, index.count)
    images = _first_images(index, count) if index.storage.is_remote else next(real_images(index, count, 0, count))
    save_grid(images, path, columns=math.isqrt(cells))


def _first_images(index: Index, count: int) -> Tensor:
    """Read the first `count` images of a dataset, at least 1, from the beginnings of its shards: uint8 [count, 3, size, size].

    The images are on the CPU.
    """
    images: list[Tensor] = []
    for shard in index.shards:
        if rows := index.members[len(images) : min(len(images) + shard.images, count)].tolist():
            decode_rows = partial(_decode_members, index.storage.url(shard.file), rows, index.size)
            images += index.storage.stream(shard.file, decode_rows)
        if len(images) == count:
            break
    return torch.stack(images)


def _decode_members(tar: str, rows: list[list[int]], size: int, answer: Answer) -> list[Tensor]:
    file, images = ForwardFile(answer.blocks), []
    for offset, length, _ in rows:
        file.seek(offset)
        try:
            images.append(torch.from_numpy(decode(file.read(length), size)).permute(2, 0, 1))
        except DecodeError as error:
            advice = "find all damage with `wavegan shards verify`"
            raise WaveganError(f"the image at byte {offset:,} of {tar} {error.reason}; {advice}") from error
    return images


class _ShardCheck(NamedTuple):
    """A shard to check, and what the index says about it."""

    storage: Storage
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
    """Return lines with the number of images of the CLASSES_SHOWN most frequent classes, and one with the number of others."""
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
    try:
        return job.storage.stream(job.shard.file, partial(_problems_of, job))
    except FileNotFoundError:
        return ["missing"]
    except OSError as error:
        return [f"cannot be read: {(error.strerror or str(error)).lower()}"]
    except WaveganError as error:  # a remote shard that cannot be read
        return [str(error)]


def _problems_of(job: _ShardCheck, answer: Answer) -> list[str]:
    name, shard, problems = job.storage.url(job.shard.file), job.shard, list[str]()
    file, contents = ForwardFile(answer.blocks), Contents(name, TRAINING_EXTENSIONS)
    try:
        contents.read(file)
    except WaveganError as error:
        problems.append(str(error))
    size, sha256 = file.finish()
    if size != shard.bytes:
        problems.insert(0, f"{size:,} bytes, the index says {shard.bytes:,}")
    elif sha256 != shard.sha256:
        problems.insert(0, "sha256 differs from the index: bytes have changed")
    indexed = set() if job.members is None else set(job.members[:, 0].tolist())
    if any(member.offset in indexed for member in contents.hidden):  # versions before 0.2.0 did not leave out hidden folders
        contents.members = sorted([*contents.members, *contents.hidden], key=lambda member: member.offset)
    contents.members = [member for member in contents.members if member.offset + member.size <= size]
    return problems + _differing_images(job, contents)


def _differing_images(job: _ShardCheck, contents: Contents) -> list[str]:
    """Return the problems that a comparison of the images in a tar with members.npy finds: one or none."""
    try:
        samples = contents.samples()
    except WaveganError as error:
        return [str(error)]
    if job.selection is not None:
        if job.members is None:
            return []
        samples = chosen_samples(samples, job.selection, job.members)
    if len(samples) != job.shard.images:
        return [f"{len(samples):,} complete images, the index says {job.shard.images:,}"]
    if job.members is None:
        return []
    rows = np.array([(image.offset, image.size, label) for image, label in samples], dtype=np.int64)
    wrong = np.flatnonzero((rows != job.members).any(axis=1)).tolist()
    if not wrong:
        return []
    return [f"{len(wrong):,} images differ from {MEMBERS_FILE} in position or label, first {samples[wrong[0]].image.key}"]
