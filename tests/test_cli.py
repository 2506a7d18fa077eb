"""The command line as a person uses it: exit codes, one-line errors, nothing half-written."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.evaluate.helpers import make_snapshot
from tests.helpers import Command, environment, refused
from wavegan_dist import cli
from wavegan_dist.data import Index
from wavegan_dist.data.read import Reader


def test_help_needs_no_large_library_and_shows_every_command() -> None:
    help_page = [sys.executable, "-X", "importtime", "-m", "wavegan_dist", "--help"]
    outcome = subprocess.run(help_page, capture_output=True, text=True, check=False)
    imported = {line.rpartition("|")[2].strip() for line in outcome.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {"torch", "numpy", "mlflow", "PIL"}
    assert outcome.returncode == 0
    for command in ("train", "sample", "evaluate", "compare", "explain", "gallery", "shards", "track"):
        assert command in outcome.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("train",),
        ("sample",),
        ("export",),
        ("evaluate",),
        ("compare",),
        ("explain",),
        ("gallery",),
        ("track", "sync"),
        ("submit", "train"),
        ("submit", "evaluate"),
        ("watch",),
        ("plan",),
        *(("shards", kind) for kind in ("write", "index", "order", "verify", "info")),
    ],
)
def test_every_command_has_help_with_an_example(wavegan: Command, command: tuple[str, ...]) -> None:
    outcome = wavegan(*command, "--help")
    assert outcome.returncode == 0
    assert f"example: wavegan {' '.join(command)}" in outcome.stdout
    assert "--log-level LEVEL" in outcome.stdout


def test_wrong_use_is_one_line_and_exit_code_2(wavegan: Command, config: Path, tmp_path: Path) -> None:
    refused(wavegan(), "required: COMMAND", "wavegan --help")
    refused(wavegan("trian"), "invalid choice: 'trian'")
    refused(wavegan("train"), "--config", "wavegan train --help")
    refused(wavegan("doctor", "--log-level", "loud"), "invalid choice: 'loud'", "wavegan doctor --help")
    refused(wavegan("train", "--config", tmp_path / "no.yaml"), "no.yaml", "No such file")
    refused(wavegan("train", "--config", config, "model.widht=3"), "did you mean 'model.width'?")
    refused(wavegan("train", "seed=1", "--config", config, "model.widht=3", "--run-dir", tmp_path / "x"), "'model.widht'")
    refused(wavegan("train", "--config", config, "--steps", 3), "unrecognized argument: --steps", "wavegan --help")
    refused(wavegan("sample", "--snapshot", tmp_path, "--out", tmp_path / "x.png"), "is not a snapshot")
    refused(wavegan("sample", "--snapshot", tmp_path, "--count", 0, "--out", "x.png"), "not a positive number")
    refused(wavegan("shards", "info", tmp_path), "index.json", "wavegan shards write")
    refused(wavegan("train", "--config", config, "--run-dir", tmp_path / "x.zip"), "x.zip is the name of a file")


def test_training_refuses_data_that_is_not_there_or_of_another_size(
    wavegan: Command, config: Path, shards: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    refused(wavegan("train", "--config", config, "--run-dir", run, "data.index=no.json"), "no.json", "wavegan shards write")
    refused(
        wavegan("train", "--config", config, "--run-dir", run, "model.resolution=64"), "32 px images", "model.resolution=32"
    )
    broken = tmp_path / "broken"
    shutil.copytree(shards, broken)
    (broken / json.loads((broken / "index.json").read_text())["shards"][3]["file"]).unlink()
    refused(wavegan("train", "--config", config, "--run-dir", run, f"data.index={broken}"), "shard-000003.tar")
    assert not run.exists()


def test_verify_finds_one_flipped_byte(wavegan: Command, shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(shards, folder)
    assert wavegan("shards", "verify", folder).returncode == 0
    tar = folder / "shard-000002.tar"
    content = bytearray(tar.read_bytes())
    content[len(content) // 2] ^= 1
    tar.write_bytes(content)
    refused(wavegan("shards", "verify", folder), "shard-000002.tar", "sha256", exit_code=1)
    assert json.loads(wavegan("shards", "verify", folder, "--json").stdout)["problems"]


def test_info_describes_a_set(wavegan: Command, shards: Path) -> None:
    assert "8 shards" in wavegan("shards", "info", shards).stdout
    assert json.loads(wavegan("shards", "info", shards, "--json").stdout)["size"] == 32


def test_order_prints_what_the_ranks_would_see(wavegan: Command, shards: Path) -> None:
    def lines(*options: object) -> list[list[list[str]]]:
        outcome = wavegan("shards", "order", shards, "--batch-size", 64, "--seed", 5, "--json", *options)
        assert outcome.returncode == 0, outcome.stderr
        return [json.loads(line) for line in outcome.stdout.splitlines()]

    one, four = lines(), lines("--world-size", 4, "--workers", 1)
    assert [[key for keys in ranks for key in keys] for ranks in four] == [ranks[0] for ranks in one]
    assert len(four[0]) == 4
    keys = [key for ranks in one for key in ranks[0]]
    assert len(keys) == len(set(keys)) == json.loads((shards / "index.json").read_text())["count"]
    assert lines("--start", 128) == one[2:]
    refused(wavegan("shards", "order", shards, "--world-size", 3), "does not divide among 3 ranks")
    refused(wavegan("shards", "order", shards, "--start", 10**6), "start before image 1000000")


def test_write_refuses_what_it_cannot_use_and_leaves_nothing(wavegan: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "photo.png").write_bytes(b"not a picture")
    out = tmp_path / "out"
    refused(wavegan("shards", "write", tmp_path / "empty", out, "--size", 32), "empty")
    refused(wavegan("shards", "write", tmp_path / "none", out, "--size", 32), "none")
    refused(wavegan("shards", "write", tmp_path / "bad", out, "--size", 48), "48", "power of two")
    refused(wavegan("shards", "write", tmp_path / "bad", out, "--size", 32), "photo.png", exit_code=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "empty"]


@pytest.mark.parametrize(("encoding", "head"), [("jpg", b"\xff\xd8\xff"), ("webp", b"RIFF")])
def test_write_encodes_images_as_asked(wavegan: Command, shards: Path, tmp_path: Path, encoding: str, head: bytes) -> None:
    write = ("shards", "write", shards, tmp_path / "set", "--size", 32, "--encoding")
    refused(wavegan(*write, "gif"), "invalid choice: 'gif'")
    outcome = wavegan(*write, encoding)
    assert outcome.returncode == 0, outcome.stderr
    index = Index.load(tmp_path / "set")
    reader = Reader(index)
    assert index.encoding == encoding
    assert all(reader.read(location).startswith(head) for location in reader.locations(np.arange(index.count)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder]).returncode == 0
    if not mounted:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_line_and_nothing_is_left(wavegan: Command, config: Path, small_disk: Path, tmp_path: Path) -> None:
    refused(wavegan("shards", "write", "embedded", small_disk / "set", "--size", 64), "no space left", "set", exit_code=1)
    assert not list(small_disk.iterdir())
    big = ("model.width=64", "train.checkpoint_kimg=0.032", "--log-level", "error")
    outcome = wavegan("train", "--config", config, "--run-dir", small_disk / "run", *big)
    refused(outcome, "no space left", "snapshots/kimg-000000", exit_code=1)
    assert not list(small_disk.rglob("*.safetensors"))
    shutil.rmtree(small_disk / "run")
    snapshot = make_snapshot(tmp_path / "kimg-000002", 32)
    sample = wavegan("sample", "--snapshot", snapshot, "--count", 200, "--out", small_disk / "out")
    refused(sample, "no space left", f"{small_disk / 'out'}:", exit_code=1)
    assert [path.name for path in small_disk.iterdir()] == [".out.partial"]  # the same command continues


def test_output_into_a_closed_pipe_is_no_error(shards: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "wavegan_dist", "shards", "info", os.fspath(shards)]
    outcome = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (outcome.returncode, outcome.stderr) == (0, "")


def test_a_broken_pipe_other_than_stdout_is_an_error() -> None:
    code = (
        "import os, sys, wavegan_dist.cli as cli\n"
        "def run(options):\n"
        "    reader, writer = os.pipe(); os.close(reader); os.write(writer, b'x')\n"
        "parse = cli.parse\n"
        "def parsed(arguments):\n"
        "    options = parse(['doctor']); options.run = run; return options\n"
        "cli.parse = parsed\n"
        "sys.exit(cli.main())"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (outcome.returncode, outcome.stderr) == (1, "wavegan: broken pipe\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_output_streams_change_no_exit_code(shards: Path, tmp_path: Path, closed: str) -> None:
    for arguments, exit_code in ((f"shards info {shards}", 0), (f"shards info {tmp_path}", 2), ("trian", 2)):
        command = f"exec {sys.executable} -m wavegan_dist {arguments} {closed}"
        assert subprocess.run(["bash", "-c", command], timeout=60, check=False).returncode == exit_code


def test_training_into_what_is_no_folder_is_one_line_without_an_errno(wavegan: Command, config: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for run in (tmp_path / "file", tmp_path / "file" / "run"):
        outcome = wavegan("train", "--config", config, "--run-dir", run)
        refused(outcome, f"wavegan: --run-dir {run}: {tmp_path / 'file'} is not a folder; choose another name")
    (tmp_path / "run" / "log.txt").mkdir(parents=True)
    outcome = wavegan("train", "--config", config, "--run-dir", tmp_path / "run", "--resume", tmp_path / "none")
    assert outcome.returncode == 2
    assert outcome.stderr.splitlines()[-1].startswith(f"wavegan: --resume {tmp_path / 'none'} is not a checkpoint")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["log.txt"]


@pytest.mark.parametrize(("encoding", "name"), [("ascii", "Größe"), ("utf-8", os.fsdecode(b"Gr\xf6\xdfe"))])
def test_a_name_that_the_terminal_cannot_show_is_printed_with_backslashes(
    shards: Path, tmp_path: Path, encoding: str, name: str
) -> None:
    shutil.copytree(shards, tmp_path / name)
    command = [sys.executable, "-m", "wavegan_dist", "shards", "verify", os.fspath(tmp_path / name)]
    outcome = subprocess.run(command, env=environment(PYTHONIOENCODING=encoding), capture_output=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert b"/Gr\\" in outcome.stdout
    assert outcome.stdout.endswith(b"e: all shards match the index\n")


def test_an_error_cannot_command_the_terminal(wavegan: Command, tmp_path: Path) -> None:
    outcome = wavegan("shards", "info", tmp_path / "\x1b]0;title\x07\x1b[31m")
    refused(outcome, "\\x1b]0;title\\x07\\x1b[31m")
    assert "\x1b" not in outcome.stderr


def test_doctor_says_which_kernel_is_in_use_and_why(wavegan: Command) -> None:
    found = json.loads(wavegan("doctor", "--json").stdout)
    assert found["kernels"]["cpu"]["kernel"] in ("C++", "reference")
    assert found["kernels"]["cpu"]["why"]
    assert found["versions"]["torch"] == version("torch")
    lines = wavegan("doctor").stdout.splitlines()
    assert f"wavelet on cpu   {found['kernels']['cpu']['kernel']}: {found['kernels']['cpu']['why']}" in lines


def _fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    "exhaust",
    [
        lambda: torch.empty(2**60, dtype=torch.uint8),
        lambda: bytearray(2**60),
        lambda: _fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")),
    ],
)
def test_exhausted_memory_is_one_line_that_says_what_helps(
    exhaust: Callable[[], object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "parse", lambda _: argparse.Namespace(run=lambda _: exhaust(), log_level="info"))
    assert cli.main([]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("wavegan: out of memory; train with a smaller train.batch_size")
    assert "--exact" in line


def test_another_runtime_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    run = lambda _: _fail(RuntimeError("a mistake"))  # noqa: E731
    monkeypatch.setattr(cli, "parse", lambda _: argparse.Namespace(run=run, log_level="info"))
    with pytest.raises(RuntimeError, match="a mistake"):
        cli.main([])
