"""MLflow's pages of two runs in a browser: what a person looks for is there, and the browser has no complaint."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow_server import MlflowServer
from playwright.sync_api import Page, expect

from tests.browser import Browser, needs_chromium, start_browser
from tests.helpers import Command
from wavegan_dist.evaluate.evaluate import evaluate_snapshot
from wavegan_dist.evaluate.publish import publish_result, write_result
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking.mlflow_view import BEST, COLUMNS, COST

pytestmark = [needs_chromium, pytest.mark.slow]
SETTINGS = {"narrow": (), "wide": ("model.width=8", "seed=1")}
STEPS = [160, 320]  # image numbers of the evaluated snapshots
NOISE = ("AG Grid: since", "ResizeObserver loop", "WebGL", "mlflow/users/current")  # of MLflow's pages, whatever they show
PATIENCE = 60_000  # milliseconds until a part of a page must be there
LARGE = (2400, 2600)  # MLflow does not draw what is outside of the window


@dataclass(frozen=True)
class Dashboard:
    """An MLflow server with an experiment of two runs, by their names."""

    uri: str
    experiment: str
    runs: dict[str, Run]

    def run_page(self, name: str, tab: str = "") -> str:
        return f"/experiments/{self.experiment}/runs/{self.runs[name].info.run_id}{tab}"


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
            result = evaluate_snapshot(run.snapshot_named(snapshot), shards / "index.json", ("fwd", "spectrum"), count=200)
            write_result(result, run.evaluation(snapshot))
            publish_result(result, run, snapshot, run.evaluation(snapshot))
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("dashboard").experiment_id
    return Dashboard(server.uri, experiment, {run.info.run_name: run for run in client.search_runs([experiment])})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with start_browser(NOISE) as browser:
        browser.context.set_default_timeout(PATIENCE)
        browser.context.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
        yield browser


@pytest.fixture
def open_page(dashboard: Dashboard, browser: Browser) -> Iterator[Callable[[str], Page]]:
    """Open a page of the server by the part of its URL after #. At the end, the browser must have no complaint."""
    browser.complaints.clear()
    yield lambda path: browser.open(f"{dashboard.uri}/#{path}", LARGE)
    assert browser.complaints == []


@pytest.fixture
def open_view(dashboard: Dashboard, open_page: Callable[[str], Page]) -> Callable[[str], Page]:
    """Open the saved view that the description of the experiment links to as `table` or `charts`."""

    def open_view(name: str) -> Page:
        page = open_page(f"/experiments/{dashboard.experiment}")
        link = page.locator("a[href*=viewStateShareKey]", has_text=name)
        return open_page(link.get_attribute("href").removeprefix("#"))

    return open_view


def chart(page: Page, legend: str) -> str:
    """Wait until the chart with this legend is drawn, and return its texts on one line: title, axes and legend."""
    card = page.locator(".react-resizable", has=page.get_by_text(legend, exact=True)).first
    card.get_by_text("Step", exact=True).wait_for()  # title of the axis
    return " ".join(card.inner_text().split())


def test_the_experiment_links_to_a_table_with_best_metric_cost_settings_and_commit(dashboard, open_view):
    page = open_view("table")
    best_first = sorted(dashboard.runs.values(), key=lambda run: run.data.metrics[BEST])
    for number, run in enumerate(best_first):
        name, metrics, tags = run.info.run_name, run.data.metrics, run.data.tags
        row = {
            column: page.locator(f'[row-index="{number}"] [col-id="{column}"]').inner_text()
            for column in ("attributes.`Run Name`", *COLUMNS)
        }
        assert row["attributes.`Run Name`"].split()[-1] == name
        assert float(row[f"metrics.`{BEST}`"]) == float(tags["best_value"]) == metrics[BEST] <= metrics["eval/fwd"]
        assert float(row[f"metrics.`{COST}`"]) == metrics[COST] > 0
        assert row["tags.`best_snapshot`"] == tags["best_snapshot"]
        assert row["attributes.`Version`"] == tags.get("mlflow.source.git.commit", "-")[:6]
        assert row["attributes.`Dataset`"].startswith("set (")
        assert row["params.`model.width`"] == {"narrow": "4", "wide": "8"}[name]
        first_setting = (*SETTINGS[name], "tracking.enabled=true")[0]
        assert row["attributes.`Description`"].startswith(first_setting)


