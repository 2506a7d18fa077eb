"""Snapshots: the EMA generator at one point of a run, in a self-contained folder that never changes once written.

model.safetensors   parameters and buffers
config.yaml         the experiment, with all defaults filled in
snapshot.json       nimg, half-life of the EMA, sha256 of the weights, digest of the data index, classes of the data,
                    versions of the software
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wavegan_dist.classes import Classes
from wavegan_dist.config import Experiment, load
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import atomic_dir, save_tensors, sha256
from wavegan_dist.model.build import build_generator
from wavegan_dist.model.generator import WaveletGenerator
from wavegan_dist.provenance import provenance

WEIGHTS, CONFIG, META = "model.safetensors", "config.yaml", "snapshot.json"


@dataclass(frozen=True)
class Snapshot:
    """A loaded snapshot.

    Attributes:
        path: the snapshot's folder.
        generator: the EMA generator on the CPU, in eval mode, without gradients.
        config: the experiment that trained it.
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
    """Write a snapshot folder atomically, in place of an older one: after a failure, `path` is as before.

    Args:
        path: the folder to create.
        layout: the generator's state dict; only its names, shapes and dtypes are read.
        weights: the names of `layout` with the EMA's values; consumed one tensor at a time.
        experiment: the settings, with all defaults filled in.
        nimg: real images shown to the discriminators so far.
        index_digest: digest of the index of the training data.
        half_life_kimg: half-life of the EMA; None: the first of the experiment.
        classes: names and frequencies of the classes in the training data; None for a model without classes.
    """
    half_life_kimg = half_life_kimg or experiment.ema.half_lives_kimg[0]
    with atomic_dir(path) as folder:
        save_tensors(layout, weights, folder / WEIGHTS)
        (folder / CONFIG).write_text(experiment.to_yaml())
        meta = {"nimg": nimg, "ema_half_life_kimg": half_life_kimg, "weights_sha256": sha256(folder / WEIGHTS)}
        meta |= {"index_digest": index_digest, **provenance()}
        meta |= {} if classes is None else {"classes": classes._asdict()}
        (folder / META).write_text(json.dumps(meta, indent=2))


def load_snapshot(path: Path) -> Snapshot:
    """Read and verify a snapshot folder.

    Raises:
        UsageError: `path` is not a snapshot.
        WaveganError: a file of the snapshot is damaged.
    """
    for name in (WEIGHTS, CONFIG, META):
        if not (path / name).is_file():
            raise UsageError(
                f"{path} is not a snapshot: it has no {name}; give a folder such as runs/demo/snapshots/kimg-000100"
            )
    meta = _meta(path / META)
    if sha256(path / WEIGHTS) != meta["weights_sha256"]:
        raise WaveganError(f"{path / WEIGHTS} is damaged: its sha256 is not the one in {META}; use another snapshot")
    config = load(path / CONFIG)
    generator = build_generator(config)
    try:
        generator.load_state_dict(load_file(path / WEIGHTS))
    except (SafetensorError, RuntimeError) as error:
        raise WaveganError(f"{path / WEIGHTS} does not fit {CONFIG}: {str(error).splitlines()[0]}") from error
    return Snapshot(
        path=path,
        generator=generator.eval().requires_grad_(False),
        config=config,
        nimg=meta["nimg"],
        weights_sha256=meta["weights_sha256"],
        index_digest=meta["index_digest"],
        half_life_kimg=meta.get("ema_half_life_kimg", config.ema.half_lives_kimg[0]),  # older snapshots lack it
        classes=_classes(path / META, meta, config.model.num_classes),
    )


def _classes(path: Path, meta: dict[str, Any], num_classes: int) -> Classes | None:
    if not num_classes:
        return None
    try:
        classes = Classes(**meta["classes"])
    except (KeyError, TypeError):
        classes = Classes([], [])
    if len(classes.counts) != num_classes:
        raise WaveganError(f"{path} is damaged: it lacks the counts of {num_classes} classes; use another snapshot")
    return classes


def _meta(path: Path) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = json.loads(path.read_text())
        if {"nimg", "weights_sha256", "index_digest"} <= meta.keys():
            return meta
    except (ValueError, AttributeError):
        pass
    raise WaveganError(f"{path} is damaged: nimg, weights_sha256 or index_digest is missing; use another snapshot")
