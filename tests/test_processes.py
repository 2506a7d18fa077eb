"""Process groups: gathering, leaving while a collective is unfinished or a peer does not answer, and what errors say."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch.distributed as dist

from tests.helpers import run_ranks, start_ranks
from wavegan_dist.errors import WaveganError
from wavegan_dist.processes import file_group, report_lost_ranks


@pytest.mark.parametrize("peer", ["answered", "unanswered", "saving"])
def test_a_command_that_fails_with_a_collective_under_way_says_why_and_ends(peer: str) -> None:
    with start_ranks(2, Path(__file__).with_name("leaving.py"), peer) as (first, second):
        errors = first.communicate(timeout=120)[1]
        assert (first.returncode, errors) == (1, "wavegan: broken\n"), errors
        assert peer == "answered" or second.poll() is None


def test_a_failed_collective_is_reported_with_the_reason_of_torch() -> None:
    group: Any = SimpleNamespace(num_processes=2)
    reason = "NCCL error in NCCLUtils.cpp:94\nLast error:\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA device 40000"
    message = r"stopped answering; .* \(NCCL error in NCCLUtils.cpp:94; Duplicate GPU detected : rank 1 and rank 0 both"
    with pytest.raises(WaveganError, match=message), report_lost_ranks(group):
        raise dist.DistBackendError(reason)


def test_a_group_for_files_that_does_not_form_names_the_setting_of_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "new_group", Mock(side_effect=RuntimeError("Gloo connectFullMesh failed with timed out")))
    with pytest.raises(WaveganError, match=r"\(Gloo connectFullMesh failed with timed out\).* GLOO_SOCKET_IFNAME"):
        file_group()


def test_the_main_process_receives_one_item_at_a_time() -> None:
    run_ranks(4, Path(__file__).with_name("gathering.py"))
