"""Checkpoints: all that a run needs to go on, in one folder, swapped in whole, written while training goes on.

shard-*.safetensors   weights, buffers, moments and EMA, each rank its share (torch.distributed.checkpoint)
state.json            nimg, rollbacks, sums since the last report, loss scales, config, digest of the data, MLflow run
manifest.json         bytes and sha256 of the files above

A checkpoint holds no random state: randomness is counted (counted.py). It loads under any strategy and at any number of
processes.
"""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from wavegan_dist.errors import WaveganError
from wavegan_dist.files import replace_dir, sha256

if TYPE_CHECKING:
    from wavegan_dist.train.trainer import Trainer

STATE, MANIFEST = "state.json", "manifest.json"

warnings.filterwarnings("ignore", message="torch.distributed is disabled")


class Checkpointer:
    """Saves a trainer in the background: training waits for the copy to the CPU, and for a save that is still under way.

    Args:
        trainer: what is saved.
        about: what state.json is to say besides the position; called at each save.
    """

    def __init__(self, trainer: "Trainer", about: Callable[[], dict[str, Any]]) -> None:
        self.trainer, self.about = trainer, about
        # Of its own: collectives of the background thread may not mix with those of training.
        self._group = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self._copy: dict[str, Tensor] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: Future[Metadata] | None = None

    def save(self, path: Path) -> None:
        """Begin to write the folder `path`; it appears when it is whole. Every rank calls this.

        Raises:
            OSError: the save before this one could not be written.
        """
        self.wait()
        state = {
            **self.about(),
            "nimg": self.trainer.nimg,
            "rollbacks": self.trainer.rollbacks,
            "sums": self.trainer.metrics.state(),
            "loss_scales": {engine.name: engine.scale.state() for engine in self.trainer.engines},
        }
        self._stage()
        storage = _Storage(path, state)
        self._saving = self._thread.submit(save, self._copy, storage_writer=storage, process_group=self._group)

    @property
    def idle(self) -> bool:
        """Whether nothing is being written."""
        return self._saving is None or self._saving.done()

    def failed(self) -> bool:
        """Whether the last save has ended in an error; `wait` raises it."""
        return self._saving is not None and self._saving.done() and self._saving.exception() is not None

    def wait(self) -> None:
        """Return when the last save is on the disk; every rank calls this.

        Raises:
            OSError: it could not be written.
        """
        saving, self._saving = self._saving, None
        if saving is None:
            return
        try:
            saving.result()
        except CheckpointException as error:
            reason = next(iter(error.failures.values()))[0]
            raise reason if isinstance(reason, OSError) else WaveganError(f"cannot save a checkpoint: {reason}") from error

    def _stage(self) -> None:
        """Copy what is this rank's to write into buffers on the CPU, made once (pinned beside a GPU)."""
        pinned = self.trainer.accelerator.device.type == "cuda"
        for name, value in tensors(self.trainer):
            if name not in self._copy:
                self._copy[name] = torch.empty(value.shape, dtype=value.dtype, pin_memory=pinned)
            self._copy[name].copy_(value, non_blocking=pinned)
        if pinned:
            torch.cuda.synchronize()


class _Storage(HuggingFaceStorageWriter):
    """Writes under a temporary name; the coordinator adds state and manifest when all have written, and renames."""

    def __init__(self, path: Path, state: dict[str, Any]) -> None:
        self.final, self.temporary, self.state = path, path.with_name(f".{path.name}.tmp"), state
        super().__init__(str(self.temporary), save_distributed=True)

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        if is_coordinator:
            shutil.rmtree(self.temporary, ignore_errors=True)
        super().set_up_storage_writer(is_coordinator, *args, **kwargs)

    def finish(self, metadata: Metadata, results: Any) -> None:
        (self.temporary / STATE).write_text(json.dumps(self.state))
        files = sorted(self.temporary.iterdir())
        manifest = {file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files}
        (self.temporary / MANIFEST).write_text(json.dumps(manifest, indent=2))
        replace_dir(self.temporary, self.final)


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint's files by its manifest, None if nothing is."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        for name, entry in manifest.items():
            if (path / name).stat().st_size != entry["bytes"]:
                return f"{name} has not the {entry['bytes']:,} bytes of {MANIFEST}"
            if sha256(path / name) != entry["sha256"]:
                return f"{name} has not the sha256 of {MANIFEST}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{getattr(error, 'strerror', None) or error} ({getattr(error, 'filename', None) or MANIFEST})"
    return None


def read_state(path: Path) -> dict[str, Any]:
    """A checkpoint's state.json."""
    state: dict[str, Any] = json.loads((path / STATE).read_text())
    return state


def load_checkpoint(path: Path, trainer: "Trainer") -> None:
    """Put a trainer back where `Checkpointer.save` found it; every rank calls this, and reads for itself.

    Raises:
        WaveganError: the checkpoint is of another model, or cannot be read.
    """
    try:
        for part in (*trainer.engines, trainer.ema):
            part.load(lambda wanted: load(wanted, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=True))
        state = read_state(path)
    except (CheckpointException, OSError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise WaveganError(f"cannot go on from {path}: {reason}; give an older one with --resume PATH") from error
    trainer.nimg, trainer.rollbacks = state["nimg"], state["rollbacks"]
    trainer.metrics.restore(state["sums"])
    for engine in trainer.engines:
        engine.scale.restore(state["loss_scales"][engine.name])


def tensors(trainer: "Trainer") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a trainer that this rank writes, by name, one at a time: a collective call."""
    for part in (*trainer.engines, trainer.ema):
        yield from part.tensors()
