"""Chooses the checkpoint that a run resumes from."""

from pathlib import Path

from wavegan_dist.config import Experiment
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.log import log
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.train.checkpoint import STATE, find_damage, read_state


def checkpoint_to_resume(folder: RunFolder, experiment: Experiment, index_digest: str, resume: str) -> Path | None:
    """Return the checkpoint to resume from, or None to start at image 0. Writes nothing; one rank calls it for all.

    Logs a warning for each damaged checkpoint that is newer than the one returned.

    Args:
        folder: the run folder, which need not exist.
        experiment: the settings of this start.
        index_digest: digest of the index of the data set or the mixture.
        resume: `auto`: the newest intact checkpoint, if there is one; `never`: None, and the folder must not hold a run; else
            the path of a checkpoint, of this or another run.

    Raises:
        UsageError: the folder holds a run with another configuration or, for `never`, any run; the checkpoint is of other data;
            or the path is not a checkpoint.
        WaveganError: the requested checkpoint is damaged, or all checkpoints of the run are.
    """
    if resume == "never" and (folder.config.exists() or folder.checkpoints()):
        raise UsageError(f"{folder.path} holds a run already; choose another --run-dir, or resume it with --resume auto")
    folder.check_config(experiment)
    path = _newest_intact(folder) if resume in ("auto", "never") else _requested(Path(resume))
    if path is not None and (digest := _index_digest(path)) != index_digest:
        now = ", ".join(one.index for one in experiment.data.sets)
        raise UsageError(
            f"{path} was trained on other images (index digest {digest[:12]}) than {now} holds now "
            f"({index_digest[:12]}); set data.index to the original data set, or start a new run with another --run-dir"
        )
    return path


def _index_digest(path: Path) -> str:
    try:
        return str(read_state(path)["index_digest"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WaveganError(f"{path / STATE} is damaged; give an older checkpoint with --resume PATH") from error


def _newest_intact(folder: RunFolder) -> Path | None:
    damaged: list[tuple[Path, str]] = []
    for path in reversed(folder.checkpoints()):
        if (damage := find_damage(path)) is None:
            for damaged_path, reason in damaged:
                log.warning("%s is damaged (%s); resuming from %s instead", damaged_path, reason, path.name)
            return path
        damaged.append((path, damage))
    if damaged:
        newest, reason = damaged[0]
        raise WaveganError(
            f"no checkpoint of {folder.path} is intact, the newest because of {newest.name}/{reason}; "
            "start in another --run-dir"
        )
    return None


def _requested(path: Path) -> Path:
    if not (path / STATE).is_file():
        raise UsageError(f"--resume {path} is not a checkpoint; give a folder such as runs/x/checkpoints/kimg-000100")
    if (damage := find_damage(path)) is not None:
        raise WaveganError(f"--resume {path} is damaged ({damage}); give an older checkpoint")
    return path
