"""launchers/demo.sh, the first command of README.md, with a small model and few images."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import PROFILES, ROOT, environment, free_port

CONFIG = """
data: {index: data/demo/index.json, workers: 0}
model: {resolution: 32, z_dim: 8, width: 4}
train: {batch_size: 32, total_kimg: 0.064, snapshot_kimg: 0.064, checkpoint_kimg: 0.064, report_kimg: 0.032}
"""


@pytest.mark.slow
def test_the_demo_trains_evaluates_and_names_what_it_has_written(tmp_path: Path) -> None:
    launchers = tmp_path / "launchers"
    (launchers / "accelerate").mkdir(parents=True)
    shutil.copy(PROFILES / "cpu2.yaml", launchers / "accelerate")
    with (launchers / "accelerate" / "cpu2.yaml").open("a") as profile:
        profile.write(f"main_process_port: {free_port()}\n")
    script = (ROOT / "launchers" / "demo.sh").read_text()
    assert "--count 2000" in script
    (launchers / "demo.sh").write_text(script.replace("--count 2000", "--count 100"))
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.yaml").write_text(CONFIG)
    env = environment(BIN=str(Path(sys.executable).parent), PYTHONPATH=str(ROOT))
    outcome = subprocess.run(["bash", launchers / "demo.sh"], env=env, capture_output=True, text=True, timeout=400)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr[-3000:]
    assert outcome.stdout.count("spectrum_db ") == 2
    run = tmp_path / "runs" / "demo"
    assert {path.name for path in run.glob("evaluations/*.json")} == {"kimg-000000.json", "kimg-000000.064.json"}
    shown = dict(line.split(maxsplit=1) for line in outcome.stdout.splitlines()[-4:])
    assert (tmp_path / shown["samples"]).is_file()
    assert (tmp_path / shown["page"]).is_file()
    assert (tmp_path / "runs" / "demo" / "metrics.jsonl").is_file()
    store = shown["MLflow"].partition("--backend-store-uri ")[2].split()[0]
    assert (tmp_path / store.removeprefix("sqlite:///")).is_file()
