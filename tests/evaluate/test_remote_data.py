"""Evaluation against images that are not on this machine."""

from pathlib import Path

import pytest

from tests.data.servers import serve
from tests.evaluate.helpers import make_snapshot
from tests.helpers import Command
from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.evaluate import evaluate_snapshot


def test_images_of_a_web_server_give_the_values_of_local_ones(
    snapshot: Path, data: Path, tmp_path: Path, wavegan: Command
) -> None:
    local = evaluate_snapshot(snapshot, data, ("spectrum",), count=250)
    run = make_snapshot(tmp_path / "snapshot", 32, cache=tmp_path / "of the run")
    with serve(data.parent) as web:
        with pytest.raises(UsageError, match="give a folder for its files"):
            evaluate_snapshot(snapshot, web.url, ("spectrum",), count=251)
        remote = evaluate_snapshot(snapshot, web.url, ("spectrum",), count=250, cache=tmp_path / "given")
        evaluate_snapshot(run, web.url, ("spectrum",), count=252)
        words = ("--metrics", "spectrum", "--count", "253", "--cache", tmp_path / "option", "--json", tmp_path / "out.json")
        outcome = wavegan("evaluate", "--snapshot", snapshot, "--data", f"{web.url}/index.json", *words)
    assert outcome.returncode == 0, outcome.stderr
    assert local is not None
    assert remote is not None
    assert remote.metrics == local.metrics
    assert all(list((tmp_path / cache).glob("*.tar")) for cache in ("of the run", "option"))
