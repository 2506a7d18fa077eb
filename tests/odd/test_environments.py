"""A run's whole life where something that most machines have is missing, short or odd: the weights are the same as anywhere."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.helpers import ROOT, environment
from wavegan_dist.wavelet.cpu.build import library

HERE = Path(__file__).parent
ODD_NAME = "a  b\nc é😀'\"$&"


def live(folder: Path, *words: str, wrapper: Sequence[str] = (), **variables: str) -> str:
    """Run life.py in `folder` and return the digest of the weights.

    Args:
        folder: a new folder.
        words: further arguments of life.py.
        wrapper: command that runs the command after it.
        variables: of the environment; those that are empty are removed.
    """
    folder.mkdir(parents=True)
    env = {name: value for name, value in {**environment(PYTHONPATH=str(ROOT)), **variables}.items() if value}
    command = [*wrapper, sys.executable, str(HERE / "life.py"), str(folder), *words]
    outcome = subprocess.run(command, env=env, capture_output=True, text=True, errors="replace", timeout=300)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr[-3000:]
    assert "Traceback" not in outcome.stderr
    *_, digest = outcome.stdout.splitlines()
    return digest


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the weights in the environment of the tests."""
    return live(tmp_path_factory.mktemp("life") / "plain")


@pytest.mark.slow
def test_python_3_14_s_start_method_the_c_locale_and_no_variable_home(tmp_path: Path, digest: str) -> None:
    assert live(tmp_path / "é", "forkserver", HOME="", LC_ALL="C", LANG="C") == digest


@pytest.mark.slow
def test_spawn_256_open_files_a_small_shared_memory_and_a_read_only_home(tmp_path: Path, digest: str) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    home, cache = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    shutil.copytree(library().parent, cache / "wavegan" / "kernels")
    mounts = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && mount -t tmpfs -o ro tmpfs "$HOME" && ulimit -n 256 && exec "$@"'
    wrapper = ("unshare", "--mount", "bash", "-c", mounts, "bash")
    assert live(tmp_path / "small", "spawn", wrapper=wrapper, HOME=str(home), XDG_CACHE_HOME=str(cache)) == digest


@pytest.mark.slow
def test_no_locks_files_that_stay_while_they_are_open_a_clock_that_jumps_back_and_odd_names(
    tmp_path: Path, digest: str
) -> None:
    shim = tmp_path / "shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(shim), str(HERE / "shim.c"), "-ldl"], check=True)
    snapshots = tmp_path / ODD_NAME / f"run {ODD_NAME}" / "snapshots"  # after the first step of each start of the run
    jumps = {"CLOCK_JUMP_1": str(snapshots / "kimg-000000.032"), "CLOCK_JUMP_2": str(snapshots / "kimg-000000.096")}
    assert live(tmp_path / ODD_NAME, LD_PRELOAD=str(shim), **jumps) == digest
