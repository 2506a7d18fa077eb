"""Gathering, and leaving the process group, even while a collective is unfinished or a peer does not answer."""

from pathlib import Path

import pytest

from tests.helpers import run_ranks, start_ranks


@pytest.mark.parametrize("peer", ["answered", "unanswered"])
def test_a_command_that_fails_with_a_collective_under_way_says_why_and_ends(peer: str) -> None:
    with start_ranks(2, Path(__file__).with_name("leaving.py"), peer) as (first, second):
        errors = first.communicate(timeout=120)[1]
        assert (first.returncode, errors) == (1, "wavegan: broken\n"), errors
        assert peer == "answered" or second.poll() is None


def test_the_main_process_receives_one_item_at_a_time() -> None:
    run_ranks(4, Path(__file__).with_name("gathering.py"))
