"""Several EMAs in one run: each is the EMA of a run that has only this one."""

from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from tests.train.tiny import make_trainer, random_batches
from wavegan_dist.run_folder import RunFolder, ema_label, ema_of, nimg_of
from wavegan_dist.train.checkpoint import Checkpointer, checkpoint_tensors, load_checkpoint
from wavegan_dist.train.run_writer import RunWriter
from wavegan_dist.train.trainer import Trainer


def trained(half_life_kimg: object) -> Trainer:
    trainer = make_trainer({}, {}, ema={"half_life_kimg": half_life_kimg, "rampup": 0})
    batches = random_batches()
    for _ in range(4):
        trainer.step(batches)
    return trainer


def test_each_average_equals_that_of_a_run_with_this_length_alone():
    together = trained([0.02, 0.005, 1])
    assert together.ema is together.emas[0]
    averages = []
    for ema, half_life in zip(together.emas, (0.02, 0.005, 1), strict=True):
        averages.append(dict(ema.iter_full_tensors()))
        alone = dict(trained(half_life).ema.iter_full_tensors())
        assert averages[-1].keys() == alone.keys()
        assert all(value.equal(alone[name]) for name, value in averages[-1].items())
    assert not any(averages[0]["lam"].equal(other["lam"]) for other in averages[1:])


def test_a_checkpoint_holds_every_average_and_the_first_under_its_old_name(tmp_path):
    trainer = trained([0.02, 0.005])
    names = {name.partition(".")[0] for name, _ in checkpoint_tensors(trainer)}
    assert {"ema", "ema-0000"} <= names
    checkpointer = Checkpointer(trainer, dict)
    checkpointer.save(tmp_path / "one")
    checkpointer.wait()
    resumed = make_trainer({}, {}, ema={"half_life_kimg": [0.02, 0.005], "rampup": 0})
    load_checkpoint(tmp_path / "one", resumed)
    for ema, restored in zip(trainer.emas, resumed.emas, strict=True):
        pairs = zip(ema.iter_full_tensors(), restored.iter_full_tensors(), strict=True)
        assert all(torch.equal(one, other) for (_, one), (_, other) in pairs)
    single = make_trainer({}, {}, ema={"half_life_kimg": 0.02, "rampup": 0})
    load_checkpoint(tmp_path / "one", single)


@pytest.mark.parametrize("is_main", [True, False])
def test_ranks_read_the_averages_in_the_same_order_even_if_one_cannot_be_written(is_main):
    order = []

    def weights(name):
        for number in range(3):
            order.append(f"{name}{number}")
            yield name, number

    def write(ema, half_life_kimg, read):
        next(read)  # then the disk is full, and a warning is logged

    emas = [Mock(iter_full_tensors=partial(weights, name)) for name in "ab"]
    experiment = SimpleNamespace(ema=SimpleNamespace(half_lives_kimg=[1, 2]))
    writer = Mock(is_main=is_main, trainer=SimpleNamespace(emas=emas, experiment=experiment), _write_snapshot=write)
    RunWriter._write_snapshots(writer)
    assert order == ["a0", "a1", "a2", "b0", "b1", "b2"]


def test_names_of_snapshots_sort_by_image_then_half_life(tmp_path):
    assert [ema_label(kimg) for kimg in (0.5, 10, 500.0, 12_000, 2.25)] == [
        "ema-0000.5", "ema-0010", "ema-0500", "ema-12000", "ema-0002.25",
    ]  # fmt: skip
    run = RunFolder(tmp_path)
    paths = [
        run.snapshot(nimg, ema)
        for nimg in (0, 100_000, 100_064, 1_000_000)
        for ema in ("", "ema-0002.5", "ema-0500", "ema-2000")
    ]
    for path in reversed(paths):
        path.mkdir(parents=True)
    assert run.snapshots() == paths
    assert [nimg_of(path) for path in paths[4:12]] == [100_000] * 4 + [100_064] * 4
    assert [ema_of(path.name) for path in paths[4:8]] == ["", "ema-0002.5", "ema-0500", "ema-2000"]
