"""Runs on several datasets: counts in the log and MLflow, exact epochs whatever the processes, refusals in one line."""

import hashlib
import json
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers import Command, deliver, points, refused, run_ranks
from wavegan_dist import config as configuration
from wavegan_dist.data import Index, load_training_data, training_batches, write_shards
from wavegan_dist.run_folder import RunFolder

QUIET = ("train.snapshot_kimg=9", "train.checkpoint_kimg=9", "train.report_kimg=0.032")


def write_set(folder: Path, images: int, seed: int, size: int = 32) -> Path:
    """Write shards of images of noise."""
    pictures, draws = folder.with_name(f"{folder.name}-pictures"), np.random.default_rng(seed)
    pictures.mkdir()
    for number in range(images):
        Image.fromarray(draws.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(pictures / f"{number:03d}.png")
    write_shards(pictures, folder, size, progress=False)
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Sets of 40 and 72 images."""
    folder = tmp_path_factory.mktemp("sets")
    return write_set(folder / "few", 40, 0), write_set(folder / "many", 72, 1)


def mixture(sets: tuple[Path, Path], first: float = 1, second: float = 2) -> str:
    """The override that mixes both sets."""
    return f"data.index=[{{index: {sets[0]}, weight: {first}}}, {{index: {sets[1]}/index.json, weight: {second}}}]"


def hashes(images: Tensor) -> list[str]:
    return [hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest() for image in images]


def test_a_run_counts_the_images_of_each_set(tmp_path: Path, wavegan: Command, config: Path, sets: tuple[Path, Path]) -> None:
    run = tmp_path / "run"
    settings = (mixture(sets), "data.workers=1", "train.total_kimg=0.192", "train.snapshot_kimg=9")
    outcome = wavegan("train", "--config", config, "--run-dir", run, *settings)
    assert outcome.returncode == 0, outcome.stderr
    lines = [line for line in outcome.stderr.splitlines() if "img/s" in line]
    assert [line.partition("  sets ")[2] for line in lines] == ["few 21 many 43", "few 43 many 85", "few 64 many 128"]
    counts = [(point["data/images/few"], point["data/images/many"]) for point in points(run)]
    assert counts == [(21, 43), (43, 85), (64, 128)]
    environment = json.loads((run / "environment.json").read_text())
    digests = [Index.load(folder).digest for folder in sets]
    assert environment["sets"] == {
        "few": {"digest": digests[0], "images": 40, "share": 1 / 3},
        "many": {"digest": digests[1], "images": 72, "share": 2 / 3},
    }


@pytest.mark.slow
def test_mlflow_has_the_counts_and_the_sets(
    tmp_path: Path, wavegan: Command, tracked_config: Path, store: str, sets: tuple[Path, Path]
) -> None:
    run = tmp_path / "run"
    settings = (mixture(sets), "train.total_kimg=0.128", "train.snapshot_kimg=9")
    outcome = wavegan("train", "--config", tracked_config, "--run-dir", run, *settings)
    assert outcome.returncode == 0, outcome.stderr
    deliver(run)
    run_id = json.loads((run / "tracking.json").read_text())["run_id"]
    client = MlflowClient(store)
    history = client.get_metric_history(run_id, "data/images/many")
    assert [(metric.step, metric.value) for metric in history] == [(64, 43), (128, 85)]
    mlflow_run = client.get_run(run_id)
    (used,) = mlflow_run.inputs.dataset_inputs
    digest = json.loads((run / "environment.json").read_text())["index_digest"]
    assert (used.dataset.name, used.dataset.digest) == ("few + many", digest[:36])
    assert json.loads(used.dataset.source) == {"uri": [str(sets[0]), f"{sets[1]}/index.json"]}
    assert "'weight': 2.0" in mlflow_run.data.params["data.index"]


def test_other_shares_and_evaluations_by_jobs_are_refused(
    tmp_path: Path, wavegan: Command, config: Path, sets: tuple[Path, Path]
) -> None:
    run = tmp_path / "run"
    train = ("train", "--config", config, "train.total_kimg=0.032", "--run-dir")
    assert wavegan(*train, run, mixture(sets)).returncode == 0
    refused(wavegan(*train, run, mixture(sets, 1, 3)), "holds a run of another config (data.index: ", "--run-dir")
    checkpoint = RunFolder(run).checkpoints()[-1]
    other = wavegan(*train, tmp_path / "other", mixture(sets, 1, 3), "--resume", checkpoint)
    refused(other, "was trained on other images", str(sets[0]), "data.index")
    evaluation = wavegan("submit", "evaluate", "--run", run, "--snapshots", "all", "--profile", "gpu1", "--dry-run")
    refused(evaluation, "data.index mixes 2 data sets", "`wavegan evaluate --data INDEX`")
    submission = ("submit", "train", "--config", config, "--profile", "gpu8", "--evaluate-profile", "gpu1", "--dry-run")
    refused(wavegan(*submission, mixture(sets)), "data.index mixes 2 data sets")


def test_two_one_and_two_processes_give_each_set_whole_epochs(tmp_path: Path, config: Path, sets: tuple[Path, Path]) -> None:
    """The first two starts are ended by a signal to one rank. Three epochs of each set, and 8 images of 40 and 40 of 72."""
    run, seen = tmp_path / "run", tmp_path / "seen"
    script = Path(__file__).parent / "record_images.py"
    arguments = [seen, "train", "--config", config, "--run-dir", run, "train.total_kimg=0.384", mixture(sets), *QUIET]
    positions, shares = [0], []
    for processes, stop_at in ((2, 96), (1, 224), (2, 0)):
        before = recorded(tmp_path)
        code = 75 if stop_at else 0
        run_ranks(processes, script, *arguments, exit_code=code, SIGNAL_AT=str(stop_at))
        newest = RunFolder(run).checkpoints()[-1]
        positions.append(json.loads((newest / "state.json").read_text())["nimg"])
        shares.append(len(recorded(tmp_path)) - len(before))
    assert [end - start for start, end in pairwise(positions)] == shares
    assert 0 < positions[1] < positions[2] < positions[3] == 384
    whole = load_training_data(configuration.load(config, [mixture(sets)]).data)
    batches = training_batches(whole, batch_size=32, seed=0, start_nimg=0, rank=0, world_size=1, workers=0)
    straight = [image for batch in islice(batches, 12) for image in hashes(batch.images)]
    images = recorded(tmp_path)
    assert sorted(images) == sorted(straight)
    assert sorted(Counter(images).values()) == [3] * (32 + 32) + [4] * (8 + 40)


def recorded(folder: Path) -> list[str]:
    """Hashes of the images that all processes trained on."""
    return [line for file in folder.glob("seen.*") for line in file.read_text().split()]


def test_an_interrupted_run_equals_a_straight_one_bit_for_bit(
    tmp_path: Path, wavegan: Command, config: Path, sets: tuple[Path, Path]
) -> None:
    ends = []
    for name, lengths in (("straight", [0.32]), ("stopped", [0.16, 0.32])):
        for length in lengths:
            train = ("train", "--config", config, "--run-dir", tmp_path / name, mixture(sets, 0.7, 0.3))
            outcome = wavegan(*train, f"train.total_kimg={length}", f"data.workers={len(lengths) - 1}")
            assert outcome.returncode == 0, outcome.stderr
        files = RunFolder(tmp_path / name).checkpoints()[-1].glob("*.safetensors")
        ends.append({key: value.numpy().tobytes() for file in files for key, value in load_file(file).items()})
    assert ends[0] == ends[1]
    assert [points(tmp_path / name)[-1]["data/images/few"] for name in ("straight", "stopped")] == [224, 224]


def test_sets_that_do_not_fit_end_the_run_in_one_line(
    tmp_path: Path, wavegan: Command, config: Path, sets: tuple[Path, Path]
) -> None:
    large = write_set(tmp_path / "large", 8, 2, size=64)
    train = ("train", "--config", config, "--run-dir", tmp_path / "run")
    refused(wavegan(*train, mixture((sets[0], large))), "model.resolution = 32 but", f"{large}/index.json holds 64 px images")
    refused(wavegan(*train, mixture(sets, 0)), f"the weight of {sets[0]}: 0 is not a number above 0")
    refused(wavegan(*train, mixture((sets[0], sets[0]))), "hold the same images")
    refused(wavegan(*train, mixture((sets[0], tmp_path / "none"))), "cannot read the index", str(tmp_path / "none"))
    password = f"data.index=[{{index: {sets[0]}, weight: 1}}, {{index: 'http://u:pw@h/set', weight: 1}}]"
    refused(wavegan(*train, password), "data.index holds a password")
    refused(wavegan(*train, mixture(sets), "model.num_classes=3"), "has no labels")
    assert not (tmp_path / "run").exists()
