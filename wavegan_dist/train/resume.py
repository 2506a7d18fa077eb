"""Which checkpoint a run goes on from."""

import sys
from pathlib import Path

from wavegan_dist import config
from wavegan_dist.config import Experiment
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.train.checkpoint import STATE, damage, read_state


def checkpoint_to_resume(folder: RunFolder, experiment: Experiment, index_digest: str, resume: str) -> Path | None:
    """The checkpoint that a run goes on from, None to start at image 0; writes nothing.

    Args:
        folder: where the run lives, or will.
        experiment: what is to run.
        index_digest: of the data that it is to run on.
        resume: `auto` goes on from the newest checkpoint if there is one, `never` wants a folder without a run, anything
            else is the path of a checkpoint.

    Raises:
        UsageError: the folder holds a run of another configuration or of other data, or the checkpoint is not there.
        WaveganError: the checkpoint that was asked for is damaged, or all of the run's are.
    """
    if folder.config.exists():
        if resume == "never":
            raise UsageError(f"{folder.path} holds a run already; choose another --run-dir, or --resume auto to go on")
        if changed := config.differences(config.load(folder.config), experiment):
            raise UsageError(f"{folder.path} holds a run of another config ({'; '.join(changed)}); choose another --run-dir")
    path = _newest_whole(folder) if resume in ("auto", "never") else _asked_for(Path(resume))
    if path is not None and (digest := read_state(path)["index_digest"]) != index_digest:
        raise UsageError(
            f"{path} was trained on other images (index digest {digest[:12]}) than {experiment.data.index} holds now "
            f"({index_digest[:12]}); give data.index=THE_FORMER_SET, or start a new run with another --run-dir"
        )
    return path


def _newest_whole(folder: RunFolder) -> Path | None:
    damaged: list[tuple[Path, str]] = []
    for path in reversed(folder.checkpoints()):
        if (reason := damage(path)) is None:
            for name, why in damaged:
                print(f"wavegan: {name} is damaged ({why}); going on from {path.name} instead", file=sys.stderr)
            return path
        damaged.append((path, reason))
    if damaged:
        name, why = damaged[0]
        raise WaveganError(
            f"no checkpoint of {folder.path} is whole, the newest because {name.name}/{why}; start in another --run-dir"
        )
    return None


def _asked_for(path: Path) -> Path:
    if not (path / STATE).is_file():
        raise UsageError(f"--resume {path}: no checkpoint is there; give a folder such as runs/x/checkpoints/kimg-000100")
    if (reason := damage(path)) is not None:
        raise WaveganError(f"--resume {path}: it is damaged ({reason}); give an older one")
    return path
