"""`wavegan shards verify` and `info`: does the disk hold what the index says, and what is that."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from wavegan_dist.data.index import MEMBERS_FILE, Index, Members, Shard
from wavegan_dist.data.indexing import TRAINABLE
from wavegan_dist.data.loader import real_images
from wavegan_dist.data.tars import Member, key_at, pair, walk
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import sha256
from wavegan_dist.images import save_grid
from wavegan_dist.processes import parallel_map

SHEET = 64  # images of a contact sheet


def verify_shards(path: Path, *, workers: int = 1) -> list[str]:
    """Compare every shard with the index: there, its bytes, its hash, its images, and where the index says that they lie.

    Args:
        path: the folder of the shards or its index.json.
        workers: processes.

    Returns:
        One line for each problem, empty where all is well.

    Raises:
        UsageError: index.json cannot be read or does not add up.
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
    parts = np.split(members, index.starts[1:-1]) if members is not None else [None] * len(index.shards)
    jobs = [_Job(index.folder / shard.file, shard, rows) for shard, rows in zip(index.shards, parts, strict=True)]
    found = tqdm(parallel_map(_problems, jobs, workers), "verify", len(jobs), unit="shard", disable=None)
    return problems + [f"{job.shard.file}: {problem}" for job, lines in zip(jobs, found, strict=True) for problem in lines]


def info(index: Index) -> dict[str, Any]:
    """The index as `wavegan shards info --json` prints it: its content, the total of bytes and the digest."""
    return index.model_dump() | {"bytes": sum(shard.bytes for shard in index.shards), "digest": index.digest}


def info_table(index: Index) -> str:
    """The index as `wavegan shards info` prints it."""
    total = sum(shard.bytes for shard in index.shards)
    shape = f"{index.count:,} RGB images of {index.size}x{index.size} px ({index.encoding})"
    bands = ", ".join(f"{band} {value:.4f}" for band, value in index.band_std)
    head = (
        f"{shape} in {len(index.shards)} shards, {total:,} bytes",
        f"labels: {_labels(index)}",
        f"standard deviation of the Haar bands: {bands}",
        f"digest {index.digest}",
        f"{'shard':<20} {'images':>8} {'bytes':>14}  sha256",
    )
    rows = [f"{shard.file:<20} {shard.images:>8,} {shard.bytes:>14,}  {shard.sha256[:16]}" for shard in index.shards]
    return "\n".join((*head, *rows))


def save_sheet(index: Index, path: Path) -> None:
    """Write a PNG of SHEET images of the set, or of all if there are fewer; always the same ones. Errors as `real_images`."""
    count = min(SHEET, index.count)
    save_grid(next(real_images(index, count, 0, count)), path)


class _Job(NamedTuple):
    path: Path
    shard: Shard
    members: Members | None


def _labels(index: Index) -> str:
    labels = index.members[:, 2]
    labelled = labels[labels >= 0]
    names = ", ".join(index.classes[:5]) + (", ..." if len(index.classes) > 5 else "")
    of = "" if len(labelled) == len(labels) else f", on {len(labelled):,} images"
    return f"{len(np.unique(labelled))} classes{of}{f' ({names})' if names else ''}" if len(labelled) else "none"


def _problems(job: _Job) -> list[str]:
    path, shard = job.path, job.shard
    if not path.is_file():
        return ["missing"]
    problems = []
    size = path.stat().st_size
    if size != shard.bytes:
        problems.append(f"{size:,} bytes, the index says {shard.bytes:,}")
    elif sha256(path) != shard.sha256:
        problems.append("sha256 differs from the index: bytes have changed")
    return problems + _content_problems(job, size)


def _content_problems(job: _Job, size: int) -> list[str]:
    """What a walk through the tar shows: damage, a wrong number of images, images elsewhere than members.npy says."""
    problems = []
    whole: list[Member] = []
    try:
        for member in walk(job.path):
            whole += [member] * (member.offset + member.size <= size)
    except WaveganError as error:
        problems.append(str(error))
    try:
        samples = pair(job.path, whole, TRAINABLE)
    except WaveganError as error:
        return [*problems, str(error)]
    if len(samples) != job.shard.images:
        problems.append(f"{len(samples):,} whole images, the index says {job.shard.images:,}")
    elif job.members is not None:
        rows = np.array([(image.offset, image.size, label) for image, label in samples], dtype=np.int64)
        wrong = np.flatnonzero((rows != job.members).any(axis=1)).tolist()
        if wrong:
            key = key_at(job.path, int(rows[wrong[0], 0]))
            problems.append(f"{len(wrong):,} images lie elsewhere than {MEMBERS_FILE} says or have another label, first {key}")
    return problems
