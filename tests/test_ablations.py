"""benchmarks/ablations.py: one result for each row and seed, nothing trained twice, errors in one line."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import ablations
import pytest
import yaml

from tests.helpers import PATIENCE, ROOT, running, wait_for
from wavegan_dist.errors import UsageError

pytestmark = pytest.mark.slow

IMAGE_ONLY = ["model.base_only=true", "loss.weights.low=0", "loss.weights.high=0"]


@pytest.fixture
def study(tmp_path, config, monkeypatch) -> Path:
    """Return a study of two short runs, whose results go to a folder of this test."""
    monkeypatch.setattr(ablations, "ROOT", tmp_path)
    monkeypatch.setattr(ablations, "COST_STEPS", 1)
    content: dict[str, Any] = {
        **{"config": str(config), "data": "write it", "settings": ["train.total_kimg=0.064"], "gpu": [], "seeds": 1},
        **{"count": 16, "metrics": "spectrum", "shown": ["spectrum_db"]},
        "rows": {"full": {}, "image only, equal time": {"time_of": "full", "settings": IMAGE_ONLY}},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def change(study: Path, **changes: object) -> None:
    study.write_text(yaml.safe_dump({**yaml.safe_load(study.read_text()), **changes}))


def run(study: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["ablations.py", str(study), "--jobs", "1"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # main sets it; undone after the test
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return ablations.main()
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_every_row_has_a_result_for_each_seed_and_a_second_call_trains_only_what_is_new(study, tmp_path, monkeypatch, capsys):
    results = tmp_path / "benchmarks" / "ablations" / "tiny"
    costs = {"full": 2.0, "image only, equal time": 1.0}
    results.mkdir(parents=True)
    settings = {name: ablations.Ablations(study).settings(name) for name in costs}
    (results / "costs.json").write_text(json.dumps({"costs": costs, "settings": settings}))
    assert run(study, monkeypatch) == 0
    full, other = (json.loads((results / f"{name}-seed0.json").read_text()) for name in ("full", "image-only-equal-time"))
    assert (full["kimg"], other["kimg"]) == (0.064, 0.128)
    assert full["metrics"]["spectrum_db"] > 0
    assert full["d_loss"].keys() == {"image", "low", "high"}
    assert other["d_loss"].keys() == {"image"}
    assert (full["experiment"]["model.base_only"], other["experiment"]["model.base_only"]) == (False, True)
    assert "2/2  image only, equal time, seed 0: spectrum_db" in capsys.readouterr().out
    change(study, seeds=2)
    assert run(study, monkeypatch) == 0
    assert "1/2  full, seed 1" in capsys.readouterr().out
    table = (results / "table.md").read_text()
    assert table.splitlines()[2].startswith(f"`python benchmarks/ablations.py {study}`; each row")  # without --jobs
    one_row = [run for run in ablations.Ablations(study).runs() if run.row != "full"]
    assert f"{study} --rows 'image only, equal time'`; each row" in ablations.Ablations(study).table(one_row)
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    assert [row[:4] for row in rows] == [["| full", "2", "2.00", "0.064"], ["| image only, equal time", "2", "1.00", "0.128"]]
    assert all("±" in row[4] for row in rows)
    change(study, rows={"full": {"seeds": 3}, "image only, equal time": {"time_of": "full", "settings": IMAGE_ONLY}})
    seeds = [(run.row, run.experiment.seed) for run in ablations.Ablations(study).runs()]
    assert seeds[-3:] == [("full", 1), ("image only, equal time", 1), ("full", 2)]


def test_costs_are_relative_to_the_first_row_and_measured_once(study):
    costs = ablations.Ablations(study).costs()
    assert costs["full"] == 1
    assert costs["image only, equal time"] > 0
    assert ablations.Ablations(study).costs() == costs


def test_a_run_that_fails_is_one_line_and_the_others_go_on(study, monkeypatch, capsys):
    rows = {"broken": {"settings": ["train.world_size=3"]}, "full": {}}
    change(study, rows=rows)
    assert run(study, monkeypatch) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "/2  " in line]
    assert "broken, seed 0: wavegan train failed with code 2: wavegan: " in lines[0]
    assert "full, seed 0: spectrum_db" in lines[1]


def test_results_of_other_settings_are_not_mixed_with_new_ones(study, monkeypatch, capsys):
    change(study, rows={"k = n/4": {}})
    assert run(study, monkeypatch) == 0
    change(study, rows={"k = n/4": {"settings": ["optim.lr_g=1e-3"]}})
    assert run(study, monkeypatch) == 2
    assert "k-n-4-seed0.json is the result of optim.lr_g = 0.0002, now 0.001; delete it and" in capsys.readouterr().err
    change(study, rows={"k = n/4": {}}, shown=["spectrum_dB"])
    assert run(study, monkeypatch) == 1
    assert "shown: no metric is called spectrum_dB; there are spectrum_db, " in capsys.readouterr().err


def test_an_interrupted_study_starts_no_further_run(study, monkeypatch, capsys):
    started = []

    def interrupted(_, run):
        started.append(run.row)
        raise KeyboardInterrupt

    monkeypatch.setattr(ablations.Ablations, "train_and_evaluate", interrupted)
    change(study, seeds=3)
    assert run(study, monkeypatch) == 130
    assert len(started) < 6
    assert capsys.readouterr().err == "ablations: interrupted; the same command continues\n"


def test_sigterm_ends_the_runs_under_way_which_save_a_checkpoint(study, tmp_path):
    change(study, rows={"full": {}}, settings=["train.total_kimg=64", "train.checkpoint_kimg=0.016", "train.report_kimg=0.016"])
    folder = ablations.Ablations(study).runs()[0].folder
    program = f"import sys, ablations, pathlib; ablations.ROOT = pathlib.Path({str(tmp_path)!r}); sys.exit(ablations.main())"
    with running(sys.executable, "-c", program, study, PYTHONPATH=f"{ROOT}:{ROOT / 'benchmarks'}") as process:
        wait_for(folder.metrics.exists, process)
        process.terminate()
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    exit = folder.read_exit()
    assert exit is not None
    assert exit.state == "interrupted"
    assert folder.checkpoints()


def test_a_result_that_lacks_a_value_is_one_line(study, monkeypatch, capsys):
    assert run(study, monkeypatch) == 0
    (result, *_) = (ablations.Ablations(study).results).glob("full-*.json")
    result.write_text("{}")
    assert run(study, monkeypatch) == 1
    assert "full-seed0.json has no 'row'; delete it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": {"full": {}, "other": {"time_of": "ful"}}}, r"rows\.other\.time_of = ful is not a row with a length"),
        ({"rows": {"full": {"settings": ["model.widht=8"]}}}, "model.widht"),
        ({"settings": ["data.index=/nowhere/index.json"]}, "the data set /nowhere/index.json is missing; write it"),
        ({"sedes": 3}, "sedes"),
        ({"rows": {}}, "rows"),
        ({"metrics": "spectrum,fdw"}, "unknown metric 'fdw'"),
        ({"rows": {"a/b": {}, "a b": {}}}, "would be called a-b"),
    ],
)
def test_a_study_that_is_wrong_is_refused_before_any_run(study, changes, words):
    change(study, **changes)
    with pytest.raises(UsageError, match=words):
        ablations.Ablations(study)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "configs" / "ablations").glob("*.yaml")), ids=lambda path: path.stem
)
@pytest.mark.parametrize("gpu", [False, True])
def test_the_studies_of_this_project_have_no_wrong_setting(path, gpu, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda _: True)  # their data sets are not here
    assert len(ablations.Ablations(path, gpu).study.rows) > 5
