"""What a load restores, what it reads and what its errors say; what a save does when it is complete."""

import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

from tests.train.tiny import make_trainer, random_batches
from wavegan_dist.model.ema import TensorLists
from wavegan_dist.train import checkpoint
from wavegan_dist.train.checkpoint import Checkpointer, load_checkpoint, load_module
from wavegan_dist.train.precision import INIT_SCALE
from wavegan_dist.train.trainer import Trainer


def saved(path: Path, precision: str = "fp32") -> Trainer:
    """Train one step, write the checkpoint `path` and return the trainer."""
    trainer = make_trainer({}, {"precision": precision})
    trainer.step(random_batches())
    checkpointer = Checkpointer(trainer, dict)
    checkpointer.save(path)
    checkpointer.wait()
    return trainer


def test_a_loss_scale_is_restored_only_into_the_precision_that_it_is_of(tmp_path: Path) -> None:
    saved(tmp_path / "fp32")
    trainer = make_trainer({}, {"precision": "fp16"})
    load_checkpoint(tmp_path / "fp32", trainer)
    assert [engine.loss_scale.state() for engine in trainer.engines] == [[INIT_SCALE, 0]] * 2
    scaled = saved(tmp_path / "fp16", "fp16")
    load_checkpoint(tmp_path / "fp16", trainer)
    assert [engine.loss_scale.state() for engine in trainer.engines] == [each.loss_scale.state() for each in scaled.engines]
    assert trainer.generator.loss_scale.state() != [INIT_SCALE, 0]


def test_the_headers_of_a_checkpoint_are_read_once_for_all_of_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "one")
    read = Mock(side_effect=HuggingFaceStorageReader(str(tmp_path / "one")).read_metadata)
    monkeypatch.setattr(HuggingFaceStorageReader, "read_metadata", read)
    load_checkpoint(tmp_path / "one", make_trainer({}, {}))
    read.assert_called_once()


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_exhausted_memory_is_not_taken_for_a_damaged_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    trainer = saved(tmp_path / "one")

    def exhausted(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(checkpoint._Reader, "read_data", exhausted)  # which torch.distributed.checkpoint calls
    with pytest.raises(type(error)):
        load_checkpoint(tmp_path / "one", trainer)
    with pytest.raises(type(error)):
        load_module(tmp_path / "one", "generator", trainer.generator.module)


def test_the_generator_keeps_its_tensors_so_that_an_average_can_list_them_once(tmp_path: Path) -> None:
    trainer = saved(tmp_path / "one")
    before = TensorLists.of(trainer.generator.module)
    trainer.step(random_batches())
    load_checkpoint(tmp_path / "one", trainer)
    trainer.step(random_batches())
    after = TensorLists.of(trainer.generator.module)
    assert before.integers  # of the batch norms
    assert list(map(id, before.floating + before.integers)) == list(map(id, after.floating + after.integers))


def test_old_checkpoints_are_deleted_in_the_background_once_the_new_one_is_complete(tmp_path: Path) -> None:
    trainer = make_trainer({}, {})
    trainer.step(random_batches())
    checkpointer, seen = Checkpointer(trainer, dict), list[tuple[bool, bool]]()

    def completed() -> None:
        in_background = threading.current_thread() is not threading.main_thread()
        seen.append((in_background, checkpoint.find_damage(tmp_path / "one") is None))

    checkpointer.save(tmp_path / "one", completed)
    checkpointer.wait()
    assert seen == [(True, True)]
