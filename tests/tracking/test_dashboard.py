"""MLflow's pages of two runs, opened in a browser: what a person looks for is there, and the console has no complaint."""

import json
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow_server import MlflowServer
from PIL import Image

from tests.browser import OpenedPage, needs_chromium, open_page, words
from tests.helpers import Command
from wavegan_dist.evaluate.evaluate import evaluate_snapshot
from wavegan_dist.evaluate.publish import publish_result, write_result
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking.mlflow_view import BEST, COLUMNS, COST, view_tag

pytestmark = [needs_chromium, pytest.mark.slow]
SETTINGS = {"narrow": (), "wide": ("model.width=8", "seed=1")}
STEPS = [160, 320]  # image numbers of the evaluated snapshots
NOISE = ("AG Grid: since", "ResizeObserver loop", "software WebGL")  # of MLflow's pages, whatever they show
SECONDS = 120  # some charts are drawn minutes after the page has loaded, in the browser's time


@dataclass(frozen=True)
class Dashboard:
    """An MLflow server with an experiment of two runs, by their names."""

    uri: str
    experiment: str
    runs: dict[str, Run]

    def open(self, page: str, scratch: Path, size: tuple[int, int] = (2800, 1200)) -> OpenedPage:
        """Open a page of the server by the part of its URL after #, and assert that the browser has no complaint."""
        opened = open_page(f"{self.uri}/#{page}", scratch, size, SECONDS)
        assert [line for line in opened.console if not any(noise in line for noise in NOISE)] == []
        assert "error" not in opened.text.lower()
        return opened


@pytest.fixture(scope="module")
def dashboard(
    server: MlflowServer, tmp_path_factory: pytest.TempPathFactory, wavegan: Command, config: Path, shards: Path
) -> Dashboard:
    folder = tmp_path_factory.mktemp("runs")
    tracking = ("tracking.enabled=true", f"tracking.uri={server.uri}", "tracking.experiment=dashboard")
    for name, settings in SETTINGS.items():
        run = RunFolder(folder / name)
        outcome = wavegan("train", "--config", config, "--run-dir", run.path, *settings, *tracking)
        assert outcome.returncode == 0, outcome.stderr
        for snapshot in (run.snapshot(step).name for step in STEPS):
            result = evaluate_snapshot(run.snapshot_named(snapshot), shards / "index.json", ("fwd", "spectrum"), count=100)
            write_result(result, run.evaluation(snapshot))
            publish_result(result, run, snapshot)
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("dashboard").experiment_id
    return Dashboard(server.uri, experiment, {run.info.run_name: run for run in client.search_runs([experiment])})


