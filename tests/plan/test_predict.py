"""Properties of every prediction."""

import pytest
import torch

from wavegan_dist.config import Experiment, parse
from wavegan_dist.errors import UsageError
from wavegan_dist.model import Ema
from wavegan_dist.model.build import build_discriminator, build_generator
from wavegan_dist.plan import STRATEGIES, Hardware, predict
from wavegan_dist.plan.count import StepCounter
from wavegan_dist.plan.predict import image_bytes
from wavegan_dist.plan.strategy import checkpoint_bytes, device_state

GPUS = [8, 16, 32, 64]


def with_train(experiment: Experiment, **changes: object) -> Experiment:
    tree = experiment.model_dump()
    return parse({**tree, "train": {**tree["train"], **changes}}, "tests")


def evaluated_images(experiment: Experiment, hardware: Hardware) -> float:
    """The images that evaluations process on one device, from their share of its time."""
    (row,) = predict(experiment, hardware, [1])
    seconds = row.evaluation_share * experiment.train.total_kimg * 1000 / row.images_per_second
    return seconds * hardware.evaluate_images_per_s


def test_ddp_state_is_the_bytes_of_the_real_modules_and_their_optimizer(experiment):
    generator, discriminator = build_generator(experiment), build_discriminator(experiment, [])
    ema = Ema(generator, 1e3, 0).module
    state = device_state(StepCounter(experiment).sizes, "ddp", 8)
    parameters = [*generator.parameters(), *discriminator.parameters()]
    adam = torch.optim.Adam(parameters, fused=True)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    adam.step()
    moments = [moments[key] for moments in adam.state.values() for key in ("exp_avg", "exp_avg_sq")]
    assert state.weights == sum(parameter.nbytes for parameter in parameters)
    assert state.gradients == sum(parameter.grad.nbytes for parameter in parameters if parameter.grad is not None)
    assert state.moments == sum(moment.nbytes for moment in moments)
    assert state.ema == sum(value.nbytes for value in ema.state_dict().values() if value.is_floating_point())
    assert checkpoint_bytes(StepCounter(experiment).sizes) == state.weights + state.moments + state.ema


def test_augmentation_is_counted_and_a_small_part_of_a_step(experiment):
    tree = experiment.model_dump() | {"model": {"resolution": 32, "width": 64}}
    experiments = [parse({**tree, "augment": {"probability": probability}}, "tests") for probability in (0, 0.8)]
    plain, augmented = (StepCounter(each).counts(16) for each in experiments)
    moved = [sum(operator.bytes for phase in counts.phases for operator in phase.operators) for counts in (plain, augmented)]
    assert 1.01 < moved[1] / moved[0] < 1.1


def test_the_bytes_of_an_image_are_those_of_the_sets_by_weight(experiment, shards, index):
    stored = sum(shard.bytes for shard in index.shards) / index.count
    sets = [
        {"index": f"{shards}/index.json", "weight": 3},
        {"index": "http://host/set", "weight": 1},
    ]  # the second: 3 * 32 * 32
    too_long_for_a_path = f"pipe:{100 * 'A=1 '}cat {{file}}"
    for data, expected in (
        (str(shards), stored),
        (sets, (3 * stored + 3072) / 4),
        ("http://host/set", 3072),
        (too_long_for_a_path, 3072),
    ):
        assert image_bytes(parse({**experiment.model_dump(), "data": {"index": data}}, "tests")) == pytest.approx(expected)


def test_every_ema_takes_memory_and_evaluations(experiment, rates):
    several = parse({**experiment.model_dump(), "ema": {"half_life_kimg": [10, 100, 500]}}, "tests")
    one, three = (device_state(StepCounter(each).sizes, "ddp", 8).ema for each in (experiment, several))
    assert three == 3 * one
    images = [evaluated_images(each, Hardware.model_validate(rates)) for each in (experiment, several)]
    assert images[1] - 10_000 == pytest.approx(3 * (images[0] - 10_000))


def test_zero_shards_moments_then_gradients_then_weights(experiment):
    sizes = StepCounter(experiment).sizes
    ddp, one, two, three = (device_state(sizes, strategy, 8) for strategy in STRATEGIES)
    assert one.moments == two.moments == three.moments == ddp.moments / 8
    assert one.gradients == ddp.gradients
    assert two.gradients == three.gradients == ddp.gradients / 8
    assert three.weights == ddp.weights / 8
    assert three.ema == ddp.ema / 8
    assert (two.moments + two.gradients) / (ddp.moments + ddp.gradients) <= 0.6


def test_more_gpus_are_faster_and_less_efficient_where_arithmetic_is_the_bound(experiment, rates):
    slow = Hardware.model_validate(rates | {"matmul_fraction": 1e-4, "memory_fraction": 1e-3, "operator_us": 1})
    rows = [row for row in predict(experiment, slow, GPUS) if row.strategy == "ddp"]
    speeds = [row.images_per_second for row in rows]
    assert speeds == sorted(speeds)
    efficiencies = [row.strong_efficiency for row in rows]
    assert efficiencies == sorted(efficiencies, reverse=True)
    assert all(0 < row.strong_efficiency <= 1 and 0 < row.weak_efficiency <= 1 for row in rows)


