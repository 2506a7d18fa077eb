"""An interrupted `wavegan sample` continues, with the same bytes as without the interruption."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.forked import ForkedProgram
from tests.helpers import environment
from tests.sample.snapshots import CLASSES, conditional, gray
from wavegan_dist.data.tars import walk
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import locked
from wavegan_dist.model.snapshot import Snapshot, load_snapshot
from wavegan_dist.sample import sample
from wavegan_dist.sample.target import Format


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


COUNT = 1600


def start(snapshot: Path, out: Path, format: str) -> ForkedProgram:
    command = ("-m", "wavegan_dist", "sample", "--snapshot", snapshot, "--out", out, "--count", COUNT, "--format", format)
    return ForkedProgram((*command, "--device", "cpu"), environment())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "pattern", "end"),
    [("folder", "[!.]*.png", signal.SIGKILL), ("shards", "[!.]*.tar", signal.SIGKILL), ("shards", "[!.]*.tar", signal.SIGTERM)],
)
def test_a_killed_command_goes_on_and_gives_the_same_bytes(
    snapshot: Path, tmp_path: Path, format: Format, pattern: str, end: signal.Signals
) -> None:
    out, images = tmp_path / "out", tmp_path / ".out.partial" / "images"
    killed = start(snapshot, out, format)
    while len(list(images.glob(pattern))) < 2:
        assert Path(f"/proc/{killed.pid}").exists()
        time.sleep(0.002)
    os.kill(killed.pid, end)
    assert killed.finish(60).returncode == -end
    assert not out.exists()
    done = {path.name: path.stat().st_ino for path in images.glob(pattern)}
    assert len(done) >= 2
    for name in done:  # nothing half-written has its final name
        if format == "folder":
            Image.open(images / name).load()
        else:
            assert len(list(walk(images / name))) == COUNT // 8
    outcome = start(snapshot, out, format).finish(120)
    assert (outcome.returncode, outcome.stdout) == (0, f"{out}\n")
    assert {name: (out / name).stat().st_ino for name in done} == done  # not written again
    sample(load_snapshot(snapshot), COUNT, None, tmp_path / "whole", format=format)
    assert contents(out) == contents(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def stop_midway(loaded: Snapshot, out: Path, **arguments: Any) -> Path:
    """Sample 100 images with an error after the first 80 or so; return the folder of the images that were written."""

    def stop(made: int) -> None:
        if made >= 80:
            raise WaveganError("stop")

    settings = {"seed": 0, "count": 100, "seeds": None, **arguments}
    with pytest.raises(WaveganError, match="stop"):
        sample(gray(loaded, stop), settings.pop("count"), settings.pop("seed"), out, **settings)
    return out.parent / f".{out.name}.partial" / "images"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": 1}, "seed 0, not 1"),
        ({"count": 101}, "count 100, not 101"),
        ({"seed": None, "count": None, "seeds": "0-99"}, "seeds None, not 0-99"),
        ({"truncation": 0.5}, "truncation 1.0, not 0.5"),
        ({"format": "shards"}, "format folder, not shards"),
    ],
)
def test_a_command_with_other_settings_does_not_take_over(
    loaded: Snapshot, tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    before = contents(stop_midway(loaded, tmp_path / "out"))
    settings = {"seed": 0, "count": 100, **arguments}
    message = rf"\.out\.partial holds an unfinished write with {words}; finish it with its own command or remove that folder"
    with pytest.raises(UsageError, match=message):
        sample(loaded, settings.pop("count"), settings.pop("seed"), tmp_path / "out", **settings)
    assert contents(tmp_path / ".out.partial" / "images") == before


def test_another_snapshot_or_class_or_mode_or_version_does_not_take_over(
    loaded: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_midway(loaded, tmp_path / "out")
    other = replace(loaded, weights_sha256="f" * 64)
    with pytest.raises(UsageError, match=f"snapshot {loaded.weights_sha256[:16]}, not {'f' * 16};"):
        sample(other, 100, 0, tmp_path / "out")
    with pytest.raises(UsageError, match="class None, not ant;"):
        sample(conditional(loaded), 100, 0, tmp_path / "out", classes=CLASSES.names[0])
    monkeypatch.setattr("wavegan_dist.sample.write.uses_exact_mode", lambda *_: False)
    with pytest.raises(UsageError, match="exact True, not False;"):
        sample(loaded, 100, 0, tmp_path / "out")
    monkeypatch.setattr("wavegan_dist.sample.write.uses_exact_mode", lambda *_: True)
    monkeypatch.setattr("wavegan_dist.sample.write.__version__", "99.0")
    with pytest.raises(UsageError, match=r"wavegan_dist \d.*, not 99\.0;"):
        sample(loaded, 100, 0, tmp_path / "out")


def test_images_that_a_power_failure_cut_short_and_temporary_files_do_not_survive(loaded: Snapshot, tmp_path: Path) -> None:
    images = stop_midway(loaded, tmp_path / "out")
    written = sorted(images.iterdir())
    assert len(written) >= 16
    whole = written[0].read_bytes()
    written[0].write_bytes(whole[:-1])
    written[1].write_bytes(b"")
    (images / ".000090.png.tmp").write_bytes(whole[:40])
    sample(gray(loaded, lambda made: None), 100, 0, tmp_path / "out")
    assert set(contents(tmp_path / "out").values()) == {whole}
    assert len(contents(tmp_path / "out")) == 100


def test_only_batches_with_missing_images_are_generated(loaded: Snapshot, tmp_path: Path) -> None:
    images = stop_midway(loaded, tmp_path / "out")
    for path in sorted(images.iterdir())[32:]:
        path.unlink()
    (images / "000005.png").unlink()
    calls: list[int] = []
    sample(gray(loaded, calls.append), 100, 0, tmp_path / "out")
    assert len(calls) == 6  # batches 0 and 2 to 6


def test_while_a_command_writes_a_second_one_is_refused(loaded: Snapshot, tmp_path: Path) -> None:
    stop_midway(loaded, tmp_path / "out")
    with locked(tmp_path / ".out.partial" / "lock"), pytest.raises(UsageError, match=r"another `sample` is writing to .*/out;"):
        sample(loaded, 100, 0, tmp_path / "out")
    assert json.loads((tmp_path / ".out.partial" / "plan.json").read_text())["seed"] == 0
