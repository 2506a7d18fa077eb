"""Each network's share of the gradient, which every report holds."""

from functools import partial

import pytest

from tests.train.tiny import make_trainer, random_batches
from wavegan_dist.train.engine import DdpEngine


def test_shares_are_those_of_the_squared_gradients_of_each_network():
    trainer = make_trainer({}, {})
    trainer.generator.module.get_parameter("lam").data.fill_(0.5)  # with lam = 0, only the base generator has gradients
    squares = dict.fromkeys(("g_base", "g_low", "g_high", "d_image", "d_low", "d_high"), 0.0)

    def add_squares(engine: DdpEngine, *_: object) -> None:
        for name, parameter in engine.module.named_parameters():
            if name != "lam":
                assert parameter.grad is not None
                squares[f"{engine.phase.name}_{name.partition('.')[0]}"] += parameter.grad.square().sum().item()

    for engine in trainer.engines:
        assert isinstance(engine, DdpEngine)
        engine.optimizer.register_step_pre_hook(partial(add_squares, engine))
    trainer.step(random_batches())
    norms = {phase: sum(square for name, square in squares.items() if name[0] == phase) for phase in "gd"}
    expected = {f"grad_share/{name}": square / norms[name[0]] for name, square in squares.items()}
    assert trainer.gradient_shares() == pytest.approx(expected, rel=1e-4)
    assert min(expected.values()) > 1e-6


def test_a_generator_without_bands_has_one_share():
    trainer = make_trainer({"base_only": True}, {}, loss={"weights": {"low": 0, "high": 0}})
    trainer.step(random_batches())
    assert trainer.gradient_shares() == {"grad_share/g_base": 1, "grad_share/d_image": 1}
