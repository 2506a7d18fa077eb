"""Runs through the command line: the files they write, and resuming after a kill."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from safetensors.torch import load_file

from tests.helpers import deliver, points, refused, running, wait_for
from wavegan_dist.data import Index
from wavegan_dist.model.snapshot import load_snapshot
from wavegan_dist.run_folder import RunFolder


@pytest.fixture(scope="module")
def config(tracked_config):
    return tracked_config


@pytest.fixture(scope="module")
def run(tmp_path_factory, wavegan, config):
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    outcome = wavegan("train", "--config", config, "--run-dir", folder)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == ""
    deliver(folder)
    (folder / "stderr").write_text(outcome.stderr)
    return folder


def test_the_run_folder_explains_itself(run):
    assert {path.name for path in run.glob("snapshots/*")} == {"kimg-000000", "kimg-000000.160", "kimg-000000.320"}
    assert {path.name for path in run.glob("checkpoints/*")} == {"kimg-000000.160", "kimg-000000.320"}
    assert len(list(run.glob("samples/*.png"))) == 3
    environment = json.loads((run / "environment.json").read_text())
    assert {"git_commit", "command", "world_size", "index_digest", "packages"} <= set(environment)
    assert [point["nimg"] for point in points(run)] == [64, 128, 192, 256, 320]
    losses = {f"loss/{phase}_{name}" for phase in "dg" for name in ("image", "low", "high")}
    terms = {f"std_{band}/{term}" for band in ("low", "high") for term in ("base", "branches", "fused")}
    assert losses | terms | {"lam", "speed/data_wait_percent"} <= set(points(run)[0])
    assert all(np.isfinite(value) for point in points(run) for value in point.values())
    assert not list(run.rglob("*.tmp"))


def test_status_lines_show_speed_losses_and_memory_on_stderr_and_in_the_log_file(run):
    lines = [line for line in RunFolder(run).log.read_text().splitlines() if " INFO rank 0: kimg " in line]
    assert len(lines) == 5
    assert set(lines) <= set((run / "stderr").read_text().splitlines())
    for word in ("s/kimg", "img/s", "lam", "D ", "G ", "wait", "mem"):
        assert word in lines[0]


def test_mlflow_has_the_parameters_metrics_grids_config_and_snapshot(run, store):
    client, tracking = MlflowClient(store), json.loads((run / "tracking.json").read_text())
    assert tracking["uri"] == store
    mlflow_run = client.get_run(tracking["run_id"])
    assert mlflow_run.info.status == "FINISHED"
    assert mlflow_run.data.params["model.width"] == "4"
    steps = [metric.step for metric in client.get_metric_history(tracking["run_id"], "lam")]
    assert steps[:5] == [64, 128, 192, 256, 320]  # a test below goes on with a copy of the run
    artifacts = {artifact.path for artifact in client.list_artifacts(tracking["run_id"])}
    assert {"config.yaml", "environment.json", "images", "snapshots"} <= artifacts
    assert "snapshots/kimg-000000.320/model.safetensors" in {
        artifact.path for artifact in client.list_artifacts(tracking["run_id"], "snapshots/kimg-000000.320")
    }


def test_a_sample_is_what_the_snapshot_s_generator_makes(run, wavegan, tmp_path):
    snapshot = load_snapshot(run / "snapshots/kimg-000000.320")
    assert snapshot.nimg == 320
    for out in (tmp_path / "grid.png", tmp_path / "images"):
        outcome = wavegan("sample", "--snapshot", snapshot.path, "--count", 9, "--seed", 3, "--out", out)
        assert outcome.returncode == 0, outcome.stderr
    files = sorted((tmp_path / "images").glob("*.png"))
    assert len(files) == 9
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert np.array_equal(grid[:32, 32:64], np.asarray(Image.open(files[1])))


def check_cost(run: Path) -> None:
    """Assert that the cost of each report of a run with one process is that of the report before it and of the time since."""
    hours, nimg = 0.0, 0
    for point in points(run):
        hours += (point["nimg"] - nimg) / 1000 * point["speed/seconds_per_kimg"] / 3600
        assert point["cost/device_hours"] == pytest.approx(hours)
        nimg = point["nimg"]
    assert hours > 0


def test_a_finished_run_started_again_has_nothing_to_do(run, wavegan, config):
    before = points(run)
    outcome = wavegan("train", "--config", config, "--run-dir", run)
    assert outcome.returncode == 0, outcome.stderr
    assert points(run) == before


def test_a_start_adds_what_the_spool_lacks_of_earlier_ones(run, wavegan, config, tmp_path):
    """It may lack something after a full disk, or after a start with `tracking.enabled=false`."""
    run = shutil.copytree(run, tmp_path / "tiny")
    (run / "tracking.json").unlink()  # so that it becomes another run in MLflow
    spool = run / "tracking" / "train.jsonl"
    before = [json.loads(line) for line in spool.read_text().splitlines()]
    lost = ("metrics", "picture", "file")
    spool.write_text("".join(json.dumps(event) + "\n" for event in before if event["kind"] not in lost))
    outcome = wavegan("train", "--config", config, "--run-dir", run)
    assert outcome.returncode == 0, outcome.stderr
    after = [json.loads(line) for line in spool.read_text().splitlines()]
    for event in before:
        if event["kind"] in lost:
            assert [{**again, "time": event["time"]} for again in after].count(event) == 1, event


def test_another_config_never_and_a_wrong_checkpoint_are_refused(run, wavegan, config, tmp_path):
    refused(wavegan("train", "--config", config, "--run-dir", run, "model.width=8"), "model.width: 4 -> 8", "--run-dir")
    refused(wavegan("train", "--config", config, "--run-dir", run, "--resume", "never"), "holds a run already")
    refused(wavegan("train", "--config", config, "--run-dir", run, "--resume", tmp_path), "is not a checkpoint")


def test_a_larger_total_resumes_in_the_same_folder_and_mlflow_run(run, wavegan, config, store, tmp_path):
    run = shutil.copytree(run, tmp_path / "tiny")
    run_id = json.loads((run / "tracking.json").read_text())["run_id"]
    outcome = wavegan("train", "--config", config, "--run-dir", run, "train.total_kimg=0.448")
    assert outcome.returncode == 0, outcome.stderr
    assert "resuming at kimg 0.32" in outcome.stderr
    assert [point["nimg"] for point in points(run)] == [64, 128, 192, 256, 320, 384, 448]
    check_cost(run)
    deliver(run)
    assert json.loads((run / "tracking.json").read_text())["run_id"] == run_id
    history = MlflowClient(store).get_metric_history(run_id, "lam")
    assert [metric.step for metric in history] == [64, 128, 192, 256, 320, 384, 448]


def test_a_killed_run_resumes_at_its_checkpoint_in_the_same_mlflow_run(tmp_path, wavegan, config, store):
    run = tmp_path / "killed"
    train = ("train", "--config", config, "--run-dir", run)
    with running(sys.executable, "-m", "wavegan_dist", *train, "train.total_kimg=1000", "train.keep_checkpoints=2") as endless:
        wait_for(lambda: len(list(run.glob("checkpoints/kimg-*"))) >= 2, endless)
    key = json.loads((run / "tracking.json").read_text())["key"]
    newest = sorted(run.glob("checkpoints/kimg-*"))[-1]
    nimg = json.loads((newest / "state.json").read_text())["nimg"]
    end = nimg + 320
    outcome = wavegan(*train, f"train.total_kimg={end / 1000}")
    assert outcome.returncode == 0, outcome.stderr
    deliver(run)
    assert f"resuming at kimg {nimg / 1000:g}" in outcome.stderr
    check_cost(run)
    steps = [point["nimg"] for point in points(run)]
    assert steps == sorted(set(steps))
    assert steps[-1] == end
    tracking, client = json.loads((run / "tracking.json").read_text()), MlflowClient(store)
    assert tracking["key"] == key
    experiment = client.get_experiment_by_name("wavegan").experiment_id
    (mlflow_run,) = client.search_runs([experiment], f"tags.`wavegan.key` = '{key}'")
    assert (mlflow_run.info.run_id, mlflow_run.info.status) == (tracking["run_id"], "FINISHED")


def test_bad_images_are_listed_and_counted_and_stop_the_run_over_the_limit(tmp_path, wavegan, config, shards, store):
    broken = tmp_path / "broken"
    shutil.copytree(shards, broken)
    index = Index.load(broken)
    cut, rows = broken / index.shards[2].file, range(*index.starts[2:4].tolist())
    os.truncate(cut, int(index.members[rows[-3], 0]))  # the last three images of the shard are gone
    set_it = (
        f"data.index={broken}",
        f"train.total_kimg={index.count * 1.1 / 1000}",
        "train.report_kimg=0.512",
        "train.snapshot_kimg=9",
    )
    train = ("train", "--config", config, *set_it, "--run-dir")

    outcome = wavegan(*train, tmp_path / "patient", "data.max_bad_fraction=0.01")
    assert outcome.returncode == 0, outcome.stderr
    assert "bad 3 images 1 shards" in outcome.stderr
    listed = [json.loads(line) for line in (tmp_path / "patient" / "data_errors.jsonl").read_text().splitlines()]
    assert sorted(error["row"] for error in listed if error["row"] is not None) == [*rows[-3:]]
    assert [error["shard"] for error in listed if error["row"] is None] == [index.shards[2].file]
    assert points(tmp_path / "patient")[-1]["data/bad_images"] == 3
    deliver(tmp_path / "patient")
    run_id = json.loads((tmp_path / "patient" / "tracking.json").read_text())["run_id"]
    assert MlflowClient(store).get_metric_history(run_id, "data/bad_shards")[-1].value == 1

    outcome = wavegan(*train, tmp_path / "strict")
    assert outcome.returncode == 1
    for words in (f"of {index.count} images cannot be read", "data.max_bad_fraction", "data_errors.jsonl"):
        assert words in outcome.stderr.splitlines()[-1]
    assert "images cannot be read" in RunFolder(tmp_path / "strict").log.read_text().splitlines()[-1]


@pytest.mark.slow
def test_after_the_repair_of_images_that_stopped_it_a_run_goes_on_bit_for_bit(tmp_path, wavegan, config, shards):
    broken = tmp_path / "broken"
    shutil.copytree(shards, broken)
    index = Index.load(broken)
    file = broken / index.shards[0].file
    content = file.read_bytes()
    os.truncate(file, int(index.members[5, 0]))
    # Checkpoints lie between the first unreadable image and the next report.
    kimg = ("train.total_kimg=0.48", "train.report_kimg=0.24", "train.checkpoint_kimg=0.032", "train.snapshot_kimg=9")
    train = ("train", "--config", config, f"data.index={broken}", *kimg, "--run-dir")

    stopped = wavegan(*train, tmp_path / "stopped")
    assert stopped.returncode == 1
    assert "images cannot be read" in stopped.stderr.splitlines()[-1]
    assert wavegan(*train, tmp_path / "stopped").returncode == 1
    file.write_bytes(content)
    for name in ("stopped", "straight"):
        outcome = wavegan(*train, tmp_path / name)
        assert outcome.returncode == 0, outcome.stderr
    after, straight = (
        load_file(file)
        for name in ("stopped", "straight")
        for file in (tmp_path / name / "checkpoints").glob("kimg-000000.480/*.safetensors")
    )
    assert [name for name in straight if not straight[name].equal(after[name])] == []
    assert points(tmp_path / "stopped")[-1]["data/bad_images"] == 0
