"""Batch norm over CPU processes is batch norm of the global batch, in as few messages as the deepest network has norms."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.helpers import run_ranks
from wavegan_dist.model import WaveletGenerator
from wavegan_dist.model.lockstep import convert_to_lockstep
from wavegan_dist.model.sync_batchnorm import SyncBatchNorm

SCRIPT = Path(__file__).parent / "lockstep_rank.py"
NETWORKS = ("base", "low", "high")


def small_generator() -> WaveletGenerator:
    torch.manual_seed(0)
    return WaveletGenerator(32, z_dim=8, width=4)


def latents() -> torch.Tensor:
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


def called_networks(generator: WaveletGenerator) -> list[str]:
    """Names of the networks whose forward hooks fire in one forward of the generator, in order."""
    calls: list[str] = []
    for name in NETWORKS:
        generator.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    generator(latents())
    return calls


def test_outputs_gradients_and_statistics_are_those_of_the_global_batch(tmp_path):
    for processes in (1, 2):
        run_ranks(processes, SCRIPT, tmp_path / f"of{processes}")
    alone = load_file(tmp_path / "of1.0")  # in one process, PyTorch's own batch norm
    ranks = [load_file(tmp_path / f"of2.{rank}") for rank in range(2)]
    for name, expected in alone.items():
        if name.endswith(("/output", "/input_gradient")):
            torch.testing.assert_close(torch.cat([rank[name] for rank in ranks]), expected, rtol=1e-4, atol=1e-4)
        elif name != "messages":
            torch.testing.assert_close(ranks[0][name], ranks[1][name], rtol=0, atol=0)
            torch.testing.assert_close(ranks[0][name], expected, rtol=1e-4, atol=1e-3)
    assert alone["messages"] == 0
    assert ranks[0]["messages"] == 6  # three forward, three backward, for six norms


@pytest.mark.parametrize("training", [True, False])
def test_hooks_on_the_three_networks_fire(training):
    assert called_networks(small_generator().train(training)) == list(NETWORKS)


def test_hooks_fire_in_eval_mode_also_after_conversion_to_lockstep():
    generator = small_generator()
    convert_to_lockstep(generator)
    assert called_networks(generator.eval()) == list(NETWORKS)


def test_a_generator_as_built_has_pytorchs_own_batch_norm():
    generator = small_generator()
    assert {type(module) for module in generator.modules() if isinstance(module, nn.BatchNorm2d)} == {nn.BatchNorm2d}
    assert generator.training_runner is None


def test_conversion_keeps_the_state_and_replaces_every_batch_norm():
    plain, converted = small_generator(), small_generator()
    convert_to_lockstep(converted)
    assert list(converted.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in converted.state_dict().items())
    assert {type(module) for module in converted.modules() if isinstance(module, nn.BatchNorm2d)} == {SyncBatchNorm}
    assert torch.equal(plain.eval()(latents()), converted.eval()(latents()))


def test_networks_are_called_whole_where_zero_stage_3_holds_the_norms_weights(monkeypatch):
    generator = small_generator()
    convert_to_lockstep(generator)
    for norm in (module for module in generator.modules() if isinstance(module, SyncBatchNorm)):
        monkeypatch.setattr(norm, "forward", lambda x: x)  # as if DeepSpeed's hooks gathered the weights
        norm.weight = nn.Parameter(torch.empty(0))
    assert called_networks(generator) == list(NETWORKS)
