"""A run with two EMAs, from training to the comparison: snapshots, samples, evaluations, MLflow, the queue of jobs."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.helpers import Command, deliver, points, refused
from wavegan_dist.cluster import evaluation_queue, slurm
from wavegan_dist.cluster.job import EvaluateJob
from wavegan_dist.cluster.profile import Profile
from wavegan_dist.compare import compare
from wavegan_dist.compare.groups import differing_settings, group_runs
from wavegan_dist.compare.runs import read_run
from wavegan_dist.evaluate.evaluate import evaluate_snapshot
from wavegan_dist.evaluate.publish import publish_result, write_result
from wavegan_dist.model.snapshot import load_snapshot
from wavegan_dist.run_folder import RunFolder

LENGTHS = "ema.half_life_kimg=[0.2, 0.02]"
NAMES = ["kimg-000000", "kimg-000000-ema-0000.02", "kimg-000000.160", "kimg-000000.160-ema-0000.02"]
OTHER_FEATURES = ("augment.probability=0.5", "augment.ramp_kimg=0.128", "optim.lr_warmup_kimg=0.128")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, wavegan: Command, tracked_config: Path, shards: Path) -> dict[str, Path]:
    """One run with two EMAs, one with the first of them alone; all snapshots at the last image are evaluated."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed, length in (("both", 0, LENGTHS), ("single", 1, "ema.half_life_kimg=0.2")):
        train = ["train", "--config", tracked_config, "--run-dir", folder / name, length, "ema.rampup=0", f"seed={seed}"]
        outcome = wavegan(*train, *OTHER_FEATURES, "train.total_kimg=0.16")
        assert outcome.returncode == 0, outcome.stderr
        deliver(folder / name)
    both, single = RunFolder(folder / "both"), RunFolder(folder / "single")
    for run, name in ((both, NAMES[2]), (single, NAMES[2])):
        result = evaluate_snapshot(run.snapshot_named(name), shards / "index.json", ("fwd",), count=200)
        assert result is not None
        write_result(result, run.evaluation(name))
        publish_result(result, run, name, run.evaluation(name))
    evaluate = ("evaluate", "--snapshot", both.snapshot_named(NAMES[3]), "--data", shards / "index.json", "--metrics", "fwd")
    outcome = wavegan(*evaluate, "--count", 200)
    assert outcome.returncode == 0, outcome.stderr
    return {run.path.name: run.path for run in (both, single)}


def fwd(run: Path, snapshot: str) -> float:
    return float(json.loads(RunFolder(run).evaluation(snapshot).read_text())["metrics"]["fwd"])


def test_each_average_has_snapshots_of_its_own_that_load_and_sample(
    runs: dict[str, Path], wavegan: Command, tmp_path: Path
) -> None:
    run = RunFolder(runs["both"])
    assert [path.name for path in run.snapshots()] == NAMES
    first, second = (load_snapshot(path) for path in run.snapshots()[2:])
    assert (first.half_life_kimg, second.half_life_kimg) == (0.2, 0.02)
    assert first.nimg == second.nimg == 160
    assert first.weights_sha256 != second.weights_sha256
    assert len(list(run.path.glob("samples/*.png"))) == 2  # grids are of the first
    outcome = wavegan("sample", "--snapshot", second.path, "--count", 4, "--out", tmp_path / "grid.png")
    assert outcome.returncode == 0, outcome.stderr


def test_a_snapshot_of_an_older_version_is_of_the_only_average(runs: dict[str, Path], tmp_path: Path) -> None:
    path = shutil.copytree(RunFolder(runs["single"]).snapshots()[-1], tmp_path / "snapshot")
    meta = json.loads((path / "snapshot.json").read_text())
    del meta["ema_half_life_kimg"]
    (path / "snapshot.json").write_text(json.dumps(meta))
    assert load_snapshot(path).half_life_kimg == 0.2


