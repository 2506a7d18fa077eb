"""train.compile: compiled phases compute what eager ones do, compile once, and resume exactly."""

from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from tests.helpers import refused, run_ranks
from tests.train.tiny import make_trainer, random_batches
from tests.train.trained import SCRIPT, distance, tensors
from wavegan_dist.config import load, parse
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.train.checkpoint import Checkpointer, load_checkpoint
from wavegan_dist.train.trainer import Trainer

pytestmark = pytest.mark.slow

MODEL: dict[str, object] = {"attention": "none"}  # each kernel takes a second to compile
TWENTY = "seed=2,optim.clip_norm=1.0,train.total_kimg=0.64"


@pytest.fixture(scope="module")
def trainer() -> Iterator[Trainer]:
    """Return a trainer that compiles in its first step."""
    torch._dynamo.reset()
    counters.clear()
    yield make_trainer(MODEL, {"compile": "default"})
    torch._dynamo.reset()


def losses_of(trainer: Trainer, steps: int) -> list[dict[str, float]]:
    """Train some steps and return the losses of each."""
    source, losses = random_batches(), []
    for _ in range(steps):
        trainer.step(source)
        values = [item for result in trainer.phase_results for item in result.values.items()]
        losses.append({name: value.item() for name, value in values if name.startswith("loss/")})
    return losses


def test_twenty_compiled_steps_equal_eager_steps_and_resume_bit_for_bit(trainer, tmp_path):
    first = losses_of(trainer, 10)
    checkpointer = Checkpointer(trainer, dict)
    checkpointer.save(tmp_path / "middle")
    checkpointer.wait()
    second = losses_of(trainer, 10)
    eager = make_trainer(MODEL, {})
    for compiled, expected in zip(first + second, losses_of(eager, 10) + losses_of(eager, 10), strict=True):
        assert compiled == pytest.approx(expected, abs=1e-5)
    resumed = make_trainer(MODEL, {"compile": "default"})
    load_checkpoint(tmp_path / "middle", resumed)
    assert losses_of(resumed, 10) == second


def test_each_phase_is_one_graph_and_compiling_again_is_an_error(trainer):
    if trainer.nimg == 0:  # this test runs alone
        trainer.step(random_batches())
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] % 2 == 0  # one for each phase of each trainer
    trainer.discriminator.module.eval()
    with pytest.raises(RuntimeError, match="recompile"):
        trainer.step(random_batches())


@pytest.fixture(scope="module")
def trained(tmp_path_factory, config) -> Path:
    """Train twenty steps in two processes, eager and compiled, and once compiled in two halves."""
    out, ten = tmp_path_factory.mktemp("compiled"), TWENTY.replace("0.64", "0.32")
    compiled = "train.compile=default"
    legs = [f"eager:{TWENTY}", f"compiled:{TWENTY},{compiled}", f"half:{ten},{compiled}", f"rest<half:{TWENTY},{compiled}"]
    run_ranks(2, SCRIPT, out, config, *legs)
    return out


def test_compiled_training_in_two_processes_equals_eager_training(trained):
    assert distance(tensors(trained / "eager"), tensors(trained / "compiled")) < 1e-5
    assert distance(load_file(trained / "eager.samples"), load_file(trained / "compiled.samples")) < 1e-5


def test_a_compiled_run_in_two_processes_resumes_bit_for_bit(trained):
    assert distance(tensors(trained / "compiled"), tensors(trained / "rest")) == 0


def test_a_phase_that_cannot_be_compiled_ends_in_one_line(monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("no C++ compiler\nsecond line")

    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend=fail))
    with pytest.raises(WaveganError, match=r"^train.compile = default failed: .*no C\+\+ compiler.*train.compile=off$"):
        make_trainer(MODEL, {"compile": "default"}).step(random_batches())


def test_the_words_of_train_compile_are_read_as_such(wavegan, config, tmp_path):
    for word in ("off", "default"):
        assert load(config, [f"train.compile={word}"]).train.compile == word
    refused(wavegan("train", "--config", config, "--run-dir", tmp_path / "run", "train.compile=on"), "off, default, graphs")


def test_a_cache_that_cannot_be_written_is_refused_before_the_run_begins(wavegan, config, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file" / "cache"))
    outcome = wavegan("train", "--config", config, "--run-dir", tmp_path / "run", "train.compile=default")
    refused(outcome, "cannot keep compiled code in", "set XDG_CACHE_HOME", exit_code=1)
    assert not (tmp_path / "run").exists()


def test_compiling_is_refused_where_it_would_have_no_effect(wavegan, config, tmp_path):
    with pytest.raises(UsageError, match=r"train.compile: default does not work with train.strategy = zero2"):
        parse({"data": {"index": "none"}, "train": {"strategy": "zero2", "compile": "default"}}, "test")
    outcome = wavegan("train", "--config", config, "--run-dir", tmp_path / "run", "train.compile=graphs")
    refused(outcome, "train.compile = graphs needs a GPU")
