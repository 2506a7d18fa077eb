"""Training with labels: both phases get the classes of the real images, runs store and resume them, mistakes are one line."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import pywt
import torch
import webdataset
from PIL import Image
from safetensors.torch import load_file

from tests.helpers import Command, points, refused, run_ranks
from tests.train.tiny import make_trainer, random_batches
from wavegan_dist.data import Index, index_shards
from wavegan_dist.model.snapshot import load_snapshot
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.train.progress import band_stds


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tars of 256 images of noise; image n has the class n % 5, but 4 has become 3."""
    folder = tmp_path_factory.mktemp("labeled")
    draws = np.random.default_rng(0)
    with webdataset.ShardWriter(str(folder / "%03d.tar"), maxcount=40, verbose=0) as writer:
        for number in range(256):
            content = io.BytesIO()
            Image.fromarray(draws.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(content, "PNG")
            writer.write({"__key__": f"im{number}", "png": content.getvalue(), "cls": min(number % 5, 3)})
    index_shards(folder)
    return folder


def overrides(labeled: Path, num_classes: int = 4) -> list[str]:
    return [f"data.index={labeled}/index.json", f"model.num_classes={num_classes}"]


def test_both_phases_get_the_labels_of_the_images_and_the_generator_s_are_those_of_the_last_batch() -> None:
    trainer = make_trainer({"num_classes": 5}, {"d_steps": 2, "accumulation": 2})
    trainer.step(random_batches(classes=5))
    source = random_batches(classes=5)
    batches = [next(source) for _ in range(2)]
    shown = [torch.cat([part.labels for part in result.micro_batches]) for result in trainer.phase_results]
    assert [labels.tolist() for labels in shown] == [batches[i].labels.tolist() for i in (0, 1, 1)]
    assert trainer.nonfinite.item() == 0


def test_a_model_without_classes_gets_no_labels() -> None:
    trainer = make_trainer({}, {})
    trainer.step(random_batches())
    assert all(part.labels is None for result in trainer.phase_results for part in result.micro_batches)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, wavegan: Command, config: Path, labeled: Path) -> Path:
    """A finished run with classes, a class without images, and two loader workers."""
    folder = tmp_path_factory.mktemp("runs") / "conditional"
    outcome = wavegan("train", "--config", config, "--run-dir", folder, *overrides(labeled, 6), "data.workers=2")
    assert outcome.returncode == 0, outcome.stderr
    (folder / "stderr").write_text(outcome.stderr)
    return folder


def test_snapshots_know_the_classes_and_unused_ones_are_warned_of(run: Path, labeled: Path) -> None:
    counts = np.bincount(Index.load(labeled).members[:, 2], minlength=6).tolist()
    assert counts == [52, 51, 51, 102, 0, 0]
    for path in run.glob("snapshots/*"):
        assert load_snapshot(path).classes == (counts, [])
    assert json.loads((run / "environment.json").read_text())["classes"] == {"counts": counts, "names": []}
    assert (run / "stderr").read_text().count("2 of 6 classes have no image: 4, 5") == 1


def test_a_stopped_run_with_labels_resumes_bit_for_bit_with_another_number_of_workers(
    run: Path, tmp_path: Path, wavegan: Command, config: Path, labeled: Path
) -> None:
    stopped = tmp_path / "stopped"
    for length in ("train.total_kimg=0.16", "train.total_kimg=0.32"):
        outcome = wavegan("train", "--config", config, "--run-dir", stopped, *overrides(labeled, 6), length)
        assert outcome.returncode == 0, outcome.stderr
    ends = [RunFolder(folder).checkpoints()[-1] for folder in (run, stopped)]
    for file in ends[0].glob("*.safetensors"):
        one, other = load_file(file), load_file(ends[1] / file.name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    losses = [{point["nimg"]: point["loss/d_image"] for point in points(folder)} for folder in (run, stopped)]
    assert losses[0][320] == losses[1][320]


def test_two_processes_train_with_labels(tmp_path: Path, config: Path, labeled: Path) -> None:
    folder = tmp_path / "two"
    run_ranks(2, "-m", "wavegan_dist", "train", "--config", config, "--run-dir", folder, *overrides(labeled), "data.workers=1")
    assert load_snapshot(sorted(folder.glob("snapshots/*"))[-1]).classes is not None


@pytest.mark.parametrize(
    ("num_classes", "words"),
    [(3, ["model.num_classes = 3, but", "has labels up to 3; set model.num_classes=4"]), (1, ["set 0 for a model without"])],
)
def test_labels_that_do_not_fit_end_the_run_in_one_line(
    tmp_path: Path, wavegan: Command, config: Path, labeled: Path, num_classes: int, words: list[str]
) -> None:
    settings = overrides(labeled, num_classes)
    refused(wavegan("train", "--config", config, "--run-dir", tmp_path / "run", *settings), *words)
    assert not (tmp_path / "run").exists()


def test_a_set_without_labels_ends_the_run_in_one_line(tmp_path: Path, wavegan: Command, config: Path) -> None:
    outcome = wavegan("train", "--config", config, "--run-dir", tmp_path / "run", "model.num_classes=10")
    refused(outcome, "model.num_classes = 10, but", "has no labels; write the shards with --labels")


def test_scaled_bands_of_deeper_levels_need_an_index_that_has_measured_them(
    tmp_path: Path, wavegan: Command, config: Path, shards: Path
) -> None:
    content = json.loads((shards / "index.json").read_text())
    del content["deeper_band_std"]
    old = tmp_path / "old"
    old.mkdir()
    for path in shards.iterdir():
        (old / path.name).symlink_to(path)
    (old / "index.json").unlink()
    (old / "index.json").write_text(json.dumps(content))
    settings = (f"data.index={old}", "model.levels=2", "model.band_scale=data")
    outcome = wavegan("train", "--config", config, "--run-dir", tmp_path / "run", *settings)
    refused(outcome, "needs the standard deviations of 2 levels, but", "has those of 1", "`wavegan shards index")


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_reported_energies_are_those_of_pywavelets(levels: int) -> None:
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images = images.cumsum(dim=-1)
    low, *highs = pywt.wavedec2(images.numpy(), "haar", level=levels, axes=(2, 3))
    wanted = {"std_low": low.std(ddof=1), "std_high": np.concatenate(highs[-1], axis=1).std(ddof=1)}
    if levels > 1:
        for level, bands in enumerate(reversed(highs), start=1):
            for name, band in zip(("lh", "hl", "hh"), bands, strict=True):
                wanted[f"std_{name}{level}"] = band.std(ddof=1)
    assert band_stds(images, levels) == pytest.approx(wanted, rel=1e-9)
