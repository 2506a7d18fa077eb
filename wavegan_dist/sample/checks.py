"""Whether the options of `wavegan sample` fit together; every error is one line that names the option."""

import re
from collections.abc import Sequence
from pathlib import Path

from wavegan_dist.errors import UsageError
from wavegan_dist.model.snapshot import Snapshot, parse_class_option
from wavegan_dist.sample.target import Format

COUNT, WALK_COUNT = 64, 8  # number of images by default, and of the latents that a walk passes through
MAX_IMAGES = 10_000_000
MAX_GRID_PIXELS = 2**26  # 64 images of 1024 px; Pillow refuses to open pictures of more than 1.3 times as many
MAX_WALK_PIXELS = 2**28  # 4096 frames of 256 px, 256 of 1024 px; Pillow holds all frames in memory

_RANGE = re.compile(r"([0-9]{1,19})(?:-([0-9]{1,19}))?")


def parse_seeds(text: str | None) -> list[int]:
    """Return the seeds that `--seeds` lists, such as "1,5-8", in the order of the text; an empty list for None.

    Raises:
        UsageError: the text has another form, a seed is larger than 2^63 - 1 or occurs twice, or there are more than
            `MAX_IMAGES` seeds.
    """
    if text is None:
        return []
    ranges = [_seed_range(text, part.strip()) for part in text.split(",")]
    if sum(part.stop - part.start for part in ranges) > MAX_IMAGES:
        raise UsageError(f"--seeds {text}: more than {MAX_IMAGES:,} seeds; give fewer, or --seed and --count")
    seeds = [seed for part in ranges for seed in part]
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds {text}: a seed occurs twice; list each once, because files are named by their seed")
    return seeds


def _seed_range(text: str, part: str) -> range:
    match = _RANGE.fullmatch(part)
    if match and int(match[1]) <= (last := int(match[2] or match[1])) < 2**63:
        return range(int(match[1]), last + 1)
    raise UsageError(f"--seeds {text}: '{part}' is neither a seed nor a range of seeds; write 1,5-8, for example")


def number_of_images(count: int | None, seed: int | None, seeds: Sequence[int], walk: int | None) -> int:
    """Return the number of images, or of the latents of a walk.

    This is the number of `seeds` or, without seeds, `count`; by default COUNT, or WALK_COUNT for a walk.

    Args:
        count: value of `--count`; None if it was not given.
        seed: value of `--seed`; None if it was not given.
        seeds: the seeds of `--seeds`; empty if it was not given.
        walk: number of frames of a walk; None for other formats.

    Raises:
        UsageError: the number is less than 1 or more than `MAX_IMAGES`, or `seeds` come with a count or a seed.
    """
    if seeds:
        if count is not None or seed is not None:
            option = "--seed" if count is None else "--count"
            raise UsageError(f"{option} and --seeds exclude each other: --seeds makes one image of each seed")
        return len(seeds)
    if count is None:
        return COUNT if walk is None else WALK_COUNT
    if count < 1:
        raise UsageError(f"--count {count}: give at least one image")
    if count > MAX_IMAGES:
        raise UsageError(f"--count {count}: more than {MAX_IMAGES:,} images; make them with several seeds, a folder for each")
    return count


def check_classes(snapshot: Snapshot, text: str | None, count: int) -> list[int]:
    """Return the numbers of the classes that `--class` lists, in the order of the text; an empty list for None.

    Args:
        snapshot: the snapshot.
        text: value of `--class`; None if it was not given.
        count: number of images to make.

    Raises:
        UsageError: there is no such class, the snapshot has no classes, or `text` lists more classes than `count`.
    """
    classes = parse_class_option(snapshot, text)
    if count < len(classes):
        raise UsageError(f"--class {text}: {len(classes)} classes, but images: {count}; make at least {len(classes)} images")
    return classes


def check_truncation(truncation: float) -> None:
    """Raise UsageError unless 0 < truncation <= 1."""
    if not 0 < truncation <= 1:
        raise UsageError(f"--truncation {truncation:g}: give a number above 0 and at most 1; 1 changes nothing")


def check_size(out: Path, format: Format, count: int, resolution: int, walk: int | None, classes: Sequence[int]) -> None:
    """Check that a grid or a walk fits into memory, and that a number of frames is given for a walk and for no other format.

    Args:
        out: value of `--out`, for messages.
        format: the format.
        count: number of images, or of the latents of a walk.
        resolution: height and width of an image, in pixels.
        walk: number of frames of a walk; None if it was not given.
        classes: the classes of `--class`; empty if it was not given.

    Raises:
        UsageError: a grid or a walk is too large; a number of frames for another format than a walk; a walk without a number of
            frames, with several classes, with fewer than two latents, or with fewer frames than latents.
    """
    if format == "walk":
        _check_walk(out, count, resolution, walk, classes)
    elif walk is not None:
        raise UsageError(f"--walk {walk}: --out {out} is no animation; name a .webp or .gif file")
    elif format == "grid" and (pixels := count * resolution**2) > MAX_GRID_PIXELS:
        raise UsageError(
            f"--count {count}: a grid of {count} images of {resolution} px has {pixels / 1e6:.0f} million pixels, too many for "
            f"one picture; give at most --count {MAX_GRID_PIXELS // resolution**2}, or a folder as --out"
        )


def _check_walk(out: Path, count: int, resolution: int, frames: int | None, classes: Sequence[int]) -> None:
    """Check the options of a walk. The arguments are those of `check_size`; `frames` is its `walk`.

    Raises:
        UsageError: `frames` is None, there are several classes, `count` is less than 2, `frames` is less than `count`, or the
            frames have more than MAX_WALK_PIXELS pixels together.
    """
    if frames is None:
        raise UsageError(f"--out {out}: an animation needs a number of frames; add --walk 200, for example (25 a second)")
    if len(classes) > 1:
        raise UsageError(f"--walk {frames}: a walk stays in one class, and --class names {len(classes)}; give one of them")
    if count < 2:
        raise UsageError(f"--walk {frames}: a walk passes through at least two latents; give --count 2 or two --seeds")
    if frames < count:
        raise UsageError(f"--walk {frames}: a walk through {count} latents needs at least as many frames; give --walk {count}")
    if frames > (most := MAX_WALK_PIXELS // resolution**2):
        raise UsageError(f"--walk {frames}: too many frames of {resolution} px for the memory; give at most --walk {most}")
