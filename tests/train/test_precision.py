"""bf16 and fp16: which operations run in the compute dtype, and which stay float32."""

from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from torch.nn.utils.parametrizations import _SpectralNorm

from tests.train.tiny import make_trainer, random_batches
from wavegan_dist import wavelet
from wavegan_dist.model import discriminator, generator
from wavegan_dist.model.spectral_norm import Float32SpectralNorm
from wavegan_dist.train.checkpoint import checkpoint_tensors
from wavegan_dist.train.precision import GROWTH_INTERVAL, INIT_SCALE, LossScale

ONE = torch.ones(())


@pytest.fixture(scope="module", params=["bf16", "fp16"])
def seen(request):
    """Return a trainer after two steps and the dtypes that kernels, layers, spectral norm and losses saw."""
    trainer = make_trainer({}, {"precision": request.param})
    types: dict[str, set[torch.dtype]] = {}
    autocast: set[bool] = set()
    names = {name: getattr(wavelet, name) for name in ("wavedec", "fuse")}

    def note(key, tensors):
        types.setdefault(key, set()).update(tensor.dtype for tensor in tensors)

    def kernel(name):
        def noted(*inputs):
            tensors = [each for each in inputs if isinstance(each, torch.Tensor)]
            note(name, tensors[:3])
            note(f"{name} lam", tensors[3:])
            return names[name](*inputs)

        return noted

    def power_method(*arguments):
        autocast.add(torch.is_autocast_enabled("cpu"))
        return _SpectralNorm._power_method(*arguments)

    def loss(function):
        def noted(*logits):
            out = function(*logits)
            note("loss", [out])
            return out

        return noted

    for engine in trainer.engines:
        objective = engine.phase.objective
        engine.phase.objective = replace(objective, d_loss=loss(objective.d_loss), g_loss=loss(objective.g_loss))
        for module in engine.module.modules():
            if isinstance(module, _SpectralNorm):
                module.register_forward_hook(lambda _module, inputs, out: note("spectral norm", [*inputs, out]))
            if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                module.register_forward_hook(lambda _module, _inputs, out: note("convolution", [out]))
    with (
        patch.object(discriminator, "wavedec", kernel("wavedec")),
        patch.object(generator, "fuse", kernel("fuse")),
        patch.object(Float32SpectralNorm, "_power_method", power_method),
    ):
        source = random_batches()
        trainer.step(source)
        trainer.step(source)
    compute = {"bf16": torch.bfloat16, "fp16": torch.float16}[request.param]
    return SimpleNamespace(trainer=trainer, types=types, autocast=autocast, compute=compute)


def test_networks_and_fused_kernels_run_in_the_compute_dtype(seen):
    assert seen.types["convolution"] == seen.types["wavedec"] == seen.types["fuse"] == {seen.compute}


def test_lam_losses_and_spectral_norm_stay_float32(seen):
    assert seen.types["fuse lam"] == seen.types["loss"] == seen.types["spectral norm"] == {torch.float32}
    assert seen.autocast == {False}  # on GPUs autocast would run the power iteration's matrix-vector products in 16 bits


def test_weights_moments_statistics_average_and_gradients_stay_float32(seen):
    trainer = seen.trainer
    types = {name: value.dtype for name, value in checkpoint_tensors(trainer) if "num_batches" not in name}
    assert any("running_var" in name for name in types)
    assert any("_u" in name for name in types)
    assert any("exp_avg_sq" in name for name in types)
    assert any(name.startswith("ema.") for name in types)
    assert set(types.values()) == {torch.float32}
    with trainer.ema.sampling() as average:
        assert average(torch.zeros(4, 8)).dtype == torch.float32
    loss, _ = trainer.generator.phase(torch.zeros(4, 3, 32, 32), torch.zeros(4, 8))
    loss.backward()
    assert {p.grad.dtype for p in trainer.generator.module.parameters() if p.grad is not None} == {torch.float32}


def test_low_precision_trains_nearly_as_float32_does():
    ends = {}
    for precision in ("fp32", "bf16", "fp16"):
        trainer, source = make_trainer({}, {"precision": precision}), random_batches()
        for _ in range(3):
            trainer.step(source)
        ends[precision] = {name: value.item() for name, value in trainer.phase_results[-1].values.items() if "loss" in name}
    assert ends["bf16"] == pytest.approx(ends["fp32"], abs=0.05)
    assert ends["fp16"] == pytest.approx(ends["fp32"], abs=0.01)
    assert ends["fp16"] != ends["fp32"]


def test_an_overflow_in_fp16_skips_the_step_and_halves_the_scale():
    trainer, source = make_trainer({}, {"precision": "fp16"}), random_batches()
    trainer.discriminator.loss_scale.value.fill_(1e30)  # float32 holds it, float16 gradients do not
    before = [value.clone() for value in trainer.discriminator.module.parameters()]
    trainer.step(source)
    assert trainer.nonfinite.item() == 0
    assert all(map(torch.equal, before, trainer.discriminator.module.parameters()))
    assert trainer.discriminator.loss_scale.value.item() == pytest.approx(5e29)
    assert trainer.generator.loss_scale.value.item() == INIT_SCALE


def test_the_scale_grows_without_overflow_never_falls_below_1_and_is_saved():
    scale, other = LossScale("fp16", torch.device("cpu")), LossScale("fp16", torch.device("cpu"))
    for _ in range(GROWTH_INTERVAL):
        assert scale.update(0 * ONE).item() == 0
    assert scale.value.item() == 2 * INIT_SCALE
    scale.update(0 * ONE)
    other.restore(scale.state())
    assert other.state() == [2 * INIT_SCALE, 1]
    for _ in range(17):
        assert scale.update(ONE).item() == 0
    assert scale.value.item() == 1
    assert scale.update(ONE).item() == 1  # the scale cannot fall further
    assert scale.value.item() == 1