def test_results_and_mlflow_keep_the_averages_apart(runs: dict[str, Path], store: str) -> None:
    run = RunFolder(runs["both"])
    assert [path.stem for path in run.evaluations()] == NAMES[2:]
    assert fwd(run.path, NAMES[2]) != fwd(run.path, NAMES[3])
    client, run_id = MlflowClient(store), json.loads(run.tracking.read_text())["run_id"]
    for metric, name in (("eval/fwd", NAMES[2]), ("eval/ema-0000.02/fwd", NAMES[3])):
        assert [(each.step, each.value) for each in client.get_metric_history(run_id, metric)] == [(160, fwd(run.path, name))]
    assert [Path(each.path).name for each in client.list_artifacts(run_id, "snapshots")] == NAMES


def test_a_comparison_shows_each_length_and_groups_it_with_runs_of_this_length(
    runs: dict[str, Path], tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = [run for path in runs.values() for run in read_run(str(path), tmp_path)]
    groups = {group.label: group for group in group_runs(read)}
    assert {label: [run.name for run in group.runs] for label, group in groups.items()} == {
        "both, EMA 0.2 kimg (2 runs)": ["both, EMA 0.2 kimg", "single"],
        "both, EMA 0.02 kimg": ["both, EMA 0.02 kimg"],
    }
    assert differing_settings(list(groups.values())) == {"ema.half_life_kimg": [0.2, 0.02]}
    page = compare([str(path) for path in runs.values()], tmp_path / "out")
    text = page.read_text()
    assert f"<td>{fwd(runs['both'], NAMES[3]):.4g} (" in text
    assert text.count("both, EMA 0.02 kimg</td>") == 0  # one row of costs for each run
    with page.with_name("comparison.csv").open() as file:
        rows = {line["run"]: float(line["value"]) for line in csv.DictReader(file) if line["metric"] == "fwd"}
    assert rows == {
        "both, EMA 0.2 kimg": fwd(runs["both"], NAMES[2]),
        "both, EMA 0.02 kimg": fwd(runs["both"], NAMES[3]),
        "single": fwd(runs["single"], NAMES[2]),
    }
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    run_id = json.loads(RunFolder(runs["both"]).tracking.read_text())["run_id"]
    again = read_run(f"mlflow:{run_id}", tmp_path / "mlflow")
    assert [run.evaluations for run in again] == [run.evaluations for run in read if run.name.startswith("both")]


def test_the_queue_has_one_job_for_each_average(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "active_jobs", lambda *_: {})
    submitted: list[str] = []
    monkeypatch.setattr(evaluation_queue, "_submit", lambda _, names: submitted.extend(names))
    job = EvaluateJob(run_dir=runs["both"], profile=Profile(time=10), arguments=[], in_flight=1)
    status = evaluation_queue.submit_pending(job, all_at_once=True)
    assert submitted == status.submitted == NAMES[:2]
    assert status.done == NAMES[2:]


def test_reports_hold_the_rates_and_the_probability(runs: dict[str, Path]) -> None:
    last = points(runs["both"])[-1]
    assert (last["nimg"], last["lr/g"], last["lr/d"]) == (160, 2e-4, 2e-4)
    assert points(runs["both"])[0]["lr/g"] == pytest.approx(1e-4)  # at image 64 of a warm-up of 128
    assert points(runs["both"])[0]["augment/p"] == pytest.approx(0.5 * 32 / 128 / 2)  # mean of steps at 0 and 32


def test_another_list_is_refused_on_resume(runs: dict[str, Path], wavegan: Command, tracked_config: Path) -> None:
    train = ("train", "--config", tracked_config, "--run-dir", runs["both"], "ema.rampup=0", *OTHER_FEATURES)
    refused(wavegan(*train, "ema.half_life_kimg=[0.2, 0.03]"), "ema.half_life_kimg: [0.2, 0.02] -> [0.2, 0.03]")
