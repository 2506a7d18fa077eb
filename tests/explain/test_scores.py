"""Scores of discriminators that are read from the checkpoints of a run."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.explain.helpers import make_snapshot
from wavegan_dist.data import Index, write_shards
from wavegan_dist.errors import WaveganError
from wavegan_dist.evaluate.real_images import draw_subsets
from wavegan_dist.explain.measure import measure, read_real_images
from wavegan_dist.explain.scores import Discriminators, load_discriminators
from wavegan_dist.images import from_uint8, save_png
from wavegan_dist.model.build import build_discriminator
from wavegan_dist.model.discriminator import WaveletDiscriminator
from wavegan_dist.model.snapshot import load_snapshot
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.train.checkpoint import load_module

pytestmark = pytest.mark.usefixtures("few_images")


def discriminator_of(run: Path, name: str) -> WaveletDiscriminator:
    """The discriminators of a checkpoint, read with safetensors alone."""
    snapshot = load_snapshot(run / "snapshots" / name)
    module = build_discriminator(snapshot.config, [{"low": 2.0, "lh": 3.0, "hl": 4.0, "hh": 5.0}] * 2)
    tensors: dict[str, torch.Tensor] = {}
    for file in (run / "checkpoints" / name).glob("*.safetensors"):
        tensors |= load_file(file)
    prefix = "discriminator."
    module.load_state_dict({key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)})
    return module.eval()


@pytest.mark.parametrize("name", ["kimg-000000.160", "kimg-000000.320"])
def test_scores_are_those_of_the_checkpoint_beside_the_snapshot(run: Path, index: Index, name: str) -> None:
    snapshot = load_snapshot(run / "snapshots" / name)
    explanation = measure(snapshot, 3, 1, [], index)
    assert f"{run.name}/checkpoints/{name}, at" in explanation.scores_source
    assert explanation.real is not None
    images = {
        "fused": explanation.shown.fused,
        "base": explanation.shown.base,
        "inverse transform": explanation.shown.wavelet_image(),
        "real": from_uint8(explanation.real.images),
    }
    assert list(explanation.scores) == list(images)
    discriminator = discriminator_of(run, name)
    for part, scores in explanation.scores.items():
        with torch.no_grad():
            expected = discriminator(images[part])
        assert list(scores) == ["image", "low", "high"]
        for network, logits in expected.items():
            assert len(scores[network]) == 3
            torch.testing.assert_close(torch.tensor(scores[network]), logits)


def test_the_nearest_checkpoint_is_used(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    snapshot = load_snapshot(copy / "snapshots" / "kimg-000000.320")
    shutil.rmtree(copy / "checkpoints" / "kimg-000000.320")
    assert f"{copy / 'checkpoints' / 'kimg-000000.160'}, at 0.16 kimg" in load_discriminators(snapshot).source


def test_why_there_are_no_scores_is_said(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    snapshot = load_snapshot(copy / "snapshots" / "kimg-000000.320")
    shard = next((copy / "checkpoints" / "kimg-000000.320").glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    damaged = load_discriminators(snapshot)
    assert damaged.module is None
    assert f"{shard.name} does not have the sha256" in damaged.source
    shutil.rmtree(copy / "checkpoints")
    assert "holds no checkpoint" in load_discriminators(snapshot).source
    shutil.move(copy / "snapshots" / "kimg-000000.320", tmp_path / "alone")
    explanation = measure(load_snapshot(tmp_path / "alone"), 2, 0, [], None)
    assert "the snapshot is not in a run folder" in explanation.scores_source
    assert explanation.scores == {}


def test_a_module_of_other_settings_is_refused(run: Path) -> None:
    checkpoint = RunFolder(run).checkpoints()[-1]
    with pytest.raises(WaveganError, match=r"cannot read the discriminator of .*kimg-000000\.320") as error:
        load_module(checkpoint, "discriminator", WaveletDiscriminator(32, 8))
    assert "\n" not in str(error.value)


def test_real_images_are_those_of_an_evaluation_and_shown_at_equal_distances(run: Path, index: Index) -> None:
    snapshot = load_snapshot(run / "snapshots" / "kimg-000000.320")
    real = read_real_images(snapshot, index, 256, 7)
    assert real.images.shape == (256, 3, 32, 32)
    assert real.labels is None
    rows = draw_subsets(index, 256, 7)[0]
    assert torch.equal(real.images[5], read_real_images(snapshot, index, index.count, 7).images[rows[5]])
    spread = real.spread(8).images
    assert torch.equal(spread, torch.stack([real.images[32 * number] for number in range(8)]))
    assert len(real.spread(100).images) <= 100
    assert len(read_real_images(snapshot, index, 10**6, 0).images) == index.count


def test_a_conditional_model_is_scored_with_the_classes_of_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        gray = torch.full((32, 32, 3), number, dtype=torch.uint8)
        save_png(gray, tmp_path / "photos" / ("even" if number % 2 == 0 else "odd") / f"{number}.png")
    index = write_shards(tmp_path / "photos", tmp_path / "shards", 32, labels=True, progress=False)
    snapshot = load_snapshot(make_snapshot(tmp_path / "snapshot", num_classes=3))
    discriminator = build_discriminator(snapshot.config, []).eval().requires_grad_(False)
    monkeypatch.setattr("wavegan_dist.explain.measure.load_discriminators", lambda _: Discriminators(discriminator, ""))
    explanation = measure(snapshot, 4, 0, [2, 0], index)
    assert explanation.labels.tolist() == [2, 0, 2, 0]
    assert explanation.real is not None
    assert explanation.real.labels.tolist() == [image[0, 0, 0].item() % 2 for image in explanation.real.images]
    for part, images, labels in (
        ("fused", explanation.shown.fused, explanation.labels),
        ("real", from_uint8(explanation.real.images), explanation.real.labels),
    ):
        expected, other = discriminator(images, labels), discriminator(images, (labels + 1) % 3)
        for network, logits in explanation.scores[part].items():
            torch.testing.assert_close(torch.tensor(logits), expected[network])
            assert not torch.allclose(expected[network], other[network])
