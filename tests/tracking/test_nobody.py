"""A user id without an entry in /etc/passwd and without HOME, as containers have: everything is delivered."""

import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.helpers import environment
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking.spool import Spool

AS_NOBODY = ("unshare", "--user", "--map-user=54321", "--map-group=54321")
NAMES = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME")


@pytest.fixture(scope="module")
def nobody() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `wavegan ARGUMENTS` as such a user."""
    if shutil.which("unshare") is None or subprocess.run([*AS_NOBODY, "true"], capture_output=True).returncode:
        pytest.skip("this machine has no user namespaces")
    variables = {name: value for name, value in environment().items() if name not in NAMES}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*AS_NOBODY, sys.executable, "-m", "wavegan_dist", *map(str, arguments)]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)

    return run


@pytest.mark.slow
def test_a_user_without_name_and_home_trains_evaluates_and_syncs(tmp_path, config, shards, store, nobody):
    run = tmp_path / "runs" / "x"
    settings = ("tracking.enabled=true", f"tracking.uri={store}", "train.total_kimg=0.064")
    trained = nobody("train", "--config", config, "--run-dir", run, *settings)
    assert trained.returncode == 0, trained.stderr
    assert "could not be sent" not in trained.stderr
    assert (run / "tracking" / "train.log").read_text() == ""
    snapshot = run / "snapshots" / "kimg-000000.064"
    evaluated = nobody("evaluate", "--snapshot", snapshot, "--data", shards, "--metrics", "fwd", "--count", 200)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "Traceback" not in evaluated.stderr
    spools = [Spool(path) for path in RunFolder(run).spools()]
    assert len(spools) == 3  # of the run, of its evaluation, and of the best snapshot
    assert not any(spool.count_undelivered() for spool in spools)
    for spool in spools:
        spool.position.unlink()  # as if nothing had been delivered
    synced = nobody("track", "sync", run)
    assert synced.returncode == 0, synced.stderr
    assert synced.stdout.startswith("sent 3 points")
