"""Processes that leave their group: in order, and without waiting for those that will not answer."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment, free_port


@pytest.mark.parametrize("peer", ["answered", "unanswered"])
def test_a_command_that_fails_with_a_collective_under_way_says_why_and_ends(peer: str) -> None:
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    command = [sys.executable, str(Path(__file__).with_name("leaving.py")), peer]
    first, second = (
        subprocess.Popen(command, env=environment(**group, RANK=str(r), LOCAL_RANK=str(r)), stderr=subprocess.PIPE, text=True)
        for r in range(2)
    )
    try:
        errors = first.communicate(timeout=120)[1]
        assert (first.returncode, errors) == (1, "wavegan: broken\n"), errors
        assert peer == "answered" or second.poll() is None
    finally:
        second.kill()
        second.communicate()
