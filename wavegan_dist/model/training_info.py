"""The files of a snapshot, and what they say about the training of its generator.

model.safetensors   parameters and buffers
config.yaml         the experiment, with all defaults filled in
snapshot.json       nimg, half-life of the EMA, sha256 of the weights, digest of the data index, classes of the data,
                    versions of the software, command line of the run
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from wavegan_dist import __version__
from wavegan_dist.classes import Classes
from wavegan_dist.config import Experiment, load, parse
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.evaluation_result import EvaluationResult
from wavegan_dist.files import parse_json, sha256
from wavegan_dist.redact import without_folders
from wavegan_dist.run_folder import RunFolder

WEIGHTS, CONFIG, META = "model.safetensors", "config.yaml", "snapshot.json"
PRETRAINED = Path(__file__).parents[1] / "pretrained"  # snapshots that this package contains
EVALUATION = "evaluation.json"  # in a folder of `save_pretrained`; a run keeps its evaluations elsewhere


@dataclass(frozen=True)
class TrainingInfo:
    """How the generator of a snapshot was trained.

    Attributes:
        folder: the folder that this was read from.
        config: the settings of the training run.
        nimg: real images shown to the discriminators before the snapshot was taken.
        weights_sha256: sha256 of model.safetensors, in hex.
        index_digest: digest of the index of the training data.
        half_life_kimg: half-life of the EMA, in thousands of images.
        classes: names and frequencies of the classes in the training data; None for a model without classes.
        meta: the whole content of snapshot.json.
    """

    folder: Path
    config: Experiment
    nimg: int
    weights_sha256: str
    index_digest: str
    half_life_kimg: float
    classes: Classes | None
    meta: dict[str, Any]

    def evaluation(self) -> EvaluationResult | None:
        """Return the result of `wavegan evaluate` for weights with the sha256 `weights_sha256`; None if there is none.

        Looks among the evaluations of the run that contains `folder`, if any, then in evaluation.json in `folder`.

        Raises:
            WaveganError: the file of a result is damaged.
            OSError: the file of a result cannot be read.
        """
        run = RunFolder.of_snapshot(self.folder)
        for path in (run.evaluation(self.folder.resolve().name) if run else None, self.folder / EVALUATION):
            if path is not None and path.is_file():
                result = EvaluationResult.read(path)
                if result.protocol.snapshot_sha256 == self.weights_sha256:
                    return result
        return None

    def write(self, folder: Path) -> None:
        """Write config.yaml, snapshot.json and, if `evaluation` returns a result, evaluation.json into `folder`.

        Of an absolute path in the settings, the command and the result, only the last part is written: people publish these
        files. The folder must exist; files of these names are replaced.

        Raises:
            WaveganError: the file of the evaluation is damaged.
            OSError: a file cannot be read or written.
        """
        (folder / CONFIG).write_text(parse(_without_folders(self.config.model_dump(mode="json")), CONFIG).to_yaml())
        meta = self.meta | {"command": _without_folders(self.meta.get("command", []))}
        (folder / META).write_text(json.dumps(meta, indent=2))
        if (result := self.evaluation()) is not None:
            protocol = result.protocol.model_copy(update={"snapshot": without_folders(result.protocol.snapshot)})
            result.model_copy(update={"protocol": protocol}).write(folder / EVALUATION)


def find_snapshot(name: str | Path) -> Path:
    """Return the path `name` or, if it does not exist, the snapshot of this name that the package contains, if there is one.

    Does not check what the path holds, or whether it exists.
    """
    folder = Path(name)
    contained = PRETRAINED / folder
    return contained if len(folder.parts) == 1 and not folder.exists() and contained.is_dir() else folder


def read_training_info(folder: Path) -> TrainingInfo:
    """Read config.yaml and snapshot.json of a snapshot, and compare the sha256 of its weights with the one in snapshot.json.

    Raises:
        UsageError: `folder` lacks one of the three files, or its config.yaml is invalid or has settings that this version does
            not know.
        WaveganError: snapshot.json or the file of the weights is damaged.
    """
    for name in (WEIGHTS, CONFIG, META):
        if not (folder / name).is_file():
            raise UsageError(f"{folder} is not a snapshot: it has no {name}; {_advice(folder)}")
    meta = _meta(folder / META)
    if sha256(folder / WEIGHTS) != meta["weights_sha256"]:
        raise WaveganError(f"{folder / WEIGHTS} is damaged: its sha256 is not the one in {META}; use another snapshot")
    config = _config(folder / CONFIG, meta)
    return TrainingInfo(
        folder=folder,
        config=config,
        nimg=meta["nimg"],
        weights_sha256=meta["weights_sha256"],
        index_digest=meta["index_digest"],
        half_life_kimg=meta.get("ema_half_life_kimg", config.ema.half_lives_kimg[0]),  # older snapshots lack it
        classes=_classes(folder / META, meta, config.model.num_classes),
        meta=meta,
    )


def _advice(folder: Path) -> str:
    if (folder / "config.json").is_file():
        return "it holds a generator without its training settings, which only WaveletGenerator.from_pretrained can load"
    return "give a folder such as runs/demo/snapshots/kimg-000144, or embedded-32, which this package contains"


def _meta(path: Path) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = parse_json(path.read_text())
        types = {"nimg": int, "weights_sha256": str, "index_digest": str}
        half_life = meta.get("ema_half_life_kimg", 0)
        if all(isinstance(meta.get(name), type) for name, type in types.items()) and isinstance(half_life, int | float):
            return meta
    except (ValueError, AttributeError):
        pass
    raise WaveganError(f"{path} is damaged: nimg, weights_sha256 or index_digest is missing or wrong; use another snapshot")


def _config(path: Path, meta: dict[str, Any]) -> Experiment:
    try:
        return load(path)
    except UsageError as error:
        version = meta.get("wavegan-dist", __version__)
        hint = "" if version == __version__ else f"; wavegan-dist {version} wrote it, this is {__version__}"
        raise UsageError(f"{error}{hint}") from error


def _classes(path: Path, meta: dict[str, Any], num_classes: int) -> Classes | None:
    if not num_classes:
        return None
    with suppress(KeyError, ValidationError):
        classes = TypeAdapter(Classes).validate_python(meta["classes"])
        is_possible = min(classes.counts, default=-1) >= 0 and 0 < sum(classes.counts) < 2**62
        if is_possible and len(classes.counts) == num_classes >= len(classes.names):
            return classes
    raise WaveganError(f"{path} is damaged: it lacks the counts of {num_classes} classes; use another snapshot")


def _without_folders(tree: Any) -> Any:
    """Return a copy of `tree` with `without_folders` applied to every string in its lists and the values of its mappings."""
    if isinstance(tree, dict):
        return {key: _without_folders(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_without_folders(value) for value in tree]
    return without_folders(tree) if isinstance(tree, str) else tree
