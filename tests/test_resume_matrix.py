"""benchmarks/resume_matrix.py: counts lost and repeated images; our loader has none; refusals keep their words."""

import json
import sys
from pathlib import Path
from typing import Any

import loaders
import pytest
import resume_matrix

ADAPTER = """
from protocol import Loading, RefusalError, main

def load(rank):
    if rank.former and len(rank.former) != rank.world:
        raise RefusalError("the number of ranks has changed")
    first = 12 * rank.former[rank.rank] if rank.former else 0
    taken = 0

    def batches():
        nonlocal taken
        for number in range(first, 96, rank.batch):
            taken += 1
            yield range(number, number + rank.batch), None

    return Loading(batches(), lambda: taken)

main(None, load)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the benchmark on 96 images, and returns the cells of its result."""
    for name, value in {"IMAGES": 96, "SHARDS": 8, "BATCH": 24, "BATCHES": 2}.items():
        monkeypatch.setattr(resume_matrix, name, value)

    def call(*arguments: str) -> dict[str, Any]:
        result = tmp_path / "result.json"
        monkeypatch.setattr(sys, "argv", ["resume_matrix.py", "--loaders", "ours", "--result", str(result), *arguments])
        resume_matrix.main()
        return json.loads(result.read_text())["cells"]

    return call


def test_our_loader_loses_and_repeats_nothing(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cells = run("--worlds", "1", "3", "--workers", "0", "2")
    assert len(cells) == 8
    assert {(cell["lost"], cell["repeated"]) for cell in cells.values()} == {(0, 0)}
    assert capsys.readouterr().out.splitlines()[-1].startswith("| ours | 8 | 8 | 0: 0 | 0: 0 | 0 |")
    assert run("--worlds", "1", "3") == cells  # nothing is measured again


def test_refusals_keep_their_words_and_wrong_positions_are_counted(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "peers"
    folder.mkdir()
    (folder / "with_ours.py").write_text(ADAPTER)
    (folder / "protocol.py").symlink_to(loaders.ADAPTERS / "protocol.py")
    monkeypatch.setattr(loaders, "ADAPTERS", folder)
    monkeypatch.setattr(loaders, "write_images", lambda *_: 0)
    monkeypatch.setattr(loaders.Loaders, "versions", lambda *_: {})
    monkeypatch.setattr(resume_matrix, "write_formats", lambda *_: {"ours": str(tmp_path)})
    monkeypatch.setattr(resume_matrix, "write_images", lambda *_: 0)
    cells = run("--worlds", "1", "2", "--workers", "0")
    assert cells["ours, 0 workers, 1 -> 2"] == {"refused": "the number of ranks has changed"}
    one = cells["ours, 0 workers, 1 -> 1"]
    assert (one["lost"], one["repeated"]) == (0, 24)  # read 0..47, then 24..95


def test_a_loader_that_is_not_here_is_not_run(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> Path:
        raise loaders.NotInstalledError("no matching distribution")

    monkeypatch.setattr(loaders.Loaders, "python", missing)
    monkeypatch.setattr(resume_matrix, "write_images", lambda *_: 0)
    assert run("--worlds", "1", "--workers", "0") == {"ours, 0 workers, 1 -> 1": {"not run": "no matching distribution"}}