@pytest.mark.parametrize(
    ("better", "than"),
    [
        ({"matmul_fraction": 0.7, "operator_us": 0}, {"matmul_fraction": 0.001, "operator_us": 0}),
        ({"memory_gb_per_s": 8000, "operator_us": 0}, {"memory_gb_per_s": 800, "operator_us": 0}),
        ({"operator_us": 1}, {"operator_us": 20}),
        ({"intra_node": {"alpha_us": 1, "gb_per_s": 400}}, {"intra_node": {"alpha_us": 20, "gb_per_s": 10}}),
        ({"inter_node": {"alpha_us": 1, "gb_per_s": 50}}, {"inter_node": {"alpha_us": 50, "gb_per_s": 1}}),
        ({"sharing": 1}, {"sharing": 1.5}),
    ],
)
def test_a_better_rate_never_makes_a_run_slower(experiment, rates, better, than):
    fast, slow = (predict(experiment, Hardware.model_validate(rates | change), [32]) for change in (better, than))
    assert all(a.step.total < b.step.total for a, b in zip(fast, slow, strict=True))


def test_overlap_hides_gradients_but_the_last_bucket(experiment, hardware):
    wide = parse({**experiment.model_dump(), "model": {"resolution": 32, "width": 256}}, "tests")
    hidden, shown = (predict(wide, hardware.model_copy(update={"overlap": share}), [64])[0].step for share in (1.0, 0.0))
    assert 0 < hidden.gradients < shown.gradients
    assert hidden.compute == shown.compute


def test_one_gpu_has_efficiency_1_and_no_network(experiment, hardware):
    (row,) = predict(experiment, hardware, [1])
    assert row.strategy == "ddp"
    assert row.step.network == 0
    assert row.weak_efficiency == row.strong_efficiency == 1


def test_memory_that_does_not_suffice_is_marked(experiment, hardware):
    (row,) = predict(experiment, hardware.model_copy(update={"memory_gib": hardware.reserved_gib}), [1])
    assert not row.fits
    (row,) = predict(experiment, hardware, [1])
    assert row.fits


def test_a_loader_that_cannot_keep_up_limits_the_speed(experiment, hardware):
    starved = hardware.model_copy(update={"decode_megapixels_per_s": 0.1})
    (row,) = predict(experiment, starved, [1])
    assert not row.fed
    assert row.images_per_second == pytest.approx(starved.cores_per_gpu * 1e5 / 32**2)
    assert row.workers_per_gpu == starved.cores_per_gpu


def test_real_images_are_evaluated_once_and_generated_ones_at_each_snapshot(experiment, hardware):
    run = {"total_kimg": 100.0}
    assert evaluated_images(with_train(experiment, **run, snapshot_kimg=1), hardware) == pytest.approx(100 * 5000 + 10_000)
    assert evaluated_images(with_train(experiment, **run, snapshot_kimg=64), hardware) == pytest.approx(2 * 5000 + 10_000)


def test_the_share_of_checkpoints_follows_their_interval_and_cost_follows_time(experiment, hardware):
    frequent, rare = (predict(with_train(experiment, checkpoint_kimg=n, snapshot_kimg=n), hardware, [8])[0] for n in (1, 10))
    assert frequent.checkpoint_share > rare.checkpoint_share > 0
    assert rare.cost_per_million_images == pytest.approx(8 * hardware.cost_per_gpu_hour / 3600 * 1e6 / rare.images_per_second)


def test_numbers_that_do_not_divide_are_refused(experiment, hardware):
    with pytest.raises(UsageError, match=r"batch_size = 256 does not divide among 512 GPUs.*train\.batch_size=512"):
        predict(experiment, hardware, [256, 512])
    with pytest.raises(UsageError, match="12 GPUs do not fill nodes of 8"):
        predict(with_train(experiment, batch_size=144), hardware, [12])


def test_d_steps_repeat_the_discriminator_phase(experiment, hardware):
    one, two = (predict(with_train(experiment, d_steps=n), hardware, [8])[0] for n in (1, 2))
    assert one.step.total < two.step.total < 2 * one.step.total
    assert two.images_per_second > one.images_per_second


def test_micro_batches_save_memory_and_cost_the_collectives_of_batch_norm_again(experiment, hardware):
    one, two = (predict(with_train(experiment, accumulation=n), hardware, [8])[0] for n in (1, 2))
    half = predict(with_train(experiment, batch_size=128), hardware, [8])[0]
    assert half.memory_gib <= two.memory_gib < one.memory_gib
    assert two.step.compute == pytest.approx(2 * half.step.compute)
    assert two.step.norms == pytest.approx(2 * half.step.norms)
    assert two.step.optimizer == one.step.optimizer
    with pytest.raises(UsageError, match=r"among 8 GPUs and 64 micro-batches on each; .*batch_size=512"):
        predict(with_train(experiment, accumulation=64), hardware, [8])
