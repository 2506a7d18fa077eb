"""`wavegan shards verify` and `info`: does the disk hold what the index says, and what is that."""

import tarfile
from pathlib import Path
from typing import Any

from wavegan_dist.data.index import Index, Shard
from wavegan_dist.files import sha256


def verify_shards(path: Path) -> list[str]:
    """Compare every shard with the index: there, its bytes, its hash, its number of images.

    Args:
        path: the folder of the shards or its index.json.

    Returns:
        One line for each problem, empty where all is well.

    Raises:
        UsageError: the index itself cannot be read or does not add up.
    """
    index = Index.load(path)
    return [f"{shard.file}: {problem}" for shard in index.shards for problem in _problems(index, shard)]


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
        f"standard deviation of the Haar bands: {bands}",
        f"digest {index.digest}",
        f"{'shard':<20} {'images':>8} {'bytes':>14}  sha256",
    )
    rows = [f"{shard.file:<20} {shard.images:>8,} {shard.bytes:>14,}  {shard.sha256[:16]}" for shard in index.shards]
    return "\n".join((*head, *rows))


def _problems(index: Index, shard: Shard) -> list[str]:
    path = index.folder / shard.file
    if not path.is_file():
        return ["missing"]
    problems = []
    size = path.stat().st_size
    if size != shard.bytes:
        problems.append(f"{size:,} bytes, the index says {shard.bytes:,}")
    elif sha256(path) != shard.sha256:
        problems.append("sha256 differs from the index: bytes have changed")
    images = _count(path, index.encoding)
    if images != shard.images:
        problems.append(f"{images:,} whole images, the index says {shard.images:,}")
    return problems


def _count(path: Path, encoding: str) -> int:
    """Images that can be taken out of the tar before it ends or breaks off."""
    images = 0
    try:
        with tarfile.open(path, "r|") as tar:
            for member in tar:
                content = tar.extractfile(member)
                if content and member.name.endswith(f".{encoding}") and len(content.read()) == member.size:
                    images += 1
    except tarfile.TarError:
        pass
    return images
