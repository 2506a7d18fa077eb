"""A snapshot: the EMA generator at one point of a run, immutable, in a folder that explains itself.

model.safetensors   weights and buffers
config.yaml         the experiment as resolved
snapshot.json       nimg, sha256 of the weights, digest of the data index, versions
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wavegan_dist.config import Experiment, load
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import atomic_dir, save_tensors, sha256
from wavegan_dist.model.build import build_generator
from wavegan_dist.model.generator import WaveletGenerator
from wavegan_dist.provenance import provenance

WEIGHTS, CONFIG, META = "model.safetensors", "config.yaml", "snapshot.json"


@dataclass(frozen=True)
class Snapshot:
    """A loaded snapshot; `generator` is on the CPU in eval mode."""

    path: Path
    generator: WaveletGenerator
    config: Experiment
    nimg: int
    weights_sha256: str
    index_digest: str


def save_snapshot(
    path: Path,
    layout: Mapping[str, Tensor],
    weights: Iterable[tuple[str, Tensor]],
    experiment: Experiment,
    nimg: int,
    index_digest: str,
) -> None:
    """Write the folder `path`, whole or not at all.

    Args:
        path: the snapshot.
        layout: the generator's state, of which only names, shapes and dtypes are looked at.
        weights: the same names with the EMA's values, taken one at a time.
        experiment: the settings as resolved.
        nimg: real images shown so far.
        index_digest: of the data.
    """
    with atomic_dir(path) as folder:
        save_tensors(layout, weights, folder / WEIGHTS)
        (folder / CONFIG).write_text(experiment.to_yaml())
        meta = {"nimg": nimg, "weights_sha256": sha256(folder / WEIGHTS), "index_digest": index_digest, **provenance()}
        (folder / META).write_text(json.dumps(meta, indent=2))


def load_snapshot(path: Path) -> Snapshot:
    """Read a snapshot folder.

    Raises:
        UsageError: `path` is no snapshot.
        WaveganError: its files are not those that were written.
    """
    for name in (WEIGHTS, CONFIG, META):
        if not (path / name).is_file():
            raise UsageError(
                f"{path} is not a snapshot: {name} is not there; give a folder such as runs/demo/snapshots/kimg-000100"
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
        path, generator.eval().requires_grad_(False), config, meta["nimg"], meta["weights_sha256"], meta["index_digest"]
    )


def _meta(path: Path) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = json.loads(path.read_text())
        if {"nimg", "weights_sha256", "index_digest"} <= meta.keys():
            return meta
    except (ValueError, AttributeError):
        pass
    raise WaveganError(f"{path} is damaged: it does not say what a snapshot is; use another snapshot")