def test_the_charts_have_samples_with_a_slider_curves_and_the_settings_that_differ(dashboard, open_view):
    page = open_view("charts")
    slider = page.get_by_role("slider").first
    for key, step in (("ArrowRight", 160), ("ArrowRight", 320), ("ArrowLeft", 160)):
        slider.press(key)
        expect(slider).to_have_attribute("aria-valuenow", str(step), timeout=PATIENCE)
        for run in dashboard.runs.values():
            picture = page.locator(f'img[src*="samples%2Bstep%2B{step}%2B"][src$="run_uuid={run.info.run_id}"]')
            picture.wait_for()
            page.wait_for_function("picture => picture.complete && picture.naturalWidth > 30", arg=picture.element_handle())
    for metric in ("eval/fwd", "eval/spectrum_db", "lam", "watch/diversity", COST):
        assert re.search(rf"^{metric} .* 200 .* Step ", chart(page, f"narrow ({metric})"))
        assert f"wide ({metric})" in chart(page, f"narrow ({metric})")
    assert "loss/d_image vs loss/d_low vs loss/d_high" in chart(page, "narrow (loss/d_low)")
    page.get_by_text("Show differences only").scroll_into_view_if_needed()
    page.get_by_text("model.width", exact=True).wait_for()
    text = " ".join(page.locator("body").inner_text().split())
    sections = ["Samples (2)", "Quality of snapshots (2)", "Training (8)", "Settings that differ (1)", "best (1)"]
    assert sorted(sections, key=text.index) == sections
    settings = text[text.index(sections[3]) : text.index(sections[4])]
    assert re.search("Parameters model.width (4 8|8 4) seed (0 1|1 0)", settings)
    assert "train." not in settings


def test_a_run_s_page_draws_its_curves_against_images(dashboard, open_page):
    page = open_page(dashboard.run_page("wide", "/model-metrics"))
    for metric in (BEST, COST, "eval/fwd"):
        assert re.search(r" 200 .* Step ", chart(page, f"wide ({metric})"))
    text = " ".join(page.locator("body").inner_text().split())
    for section in ("best (1)", "eval (9)", "loss (6)", "std_high (3)"):
        assert section in text


def test_evaluations_are_at_the_step_of_their_snapshot_and_the_best_at_the_newest(dashboard):
    client = MlflowClient(dashboard.uri)
    for run in dashboard.runs.values():
        history = client.get_metric_history(run.info.run_id, "eval/fwd")
        assert [metric.step for metric in history] == STEPS
        best = client.get_metric_history(run.info.run_id, BEST)
        assert [metric.step for metric in best] == STEPS
        assert [metric.value for metric in best] == [history[0].value, min(metric.value for metric in history)]


def test_a_run_s_first_page_shows_settings_command_hardware_and_metrics(dashboard, open_page):
    page = open_page(dashboard.run_page("wide"))
    for words in ("model.width=8 seed=1", "wavegan train --config", "1 x cpu on", "eval/fwd", "train.batch_size"):
        page.get_by_text(words).first.wait_for()


def test_a_run_s_artifacts_are_its_samples_evaluations_and_snapshots(dashboard, open_page):
    page = open_page(dashboard.run_page("wide", "/artifacts/images"))
    for name in ("evaluations", "snapshots", "config.yaml", "samples+step+320", "spectrum+step+320"):
        page.get_by_text(name).first.wait_for()


def test_two_runs_are_compared(dashboard, open_page):
    ids = json.dumps([dashboard.runs[name].info.run_id for name in SETTINGS])
    experiments = json.dumps([dashboard.experiment])
    page = open_page(f"/compare-runs?runs={quote(ids)}&experiments={quote(experiments)}")
    page.get_by_text("Comparing 2 Runs from 1 Experiment").wait_for()
    page.get_by_text("Show diff only").first.click()
    text = " ".join(page.locator("body").inner_text().split())
    assert "Run Name: narrow wide" in text
    assert "model.width 4 8" in text
    assert "train.batch_size" not in text
    assert "eval/fwd" in text
