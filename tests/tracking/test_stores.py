"""Where a run is tracked: stores that can never work are refused at the start, and a run stays in the store it is in."""

import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.helpers import refused, running, wait_for
from wavegan_dist import config as configuration
from wavegan_dist.errors import WaveganError
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking import sync
from wavegan_dist.tracking.mlflow_view import VIEW_TAG
from wavegan_dist.tracking.spool import Spool
from wavegan_dist.tracking.tracking_info import TrackingInfo, has_password

IMPOSSIBLE = [
    ("file:./mlruns", "not an MLflow store"),
    ("./mlruns", "not an MLflow store"),
    ("mlruns", "not an MLflow store"),
    ("sqlite:///", "not an MLflow store"),
    ("sqlite://host/mlflow.db", "not an MLflow store"),
    ("sqlite:////", "not an MLflow store"),
    ("s3://bucket/mlruns", "not an MLflow store"),
    ("postgresqlx://host/db", "not an MLflow store"),
    ("http://", "names no server"),
    ("http://:5000", "names no server"),
    ("http://host:port", "names no server"),
    ("http://[::1", "names no server"),
    ("http://host:5000/?token=x", "has no ? or #"),
    ("https://host:5000#x", "has no ? or #"),
    ("sqlite:///:memory:", "is forgotten when the process ends"),
    ("sqlite:///file:x?mode=memory&uri=true", "is forgotten when the process ends"),
    (f"sqlite:///{__file__}", "is not a SQLite database"),
    (" http://host:5000", "holds a quote, a space or a line break"),
    ("mysql://host/db", "needs the Python module MySQLdb"),
    ("postgresql+nosuchdriver://host/db", "needs the Python module nosuchdriver"),
    ("sqlite:////tmp", "/tmp is a folder"),
    ("sqlite:////dev/null/x/mlflow.db", "/dev/null is not a folder"),
]


@pytest.mark.parametrize(("uri", "reason"), IMPOSSIBLE)
def test_a_store_that_can_never_work_is_refused_at_the_start_at_both_entrances(tmp_path, config, wavegan_with, uri, reason):
    run = tmp_path / "run"
    command = ("train", "--config", config, "--run-dir", run, "tracking.enabled=true", "train.total_kimg=0.064")
    refused(wavegan_with({}, *command, f"tracking.uri='{uri}'"), reason)
    refused(wavegan_with({"MLFLOW_TRACKING_URI": uri}, *command), reason)
    assert not run.exists()


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_creates_the_tables_leaves_no_database_without_tables(tmp_path, experiment):
    """MLflow refuses a database that has some of its tables, for ever."""
    run, database = RunFolder(tmp_path / "runs" / "run"), tmp_path / "runs" / "mlflow.db"
    run.path.mkdir(parents=True)
    TrackingInfo.create(run, experiment(f"sqlite:///{database}")).save(run)
    spool = Spool(run.spool("train"))
    spool.open()
    spool.append({"kind": "metrics", "nimg": 1, "values": {"m": 1.0}})
    with running(sys.executable, "-m", "wavegan_dist", "track", "sync", run.path) as process:
        wait_for(lambda: any(path.stat().st_size for path in database.parent.glob(".mlflow.db*")), process)
        process.kill()
    assert not database.exists()
    sync(run.path)
    info = TrackingInfo.load(run)
    assert [metric.step for metric in MlflowClient(info.uri).get_metric_history(info.run_id, "m")] == [1]
    assert [path.name for path in database.parent.iterdir() if path.is_file()] == ["mlflow.db"]


def test_a_variable_that_names_no_store_is_refused_when_a_run_is_submitted_or_compared(tmp_path, config, wavegan_with):
    wrong = {"MLFLOW_TRACKING_URI": "file:./mlruns"}
    refused(wavegan_with(wrong, "compare", "mlflow:123", "--out", tmp_path / "page"), "file:./mlruns", "not an MLflow store")
    submit = ("submit", "train", "--config", config, "--run-dir", tmp_path / "run", "--profile", "local1", "--dry-run")
    refused(wavegan_with(wrong, *submit, "tracking.enabled=true"), "file:./mlruns", "not an MLflow store")


def test_another_experiment_in_the_environment_is_refused(tmp_path, config, wavegan_with):
    other = {"MLFLOW_EXPERIMENT_NAME": "birds"}
    submit = ("submit", "train", "--config", config, "--run-dir", tmp_path / "run", "--profile", "local1", "--dry-run")
    tracked = (*submit, "tracking.enabled=true")
    refused(wavegan_with(other, *tracked), "MLFLOW_EXPERIMENT_NAME=birds", "tracking.experiment = wavegan")
    assert wavegan_with(other, *tracked, "tracking.experiment=birds").returncode == 0
    assert wavegan_with(other, *submit).returncode == 0


@pytest.mark.parametrize("variable", ["MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"])
def test_a_run_or_an_experiment_by_number_in_the_environment_is_refused(tmp_path, config, wavegan_with, variable):
    train = ("train", "--config", config, "--run-dir", tmp_path / "run", "train.total_kimg=0.032")
    refused(
        wavegan_with({variable: "7"}, *train, "tracking.enabled=true"), f"{variable} is set", "tracking.experiment = wavegan"
    )
    assert not (tmp_path / "run").exists()
    assert wavegan_with({variable: "7"}, *train).returncode == 0


def test_a_variable_that_names_no_store_does_not_matter_without_tracking(tmp_path, config, wavegan_with):
    command = ("train", "--config", config, "--run-dir", tmp_path / "run", "train.total_kimg=0.032")
    assert wavegan_with({"MLFLOW_TRACKING_URI": "file:./mlruns"}, *command).returncode == 0


