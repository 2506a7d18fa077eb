"""`wavegan sample` and `wavegan evaluate` as a person uses them."""

import errno
import json
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.helpers import ROOT, Command, environment, refused
from wavegan_dist.cli import parse
from wavegan_dist.cli.evaluate import METRIC_ARGUMENTS, metric_arguments
from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate import publish


def test_sample_refuses_a_folder_of_older_samples(wavegan: Command, snapshot: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sample = ("sample", "--snapshot", snapshot, "--out", out)
    outcome = wavegan(*sample, "--count", 5)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, f"{out}\n", "")
    refused(wavegan(*sample, "--count", 2), str(out), "already holds files", "choose another folder")
    assert len(list(out.iterdir())) == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--out", "x.jpg"), ("x.jpg", "PNG only", "a .png file")),
        (("--out", "x.png", "--device", "cuda:7"), ("--device cuda:7", "no such device", "cpu")),
        (("--out", "x.png", "--device", "gpu"), ("--device gpu", "no such device", "cpu")),
    ],
)
def test_sample_refuses_what_it_cannot_write_or_use(
    wavegan: Command, snapshot: Path, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(wavegan("sample", "--snapshot", snapshot, *arguments, cwd=tmp_path), *words)
    assert not list(tmp_path.iterdir())


def test_a_grid_is_written_through_a_link_and_a_folder_below_a_file_is_refused(
    wavegan: Command, snapshot: Path, tmp_path: Path
) -> None:
    (tmp_path / "target.png").touch()
    (tmp_path / "link.png").symlink_to("target.png")
    sample = ("sample", "--snapshot", snapshot, "--count", 1, "--out")
    assert wavegan(*sample, "link.png", cwd=tmp_path).returncode == 0
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "target.png").stat().st_size
    refused(wavegan(*sample, "target.png/images", cwd=tmp_path), "target.png is not a folder")


def test_a_sheet_of_another_type_of_image_is_refused(wavegan: Command, shards: Path, tmp_path: Path) -> None:
    refused(wavegan("shards", "info", shards, "--sheet", "x.jpg", cwd=tmp_path), "x.jpg", "does not end in .png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x.png", "x.PNG"])
def test_a_result_file_with_the_name_of_the_plot_is_refused(
    wavegan: Command, snapshot: Path, tmp_path: Path, name: str
) -> None:
    evaluate = ("evaluate", "--snapshot", snapshot, "--data", "nowhere", "--json", name)
    refused(wavegan(*evaluate, cwd=tmp_path), name, "the name of the spectrum's plot", ".json")
    assert not list(tmp_path.iterdir())


def test_a_result_that_cannot_be_written_is_refused_before_the_work(wavegan: Command, snapshot: Path, tmp_path: Path) -> None:
    evaluate = ("evaluate", "--snapshot", snapshot, "--data", "nowhere", "--json")
    (tmp_path / "file").touch()
    refused(wavegan(*evaluate, tmp_path / "file" / "x.json"), "file is not a folder; choose another name")
    refused(wavegan(*evaluate, tmp_path), f"the result {tmp_path} is a folder; name a file")


def test_a_missing_plot_library_is_said_before_the_work(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    evaluate = ["evaluate", "--snapshot", str(snapshot), "--data", "nowhere", "--json", str(tmp_path / "x.json")]
    for words in ([], ["--metrics", "fwd,spectrum"]):
        options = parse([*evaluate, *words])
        with pytest.raises(UsageError, match="the plot of the metric spectrum needs packages that are not installed"):
            options.run(options)
    options = parse([*evaluate, "--metrics", "fwd"])
    with pytest.raises(UsageError, match="nowhere"):
        options.run(options)


def test_a_plot_that_fails_loses_neither_the_table_nor_the_result(
    snapshot: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(table: object, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(publish, "plot_spectrum", fail)
    evaluate = ["evaluate", "--snapshot", str(snapshot), "--data", str(data), "--json", str(tmp_path / "x.json")]
    options = parse([*evaluate, "--metrics", "spectrum", "--count", "20"])
    with pytest.raises(OSError, match="No space left"):
        options.run(options)
    assert "spectrum_db_top_half" in capsys.readouterr().out
    assert "spectrum_db" in read_strictly(tmp_path / "x.json")["metrics"]


def test_sample_shows_its_progress_on_a_terminal(snapshot: Path, tmp_path: Path) -> None:
    shown, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))  # tqdm shows nothing in a width of 0
    os.set_blocking(shown, False)
    command = [sys.executable, "-m", "wavegan_dist", "sample", "--snapshot", str(snapshot), "--out", str(tmp_path / "out")]
    command += ["--count", "40", "--device", "cpu", "--exact"]
    outcome = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, text=True, env=environment(), timeout=60)
    text = os.read(shown, 10000).decode()
    os.close(terminal)
    os.close(shown)
    assert (outcome.returncode, outcome.stdout) == (0, f"{tmp_path / 'out'}\n")
    assert "generated images" in text
    assert "/40" in text
    assert "img" in text


