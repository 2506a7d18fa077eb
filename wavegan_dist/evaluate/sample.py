"""Images of a snapshot as PNG files: a grid, or one file per image."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.generate import (
    batch_that_fills_a_gpu,
    chunk_size,
    labels_of_images,
    snapshot_images,
    uses_exact_mode,
)
from wavegan_dist.evaluate.progress import image_progress_bar
from wavegan_dist.files import atomic_dir
from wavegan_dist.images import save_grid, write_png
from wavegan_dist.model.snapshot import Snapshot

CPU = torch.device("cpu")
MAX_GRID_PIXELS = 2**26  # 64 images of 1024 px; Pillow refuses to open pictures of more than 1.3 times as many
LABELS_FILE = "labels.json"


def sample(
    snapshot: Snapshot,
    count: int,
    seed: int,
    out: Path,
    device: torch.device = CPU,
    *,
    exact: bool = False,
    classes: str | None = None,
) -> None:
    """Write images of a snapshot: one grid if `out` ends in .png, else a folder of 000000.png, 000001.png, ...

    The folder of a model with classes also holds labels.json: file name to class. A grid is square; with a list of several
    classes it has a row for each.

    A folder appears only when it is complete. Its images are written while others are generated: memory holds one batch. A
    grid is held in memory as a whole. Shows a progress bar if stderr is a terminal.

    Args:
        snapshot: the snapshot; its generator is moved to `device`.
        count: number of images.
        seed: seed of the latents.
        out: a .png file, which is replaced, or a folder that does not exist or is empty.
        device: device of the computation.
        exact: generate in exact mode (`evaluate.generate`), which CPUs always use.
        classes: number or name of a class, or a comma-separated list that the images take turns in; None: classes are drawn
            with the frequencies of the training data.

    Raises:
        UsageError: count is less than 1 or than the number of classes, there is no such class, the grid is too large, or `out`
            cannot be written: another type of image, a folder with files, a file where a folder must be written, or reversed.
        WaveganError: an image is not finite.
    """
    if count < 1:
        raise UsageError(f"--count {count}: give at least one image")
    parent = next(parent for parent in out.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise UsageError(f"--out {out}: {parent} is not a folder")
    chosen = _parse_classes(snapshot, classes)
    if count < len(chosen):
        raise UsageError(f"--count {count}: --class {classes} names {len(chosen)} classes; give at least --count {len(chosen)}")
    is_grid = out.suffix.lower() == ".png"
    if is_grid:
        _check_grid(out, count, snapshot.config.model.resolution)
    else:
        _check_folder(out)
    batches = _batches(snapshot, count, seed, device, exact, chosen)
    if is_grid:
        _write_grid(torch.cat(list(batches)), out.resolve(), max(len(chosen), 1))
    else:
        labels = labels_of_images(snapshot, seed, chosen)
        _write_folder(batches, out.resolve(), [] if labels is None else labels(range(count)).tolist())


def _parse_classes(snapshot: Snapshot, text: str | None) -> list[int]:
    if text is None:
        return []
    if snapshot.classes is None:
        raise UsageError(f"--class {text}: {snapshot.path} was trained without classes (model.num_classes = 0); leave it out")
    try:
        return snapshot.classes.parse(text)
    except UsageError as error:
        raise UsageError(f"--class {text}: {error}") from error


def _check_grid(out: Path, count: int, resolution: int) -> None:
    """Raise UsageError if a PNG file cannot be written to `out` or the grid would have too many pixels."""
    if (pixels := count * resolution**2) > MAX_GRID_PIXELS:
        raise UsageError(
            f"--count {count}: a grid of {count} images of {resolution} px has {pixels / 1e6:.0f} million pixels, too many for "
            f"one picture; give at most --count {MAX_GRID_PIXELS // resolution**2}, or a folder as --out"
        )
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; name a path that ends in .png, or a folder without .png in its name")


def _check_folder(out: Path) -> None:
    """Raise UsageError unless `out` is the name of a folder that can be created, or an empty folder that can be replaced."""
    if out.suffix.lower() in Image.registered_extensions():
        raise UsageError(f"--out {out}: images are written as PNG only; name a .png file for a grid, or a folder")
    if not out.is_dir():
        if out.exists():
            raise UsageError(f"--out {out} is a file; name a path that ends in .png, or a folder")
        return
    if any(out.iterdir()):
        raise UsageError(f"--out {out} already holds files; remove it or choose another folder")
    if out.is_mount() or out.samefile(Path.cwd()):
        raise UsageError(f"--out {out} is a mount point or the working folder; name a new folder in it")


def _batches(
    snapshot: Snapshot, count: int, seed: int, device: torch.device, exact: bool, classes: Sequence[int]
) -> Iterator[Tensor]:
    """Yield the images on the CPU, uint8 [B, 3, R, R], behind a progress bar."""
    model, exact = snapshot.config.model, uses_exact_mode(device, exact)
    size = chunk_size(model.resolution) if exact else batch_that_fills_a_gpu(model.resolution, model.width)
    with image_progress_bar(count, "generated images") as bar:
        for images in snapshot_images(snapshot, range(count), seed, size, device, exact=exact, classes=classes):
            yield images.cpu()
            bar.update(len(images))


def _write_grid(images: Tensor, out: Path, rows: int) -> None:
    """Write images that take turns in `rows` classes: a row for each class, or a square for one."""
    columns = math.ceil(math.sqrt(len(images))) if rows == 1 else math.ceil(len(images) / rows)
    if rows > 1:
        blank = images.new_zeros(rows * columns - len(images), *images.shape[1:])
        images = torch.cat((images, blank)).unflatten(0, (columns, rows)).transpose(0, 1).flatten(0, 1)
    save_grid(images, out, columns)


def _write_folder(batches: Iterator[Tensor], out: Path, labels: Sequence[int]) -> None:
    number = 0
    with atomic_dir(out, overwrite=False) as folder:
        for images in batches:
            for image_chw in images:
                write_png(image_chw.permute(1, 2, 0), folder / f"{number:06d}.png")
                number += 1
        if labels:
            by_file = {f"{number:06d}.png": label for number, label in enumerate(labels)}
            (folder / LABELS_FILE).write_text(json.dumps(by_file, indent=0) + "\n")
