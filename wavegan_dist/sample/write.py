"""`wavegan sample`: checks the arguments, generates the images and writes them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from wavegan_dist import __version__
from wavegan_dist.files import errors_naming, replace_dir, sweep
from wavegan_dist.model.generate import LatentSource, latents_of_images, uses_exact_mode
from wavegan_dist.model.snapshot import Snapshot, labels_of_images
from wavegan_dist.sample.checks import check_classes, check_size, check_truncation, number_of_images, parse_seeds
from wavegan_dist.sample.folder import write_folder
from wavegan_dist.sample.grid import write_grid
from wavegan_dist.sample.images import Images, labels_of_seeds, latents_of_seeds
from wavegan_dist.sample.shards import write_sample_shards
from wavegan_dist.sample.target import Format, check_out, find_format
from wavegan_dist.sample.walk import write_walk
from wavegan_dist.sample.workers import Workers, worker_threads
from wavegan_dist.work_folder import work_folder

CPU = torch.device("cpu")
FOLDERS: dict[Format, Callable[[Workers, Images, Path], None]] = {"folder": write_folder, "shards": write_sample_shards}


def sample(
    snapshot: Snapshot,
    count: int | None,
    seed: int | None,
    out: Path,
    device: torch.device = CPU,
    *,
    exact: bool = False,
    classes: str | None = None,
    seeds: str | None = None,
    truncation: float = 1.0,
    format: Format | None = None,
    walk: int | None = None,
) -> None:
    """Write images of a snapshot as a grid, a folder of PNG files, WebDataset shards or a walk.

    A folder appears only when it is complete. Until then, `.OUT.partial` beside `out` holds its images. After an interruption,
    the same call with the same versions of this package and PyTorch continues from these images, and the result has the same
    bytes. A grid or a walk is held in memory as a whole. Shows a progress bar if stderr is a terminal.

    Args:
        snapshot: the snapshot; its generator is moved to `device` and stays there.
        count: number of images, or of the latents that a walk passes through; None: 64, or 8 for a walk.
        seed: seed of the latents; None: 0.
        out: a .png, .gif or .webp file, which is replaced, or a folder that does not exist or is empty.
        device: device of the computation.
        exact: generate in exact mode (`model.generate`), which CPUs always use.
        classes: number or name of a class, or a comma-separated list that the images take turns in, a row of a grid for each;
            None: classes are drawn with the frequencies of the training data. A walk has one class, by default that of its
            first image.
        seeds: seeds and ranges of seeds, such as "1,5-8". The images are then image 0 of each of these seeds, in files named by
            the seed, instead of images 0, 1, ... of `seed`. Excludes `count` and `seed`.
        truncation: factor of the latents, above 0 and at most 1.
        format: the format; None: by the name of `out` (`find_format`).
        walk: number of frames of a walk; None for the other formats.

    Raises:
        UsageError: the arguments do not fit together or to the snapshot, `out` cannot be written, or `.OUT.partial` holds
            images of other arguments. The message names the option.
        WaveganError: an image is not finite.
        OSError: the result cannot be written.
    """
    listed = parse_seeds(seeds)
    number = number_of_images(count, seed, listed, walk)
    chosen = check_classes(snapshot, classes, number)
    check_truncation(truncation)
    format = find_format(out, format)
    check_size(out, format, number, snapshot.config.model.resolution, walk, chosen)
    check_out(out, is_folder=format in FOLDERS)
    z_dim = snapshot.config.model.z_dim
    latents = latents_of_seeds(listed, z_dim) if listed else latents_of_images(seed or 0, z_dim)
    labels = labels_of_seeds(snapshot, listed, chosen) if listed else labels_of_images(snapshot, seed or 0, chosen)
    snapshot.generator.to(device)
    exact = uses_exact_mode(device, exact)
    images = Images(snapshot, listed or range(number), partial(_truncated, latents, truncation), labels, device, exact)
    with worker_threads() as workers:
        if format == "grid":
            write_grid(workers, images, out.resolve(), rows=max(len(chosen), 1))
        elif walk is not None:
            write_walk(workers, images, walk, out.resolve())
        else:
            which: dict[str, object] = {"seeds": seeds} if listed else {"seed": seed or 0, "count": number}
            options = {**which, "format": format, "class": classes, "truncation": truncation}
            _write_resumable(FOLDERS[format], workers, images, out.resolve(), options)


def _truncated(latents: LatentSource, truncation: float, numbers: range) -> Tensor:
    return truncation * latents(numbers)


def _write_resumable(
    write: Callable[[Workers, Images, Path], None],
    workers: Workers,
    images: Images,
    out: Path,
    options: dict[str, object],
) -> None:
    """Call `write` on the folder of images in the work folder of `out`, which may hold images already; rename it to `out`.

    Args:
        write: writes the images that a folder lacks.
        workers, images: arguments of `write`.
        out: the folder, which does not exist or is empty.
        options: what the images depend on besides the snapshot's weights, the device, exact mode and versions, as JSON values.

    Raises:
        UsageError: another process writes to `out`, or the work folder holds images of other options.
        OSError: a file cannot be written.
        Exception: any other error that `write` raises.
    """
    weights, device = images.snapshot.weights_sha256[:16], images.device.type
    versions = {"wavegan_dist": __version__, "torch": str(torch.__version__)}
    settings = {"snapshot": weights, **options, "exact": images.exact, "device": device, **versions}
    with work_folder(out, "sample", settings, "images/**/[!.]*.*") as work, errors_naming(out, work):
        folder = work / "images"
        folder.mkdir(exist_ok=True)
        sweep(folder)
        write(workers, images, folder)
        replace_dir(folder, out, overwrite=False)
