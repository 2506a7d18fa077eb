"""torch-fidelity runs an exported generator and computes the numbers of `wavegan evaluate`."""

from pathlib import Path

import onnxruntime
import pytest
import torch
from numpy.random import RandomState
from torch import Tensor
from torch_fidelity import calculate_metrics
from torch_fidelity.utils import NOISE_SOURCE_REGISTRY

from wavegan_dist import counted
from wavegan_dist.data import Index, images_at
from wavegan_dist.evaluate.evaluate import evaluate_snapshot
from wavegan_dist.evaluate.real_images import draw_subsets
from wavegan_dist.export.export import export
from wavegan_dist.export.formats import find_formats
from wavegan_dist.images import save_png, to_uint8
from wavegan_dist.model.generate import LATENT_STREAM
from wavegan_dist.model.snapshot import Snapshot

COUNT, SEED = 64, 7


@pytest.fixture(scope="module")
def model(snapshots: dict[str, Snapshot], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file generator-uint8.onnx of a generator."""
    (path,) = export(snapshots["dcgan"], tmp_path_factory.mktemp("uint8"), find_formats("onnx-uint8"))
    return path


def test_pixels_are_those_of_the_generator_up_to_one_gray_level(model: Path, snapshots: dict[str, Snapshot]) -> None:
    z = counted.normal(0, "latent/test", range(500), 16)
    (pixels,) = onnxruntime.InferenceSession(model).run(None, {"z": z.numpy()})
    expected = to_uint8(snapshots["dcgan"].generator(z))
    difference = (torch.from_numpy(pixels).int() - expected.int()).abs()
    assert pixels.dtype == "uint8"
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3


def test_kid_and_prc_of_the_file_equal_those_of_evaluate(
    model: Path, snapshots: dict[str, Snapshot], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch-fidelity draws latents of its own; here it gets those of `wavegan evaluate`, and the same real images."""
    result = evaluate_snapshot(snapshots["dcgan"].path, shards / "index.json", ["kid", "prc"], COUNT, SEED)
    assert result is not None
    index = Index.load(shards)
    (rows,) = draw_subsets(index, COUNT, SEED)[:1]
    for number, image in enumerate(next(images_at(index, rows, COUNT))):
        save_png(image.permute(1, 2, 0), tmp_path / f"{number:04d}.png")
    drawn = 0

    def latents(rng: RandomState, shape: tuple[int, int]) -> Tensor:
        nonlocal drawn
        first, drawn = drawn, drawn + shape[0]
        return counted.normal(SEED, LATENT_STREAM, range(first, drawn), shape[1])

    monkeypatch.setitem(NOISE_SOURCE_REGISTRY, "normal", latents)
    (name,) = (key for key in result.metrics if key.startswith("kid"))
    expected = calculate_metrics(
        input1=str(model), input1_model_z_size=16, input1_model_num_samples=COUNT, input2=str(tmp_path), cuda=False, kid=True,
        prc=True, kid_subset_size=result.protocol.metrics[name]["kid_subset_size"], rng_seed=SEED, verbose=False, cache=False,
        feature_extractor="efflite0@128", batch_size=16, save_cpu_ram=True,
    )  # fmt: skip
    assert drawn == COUNT
    assert result.metrics == pytest.approx(
        {
            "kid_efflite0@128": expected["kernel_inception_distance_mean"],
            "precision_efflite0@128": expected["precision"],
            "recall_efflite0@128": expected["recall"],
        },
        rel=1e-3,
    )
