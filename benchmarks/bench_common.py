"""What several benchmarks share: their command line, their input data and their result files."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / "results"


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows `description` with its line breaks."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def write_result(name: str, content: dict[str, Any]) -> None:
    """Write `content` to results/NAME.json and print the path."""
    path = RESULTS / f"{name}.json"
    write_json(path, content)
    print(path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, and its folder if it is missing."""
    from wavegan_dist.files import atomic_file

    with atomic_file(path) as file:
        json.dump(content, file, indent=2)


def write_smooth_noise(folder: Path, count: int = 8) -> None:
    """Write `count` RGB PNGs of 288 px into `folder`, which may exist: random colors on a 16 x 16 grid, interpolated."""
    folder.mkdir(exist_ok=True)
    draws = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(draws.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        coarse.resize((288, 288), Image.Resampling.BICUBIC).save(folder / f"{number}.png")


def fake_index(size: int, detail_std: float = 1.0) -> Any:
    """Return a `wavegan_dist.data.Index` without shards, for a trainer whose batches do not come from a loader.

    Args:
        size: image side in pixels.
        detail_std: standard deviation of the bands lh, hl and hh of every level; that of the low bands is 1.
    """
    from wavegan_dist.config import deepest_level
    from wavegan_dist.data import Index
    from wavegan_dist.data.index import BandStd
    from wavegan_dist.data.shards import Shard

    shard = Shard(file="none.tar", images=1, bytes=1, sha256="0" * 64)
    band_std = BandStd(low=1, lh=detail_std, hl=detail_std, hh=detail_std)
    deeper = [band_std] * (deepest_level(size) - 1)
    return Index(
        size=size,
        count=1,
        encoding="png",
        band_std=band_std,
        deeper_band_std=deeper,
        members_sha256="0" * 64,
        shards=[shard],
    )
