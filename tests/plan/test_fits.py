"""The check of a run's memory before it starts."""

import pytest

from wavegan_dist.config import Experiment, parse
from wavegan_dist.errors import UsageError
from wavegan_dist.plan import check_memory, fits
from wavegan_dist.plan.count import StepCounter
from wavegan_dist.plan.predict import device_bytes


@pytest.fixture(autouse=True)
def _without_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def settings(**model: object) -> Experiment:
    return parse({"data": {"index": "none"}, "model": {"width": 8, "z_dim": 16, **model}, "train": {"batch_size": 16}}, "test")


def with_memory(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    monkeypatch.setattr(fits, "_memory", lambda: (int(size), "this machine"))


def test_a_run_is_refused_exactly_if_its_estimate_exceeds_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = settings(resolution=64)
    needed = fits.step_bytes(experiment, 16, 1)
    with_memory(monkeypatch, needed)
    check_memory(experiment)
    with_memory(monkeypatch, needed - 1)
    with pytest.raises(
        UsageError, match=r"a step of 16 images of 64 px with .*width = 8 needs at least 0\.0 GiB, but this"
    ) as error:
        check_memory(experiment)
    assert "\n" not in str(error.value)


def test_1024_px_with_the_default_width_do_not_fit_this_machine_and_the_estimate_is_in_the_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_memory(monkeypatch, 8 * 2**30)
    experiment = settings(resolution=1024, width=64)
    with pytest.raises(UsageError, match=r"16 images of 1024 px .* needs at least \d+\.\d GiB, but this machine has 8\.0 GiB"):
        check_memory(experiment)


def test_more_processes_or_micro_batches_need_less(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = settings(resolution=64)
    with_memory(monkeypatch, fits.step_bytes(experiment, 8, 1))
    with pytest.raises(UsageError):
        check_memory(experiment)
    check_memory(experiment.model_copy(update={"train": experiment.train.model_copy(update={"accumulation": 2})}))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    check_memory(experiment)


@pytest.mark.parametrize(("resolution", "width"), [(32, 4), (32, 64), (128, 16)])
def test_the_rough_bound_is_above_the_estimate_of_the_plan_which_is_above_that_of_the_check(
    resolution: int, width: int
) -> None:
    experiment = settings(resolution=resolution, width=width)
    counter = StepCounter(experiment)
    planned = device_bytes(counter.counts(16), counter.sizes, "ddp", 1, 16, resolution)
    assert fits.step_bytes(experiment, 16, 1) < planned < fits.rough_bound(experiment, 16)


@pytest.mark.parametrize(
    "model",
    [{"z_dim": 50_000}, {"num_classes": 20_000}, {"num_classes": 20_000, "backbone": "residual", "z_dim": 512}],
    ids=str,
)
def test_the_rough_bound_counts_latents_classes_and_emas(model: dict[str, object]) -> None:
    experiment = settings(**model)
    experiment.ema.half_life_kimg = [1.0 + index for index in range(40)]
    assert fits.step_bytes(experiment, 16, 1) < fits.rough_bound(experiment, 16)


def test_the_memory_of_this_machine_is_shared_by_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "trains_on_cpu", lambda: True)
    whole, name = fits._memory()
    assert whole > 2**28
    assert name == "this machine"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert fits._memory() == (whole // 2, "each of 2 processes of this machine")