EVERY_OPTION = ["--metrics=fwd,kid", "--count=9", "--seed=1", "--extractor=dinov2", "--per-class=7", "--exact"]
EVERY_OPTION += ["--inception-weights=a b.pt", "--dinov2-weights=c.pth"]


@pytest.mark.parametrize("given", [[], ["--exact"], EVERY_OPTION])
def test_an_evaluation_job_gets_the_metric_arguments_of_its_submission(given: list[str]) -> None:
    names = [argument.names[0] for argument in METRIC_ARGUMENTS]
    assert sorted(option.partition("=")[0] for option in EVERY_OPTION) == sorted(names)
    submitted = parse(["submit", "evaluate", "--run", "x", "--snapshots", "all", "--profile", "p", *given])
    forwarded = parse(["evaluate", "--snapshot", "x", "--data", "y", *metric_arguments(submitted)])
    for name in names:
        option = name[2:].replace("-", "_")
        assert getattr(forwarded, option) == getattr(submitted, option), name


@pytest.mark.parametrize("command", ["evaluate --snapshot x --data y", "submit evaluate --run x --snapshots all --profile p"])
def test_blanks_between_metrics_do_not_count(command: str) -> None:
    assert parse([*command.split(), "--metrics", " swd, glcm"]).metrics == "swd,glcm"


def read_strictly(path: Path) -> dict[str, dict[str, object]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_kid_of_two_images_has_a_value_and_no_interval(wavegan: Command, snapshot: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    evaluate = ("evaluate", "--snapshot", snapshot, "--data", data, "--metrics", "kid", "--json", out)
    outcome = wavegan(*evaluate, "--count", 2)
    assert outcome.returncode == 0, outcome.stderr
    result = read_strictly(out)
    assert set(result["metrics"]) == {"kid_efflite0@128"}
    assert result["intervals"] == {}
    assert result["protocol"]["exact"] is True
    refused(wavegan(*evaluate, "--count", 1), "kid needs at least 2 images, got 1")


def test_by_default_metrics_that_need_more_images_are_left_out_with_one_note(
    wavegan: Command, snapshot: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "result.json"
    evaluate = ("evaluate", "--snapshot", snapshot, "--data", data, "--json", out, "--count", 100)
    outcome = wavegan(*evaluate)
    assert outcome.returncode == 0, outcome.stderr
    (note,) = outcome.stderr.splitlines()
    assert "left out: fwd (at least 193), fwd_db2 (at least 301), fd (at least 1281)" in note
    metrics = set(read_strictly(out)["metrics"])
    assert {"spectrum_db", "bands_db", "kid_efflite0@128", "precision_efflite0@128"} <= metrics
    assert not {"fwd", "fwd_db2", "fd_efflite0@128"} & metrics


def test_metrics_that_were_asked_for_and_need_more_images_are_named_all_at_once(
    wavegan: Command, snapshot: Path, data: Path, tmp_path: Path
) -> None:
    evaluate = ("evaluate", "--snapshot", snapshot, "--data", data, "--json", tmp_path / "result.json")
    refused(
        wavegan(*evaluate, "--count", 100, "--metrics", "spectrum,fwd,fwd_db2,fd"),
        "fwd needs at least 193 images, fwd_db2 needs at least 301 images, fd needs at least 1281 images, got 100",
        "raise --count to 301 and leave fd out of --metrics, because there are only 600 real images",
    )
    assert not list(tmp_path.iterdir())


def test_a_torchvision_of_another_release_is_one_line(snapshot: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    command = ("evaluate", "--snapshot", snapshot, "--data", data, "--metrics", "kid", "--count", 16)
    outcome = subprocess.run(
        [sys.executable, "-m", "wavegan_dist", *map(str, command)],
        env=environment(PYTHONPATH=f"{tmp_path}:{ROOT}"),
        capture_output=True,
        text=True,
    )
    refused(outcome, "operator torchvision::nms does not exist", "if that is torchvision, install its release for torch 2")
