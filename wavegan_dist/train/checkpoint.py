"""Checkpoints: folders with all the state that a run needs to resume, written in the background while training continues.

shard-*.safetensors   weights, buffers, moments and EMAs; each rank writes a part (torch.distributed.checkpoint)
state.json            nimg, rollbacks, sums since the last report, probability of augmentation, loss scales, config, digest of
                      the data index, versions
manifest.json         bytes and sha256 of the files above

A checkpoint holds no RNG state, because all randomness is a function of seed and position (counted.py). It can be loaded
under any strategy and on any number of ranks.
"""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from typing_extensions import override

from wavegan_dist.config import Experiment
from wavegan_dist.errors import WaveganError, is_out_of_memory
from wavegan_dist.files import parse_json, replace_dir, sha256
from wavegan_dist.processes import file_group

if TYPE_CHECKING:
    from wavegan_dist.train.ema_state import EmaState
    from wavegan_dist.train.engine import Engine
    from wavegan_dist.train.trainer import Trainer

STATE, MANIFEST = "state.json", "manifest.json"
_STATE_ERRORS = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)  # of a damaged state.json
_LOAD_ERRORS = (CheckpointException, SafetensorError, OSError, *_STATE_ERRORS)

warnings.filterwarnings("ignore", message="torch.distributed is disabled")


class Checkpointer:
    """Saves a trainer in the background. Training waits only for the copy to CPU memory and for an earlier unfinished save.

    Constructing a checkpointer is a collective call.

    Args:
        trainer: the trainer to save.
        metadata: returns additional fields for state.json, JSON values by name; called on every rank at each save.
    """

    def __init__(self, trainer: "Trainer", metadata: Callable[[], dict[str, Any]]) -> None:
        self.trainer, self.metadata = trainer, metadata
        # A separate process group, because collectives of two threads must not interleave in one group.
        self._group = file_group()
        self._cpu_tensors: dict[str, Tensor] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: Future[Metadata] | None = None
        self._path = Path()  # of the last save

    def save(self, path: Path, completed: Callable[[], None] = lambda: None) -> None:
        """Begin to write the folder `path`, which appears under that name when it is complete: a collective call.

        Waits for the save before this one. Call this between two steps, after at least one; training may go on at once.

        Args:
            path: the folder.
            completed: called on rank 0 when the folder is complete, before the save ends, in the thread of the save. An error
                of it counts as one of the save.

        Raises:
            OSError, WaveganError: the save before this one failed (see `wait`); this one has not begun.
        """
        self.wait()
        state = {
            **self.metadata(),
            "config": self.trainer.experiment.model_dump(mode="json"),
            "nimg": self.trainer.nimg,
            "rollbacks": self.trainer.rollbacks,
            "sums": self.trainer.metrics.state(),
            "augment": self.trainer.augmentation.state(),
            "loss_scales": {engine.name: engine.loss_scale.state() for engine in self.trainer.engines},
        }
        self._copy_to_cpu()
        storage, self._path = _Storage(path, state, completed), path
        self._saving = self._thread.submit(save, self._cpu_tensors, storage_writer=storage, process_group=self._group)

    @property
    def idle(self) -> bool:
        """Whether this rank is writing nothing: no save has begun, or the last one has ended, with or without an error."""
        return self._saving is None or self._saving.done()

    def failed(self) -> bool:
        """Return whether the last save has ended with an error on this rank, which the next `wait` raises. Does not wait."""
        return self._saving is not None and self._saving.done() and self._saving.exception() is not None

    def wait(self) -> None:
        """Wait until the last save is on disk; return at once if there was none, or if a call has waited for it already.

        A save is a collective operation, which fails on all ranks: call this on all ranks, each of which then raises the error.

        Raises:
            OSError: the save could not be written.
            WaveganError: the save failed for another reason.
        """
        saving, self._saving = self._saving, None
        if saving is None:
            return
        try:
            saving.result()
        except CheckpointException as error:
            reason = _cause(error)
            shutil.rmtree(temporary_folder(self._path), ignore_errors=True)  # frees a full disk for exit.json
            if isinstance(reason, OSError):
                raise OSError(reason.errno, reason.strerror, str(self._path)) from error
            raise WaveganError(f"cannot save the checkpoint {self._path}: {reason}") from error

    def _copy_to_cpu(self) -> None:
        """Copy the tensors that this rank writes into CPU buffers and wait until they are complete: a collective call.

        The buffers are allocated at the first save and reused. They are pinned if training runs on a GPU. An earlier save must
        have ended: it reads the same buffers.
        """
        pinned = self.trainer.accelerator.device.type == "cuda"
        for name, value in checkpoint_tensors(self.trainer):
            if name not in self._cpu_tensors:
                self._cpu_tensors[name] = torch.empty(value.shape, dtype=value.dtype, pin_memory=pinned)
            self._cpu_tensors[name].copy_(value, non_blocking=pinned)
        if pinned:
            torch.cuda.synchronize()


class _Storage(HuggingFaceStorageWriter):
    """Writes to a temporary folder; when all ranks are done, the coordinator adds state and manifest and renames the folder."""

    def __init__(self, path: Path, state: dict[str, Any], completed: Callable[[], None]) -> None:
        self.final, self.temporary, self.state, self.completed = path, temporary_folder(path), state, completed
        super().__init__(str(self.temporary), save_distributed=True)

    @override
    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        if is_coordinator:
            shutil.rmtree(self.temporary, ignore_errors=True)
        super().set_up_storage_writer(is_coordinator, *args, **kwargs)

    @override
    def finish(self, metadata: Metadata, results: Any) -> None:
        (self.temporary / STATE).write_text(json.dumps(self.state))
        files = sorted(self.temporary.iterdir())
        manifest = {file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files}
        (self.temporary / MANIFEST).write_text(json.dumps(manifest, indent=2))
        replace_dir(self.temporary, self.final)
        self.completed()


