"""The page of `wavegan compare`, made from runs that are trained and evaluated here, and opened in a browser."""

import csv
import itertools
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from tests.browser import needs_chromium, picture_widths
from tests.compare.helpers import evaluation, write_run
from tests.helpers import Command, deliver, refused
from wavegan_dist.compare import compare
from wavegan_dist.compare.columns import find_columns, mean_and_std, protocol_differences
from wavegan_dist.compare.groups import differing_settings, group_runs
from wavegan_dist.compare.heat_map import frequency_map
from wavegan_dist.compare.mlflow_runs import _folder_name
from wavegan_dist.compare.runs import LoadedRun, read_run
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.evaluate.evaluate import evaluate_snapshot
from wavegan_dist.evaluate.publish import publish_result, write_result
from wavegan_dist.evaluate.wavelet_distance import haar_packets, packet_names
from wavegan_dist.evaluation_result import ClassResult, EvaluationResult
from wavegan_dist.run_folder import RunFolder

BASE_ONLY = ("model.base_only=true", "loss.weights.low=0", "loss.weights.high=0")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, wavegan: Command, tracked_config: Path, shards: Path) -> dict[str, Path]:
    """Two seeds of one configuration and one of another, trained for ten steps, evaluated at two snapshots."""
    folder = tmp_path_factory.mktemp("runs")
    settings = {"full-0": ("seed=0",), "full-1": ("seed=1",), "base": BASE_ONLY}
    for name, overrides in settings.items():
        outcome = wavegan("train", "--config", tracked_config, "--run-dir", folder / name, *overrides)
        assert outcome.returncode == 0, outcome.stderr
        deliver(folder / name)
        for snapshot in sorted((folder / name / "snapshots").iterdir())[-2:]:
            result = evaluate_snapshot(snapshot, shards / "index.json", ("fwd", "spectrum", "bands"), count=200)
            assert result is not None
            run = RunFolder(folder / name)
            write_result(result, run.evaluation(snapshot.name))
            publish_result(result, run, snapshot.name, run.evaluation(snapshot.name))
    return {name: folder / name for name in settings}


