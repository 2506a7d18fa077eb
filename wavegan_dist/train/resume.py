"""Chooses the checkpoint that a run resumes from."""

from pathlib import Path
from typing import NamedTuple

from wavegan_dist.config import Experiment
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.log import log
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.train.checkpoint import STATE, find_damage, read_state

ORIGIN = "resumed_from"  # field of state.json and environment.json


class Resumption(NamedTuple):
    """Where a start of a run begins.

    Attributes:
        checkpoint: the checkpoint to resume from; None: image 0.
        origin: the path that the last `--resume PATH` of this run named; None if there was none. Checkpoints record it, so
            that the same command goes on from them instead of from PATH again.
    """

    checkpoint: Path | None
    origin: str | None


def choose_checkpoint(folder: RunFolder, experiment: Experiment, index_digest: str, resume: str) -> Resumption:
    """Choose the checkpoint to resume from. Writes nothing; one rank calls it for all.

    Logs a warning for each damaged checkpoint that is newer than the one chosen.

    Args:
        folder: the run folder, which need not exist.
        experiment: the settings of this start.
        index_digest: digest of the index of the data set or the mixture.
        resume: `auto`: the newest intact checkpoint, if there is one; `never`: none, and the folder must not hold a run; else
            the path of a checkpoint, of this or another run. If a start from this path has saved checkpoints in `folder`, the
            newest intact one of them is chosen, and the path need not exist any more.

    Raises:
        UsageError: the folder holds a run with another configuration or, for `never`, any run; the checkpoint is of other data;
            or the path is not a checkpoint.
        WaveganError: the requested checkpoint is damaged, or all checkpoints of the run are.
    """
    if resume == "never" and (folder.config.exists() or folder.checkpoints()):
        raise UsageError(f"{folder.path} holds a run already; choose another --run-dir, or resume it with --resume auto")
    folder.check_config(experiment)
    origin: str | None = None
    if resume in ("auto", "never"):
        path = newest_intact(folder)
        if path is not None:
            origin = _state(path).get(ORIGIN)
    else:
        origin = str(Path(resume).resolve())
        if (path := newest_intact(folder, origin)) is not None:
            log.info("%s continues a start from %s; to begin there again, delete the checkpoints of this run", path, origin)
        else:
            path = _requested(Path(resume))
    if path is not None and (digest := _state(path)["index_digest"]) != index_digest:
        now = ", ".join(one.index for one in experiment.data.sets)
        raise UsageError(
            f"{path} was trained on other images (index digest {digest[:12]}) than {now} holds now "
            f"({index_digest[:12]}); set data.index to the original data set, or start a new run with another --run-dir"
        )
    return Resumption(path, origin)


def _state(path: Path) -> dict[str, str]:
    """Return "index_digest" and, if it is there, ORIGIN from a checkpoint's state.json."""
    try:
        state = read_state(path)
        return {name: str(state[name]) for name in ("index_digest", ORIGIN) if name == "index_digest" or name in state}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WaveganError(f"{path / STATE} is damaged; give an older checkpoint with --resume PATH") from error


def _descends(path: Path, origin: str) -> bool:
    """Return whether a checkpoint descends from the checkpoint `origin`, or may do so because its state.json is damaged."""
    try:
        return _state(path).get(ORIGIN) == origin
    except WaveganError:
        return True


def newest_intact(folder: RunFolder, origin: str | None = None) -> Path | None:
    """Return the newest intact checkpoint of a run, or None if it has no checkpoints; logs a warning for each damaged one.

    Args:
        folder: the run folder, which need not exist.
        origin: consider only the checkpoints that descend from this path of a checkpoint; None: all.

    Raises:
        WaveganError: all checkpoints are damaged.
    """
    damaged: list[tuple[Path, str]] = []
    for path in [path for path in reversed(folder.checkpoints()) if origin is None or _descends(path, origin)]:
        if (damage := find_damage(path)) is None:
            for damaged_path, reason in damaged:
                log.warning("%s is damaged (%s); resuming from %s instead", damaged_path, reason, path.name)
            return path
        damaged.append((path, damage))
    if damaged:
        newest, reason = damaged[0]
        raise WaveganError(
            f"no checkpoint of {folder.path} {f'since {origin} ' if origin else ''}is intact, the newest because of "
            f"{newest.name}/{reason}; start in another --run-dir"
        )
    return None


def _requested(path: Path) -> Path:
    if not (path / STATE).is_file():
        raise UsageError(f"--resume {path} is not a checkpoint; give a folder such as runs/x/checkpoints/kimg-000100")
    if (damage := find_damage(path)) is not None:
        raise WaveganError(f"--resume {path} is damaged ({damage}); give an older checkpoint")
    return path
