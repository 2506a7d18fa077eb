"""`wavegan export`: writes the generator of a snapshot in other formats, and checks each file against the generator."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

import torch

from wavegan_dist import __version__, counted
from wavegan_dist.errors import WaveganError
from wavegan_dist.export.formats import Format, Run
from wavegan_dist.export.program import generator_inputs, trace
from wavegan_dist.files import atomic_file
from wavegan_dist.images import to_uint8
from wavegan_dist.log import log
from wavegan_dist.model.generate import chunk_size
from wavegan_dist.model.generator import WaveletGenerator
from wavegan_dist.model.snapshot import Snapshot

TOLERANCE = 1e-4  # largest difference of a pixel in [-1, 1]
PIXEL_TOLERANCE = 1  # of a pixel in 0..255: a value next to x.5 may be rounded either way
CHECK_STREAM, CHECK_BATCH = "latent/export", 32  # stream of the latents of the check, and its largest batch


def export(snapshot: Snapshot, out: Path, formats: Sequence[Format]) -> list[Path]:
    """Write the generator of a snapshot, one file for each format, and compare what each file computes with the generator.

    The files appear, or replace older ones, when all of them are complete and have passed the check.

    Args:
        snapshot: the snapshot; its generator is on the CPU and in eval mode.
        out: the folder of the files; it is created if it does not exist.
        formats: the formats, from `find_formats`.

    Returns:
        The paths of the files, in the order of `formats`.

    Raises:
        WaveganError: the images of a file differ from the generator's by more than TOLERANCE (uint8: PIXEL_TOLERANCE), or an
            image is not finite.
        UsageError: the weights are too large for an ONNX file.
        OSError: a file cannot be written.
    """
    paths = [out / format.file for format in formats]
    generator, traced = snapshot.generator, cache(partial(trace, snapshot.generator))
    latents = sum(check_batches(generator.resolution))
    with ExitStack() as files:
        for format, path in zip(formats, paths, strict=True):
            file = files.enter_context(atomic_file(path, "wb"))
            log.info("%s: converting the generator", path)
            content = format.encode(traced(pixels=format.pixels), metadata_of(snapshot))
            difference = largest_difference(generator, format.load(content), pixels=format.pixels)
            _check(path, difference, PIXEL_TOLERANCE if format.pixels else TOLERANCE)
            file.write(content)
            figures = f"{len(content) / 1e6:.1f} MB; pixels of {latents} latents differ from PyTorch's by at most"
            log.info("%s: %s %.2g%s", path, figures, difference, " of 255" if format.pixels else "")
    return paths


def metadata_of(snapshot: Snapshot) -> dict[str, str]:
    """Return the metadata that every exported file holds, property to text.

    The properties are resolution (pixels), z_dim, num_classes, nimg (training images), snapshot_sha256 (of the weights) and
    wavegan_dist (version of this package).
    """
    model = snapshot.config.model
    return {
        "resolution": str(model.resolution),
        "z_dim": str(model.z_dim),
        "num_classes": str(model.num_classes),
        "nimg": str(snapshot.nimg),
        "snapshot_sha256": snapshot.weights_sha256,
        "wavegan_dist": __version__,
    }


def check_batches(resolution: int) -> tuple[int, int]:
    """Return the batch sizes of the check: 1 and 32; to save memory, instead of 32 it is 8 at 512 px and 2 at 1024 px."""
    return 1, min(CHECK_BATCH, 2 * chunk_size(resolution))


@torch.no_grad()
def largest_difference(generator: WaveletGenerator, run: Run, *, pixels: bool) -> float:
    """Return the largest difference of a pixel between the images of `generator` and those of `run`.

    Compares the batches that `check_batches` returns.

    NaN if an image of `run` has NaN.

    Args:
        generator: the generator, on the CPU.
        run: a function of the generator's inputs.
        pixels: the output of `run` is uint8 0..255, and the difference is in gray levels; False: float in [-1, 1].

    Raises:
        WaveganError: an image of `generator` is not finite.
    """
    differences, batches = [], check_batches(generator.resolution)
    for z in counted.normal(0, CHECK_STREAM, range(sum(batches)), generator.z_dim).split(batches):
        inputs = generator_inputs(generator, z)
        images = generator(*inputs)
        if not images.isfinite().all():
            raise WaveganError("the generator's images are not finite: the weights are unusable; take another snapshot")
        expected = to_uint8(images) if pixels else images
        differences.append((run(*inputs).float() - expected).abs().max())
    return torch.stack(differences).max().item()


def _check(path: Path, difference: float, tolerance: float) -> None:
    if not difference <= tolerance:  # also if it is not a number
        raise WaveganError(
            f"{path}: not written, because its images differ from PyTorch's by {difference:.2g}, more than {tolerance}; "
            "take another snapshot or another format"
        )
