"""Augmentation: each transformation against NumPy, which images are chosen, and derivatives."""

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from wavegan_dist import counted
from wavegan_dist.config import AugmentConfig
from wavegan_dist.model.augment import PARAMETERS, UNIFORMS, augment, draw_parameters, gate

SIDE = 16
Array = npt.NDArray[np.float64]


def images(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype) * 2 - 1


def parameters(saturation: float = 0, contrast: float = 0, side: float = 0, **values: float) -> Tensor:
    values |= {"contrast": contrast, "gain": (1 + contrast) * (1 + saturation) - 1, "gray": (1 + contrast) * saturation}
    if side:
        values |= {"bottom": values["top"] + side, "end": values["left"] + side}
    return torch.tensor([[values.get(name, 0.0) for name in PARAMETERS]], dtype=torch.float64)


def drawn(count: int, settings: AugmentConfig, seed: int = 0) -> Tensor:
    return draw_parameters(counted.uniform(seed, "augment", range(count), UNIFORMS), settings, SIDE)


def oracle(image: Array, row: dict[str, float]) -> Array:
    """Augment one image [3, S, S], one transformation after the other."""
    side = image.shape[1]
    if row["mirror"]:
        image = image[:, :, ::-1]
    down, right = int(row["down"]), int(row["right"])
    padded = np.pad(image, ((0, 0), (side // 2, side // 2), (side // 2, side // 2)), mode="reflect")
    image = padded[:, side // 2 - down :, side // 2 - right :][:, :side, :side]
    image = image + row["brightness"]
    gray = image.mean(axis=0, keepdims=True)
    image = gray + (image - gray) * (1 + row["gray"] / (1 + row["contrast"]))
    image = image.mean() + (image - image.mean()) * (1 + row["contrast"])
    image = image.copy()
    top, left, bottom, end = (max(int(row[name]), 0) for name in ("top", "left", "bottom", "end"))
    image[:, top:bottom, left:end] = 0
    return image


def assert_equal_to_oracle(x: Tensor, rows: Tensor, tolerance: float = 1e-12) -> None:
    expected = [
        oracle(image.numpy(), dict(zip(PARAMETERS, row.tolist(), strict=True))) for image, row in zip(x, rows, strict=True)
    ]
    torch.testing.assert_close(augment(x, rows), torch.from_numpy(np.stack(expected)), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "values",
    [
        {"mirror": 1},
        *({"down": down, "right": right} for down, right in product((-8, -3, 0, 1, 8), repeat=2)),
        {"mirror": 1, "right": 3},
        {"brightness": 0.3},
        {"saturation": -1},
        {"saturation": 0.7},
        {"contrast": -0.4},
        {"brightness": -0.2, "saturation": 0.5, "contrast": 0.4},
        *({"top": top, "left": left, "side": 6} for top, left in product((-6, -3, 0, 7, 13, 16), repeat=2)),
        {"top": 2, "left": 3, "side": 5},
    ],
    ids=str,
)
def test_each_transformation_is_numpy_s(values: dict[str, float]) -> None:
    assert_equal_to_oracle(images(1, torch.float64), parameters(**values).double())


def test_all_transformations_together_are_numpy_s() -> None:
    rows = gate(drawn(64, AugmentConfig(probability=1, translation=0.5)), torch.tensor(0.7)).double()
    assert_equal_to_oracle(images(64, torch.float64), rows, tolerance=1e-6)  # the rows are rounded to float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_at_probability_0_an_image_stays_as_it_is_in_its_dtype_and_memory_format(
    dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    x = images(8, dtype).contiguous(memory_format=memory_format)
    rows = drawn(8, AugmentConfig(probability=1))
    assert torch.equal(augment(x, gate(rows, torch.tensor(0.0))), x)
    augmented = augment(x, gate(rows, torch.tensor(1.0)))
    assert augmented.dtype == dtype
    assert augmented.is_contiguous(memory_format=memory_format)
    expected = augment(x.double(), gate(rows, torch.tensor(1.0))).to(dtype)
    torch.testing.assert_close(augmented, expected)


def test_a_real_image_and_its_generated_one_in_the_same_batch_share_their_draw() -> None:
    x, rows = images(6), gate(drawn(6, AugmentConfig(probability=1)), torch.tensor(0.8))
    real, fake = augment(torch.cat((x, -x)), rows).chunk(2)
    torch.testing.assert_close(real, augment(x, rows))
    torch.testing.assert_close(fake, augment(-x, rows))


def test_every_transformation_is_chosen_for_a_share_p_of_the_images_and_has_its_whole_range() -> None:
    count, p = 4000, 0.3
    rows = drawn(count, AugmentConfig(probability=1, translation=0.25, cutout=0.5))
    chosen = gate(rows, torch.tensor(p))
    columns = dict(zip(PARAMETERS, chosen.unbind(1), strict=True))
    shares = {"mirror": p / 2, "down": p * 8 / 9, "right": p * 8 / 9, "gray": p, "bottom": p}
    for name, share in shares.items():
        assert (columns[name] != 0).float().mean().item() == pytest.approx(share, abs=0.03), name
    assert torch.equal(columns["gray"] != 0, columns["contrast"] != 0)  # one gate for the three
    correlation = torch.corrcoef(torch.stack([columns[name] != 0 for name in ("mirror", "down", "gray", "bottom")]).float())
    assert (correlation - torch.eye(4)).abs().max() < 0.06
    whole = dict(zip(PARAMETERS, gate(rows, torch.tensor(1.0)).unbind(1), strict=True))
    assert set(whole["down"].tolist()) == set(whole["right"].tolist()) == set(range(-4, 5))
    assert set(whole["top"].tolist()) == set(whole["left"].tolist()) == set(range(-4, 12))
    assert torch.equal(whole["bottom"], whole["top"] + 8)
    assert torch.equal(whole["end"], whole["left"] + 8)
    whole["saturation"] = whole["gray"] / (1 + whole["contrast"])
    for name, limit in {"brightness": 0.5, "saturation": 1, "contrast": 0.5}.items():
        assert whole[name].min() == pytest.approx(-limit, abs=0.01)
        assert whole[name].max() == pytest.approx(limit, abs=0.01)
    torch.testing.assert_close(1 + whole["gain"], (1 + whole["contrast"]) * (1 + whole["saturation"]))


def test_a_transformation_of_strength_0_never_happens() -> None:
    off = AugmentConfig(probability=1, mirror=False, translation=0, colour=0, cutout=0.5)
    assert (gate(drawn(100, off), torch.tensor(1.0))[:, :7] == 0).all()
    rows = gate(drawn(100, AugmentConfig(mirror=False, translation=0, colour=0, cutout=0)), torch.tensor(1.0))
    assert torch.equal(augment(images(100), rows), images(100))


@pytest.mark.slow
def test_derivatives_of_first_and_second_order() -> None:
    x = torch.rand(4, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rows = gate(
        draw_parameters(counted.uniform(1, "a", range(4), UNIFORMS), AugmentConfig(probability=1, translation=0.5), 6),
        torch.tensor(1.0),
    )
    assert rows[:, 1:3].abs().max() == 3
    assert gradcheck(lambda x: augment(x, rows), x)
    assert gradgradcheck(lambda x: augment(x, rows) ** 2, x)


def test_a_draw_depends_on_seed_stream_and_position_only() -> None:
    whole = counted.uniform(3, "augment/d", range(100, 132), UNIFORMS)
    assert torch.equal(whole[16:], counted.uniform(3, "augment/d", range(116, 132), UNIFORMS))
    assert not torch.equal(whole, counted.uniform(3, "augment/d/1", range(100, 132), UNIFORMS))
    assert (whole >= 0).all()
    assert (whole < 1).all()
