"""The frozen copy of the package, which jobs run: like an installed package it has no checkout around it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, environment
from wavegan_dist import config
from wavegan_dist.cluster.freeze import config_file, freeze_code, freeze_config
from wavegan_dist.errors import UsageError
from wavegan_dist.provenance import git_commit


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return freeze_code(tmp_path_factory.mktemp("run") / "cluster")


def in_copy(frozen: Path, *arguments: object, **variables: str) -> str:
    """Runs Python with the frozen copy of the package, outside the checkout, and returns its stdout."""
    command = [sys.executable, *map(str, arguments)]
    paths = environment(PYTHONPATH=str(frozen), PYTHONSAFEPATH="1", **variables)
    outcome = subprocess.run(command, cwd=frozen, env=paths, capture_output=True, text=True, timeout=60)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.strip()


def test_a_frozen_copy_reports_the_commit_that_it_was_made_from(frozen):
    assert in_copy(frozen, "-c", "import wavegan_dist; print(wavegan_dist.__file__)").startswith(str(frozen))
    (frozen / "COMMIT").write_text("0123abc+\n")
    assert in_copy(frozen, "-c", "from wavegan_dist.provenance import git_commit; print(git_commit())") == "0123abc+"


def test_the_commit_beside_a_copy_is_that_of_the_checkout(tmp_path):
    assert (freeze_code(tmp_path) / "COMMIT").read_text().strip() == git_commit()


def test_equal_code_is_copied_once(tmp_path):
    first = freeze_code(tmp_path)
    assert freeze_code(tmp_path) == first
    assert list((tmp_path / "code").iterdir()) == [first]


def test_a_later_edit_of_the_deepspeed_file_does_not_reach_the_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings, folder = tmp_path / "mine.json", tmp_path / "run" / "cluster"
    settings.write_text('{"wall_clock_breakdown": true}')
    experiment = config.load(ROOT / "configs" / "demo.yaml", ["train.strategy=zero2", "train.deepspeed=mine.json"])
    path = freeze_config(experiment, folder)
    assert path == config_file(experiment, folder)
    settings.unlink()
    (copy,) = folder.glob("deepspeed-*.json")
    assert copy.read_text() == '{"wall_clock_breakdown": true}'
    assert path.read_text() == experiment.to_yaml().replace("mine.json", str(copy))
    with pytest.raises(UsageError, match=r"cannot read the DeepSpeed config mine\.json: No such file"):
        freeze_config(experiment, folder)


def test_a_dry_run_needs_neither_the_checkout_nor_slurm(frozen, tmp_path):
    command = ["-m", "wavegan_dist", "submit", "train", "--config", ROOT / "configs" / "photos64.yaml", "--dry-run"]
    script = in_copy(frozen, *command, "--profile", "gpu8", "--run-dir", tmp_path / "run", PATH="/nonexistent")
    assert "#SBATCH --gpus-per-node=8" in script.splitlines()
    assert not (tmp_path / "run").exists()
