"""train.compile: the compiled phases compute what the eager ones do; what cannot be compiled is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import refused, run_ranks
from tests.train.test_strategies import SCRIPT, distance, tensors
from tests.train.tiny import make_trainer, random_batches
from wavegan_dist.config import parse
from wavegan_dist.errors import UsageError

TWENTY = "seed=2,optim.clip_norm=1.0,train.total_kimg=0.64"


def losses(compile_mode: str, steps: int) -> tuple[list[dict[str, float]], object]:
    trainer, source, values = make_trainer({}, {"compile": compile_mode}), random_batches(), []
    for _ in range(steps):
        trainer.step(source)
        values.append({name: value.item() for result in trainer.phase_results for name, value in result.values.items()})
    return values, trainer


def test_twenty_compiled_steps_equal_eager_ones_and_another_compilation_is_an_error():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    eager, _ = losses("off", 20)
    compiled, trainer = losses("default", 20)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # the D phase and the G phase
    assert not torch._dynamo.utils.counters["graph_break"]
    for one, other in zip(eager, compiled, strict=True):
        assert other == pytest.approx(one, abs=1e-5)
    trainer.discriminator.module.eval()
    with pytest.raises(RuntimeError, match="recompile"):
        trainer.step(random_batches())


@pytest.fixture(scope="module")
def trained(tmp_path_factory, config) -> Path:
    """Train twenty steps in two processes, eager and compiled, with and without batch norm, and once in two halves."""
    out, halves = tmp_path_factory.mktemp("compiled"), TWENTY.replace("0.64", "0.32")
    compiled, bare = "train.compile=default", "model.norm=none"
    run_ranks(
        2, SCRIPT, out, config,
        f"eager:{TWENTY}", f"compiled:{TWENTY},{compiled}", f"half:{halves},{compiled}", f"rest<half:{TWENTY},{compiled}",
        f"eager_bare:{TWENTY},{bare}", f"compiled_bare:{TWENTY},{compiled},{bare}",
        XDG_CACHE_HOME=str(out / "cache"),
    )  # fmt: skip
    return out


@pytest.mark.parametrize("norm", ["", "_bare"])
def test_compiled_training_in_two_processes_equals_eager_training(trained, norm):
    assert distance(tensors(trained / f"eager{norm}"), tensors(trained / f"compiled{norm}")) < 1e-5
    samples = (load_file(trained / f"{name}{norm}.samples") for name in ("eager", "compiled"))
    assert distance(*samples) < 1e-5


def test_a_compiled_run_resumes_bit_for_bit(trained):
    assert distance(tensors(trained / "compiled"), tensors(trained / "rest")) == 0


def test_the_compiled_code_is_kept_in_the_users_cache(trained):
    assert list((trained / "cache" / "wavegan" / "inductor").iterdir())


def test_compiling_is_refused_where_it_would_not_be_honoured(wavegan, config, tmp_path):
    with pytest.raises(UsageError, match=r"train.compile: default does not work with train.strategy = zero2"):
        parse({"data": {"index": "none"}, "train": {"strategy": "zero2", "compile": "default"}}, "test")
    outcome = wavegan("train", "--config", config, "--run-dir", tmp_path / "run", "train.compile=graphs")
    refused(outcome, "train.compile = graphs needs a GPU")