@pytest.fixture(scope="module")
def views(dashboard: Dashboard, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The pages that the description of the experiment links to: the table of runs and the charts."""
    opened = dashboard.open(f"/experiments/{dashboard.experiment}", tmp_path_factory.mktemp("start"))
    assert "The best runs first: table , charts" in opened.text
    table, charts = re.findall(r'href="#([^"]*viewStateShareKey=[^"]*)"', opened.dom)
    return table.replace("&amp;", "&"), charts.replace("&amp;", "&")


def cells(dom: str) -> list[dict[str, str]]:
    """Return the text of the cells in each row of the table of runs, by the id of the column."""
    rows: dict[int, dict[str, str]] = {}
    for part in re.split(r'(?=<div role="row" row-index=)', dom)[1:]:
        row = rows.setdefault(int(re.search(r'row-index="(\d+)"', part)[1]), {})
        for cell in re.split(r'(?=<div [^>]*role="gridcell")', part)[1:]:
            row[re.search(r'col-id="([^"]*)"', cell)[1]] = words(cell)
    return [rows[number] for number in sorted(rows)]


def test_the_table_shows_best_metric_cost_settings_and_commit_and_the_best_run_first(dashboard, views, tmp_path):
    table = cells(dashboard.open(views[0], tmp_path).dom)
    best_first = sorted(dashboard.runs.values(), key=lambda run: run.data.metrics[BEST])
    assert [row["attributes.`Run Name`"].split()[-1] for row in table] == [run.info.run_name for run in best_first]
    for row, run in zip(table, best_first, strict=True):
        metrics, tags = run.data.metrics, run.data.tags
        assert set(COLUMNS) <= set(row)
        assert float(row[f"metrics.`{BEST}`"]) == float(tags["best_value"]) == metrics[BEST] <= metrics["eval/fwd"]
        assert float(row[f"metrics.`{COST}`"]) == metrics[COST] > 0
        assert row["tags.`best_snapshot`"] == tags["best_snapshot"]
        assert row["attributes.`Version`"] == tags.get("mlflow.source.git.commit", "-")[:6]
        assert row["attributes.`Dataset`"].startswith("set (")
        assert row["params.`model.width`"] == {"narrow": "4", "wide": "8"}[run.info.run_name]
        first = SETTINGS[run.info.run_name] or ("tracking.enabled=true",)
        assert row["attributes.`Description`"].startswith(" ".join(first))


def test_the_charts_show_samples_with_a_slider_curves_and_the_settings_that_differ(dashboard, views, tmp_path):
    opened = dashboard.open(views[1], tmp_path, (2400, 3600))
    sections = {name: opened.text.find(f" {name} (") for name in ("Samples", "Quality of snapshots", "Training", "best")}
    assert -1 < sections["Samples"] < sections["Quality of snapshots"] < sections["Training"] < sections["best"]
    samples = opened.dom[opened.dom.find("Samples") : opened.dom.find("Quality of snapshots")]
    assert 'role="slider" aria-label="Slider thumb" aria-valuemin="0" aria-valuemax="320"' in samples
    pictures = [path.replace("&amp;", "&") for path in re.findall(r'<img [^>]*src="(get-artifact[^"]*)"', samples)]
    shown = {(run.info.run_id, name) for run in dashboard.runs.values() for name in ("samples", "spectrum")}
    assert {(path.rpartition("=")[2], re.search(r"images%2F(\w+)%2Bstep", path)[1]) for path in pictures} == shown
    for path in pictures:
        with urlopen(f"{dashboard.uri}/{path}") as answer, Image.open(BytesIO(answer.read())) as picture:
            assert min(picture.size) > 30
    for run in SETTINGS:
        for metric in ("eval/fwd", "eval/spectrum_db", "loss/d_high", "lam", "watch/diversity", COST):
            assert f"{run} ({metric})" in opened.text  # in the legend
    assert opened.text.count(" Step ") >= 9  # the axis
    differences = opened.text[opened.text.find("Settings that differ") :]
    assert "Parameters model.width 4 8 seed 0 1" in differences.replace("8 4", "4 8").replace("1 0", "0 1")
    assert "train.batch_size" not in differences


def test_a_run_s_page_draws_its_curves_against_images(dashboard, tmp_path):
    page = f"/experiments/{dashboard.experiment}/runs/{dashboard.runs['wide'].info.run_id}/model-metrics"
    opened = dashboard.open(page, tmp_path, (2400, 9000))
    for section in ("best (1)", "eval (9)", "loss (6)", "std_high (3)"):
        assert section in opened.text
    for chart in ("eval/fwd", "loss/g_image", "std_high/fused"):
        assert re.search(rf"{chart} (.{{0,400}}) 100 (.{{0,60}}) 300 .{{0,200}}Step", opened.text), chart
    assert "samples" in opened.text
    assert "spectrum" in opened.text


def test_evaluations_are_at_the_step_of_their_snapshot_and_the_best_at_the_newest(dashboard):
    client = MlflowClient(dashboard.uri)
    for run in dashboard.runs.values():
        history = client.get_metric_history(run.info.run_id, "eval/fwd")
        assert [metric.step for metric in history] == STEPS
        best = client.get_metric_history(run.info.run_id, BEST)
        assert [metric.step for metric in best] == STEPS
        assert [metric.value for metric in best] == [history[0].value, min(metric.value for metric in history)]


def test_a_run_s_first_page_shows_command_settings_and_dataset(dashboard, tmp_path):
    page = f"/experiments/{dashboard.experiment}/runs/{dashboard.runs['wide'].info.run_id}"
    text = dashboard.open(page, tmp_path).text
    for words_of_page in ("model.width=8 seed=1", "wavegan train --config", "1 x cpu on", "eval/fwd", "train.batch_size 32"):
        assert words_of_page in text


def test_a_run_s_artifacts_are_its_samples_evaluations_and_snapshots(dashboard, tmp_path):
    page = f"/experiments/{dashboard.experiment}/runs/{dashboard.runs['wide'].info.run_id}/artifacts/images"
    text = dashboard.open(page, tmp_path).text
    for name in ("evaluations", "snapshots", "config.yaml", "samples+step+320", "spectrum+step+320"):
        assert name in text


def test_two_runs_are_compared(dashboard, tmp_path):
    ids = json.dumps([dashboard.runs[name].info.run_id for name in SETTINGS])
    experiments = json.dumps([dashboard.experiment])
    text = dashboard.open(f"/compare-runs?runs={quote(ids)}&experiments={quote(experiments)}", tmp_path).text
    assert "Comparing 2 Runs from 1 Experiment" in text
    for row in ("Run Name: narrow wide", "model.width 4 8", "train.batch_size 32 32", "eval/fwd"):
        assert row in text


def test_the_saved_view_fits_into_a_tag_of_every_version():
    assert len(view_tag()) < 5000
