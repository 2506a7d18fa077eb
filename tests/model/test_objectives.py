"""Objectives and gradient penalties against hand-computed numbers, `torch.autograd.functional` and each other."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.autograd.functional import jacobian

from wavegan_dist.config import parse
from wavegan_dist.errors import UsageError
from wavegan_dist.model import WaveletDiscriminator
from wavegan_dist.model.losses import OBJECTIVES, pair_accuracy, relativistic_d, relativistic_g
from wavegan_dist.model.penalties import FAKE, REAL, Squares, approximate_squares, exact_squares
from wavegan_dist.wavelet import dwt

REAL_LOGITS, FAKE_LOGITS = torch.tensor([2.0, 0.0, -1.0]), torch.tensor([1.0, 0.0, 3.0])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_relativistic_losses_equal_hand_computed_numbers():
    expected_d, expected_g = (sum(softplus(sign * x) for x in (1, 0, -4)) / 3 for sign in (-1, 1))
    assert relativistic_d(REAL_LOGITS, FAKE_LOGITS).item() == pytest.approx(expected_d)
    assert relativistic_g(REAL_LOGITS, FAKE_LOGITS).item() == pytest.approx(expected_g)
    assert pair_accuracy(REAL_LOGITS, FAKE_LOGITS).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_are_float32_and_differentiable(name):
    objective = OBJECTIVES[name]
    logits = torch.zeros(4, dtype=torch.bfloat16)
    assert objective.d_loss(logits, logits).dtype == objective.g_loss(logits, logits).dtype == torch.float32
    pair = [torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(n)).requires_grad_() for n in (0, 1)]
    for loss in (objective.d_loss, objective.g_loss):
        # The losses are computed in float32.
        assert gradcheck(lambda real, fake, loss=loss: loss(real, fake).double(), pair, eps=1e-2, atol=1e-2)


class Smooth(nn.Module):
    """A network with a wavelet transform in its middle and no kinks: [B, C, S, S] -> [B]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.second = nn.Conv2d(16, 1, 2)

    def forward(self, x_bchw: Tensor) -> Tensor:
        return torch.tanh(self.second(torch.cat(dwt(torch.tanh(self.first(x_bchw))), dim=1))).sum(dim=(1, 2, 3))


@pytest.fixture(scope="module")
def networks() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"image": Smooth(3), "high": Smooth(9)})


@pytest.fixture(scope="module")
def inputs() -> dict[str, list[Tensor]]:
    """Return inputs of 4 real and 4 generated images; `high` has two levels, which `logits_of` adds."""
    torch.manual_seed(1)
    return {"image": [torch.randn(8, 3, 8, 8)], "high": [torch.randn(8, 9, 8, 8), torch.randn(8, 9, 4, 4)]}


def logits_of_networks(networks: nn.ModuleDict):
    def logits_of(inputs: dict[str, list[Tensor]], _labels: Tensor | None) -> dict[str, Tensor]:
        return {name: torch.stack([networks[name](level) for level in levels]).sum(0) for name, levels in inputs.items()}

    return logits_of


def exact(networks: nn.ModuleDict, inputs: dict[str, list[Tensor]], halves: list[int]) -> Squares:
    anchor = torch.ones((), requires_grad=True)
    return exact_squares(logits_of_networks(networks), inputs, None, halves, anchor)[1]


@pytest.mark.parametrize("halves", [[REAL], [FAKE], [REAL, FAKE]])
def test_exact_squares_are_those_of_the_jacobian_summed_over_levels(networks, inputs, halves):
    squares = exact(networks, inputs, halves)
    for name, levels in inputs.items():
        total = torch.zeros(8)
        for level in levels:
            rows = jacobian(networks[name], level)  # [8 logits, 8 images, ...]
            total += torch.stack([rows[n, n].square().sum() for n in range(8)])
        for half, values in zip(halves, squares[name], strict=True):
            torch.testing.assert_close(values, total.chunk(2)[half])


def test_the_gradient_of_exact_squares_equals_finite_differences_through_the_wavelet_kernels():
    torch.manual_seed(0)
    network = Smooth(3).double()
    images = {"image": [torch.randn(4, 3, 8, 8, dtype=torch.float64)]}

    def penalty(weight: Tensor) -> Tensor:
        def logits_of(leaves: dict[str, list[Tensor]], _labels: Tensor | None) -> dict[str, Tensor]:
            return {"image": torch.func.functional_call(network, {"first.weight": weight}, tuple(leaves["image"]))}

        # The squares are summed in float32.
        return exact_squares(logits_of, images, None, [REAL, FAKE], torch.ones((), requires_grad=True))[1]["image"][0].double()

    assert gradcheck(penalty, network.first.weight, eps=1e-3, atol=1e-2, rtol=1e-2)