@pytest.fixture(scope="session")
def page(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compare([str(path) for path in runs.values()], tmp_path_factory.mktemp("comparison") / "out")


def read(runs: dict[str, Path], scratch: Path) -> list[LoadedRun]:
    return [run for path in runs.values() for run in read_run(str(path), scratch)]


def test_seeds_of_one_configuration_are_one_group_and_only_differences_are_shown(runs: dict[str, Path], tmp_path: Path) -> None:
    groups = group_runs(read(runs, tmp_path))
    assert [[run.name for run in group.runs] for group in groups] == [["full-0", "full-1"], ["base"]]
    assert [group.label for group in groups] == ["full-0 (2 runs)", "base"]
    assert differing_settings(groups) == {
        "model.base_only": [False, True],
        "loss.weights.low": [1.0, 0.0],
        "loss.weights.high": [1.0, 0.0],
    }


def test_groups_of_equal_names_are_numbered(runs: dict[str, Path], tmp_path: Path) -> None:
    first, _, base = read(runs, tmp_path)
    groups = group_runs([first, replace(base, name=first.name)])
    assert [group.label for group in groups] == ["full-0 #1", "full-0 #2"]


def test_the_page_holds_mean_deviation_and_floor_of_every_metric(runs: dict[str, Path], page: Path) -> None:
    text = page.read_text()
    newest = [json.loads(sorted(path.glob("evaluations/*.json"))[-1].read_text()) for path in runs.values()]
    for metric, floor in newest[0]["floors"].items():
        mean, std = mean_and_std([result["metrics"][metric] for result in newest[:2]])
        base = newest[2]["metrics"][metric]
        row = (
            f"<td>{metric}</td><td>{mean:.4g} ± {std:.2g} ({abs(mean / floor):.3g} x floor)</td>"
            f"<td>{base:.4g} ({abs(base / floor):.3g} x floor)</td><td>{floor:.4g}</td>"
        )
        assert row in text
    assert "model.base_only" in text
    assert "model.width" not in text


def test_a_value_names_its_kimg_and_runs_where_they_are_not_those_of_the_heading(tmp_path: Path) -> None:
    old, new = evaluation(1000), evaluation(2000)
    del new["metrics"]["spectrum_db"]
    runs = [write_run(tmp_path / name, results, {}) for name, results in (("a", {"1": old, "2": new}), ("b", {"2": new}))]
    text = compare([str(run) for run in runs], tmp_path / "out").read_text()
    assert "<th>a (2 runs), 2 kimg</th>" in text
    assert "<td>fwd</td><td>0.5005 ± 0 (5 x floor)</td>" in text
    assert "<td>spectrum_db</td><td>1.5 (3 x floor), at 1 kimg, 1 of 2 runs</td>" in text


def test_the_page_has_a_table_of_classes_for_each_metric_that_was_measured_per_class(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    copies = {name: tmp_path / name for name in ("full-0", "full-1")}
    for number, (name, copy) in enumerate(copies.items()):
        shutil.copytree(runs[name], copy)
        newest = sorted(copy.glob("evaluations/*.json"))[-1]
        result = EvaluationResult.read(newest)
        shared: dict[str, Any] = {"images_real": 90, "images_generated": 90, "intervals": {}, "left_out": {}}
        classes = [
            ClassResult(label=label, name=name, metrics={"fwd": value}, **shared)
            for label, name, value in ((0, "cat", 0.25 + number), (1, "<dog>", 0.5))
        ]
        result.model_copy(update={"classes": classes[: 2 - number]}).write(newest)
    text = compare([str(path) for path in copies.values()], tmp_path / "out").read_text()
    assert "<h3>fwd</h3>" in text
    assert "<td>cat</td><td>0.75 ± 0.71</td>" in text
    assert "<td>&lt;dog&gt;</td><td>0.5</td>" in text
    assert "<h3>spectrum_db</h3>" not in text


def test_the_page_needs_nothing_from_outside(page: Path) -> None:
    text = page.read_text()
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"]*)"', text))
    assert "<script" not in text
    assert "url(" not in text


def test_the_csv_has_every_number_of_every_result(runs: dict[str, Path], page: Path) -> None:
    with page.with_name("comparison.csv").open() as file:
        lines = list(csv.DictReader(file))
    expected = 0
    for path in runs.values():
        for result in map(json.loads, (each.read_text() for each in path.glob("evaluations/*.json"))):
            expected += len(result["metrics"])
            of_result = [
                line for line in lines if (line["run"], float(line["kimg"])) == (path.name, result["protocol"]["nimg"] / 1000)
            ]
            assert {line["metric"]: float(line["value"]) for line in of_result} == result["metrics"]
            assert {line["metric"]: float(line["floor"]) for line in of_result} == result["floors"]
    assert len(lines) == expected


def test_pictures_lie_beside_the_page(page: Path) -> None:
    names = {path.name for path in page.parent.glob("*.png")}
    curves = {"metrics-over-training.png", "training.png", "spectrum.png", "packets-of-fwd.png"}
    assert names == curves | {"samples-0.png", "samples-1.png"}
    for path in page.parent.glob("*.png"):
        with Image.open(path) as picture:
            picture.load()
    with Image.open(page.with_name("samples-0.png")) as picture:
        assert picture.size == (8 * 32, 4 * 32)


def edited(source: Path, target: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a run whose results are changed."""
    shutil.copytree(source, target)
    for path in target.glob("evaluations/*.json"):
        result = json.loads(path.read_text())
        edit(result)
        path.write_text(json.dumps(result))
    return target


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("images_real", 1000, "images_real: 200 / 1000"),
        ("seed", 1, "seed: 0 / 1"),
        ("index_digest", "another", "index_digest: "),
        ("code_digest", "another", "code_digest: "),
    ],
)
def test_numbers_of_another_protocol_get_a_column_of_their_own_and_a_reason(
    runs: dict[str, Path], tmp_path: Path, field: str, value: object, reason: str
) -> None:
    other = edited(runs["base"], tmp_path / "other", lambda result: result["protocol"].update({field: value}))
    both = [run for path in (runs["full-0"], other) for run in read_run(str(path), tmp_path)]
    columns = find_columns(both)
    assert [column.label for column in columns if column.metric == "fwd"] == ["fwd [1]", "fwd [2]"]
    first, second = (column for column in columns if column.metric == "fwd")
    assert (bool(first.curve(both[0])), bool(first.curve(both[1]))) == (True, False)
    assert (bool(second.curve(both[0])), bool(second.curve(both[1]))) == (False, True)
    (why,) = protocol_differences(columns)
    assert why.startswith(reason)


def test_results_of_other_commits_share_a_column_if_the_code_that_matters_is_equal(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    commits = edited(runs["base"], tmp_path / "commits", lambda result: result["protocol"].update(git_commit="another"))
    both = [run for path in (runs["full-0"], commits) for run in read_run(str(path), tmp_path)]
    assert [column.label for column in find_columns(both) if column.metric == "fwd"] == ["fwd"]
    assert "<code>another</code> (commits)" in compare([str(runs["full-0"]), str(commits)], tmp_path / "out").read_text()
    older = edited(commits, tmp_path / "older", lambda result: result["protocol"].pop("code_digest"))
    both = [run for path in (runs["full-0"], older) for run in read_run(str(path), tmp_path)]
    assert [column.label for column in find_columns(both) if column.metric == "fwd"] == ["fwd [1]", "fwd [2]"]


def test_the_page_says_why_columns_are_apart(runs: dict[str, Path], tmp_path: Path) -> None:
    other = edited(runs["base"], tmp_path / "other", lambda result: result["protocol"].update(images_real=1000))
    text = compare([str(runs["full-0"]), str(other)], tmp_path / "out").read_text()
    assert "Why a metric has several columns" in text
    assert "<td>fwd [1]</td>" in text
    assert re.search(r"<li>fwd \[2\], [^<]*: images_real: 200 / 1000</li>", text)


def test_a_protocol_of_one_metric_sets_that_metric_apart_only(runs: dict[str, Path], tmp_path: Path) -> None:
    other = edited(runs["base"], tmp_path / "other", lambda result: result["protocol"]["metrics"]["fwd"].update(level=3))
    both = [run for path in (runs["full-0"], other) for run in read_run(str(path), tmp_path)]
    labels = [column.label for column in find_columns(both)]
    assert {"fwd [1]", "fwd [2]", "spectrum_db", "fwd_low"} <= set(labels)


def test_a_run_in_mlflow_reads_like_its_folder_and_has_its_spectra_step_by_step(
    runs: dict[str, Path], tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("wavegan")
    assert experiment is not None
    (tracked,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'full-0'")
    (folder,) = read_run(str(runs["full-0"]), tmp_path)
    with pytest.raises(UsageError, match="set MLFLOW_TRACKING_URI to the run's store"):
        read_run(f"mlflow:{tracked.info.run_id}", tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    (again,) = read_run(f"mlflow:{tracked.info.run_id}", tmp_path)
    assert again.snapshot is not None
    assert folder.snapshot is not None
    assert again.snapshot.weights_sha256 == folder.snapshot.weights_sha256
    for part in ("name", "settings", "environment", "points", "evaluations", "hours"):
        assert getattr(again, part) == getattr(folder, part), part
    for result in folder.evaluations:
        logged = client.get_metric_history(tracked.info.run_id, "eval/fwd")
        assert (result.protocol.nimg, result.metrics["fwd"]) in [(each.step, each.value) for each in logged]
    page = compare([f"mlflow:{tracked.info.run_id}", str(runs["base"])], tmp_path / "out").read_text()
    assert "<th>full-0, 0.32 kimg</th><th>base, 0.32 kimg</th>" in page
    pictures = [Path(each.path).name for each in client.list_artifacts(tracked.info.run_id, "images")]
    for result in folder.evaluations:
        step = rf"spectrum\Wstep\W{result.protocol.nimg}\W"
        assert any(re.match(step, name) for name in pictures), pictures
    with pytest.raises(UsageError, match="has no such run"):
        read_run("mlflow:none", tmp_path)


@pytest.mark.parametrize(
    ("store", "reason", "exit_code"),
    [
        ("http://alice:pa55@127.0.0.1:9", "mlflow:7: http://127.0.0.1:9 cannot be read (API request", 1),
        (f"sqlite:///{__file__}", "is not a SQLite database", 2),
        ("sqlite:////nowhere/mlflow.db", "/nowhere/mlflow.db does not exist", 2),
    ],
)
def test_a_store_that_does_not_answer_is_one_line(
    tmp_path: Path, wavegan_with: Command, store: str, reason: str, exit_code: int
) -> None:
    started = time.monotonic()
    outcome = wavegan_with({"MLFLOW_TRACKING_URI": store}, "compare", "mlflow:7", "--out", tmp_path / "out")
    refused(outcome, reason, exit_code=exit_code)
    assert "pa55" not in outcome.stderr
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("name", "folder"),
    [("a" * 300, "a" * 200), ("\u00e9" * 150, "\u00e9" * 100), ("\u4e2d" * 90, "\u4e2d" * 66), ("../x", ".._x"), ("..", "id")],
)
def test_the_name_of_a_run_in_mlflow_becomes_a_folder_that_a_file_system_takes(name: str, folder: str, tmp_path: Path) -> None:
    assert _folder_name("id", name) == folder
    (tmp_path / folder).mkdir()


@pytest.mark.parametrize("name", ["page.html", "runs.csv"])
def test_the_name_of_a_file_does_not_become_a_folder(
    runs: dict[str, Path], tmp_path: Path, wavegan: Command, name: str
) -> None:
    out = tmp_path / name
    refused(wavegan("compare", runs["base"], "--out", out), f"{name} is the name of a file")
    assert not out.exists()


def test_a_run_that_is_given_twice_is_refused(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs["base"].parent)
    for twice in ([str(runs["base"]), runs["base"].name], ["mlflow:12", "mlflow:12"]):
        with pytest.raises(UsageError, match=r"is given twice"):
            compare(twice, tmp_path / "out")


def test_what_is_no_run_or_damaged_is_one_line(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a run: it has no config\.yaml"):
        compare([str(tmp_path)], tmp_path / "out")
    damaged = edited(runs["base"], tmp_path / "damaged", lambda result: result.pop("protocol"))
    with pytest.raises(WaveganError, match=r"evaluations/kimg-.* is damaged") as error:
        compare([str(damaged)], tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"[1, 2]", b"3", b"\x80{}", b"null", b'{"x": 1}'])
@pytest.mark.parametrize("name", ["environment.json", "metrics.jsonl"])
def test_a_file_of_a_run_with_other_content_is_one_line(
    runs: dict[str, Path], tmp_path: Path, name: str, content: bytes
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["base"], run, ignore=shutil.ignore_patterns("evaluations", "snapshots"))
    (run / name).write_bytes(content + b"\n" + content + b"\n" if name == "metrics.jsonl" else content)
    if name == "environment.json" and content.startswith(b"{"):
        assert read_run(str(run), tmp_path)[0].environment == {"x": 1}
        return
    with pytest.raises(WaveganError, match=rf"{name}.* is damaged") as error:
        read_run(str(run), tmp_path)
    assert "\n" not in str(error.value)


def test_runs_that_were_not_evaluated_and_a_line_half_written_do_no_harm(runs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(runs["base"], tmp_path / "going-on", ignore=shutil.ignore_patterns("evaluations", "snapshots"))
    with (tmp_path / "going-on" / "metrics.jsonl").open("a") as file:
        file.write('{"nimg": 99')
    text = compare([str(tmp_path / "going-on")], tmp_path / "out").read_text()
    assert "None of these runs has been evaluated" in text
    with (tmp_path / "going-on" / "metrics.jsonl").open("a") as file:
        file.write("\n{}\n")
    with pytest.raises(WaveganError, match=r"metrics\.jsonl: line \d+ is damaged"):
        compare([str(tmp_path / "going-on")], tmp_path / "out")


def test_packets_lie_where_their_frequencies_are() -> None:
    """The packet with most of a wave's energy is at the position of the wave's frequency."""
    at = torch.arange(32.0)
    for row, column in itertools.product(range(4), repeat=2):
        waves = [torch.cos(torch.pi * (at + 0.5) * (8 * place + 4) / 32) for place in (row, column)]
        energy = haar_packets(waves[0].outer(waves[1]).expand(1, 3, 32, 32), 2).square().sum(dim=(0, 2, 3, 4))
        plane = frequency_map(dict(zip(packet_names(2), energy.tolist(), strict=True)))
        assert tuple(map(int, np.unravel_index(plane.argmax(), plane.shape))) == (row, column)


@needs_chromium
def test_the_page_opens_in_a_browser_without_a_complaint_and_every_picture_loads(page: Path, tmp_path: Path) -> None:
    widths = picture_widths(page, tmp_path)
    assert len(widths) == page.read_text().count("<img ") == 6
    assert min(widths) > 100
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.size == (1300, 1600)
        gray = np.asarray(picture.convert("L"))
        assert gray.min() < 100 < 200 < gray.max()
