"""Checkpoints: bit-exact, complete or absent, never a pickle."""

import hashlib
import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.helpers import refused
from wavegan_dist.config import Experiment
from wavegan_dist.errors import UsageError
from wavegan_dist.run_folder import RunFolder, label
from wavegan_dist.train.resume import choose_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, wavegan, config) -> Path:
    """A run of 10 steps with checkpoints after 5 and 10."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    outcome = wavegan("train", "--config", config, "--run-dir", run)
    assert outcome.returncode == 0, outcome.stderr
    return run


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.slow
def test_runs_killed_at_random_end_bit_for_bit_as_the_uninterrupted_run():
    command = [sys.executable, str(ROOT / "benchmarks" / "resume.py"), "--cuts", "5", "--processes", "1,2", "--seed", "1"]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert outcome.stdout.count("cuts so far, equal") >= 2


def test_a_checkpoint_holds_every_tensor_and_its_manifest_every_file(run):
    newest = RunFolder(run).checkpoints()[-1]
    manifest = json.loads((newest / "manifest.json").read_text())
    assert set(manifest) == {file.name for file in newest.iterdir()} - {"manifest.json"}
    names = set().union(*(load_file(file) for file in newest.glob("*.safetensors")))
    assert {"generator.lam", "ema.lam", "optimizer_g.lam.exp_avg_sq", "optimizer_d.image.0.bias.step"} <= names
    assert any(name.startswith("ema.") and name.endswith("running_mean") for name in names)
    assert any(name.startswith("discriminator.") and name.endswith("_u") for name in names)  # spectral norm's iterate
    state = json.loads((newest / "state.json").read_text())
    assert state["nimg"] == 320
    assert {"config", "index_digest", "git_commit", "rollbacks"} <= set(state)


@pytest.mark.parametrize("damage", ["cut", "bit", "file gone", "no manifest"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_with_a_warning(run, wavegan, config, damage):
    newest = RunFolder(run).checkpoints()[-1]
    weights = next(newest.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    if damage == "cut":
        weights.write_bytes(content[: len(content) // 2])
    elif damage == "bit":
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "file gone":
        weights.unlink()
    else:
        (newest / "manifest.json").unlink()
    outcome = wavegan("train", "--config", config, "--run-dir", run)
    assert outcome.returncode == 0, outcome.stderr
    assert f"{newest} is damaged" in outcome.stderr
    assert "resuming from kimg-000000.160 instead" in outcome.stderr
    assert "resuming from kimg-000000.160 instead" in RunFolder(run).log.read_text()
    assert "resuming at kimg 0.16" in outcome.stderr


def test_a_run_without_an_intact_checkpoint_does_not_silently_start_from_scratch(run, wavegan, config):
    for checkpoint in RunFolder(run).checkpoints():
        (checkpoint / "state.json").write_text("{}")
    refused(wavegan("train", "--config", config, "--run-dir", run), "no checkpoint", "is intact", "state.json", exit_code=1)


def test_a_damaged_checkpoint_that_was_requested_is_refused(run, wavegan, config, tmp_path):
    oldest = RunFolder(run).checkpoints()[0]
    (oldest / "state.json").write_text("{}")
    outcome = wavegan("train", "--config", config, "--run-dir", tmp_path / "other", "--resume", oldest)
    refused(outcome, "is damaged", str(oldest), "state.json", exit_code=1)
    assert not (tmp_path / "other").exists()


def test_other_images_under_the_same_path_are_refused(run, wavegan, config, shards, tmp_path):
    other = shutil.copytree(shards, tmp_path / "set")
    changed = json.loads((other / "index.json").read_text())
    changed["band_std"]["low"] *= 2
    (other / "index.json").write_text(json.dumps(changed))
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace(f"{shards}/index.json", str(other)))
    outcome = wavegan("train", "--config", config, "--run-dir", run, f"data.index={other}", "train.total_kimg=1")
    refused(outcome, "was trained on other images", "data.index")


def test_the_newest_checkpoints_and_one_per_interval_are_kept(tmp_path):
    folder = RunFolder(tmp_path)
    for kimg in range(1, 13):
        folder.checkpoint(kimg * 1000).mkdir(parents=True)
    folder.prune(2, keep_every_kimg=5)
    assert [path.name for path in folder.checkpoints()] == [label(kimg * 1000) for kimg in (5, 10, 11, 12)]


def test_incomplete_files_of_a_killed_writer_are_deleted(run, wavegan, config):
    left = run / "checkpoints" / ".kimg-000000.480.tmp"
    left.mkdir()
    (left / "shard-00001-model-00001-of-00001.safetensors").write_bytes(b"half")
    files = [run / f".{name}.1234.tmp" for name in ("config.yaml", "environment.json", "metrics.jsonl", "exit.json")]
    of_another = run / ".best.json.1234.tmp"  # an evaluation may be writing it
    for file in (*files, of_another):
        file.write_text("half")
    outcome = wavegan("train", "--config", config, "--run-dir", run)
    assert outcome.returncode == 0, outcome.stderr
    assert not left.exists()
    assert not any(file.exists() for file in files)
    assert of_another.exists()


def test_no_pickle_is_loaded_from_a_run_folder(run, wavegan, config, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    hostile = pickle.dumps(Hostile())
    newest = RunFolder(run).checkpoints()[-1]
    for name in (".metadata", "__0_0.distcp", "state.pt", "optimizer.bin"):
        (newest / name).write_bytes(hostile)
    entry = {"bytes": len(hostile), "sha256": hashlib.sha256(hostile).hexdigest()}
    for weights in (*newest.glob("*.safetensors"), *run.glob("snapshots/*/model.safetensors")):
        weights.write_bytes(hostile)
    manifest = json.loads((newest / "manifest.json").read_text())
    manifest = {name: entry if name.endswith(".safetensors") else value for name, value in manifest.items()}
    (newest / "manifest.json").write_text(json.dumps(manifest))
    outcome = wavegan("train", "--config", config, "--run-dir", run, "train.total_kimg=1")
    assert outcome.returncode == 1
    assert f"wavegan: cannot resume from {newest}" in outcome.stderr
    outcome = wavegan("sample", "--snapshot", run / "snapshots/kimg-000000.320", "--out", tmp_path / "grid.png")
    assert outcome.returncode == 1
    assert not (tmp_path / "executed").exists()


def test_the_package_calls_no_unpickler():
    for file in (ROOT / "wavegan_dist").rglob("*.py"):
        text = file.read_text()
        assert not re.search(r"import pickle|pickle\.load|allow_pickle=True|joblib|weights_only=False", text), file
        assert text.count("torch.load(") == text.count("weights_only=True"), file
        assert len(re.findall(r"np\.load\(", text)) == text.count("allow_pickle=False"), file


def test_a_folder_of_which_only_the_checkpoints_are_left_holds_a_run_too(tmp_path):
    folder = RunFolder(tmp_path)
    folder.checkpoint(1000).mkdir(parents=True)
    with pytest.raises(UsageError, match="holds a run already"):
        choose_checkpoint(folder, Experiment.model_validate({"data": {"index": "index.json"}}), "digest", "never")