def test_the_approximation_is_within_5_percent_of_exact_penalties_in_the_mean(networks, inputs):
    size, draws = 0.01, 400
    expected = exact(networks, inputs, [REAL, FAKE])
    means: dict[str, list[float]] = {name: [0.0, 0.0] for name in inputs}
    noise_of = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(draws):
            noise = {
                name: [torch.randn(4, *x.shape[1:], generator=noise_of) for x in levels] for name, levels in inputs.items()
            }
            _, squares = approximate_squares(logits_of_networks(networks), inputs, None, [REAL, FAKE], noise, size)
            for name, values in squares.items():
                means[name] = [mean + value.mean().item() / draws for mean, value in zip(means[name], values, strict=True)]
    for name, values in expected.items():
        assert means[name] == pytest.approx([value.mean().item() for value in values], rel=0.05)


def test_both_kinds_return_the_logits_without_noise_and_one_half_alone_is_the_same(networks, inputs):
    logits_of = logits_of_networks(networks)
    plain = logits_of(inputs, None)
    noise = {name: [torch.randn(4, *x.shape[1:]) for x in levels] for name, levels in inputs.items()}
    both_logits, both = approximate_squares(logits_of, inputs, None, [REAL, FAKE], noise, 0.01)
    for half in (REAL, FAKE):
        logits, alone = approximate_squares(logits_of, inputs, None, [half], noise, 0.01)
        for name in inputs:
            torch.testing.assert_close(logits[name], plain[name])
            torch.testing.assert_close(both_logits[name], plain[name])
            torch.testing.assert_close(alone[name][0], both[name][half], rtol=1e-3, atol=1e-3)
    exact_logits, _ = exact_squares(logits_of, inputs, None, [REAL], torch.ones((), requires_grad=True))
    torch.testing.assert_close(exact_logits, plain)


def test_noise_for_scaled_bands_is_not_scaled():
    discriminator = WaveletDiscriminator(32, width=4, band_std=[{"low": 2.0, "lh": 0.5, "hl": 0.25, "hh": 0.1}])
    noise = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for tensors in discriminator.inputs(noise, scaled=False).values():
        assert tensors[0].std().item() == pytest.approx(1, abs=0.01)
    assert discriminator.inputs(noise)["low"][0].std().item() == pytest.approx(0.5, abs=0.01)


def test_without_spectral_norm_weights_are_plain_and_the_gain_multiplies_logits():
    assert all(
        "parametrizations" not in name for name, _ in WaveletDiscriminator(32, width=4, spectral_norm=False).named_parameters()
    )
    torch.manual_seed(0)
    plain, loud = WaveletDiscriminator(32, width=4).eval(), WaveletDiscriminator(32, width=4, logit_gain=8.0).eval()
    loud.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 32, 32)
    for name, logits in plain(images).items():
        torch.testing.assert_close(loud(images)[name], 8 * logits)


PENALTY = {"loss.r1": 1.0, "model.spectral_norm": False}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss.r1": 1.0}, "set model.spectral_norm=false, or both penalties to 0"),
        ({"loss.r1": -1.0}, "loss.r1 = -1.0: input should be greater than or equal to 0"),
        ({"loss.penalty": "approximate"}, "loss.penalty: a setting of gradient penalties, but loss.r1 and loss.r2 are 0"),
        ({"loss.penalty_interval": 4}, "loss.penalty_interval: a setting of gradient penalties"),
        ({"loss.penalty_noise": 0.1}, "loss.penalty_noise: a setting of gradient penalties"),
        ({"loss.gamma_final": 0.1, "loss.gamma_decay_kimg": 1}, "loss.gamma_final: a setting of gradient penalties"),
        ({**PENALTY, "loss.penalty_interval": 0}, "loss.penalty_interval = 0: input should be greater than 0"),
        ({**PENALTY, "loss.penalty_noise": 0.1}, "only approximate penalties add noise"),
        ({**PENALTY, "loss.gamma_final": 0.1}, "gamma decays only if both"),
        ({**PENALTY, "loss.gamma_decay_kimg": 10}, "gamma decays only if both"),
        ({**PENALTY, "train.strategy": "zero3"}, "exact does not work with train.strategy = zero3"),
        ({**PENALTY, "train.precision": "fp16"}, "exact does not work with train.precision = fp16"),
        ({"model.spectral_norm": False, "model.logit_gain": 8}, "model.logit_gain: without model.spectral_norm"),
        ({"model.spectral_norm": True, "model.backbone": "residual"}, "residual networks have no spectral norm"),
        ({"loss.objective": "wasserstein"}, "is not one of hinge, relativistic"),
    ],
)
def test_senseless_combinations_are_refused_in_one_line(settings, message):
    tree: dict = {"data": {"index": "x"}}
    for key, value in settings.items():
        section, name = key.split(".")
        tree.setdefault(section, {})[name] = value
    with pytest.raises(UsageError) as refusal:
        parse(tree, "test")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("precision", "size"), [("fp32", 0.01), ("fp16", 0.01), ("bf16", 0.03)])
def test_the_default_noise_depends_on_the_precision_and_survives_a_round_trip(precision, size):
    loss = {"r2": 1.0, "penalty": "approximate"}
    tree = {"data": {"index": "x"}, "model": {"backbone": "residual"}, "loss": loss, "train": {"precision": precision}}
    experiment = parse(tree, "test")
    assert experiment.loss.penalty_noise == size
    assert parse(experiment.model_dump(mode="json"), "test") == experiment
