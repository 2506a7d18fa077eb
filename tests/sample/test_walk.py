"""Animated walks through latents."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import Tensor, nn

from tests.sample.snapshots import colored, conditional
from wavegan_dist import counted
from wavegan_dist.images import to_uint8
from wavegan_dist.model.latents import slerp
from wavegan_dist.model.snapshot import Snapshot
from wavegan_dist.sample import sample
from wavegan_dist.sample.walk import walk_latents


def latents(seed: int, count: int) -> Tensor:
    return counted.normal(seed, "latent/evaluate", range(count), 16)


def angle(a: Tensor, b: Tensor) -> float:
    return math.acos(min(1.0, float(a.double() @ b.double() / (a.double().norm() * b.double().norm()))))


def test_slerp_of_unit_vectors_turns_at_constant_speed_in_their_plane() -> None:
    a, b = nn.functional.normalize(latents(0, 2), dim=1)
    whole = angle(a, b)
    for share in (0, 0.1, 0.25, 0.5, 0.9, 1):
        between = slerp(a, b, share)
        assert between.norm() == pytest.approx(1, abs=1e-6)
        assert angle(a, between) == pytest.approx(share * whole, abs=1e-3)
        assert angle(between, b) == pytest.approx((1 - share) * whole, abs=1e-3)


def test_slerp_between_latents_keeps_their_length_which_linear_interpolation_does_not() -> None:
    a, b = latents(1, 2)
    lengths = sorted((a.norm().item(), b.norm().item()))
    assert torch.equal(slerp(a, b, 0), a)
    assert torch.equal(slerp(a, b, 1), b)
    middle = slerp(a, b, 0.5).norm().item()
    assert lengths[0] * 0.9 <= middle <= lengths[1] * 1.1
    assert torch.lerp(a, b, 0.5).norm() < middle


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0])
def test_slerp_of_parallel_and_opposite_vectors_is_finite_and_linear(factor: float) -> None:
    a = latents(2, 1)[0]
    torch.testing.assert_close(slerp(a, factor * a, 0.25), a * (0.75 + 0.25 * factor))


@pytest.mark.parametrize(("count", "frames"), [(2, 20), (3, 60), (5, 50), (4, 10)])
def test_a_walk_passes_through_its_latents_in_equal_steps_and_closes(count: int, frames: int) -> None:
    ends = nn.functional.normalize(latents(3, count), dim=1)
    walk = walk_latents(ends, frames, range(frames))
    for number in range(count):
        if number * frames % count == 0:
            assert torch.equal(walk[number * frames // count], ends[number])
    longest = max(angle(ends[number], ends[(number + 1) % count]) for number in range(count))
    steps = [angle(walk[number], walk[(number + 1) % frames]) for number in range(frames)]
    assert max(steps) <= longest * count / frames + 1e-3  # the step from the last frame to the first, too
    assert torch.equal(walk_latents(ends, frames, range(frames, frames + 4)), walk[:4])


@pytest.mark.parametrize(("name", "arguments"), [("w.webp", {"count": 3}), ("w.WEBP", {"seeds": "4,9,2"}), ("w.gif", {})])
def test_an_animation_loops_forever_at_25_frames_a_second(
    loaded: Snapshot, tmp_path: Path, name: str, arguments: dict[str, Any]
) -> None:
    sample(colored(loaded), arguments.get("count"), None, tmp_path / name, walk=24, seeds=arguments.get("seeds"))
    ends = (
        torch.cat([latents(seed, 1) for seed in (4, 9, 2)]) if "seeds" in arguments else latents(0, arguments.get("count", 8))
    )
    expected = to_uint8(walk_latents(ends, 24, range(24))[:, :3] / 4).tolist()
    with Image.open(tmp_path / name) as animation:
        assert animation.info["loop"] == 0
        frames = [(np.asarray(frame.convert("RGB")), frame.info["duration"]) for frame in ImageSequence.Iterator(animation)]
    assert len(frames) == 24
    for (frame, duration), color in zip(frames, expected, strict=True):
        assert duration == 40
        assert frame.shape == (32, 32, 3)
        assert (frame == color).all()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("classes", "level"), [("cat", 200), (None, None)])
def test_a_walk_stays_in_one_class(loaded: Snapshot, tmp_path: Path, classes: str | None, level: int | None) -> None:
    sample(conditional(loaded), 4, 5, tmp_path / "w.webp", walk=20, classes=classes)
    first = 100 * int(conditional(loaded).classes.draw(5, "class/evaluate", range(1)))
    with Image.open(tmp_path / "w.webp") as animation:
        for frame in ImageSequence.Iterator(animation):
            assert set(np.asarray(frame.convert("RGB")).ravel()) == {first if level is None else level}