def test_sync_refuses_a_store_that_an_earlier_version_accepted(tmp_path, experiment, wavegan):
    folder = RunFolder(tmp_path)
    info = TrackingInfo.create(folder, experiment("http://127.0.0.1:9"))
    info.uri = "file:./mlruns"
    info.save(folder)
    refused(wavegan("track", "sync", tmp_path), "file:./mlruns is not an MLflow store")


@pytest.fixture
def resume(tmp_path, config, wavegan) -> Callable[..., object]:
    """Train the run `tmp_path`/run to `kimg`."""

    def run(kimg: float, *overrides: str) -> object:
        command = ("train", "--config", config, "--run-dir", tmp_path / "run", "tracking.enabled=true")
        return wavegan(*command, f"train.total_kimg={kimg}", *overrides)

    return run


@pytest.mark.slow
def test_another_store_is_used_while_the_run_is_in_none_and_refused_afterwards(tmp_path, resume, server, stored):
    first = resume(0.064, "tracking.uri=http://127.0.0.1:9")
    assert "could not be sent to http://127.0.0.1:9" in first.stderr
    second = resume(0.128, f"tracking.uri={server.uri}", "tracking.experiment=second")
    assert second.returncode == 0, second.stderr
    assert "could not be sent" not in second.stderr
    run = stored(tmp_path / "run")
    assert run.steps("lam") == [64, 128]
    assert run.client.get_experiment_by_name("second") is not None
    elsewhere = f"sqlite:///{tmp_path / 'other.db'}"
    before = (tmp_path / "run" / "config.yaml").read_text()
    refused(resume(0.192, f"tracking.uri={elsewhere}", "tracking.experiment=second"), server.uri, elsewhere, "--run-dir")
    refused(resume(0.192, f"tracking.uri={server.uri}", "tracking.experiment=third"), "second", "third")
    assert (tmp_path / "run" / "config.yaml").read_text() == before
    assert not Path(elsewhere.removeprefix("sqlite:///")).exists()
    third = resume(0.192, "tracking.experiment=second")  # no store is requested: that of the run
    assert third.returncode == 0, third.stderr
    assert run.steps("lam") == [64, 128, 192]


def test_mlflow_s_page_shows_model_training_with_source_dataset_description_and_view(tmp_path, resume, index):
    database = tmp_path / "mlflow.db"
    outcome = resume(0.064, f"tracking.uri=sqlite:///{database}")
    assert outcome.returncode == 0, outcome.stderr
    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("wavegan")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert experiment.tags["mlflow.experiment.primaryMetric.name"] == "eval/fwd"
    run = client.get_run(TrackingInfo.load(RunFolder(tmp_path / "run")).run_id)
    assert run.data.tags["mlflow.source.name"] == "wavegan train"
    assert run.data.tags["mlflow.user"]
    assert run.data.tags["mlflow.note.content"].startswith(
        f"tracking.enabled=true train.total_kimg=0.064 tracking.uri=sqlite:///{database}"
    )
    assert f"folder `{tmp_path / 'run'}`" in run.data.tags["mlflow.note.content"]
    assert len(experiment.tags[VIEW_TAG]) < 5000  # the limit of older versions of MLflow
    assert f"(#/experiments/{experiment.experiment_id}/runs?" in experiment.tags["mlflow.note.content"]
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("set", index.digest[:36])
    with sqlite3.connect(database) as connection:  # an owner's choice is kept
        connection.execute("update experiment_tags set value = 'genai_development' where key = 'mlflow.experimentKind'")
        connection.execute("update experiment_tags set value = 'ours' where key in ('mlflow.note.content', ?)", [VIEW_TAG])
    again = ("tracking.experiment=wavegan", f"tracking.uri=sqlite:///{database}")
    assert resume(0.128, *again).returncode == 0
    tags = client.get_experiment_by_name("wavegan").tags
    assert tags["mlflow.experimentKind"] == "genai_development"
    assert tags["mlflow.note.content"] == tags[VIEW_TAG] == "ours"


def test_a_password_in_a_parameter_is_recognized(tracked_config):
    uri = "postgresql://host/db?user=u&password=p"
    experiment = configuration.load(tracked_config, [f"tracking.uri={uri}"])
    assert has_password(uri)
    assert experiment.flat()["tracking.uri"] == "postgresql://host/db?user=u"
    assert configuration.parse({"data": {"index": "x"}, "tracking": {"uri": uri}}, "x").tracking.uri == uri
    assert "password" not in repr(experiment)


def test_a_store_that_a_newer_mlflow_has_upgraded_is_named_and_gets_the_events_later(tmp_path, experiment, server):
    database, folder = tmp_path / "mlflow.db", RunFolder(tmp_path / "run")
    folder.path.mkdir()
    with sqlite3.connect(server.database.removeprefix("sqlite:///")) as source, sqlite3.connect(database) as target:
        source.backup(target)
        (known,) = target.execute("select version_num from alembic_version").fetchone()
        target.execute("update alembic_version set version_num = 'ffffffffffff'")
    TrackingInfo.create(folder, experiment(f"sqlite:///{database}")).save(folder)
    spool = Spool(folder.spool("train"))
    spool.open()
    spool.append({"kind": "metrics", "nimg": 32, "values": {"lam": 1.0}})
    with pytest.raises(WaveganError, match="if a newer MLflow has upgraded it, install that MLflow here"):
        sync(folder.path)
    with sqlite3.connect(database) as connection:
        connection.execute("update alembic_version set version_num = ?", [known])
    assert sync(folder.path) == {"metrics": 1}