class _Reader(HuggingFaceStorageReader):
    """Reads the headers of a checkpoint at once: `load` would print the traceback of a damaged one to stderr."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._headers = super().read_metadata()

    @override
    def read_metadata(self) -> Metadata:
        return self._headers


def temporary_folder(path: Path) -> Path:
    """Return the folder, beside `path`, into which the checkpoint `path` is written until it is complete."""
    return path.with_name(f".{path.name}.tmp")


def find_damage(path: Path) -> str | None:
    """Compare a checkpoint's files with the sizes and hashes in its manifest. Reads all files.

    Returns:
        One line about the first difference, a file that cannot be read, or a manifest that is missing or damaged, without the
        path of the checkpoint: "FILE does not have the sha256 that manifest.json records" or "REASON (FILE)". None if the
        checkpoint is intact. Files that the manifest does not list are ignored.
    """
    try:
        manifest = parse_json((path / MANIFEST).read_text())
        for name, entry in manifest.items():
            if (path / name).stat().st_size != entry["bytes"]:
                return f"{name} does not have the {entry['bytes']:,} bytes that {MANIFEST} records"
            if sha256(path / name) != entry["sha256"]:
                return f"{name} does not have the sha256 that {MANIFEST} records"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{getattr(error, 'strerror', None) or error} ({getattr(error, 'filename', None) or MANIFEST})"
    return None


def read_state(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint's state.json, whose fields are not checked.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not JSON.
    """
    state: dict[str, Any] = parse_json((path / STATE).read_text())
    return state


def load_checkpoint(path: Path, trainer: "Trainer") -> None:
    """Restore a trainer to the state that `Checkpointer.save` saved. Call it on every rank: each reads the files for itself.

    The number of ranks and `train.strategy` may differ from those of the save. Does not compare hashes (see `find_damage`).

    Raises:
        WaveganError: the checkpoint is of another model, cannot be read, or its state.json lacks a field, which `find_damage`
            does not notice. The trainer may then be partly restored.
        RuntimeError, MemoryError: the memory is exhausted.
    """
    try:
        reader = _Reader(path)
        for part in _parts(trainer):
            part.load(lambda tensors: load(tensors, storage_reader=reader, no_dist=True))
        _restore(trainer, read_state(path))
    except _LOAD_ERRORS as error:
        if is_out_of_memory(cause := _cause(error)):
            raise cause from None
        raise WaveganError(
            f"cannot resume from {path}: {_reason(error)}; give with --resume PATH an older checkpoint, of a run with the same "
            "settings of model and ema"
        ) from error


def _restore(trainer: "Trainer", state: dict[str, Any]) -> None:
    trainer.nimg, trainer.rollbacks = int(state["nimg"]), int(state["rollbacks"])
    if _measures_the_same(state["config"], trainer.experiment):
        trainer.metrics.restore(state["sums"])
    if "augment" in state:
        trainer.augmentation.restore(state["augment"])
    if state["config"]["train"]["precision"] == trainer.experiment.train.precision:  # else the scale is not of this precision
        for engine in trainer.engines:
            engine.loss_scale.restore(state["loss_scales"][engine.name])


def _measures_the_same(saved: dict[str, Any], experiment: Experiment) -> bool:
    """Return whether the steps of the saved run, of which these are the settings, measure what those of `experiment` do."""
    sections = ("loss", "augment")
    now = experiment.model_dump(mode="json", include=set(sections))
    return all(saved.get(section) == now[section] for section in sections)


def load_module(path: Path, name: str, module: nn.Module) -> None:
    """Load the weights and buffers of one module from a checkpoint. No process group and no trainer is needed.

    Args:
        path: the checkpoint.
        name: "generator" or "discriminator".
        module: the generator or the discriminator on the CPU, built with the settings of the run; its tensors are filled in
            place.

    Raises:
        WaveganError: the checkpoint is of another model, or cannot be read.
        RuntimeError, MemoryError: the memory is exhausted.
    """
    tensors = {f"{name}.{key}": value.detach() for key, value in module.state_dict().items()}
    try:
        load(tensors, storage_reader=_Reader(path), no_dist=True)
    except _LOAD_ERRORS as error:
        if is_out_of_memory(cause := _cause(error)):
            raise cause from None
        raise WaveganError(f"cannot read the {name} of {path}: {_reason(error)}") from error


def checkpoint_tensors(trainer: "Trainer") -> Iterator[tuple[str, Tensor]]:
    """Yield (name in the checkpoint, full tensor on the device) of each tensor that this rank writes, one at a time.

    A collective call: every rank must exhaust the iterator. See `Engine.checkpoint_tensors`.
    """
    for part in _parts(trainer):
        yield from part.checkpoint_tensors()


def _cause(error: BaseException) -> BaseException:
    """Return the first error that torch.distributed.checkpoint has put into a CheckpointException; any other error itself."""
    return next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{STATE} lacks {lines[-1]}" if isinstance(error, KeyError) else lines[-1].rstrip(".")


def _parts(trainer: "Trainer") -> "list[Engine | EmaState]":
    return [*trainer.engines, *trainer.emas]
