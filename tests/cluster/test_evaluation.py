"""Evaluation jobs: submitted by the training, by the collector and as an array; into the run's own MLflow run."""

import json
import shutil

from mlflow import MlflowClient

from tests.cluster.conftest import slurm, states, until
from tests.test_cli import refused

NOT_COPIED = shutil.ignore_patterns("evaluations", "cluster", "tracking*", "checkpoints")
METRICS = ("--metrics", "spectrum", "--count", 300, "--best", "spectrum_db")


def test_training_has_each_snapshot_evaluated_into_its_own_mlflow_run(evaluated, store):
    results = {file.stem: json.loads(file.read_text()) for file in evaluated.run.glob("evaluations/kimg-*.json")}
    assert set(results) == {"kimg-000000", "kimg-000006.400"}
    run_id = json.loads((evaluated.run / "tracking.json").read_text())["run_id"]
    client = MlflowClient(store)
    history = client.get_metric_history(run_id, "eval/spectrum_db")
    logged = {metric.step: metric.value for metric in history}
    assert logged == {result["protocol"]["nimg"]: result["metrics"]["spectrum_db"] for result in results.values()}
    assert set(logged) == {0, 6400}
    assert client.get_run(run_id).info.status == "FINISHED"


def test_the_best_snapshot_is_tagged(evaluated, store):
    values = {
        file.stem: json.loads(file.read_text())["metrics"]["spectrum_db"] for file in evaluated.run.glob("evaluations/*.json")
    }
    best = min(values, key=values.__getitem__)
    assert json.loads((evaluated.run / "best.json").read_text())["snapshot"] == best
    run_id = json.loads((evaluated.run / "tracking.json").read_text())["run_id"]
    tags = MlflowClient(store).get_run(run_id).data.tags
    assert (tags["best_snapshot"], tags["best_metric"]) == (best, "spectrum_db")


def test_the_collector_evaluates_what_is_new_retries_what_fails_once_and_lists_it(evaluated, submit, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(evaluated.run, run, ignore=NOT_COPIED)
    (run / "snapshots" / "kimg-000000" / "model.safetensors").write_bytes(b"nothing")
    seen = tmp_path / "environment"
    traced = tmp_path / "traced.yaml"
    traced.write_text(f"partition: high\ntime: 10\nsetup: ['export OMP_NUM_THREADS=1', 'env > {seen}']\n")
    outer = {"RANK": "3", "WORLD_SIZE": "7", "MASTER_ADDR": "nowhere", "SLURM_NTASKS": "9", "SLURM_JOB_ID": "99"}
    outcome = submit("watch", run, "--profile", traced, *METRICS, env=outer)
    refused(outcome, "1 of 2 evaluations failed", "kimg-000000", exit_code=1)
    assert "kimg-000006.400: evaluated" in outcome.stdout
    jobs = json.loads((run / "cluster" / "evaluations.json").read_text())
    assert states(jobs["kimg-000000"]) == ["REQUEUED", "FAILED"]
    assert states(jobs["kimg-000006.400"]) == ["COMPLETED"]
    inside = dict(line.split("=", 1) for line in seen.read_text().splitlines() if "=" in line)
    assert not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} & set(inside)
    assert inside["SLURM_NTASKS"] == "1"
    assert inside["SLURM_JOB_ID"] != "99"


def test_all_snapshots_at_once_are_one_array(evaluated, submit, tmp_path):
    run = shutil.copytree(evaluated.run, tmp_path / "again", ignore=NOT_COPIED)
    refused(submit("submit", "evaluate", "--run", run, "--snapshots", "kimg-7", "--profile", "local1"), "no snapshot kimg-7")
    outcome = submit("submit", "evaluate", "--run", run, "--snapshots", "all", "--profile", "local1", *METRICS)
    assert outcome.returncode == 0, outcome.stderr
    jobs = json.loads((run / "cluster" / "evaluations.json").read_text())
    array = jobs["kimg-000000"].split("_")[0]
    assert jobs == {"kimg-000000": f"{array}_0", "kimg-000006.400": f"{array}_1"}
    until("end of the array", lambda: not slurm("squeue", "--noheader", "--jobs", array).strip(), 120)
    assert {file.name for file in run.glob("evaluations/*.json")} == {"kimg-000000.json", "kimg-000006.400.json"}
    refused(submit("submit", "evaluate", "--run", run, "--snapshots", "new", "--profile", "local1"), "nothing to submit")
