"""Take the screenshots of mlflow.md: trains three short runs of the demo, evaluates them, and opens MLflow's pages.

    make dashboard

Takes about 15 minutes on two busy cores. What is in runs/dashboard already is not trained or evaluated again.
"""

import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow_server import MlflowServer
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.browser import CHROMIUM, NO_CHROMIUM, start_browser
from wavegan_dist.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "runs" / "dashboard"
INDEX = ROOT / "data" / "demo" / "index.json"
BASE_ONLY = ("model.base_only=true", "loss.weights.low=0", "loss.weights.high=0")
RUNS = {"full": (), "full-seed1": ("seed=1",), "base-only": BASE_ONLY}
LENGTH = ("model.width=16", "train.total_kimg=40", "train.snapshot_kimg=8", "train.checkpoint_kimg=8", "train.report_kimg=1")
METRICS = ("--metrics", "fwd,swd,spectrum,glcm", "--count", "1000")
COLORS = 128
PATIENCE = 120_000  # milliseconds until a part of a page must be there
PAUSE = 3000  # milliseconds in which pictures and curves are drawn; MLflow's pages never stop to ask the server


def main() -> None:
    """Train, evaluate and take the screenshots."""
    if CHROMIUM is None:
        sys.exit(NO_CHROMIUM)
    if not INDEX.exists():
        wavegan("shards", "write", "embedded", INDEX.parent, "--size", 32)
    FOLDER.mkdir(parents=True, exist_ok=True)
    server = MlflowServer(FOLDER)
    for name, settings in RUNS.items():
        run = RunFolder(FOLDER / name)
        tracking = f"tracking.uri={server.database}"
        wavegan("train", "--config", ROOT / "configs" / "demo.yaml", "--run-dir", run.path, *settings, *LENGTH, tracking)
        for snapshot in run.snapshots():
            if not run.evaluation(snapshot.name).exists():
                wavegan("evaluate", "--snapshot", snapshot, "--data", INDEX, *METRICS)
    server.start()
    try:
        take_screenshots(server.uri)
    finally:
        server.kill()


def wavegan(*arguments: object) -> None:
    """Run a command of this checkout with one thread."""
    command = [sys.executable, "-m", "wavegan_dist", *map(str, arguments)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})


def take_screenshots(uri: str) -> None:
    """Open the pages in a browser and write docs/mlflow-NAME.png."""
    client = MlflowClient(uri)
    experiment = client.search_experiments(filter_string="name = 'wavegan'")[0].experiment_id
    ids = {run.info.run_name: run.info.run_id for run in client.search_runs([experiment])}
    pair = json.dumps([ids["full"], ids["base-only"]])
    view = f"{uri}/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey=wavegan"
    with start_browser() as browser:
        browser.context.set_default_timeout(PATIENCE)
        browser.context.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
        page = browser.open(view, (1700, 480))
        page.locator('[row-index="2"] [col-id="tags.`best_snapshot`"]').wait_for()
        save(page, "table")
        page = browser.open(f"{view}&compareRunsMode=CHART", (1500, 1350))
        for number in (0, 1):
            move_to_the_end(page.get_by_role("slider").nth(number))
        page.get_by_text("full (eval/glcm_bits)", exact=True).wait_for()
        save(page, "charts")
        page.set_viewport_size({"width": 1500, "height": 620})
        samples = page.locator(".react-resizable", has=page.get_by_role("slider")).filter(has_text="samples").last
        samples.get_by_role("button").first.click()  # full screen
        move_to_the_end(page.get_by_role("slider").last)
        save(page, "samples")
        runs = f"runs={quote(pair)}&experiments={quote(json.dumps([experiment]))}"
        page = browser.open(f"{uri}/#/compare-runs?{runs}&workflowType=machine_learning", (1300, 680))
        differences = page.get_by_text("Show diff only").first
        differences.click()
        differences.evaluate("element => element.scrollIntoView()")
        save(page, "compare")


def move_to_the_end(slider: Locator) -> None:
    """Move a slider to its last step."""
    while slider.get_attribute("aria-valuenow") != slider.get_attribute("aria-valuemax"):
        before = slider.get_attribute("aria-valuenow")
        slider.press("ArrowRight")
        expect(slider).not_to_have_attribute("aria-valuenow", str(before), timeout=PATIENCE)


def save(page: Page, name: str) -> None:
    """Write a screenshot of the window as PNG with few colors."""
    page.wait_for_timeout(PAUSE)
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    path = ROOT / "docs" / f"mlflow-{name}.png"
    picture.quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
