"""Snapshots: the EMA generator at one point of a run, in a self-contained folder that never changes once written.

`model.training_info` lists the files.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wavegan_dist.classes import Classes
from wavegan_dist.config import Experiment
from wavegan_dist.errors import UsageError
from wavegan_dist.files import atomic_dir, save_tensors, sha256
from wavegan_dist.model.generate import LabelSource, chunk_size, generated_images, labels_by_number
from wavegan_dist.model.generator import WaveletGenerator
from wavegan_dist.model.training_info import CONFIG, META, WEIGHTS, find_snapshot, read_training_info
from wavegan_dist.provenance import provenance


@dataclass(frozen=True)
class Snapshot:
    """A loaded snapshot.

    Attributes:
        path: the snapshot's folder.
        generator: the EMA generator in eval mode, whose parameters do not require gradients; on the CPU until
            `snapshot_images` or the caller moves it.
        config: the settings of the training run.
        nimg: real images shown to the discriminators before the snapshot was taken.
        weights_sha256: sha256 of model.safetensors, in hex.
        index_digest: digest of the index of the training data.
        half_life_kimg: half-life of the EMA, in thousands of images.
        classes: names and frequencies of the classes in the training data; None for a model without classes.
    """

    path: Path
    generator: WaveletGenerator
    config: Experiment
    nimg: int
    weights_sha256: str
    index_digest: str
    half_life_kimg: float
    classes: Classes | None = None


def save_snapshot(
    path: Path,
    layout: Mapping[str, Tensor],
    weights: Iterable[tuple[str, Tensor]],
    experiment: Experiment,
    nimg: int,
    index_digest: str,
    half_life_kimg: float | None = None,
    classes: Classes | None = None,
) -> None:
    """Write a snapshot folder atomically and replace an older one. After an error, `path` is as before.

    During training, only rank 0 calls the function; iterating over `weights` may be a collective call, in which the other ranks
    take part.

    Args:
        path: the folder to create.
        layout: the generator's state dict, float32 and int64; only its names, shapes and dtypes are read.
        weights: (name, value) of each tensor of the EMA, for the names in `layout`, in any order and on any device; consumed
            one tensor at a time.
        experiment: the settings, with all defaults filled in.
        nimg: real images shown to the discriminators so far.
        index_digest: digest of the index of the training data.
        half_life_kimg: half-life of the EMA, in thousands of images; None: the first of `ema.half_life_kimg`.
        classes: names and frequencies of the classes in the training data; None for a model without classes.

    Raises:
        OSError: a file cannot be written.
        KeyError: `weights` has a name that is not in `layout`. A name of `layout` that `weights` lacks is not noticed.
    """
    half_life_kimg = half_life_kimg or experiment.ema.half_lives_kimg[0]
    with atomic_dir(path) as folder:
        save_tensors(layout, weights, folder / WEIGHTS)
        (folder / CONFIG).write_text(experiment.to_yaml())
        meta = {"nimg": nimg, "ema_half_life_kimg": half_life_kimg, "weights_sha256": sha256(folder / WEIGHTS)}
        meta |= {"index_digest": index_digest, **provenance()}
        meta |= {} if classes is None else {"classes": classes._asdict()}
        (folder / META).write_text(json.dumps(meta, indent=2))


def load_snapshot(path: str | Path) -> Snapshot:
    """Read a snapshot folder, or a folder that `WaveletGenerator.save_pretrained` wrote for a snapshot, and check its sha256.

    Args:
        path: the folder, or the name of a snapshot that this package contains ("embedded-32").

    Raises:
        UsageError: `path` is not a snapshot, or its config.yaml is invalid or has settings that this version does not know.
        WaveganError: a file of the snapshot is damaged.
    """
    info = read_training_info(find_snapshot(path))
    return Snapshot(
        path=info.folder,
        generator=WaveletGenerator.from_snapshot(info).requires_grad_(False),
        config=info.config,
        nimg=info.nimg,
        weights_sha256=info.weights_sha256,
        index_digest=info.index_digest,
        half_life_kimg=info.half_life_kimg,
        classes=info.classes,
    )


def parse_class_option(snapshot: Snapshot, text: str | None) -> list[int]:
    """Return the numbers of the classes that the value of `--class`, such as "3" or "cat,dog", names; empty if it is None.

    Raises:
        UsageError: there is no such class, or the snapshot has no classes.
    """
    if text is None:
        return []
    if snapshot.classes is None:
        raise UsageError(f"--class {text}: {snapshot.path} was trained without classes (model.num_classes = 0); leave it out")
    try:
        return snapshot.classes.parse(text)
    except UsageError as error:
        raise UsageError(f"--class {text}: {error}") from error


def labels_of_images(snapshot: Snapshot, seed: int, classes: Sequence[int] = ()) -> LabelSource | None:
    """Return the function from a range of image numbers to the images' classes, int64 [len(numbers)] on the CPU.

    Returns None for a snapshot without classes.

    Args:
        snapshot: the snapshot.
        seed: seed of the draws; unused with `classes`.
        classes: image i gets class `classes[i % len(classes)]`, which is not checked; empty: classes are drawn with the
            frequencies of the training data.
    """
    return None if snapshot.classes is None else labels_by_number(snapshot.classes, seed, classes)


def snapshot_images(
    snapshot: Snapshot,
    numbers: range,
    seed: int,
    batch_size: int,
    device: torch.device | str = "cpu",
    *,
    exact: bool = True,
    classes: Sequence[int] = (),
) -> Iterator[Tensor]:
    """Generate images of a snapshot as `generated_images` does, with the classes of `labels_of_images`.

    Moves `snapshot.generator` to `device`, where it stays.

    Args:
        snapshot: the snapshot.
        numbers: consecutive numbers of the images.
        seed: seed of the latents and of the draws of classes.
        batch_size: images per batch, except for a smaller last batch. In exact mode, a multiple of `chunk_size(resolution)`
            avoids computing images twice.
        device: device of the computation.
        exact: make image i the same bit for bit with any `batch_size` and `numbers`; False: a pixel may differ by TOLERANCE
            gray level.
        classes: classes that the images take turns in, as numbers; empty: drawn with the frequencies of the training data.
            Unused for a snapshot without classes.

    Yields:
        Batches of images, uint8 [batch_size, 3, R, R] on `device`, in order; the last batch may be smaller.

    Raises:
        WaveganError: while iterating, if an image is not finite.
    """
    model, labels = snapshot.config.model, labels_of_images(snapshot, seed, classes)
    generator, chunk = snapshot.generator.to(device), chunk_size(model.resolution)
    return generated_images(generator, numbers, seed, batch_size, model.z_dim, device, exact=exact, labels=labels, chunk=chunk)
