"""Images of a snapshot as PNG files: a grid, or one file per image."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.generate import CHUNK, batch_that_fills_a_gpu, generated_images, uses_exact_mode
from wavegan_dist.evaluate.progress import image_progress_bar
from wavegan_dist.files import atomic_dir
from wavegan_dist.images import save_grid, write_png
from wavegan_dist.model.snapshot import Snapshot

CPU = torch.device("cpu")


def sample(snapshot: Snapshot, count: int, seed: int, out: Path, device: torch.device = CPU, *, exact: bool = False) -> None:
    """Write images of a snapshot: one square grid if `out` ends in .png, else a folder of 000000.png, 000001.png, ...

    A folder appears only when it is complete. Its images are written while others are generated: memory holds one batch. A
    grid is held in memory as a whole. Shows a progress bar if stderr is a terminal.

    Args:
        snapshot: the snapshot; its generator is moved to `device`.
        count: number of images.
        seed: seed of the latents.
        out: a .png file, which is replaced, or a folder that does not exist or is empty.
        device: device of the computation.
        exact: generate in exact mode (`evaluate.generate`), which CPUs always use.

    Raises:
        UsageError: count < 1, or `out` cannot be written: another type of image, a folder with files, a file where a folder
            must be written, or the reverse.
        WaveganError: an image is not finite.
    """
    if count < 1:
        raise UsageError(f"--count {count}: give at least one image")
    parent = next(parent for parent in out.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise UsageError(f"--out {out}: {parent} is not a folder")
    is_grid = out.suffix.lower() == ".png"
    if is_grid:
        _check_grid(out)
    else:
        _check_folder(out)
    batches = _batches(snapshot, count, seed, device, exact)
    if is_grid:
        save_grid(torch.cat(list(batches)), out.resolve(), columns=math.ceil(math.sqrt(count)))
    else:
        _write_folder(batches, out.resolve())


def _check_grid(out: Path) -> None:
    """Raise UsageError if a PNG file cannot be written to `out`."""
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


def _batches(snapshot: Snapshot, count: int, seed: int, device: torch.device, exact: bool) -> Iterator[Tensor]:
    """Yield the images on the CPU, uint8 [B, 3, R, R], behind a progress bar."""
    model, exact = snapshot.config.model, uses_exact_mode(device, exact)
    size = CHUNK if exact else batch_that_fills_a_gpu(model.resolution, model.width)
    generator = snapshot.generator.to(device)
    with image_progress_bar(count, "generated images") as bar:
        for images in generated_images(generator, range(count), seed, size, model.z_dim, device, exact=exact):
            yield images.cpu()
            bar.update(len(images))


def _write_folder(batches: Iterator[Tensor], out: Path) -> None:
    number = 0
    with atomic_dir(out, overwrite=False) as folder:
        for images in batches:
            for image_chw in images:
                write_png(image_chw.permute(1, 2, 0), folder / f"{number:06d}.png")
                number += 1
