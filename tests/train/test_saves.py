"""What several ranks write of a checkpoint: each tensor once, in shares of about equal size, without a growth of memory."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.helpers import run_ranks
from wavegan_dist.train.shares import assign

SAVES = Path(__file__).parent / "saves.py"
MIB = 2**20


def test_the_shares_of_all_ranks_are_about_equal():
    sizes = {f"weight {number}": 1000 + 37 * number for number in range(600)} | {f"bias {number}": 4 for number in range(600)}
    for world_size in (1, 2, 64, 500):
        writers = assign(sizes, world_size)
        assert writers.keys() == sizes.keys()
        totals = [sum(sizes[name] for name in sizes if writers[name] == rank) for rank in range(world_size)]
        assert max(totals) - min(totals) <= max(sizes.values())
    assert set(assign(sizes, 2048).values()) == set(range(1200))
    assert assign(sizes, 64) == assign(dict(reversed(sizes.items())), 64)  # the same on all ranks


@pytest.mark.parametrize("count", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_saves_back_to_back_beside_a_barrier_list_each_tensor_once_and_neither_hang_nor_let_memory_grow(tmp_path, count):
    run_ranks(2, SAVES, tmp_path / "rank", tmp_path / "checkpoints", count, timeout=120)
    files = [load_file(file) for file in (tmp_path / "checkpoints" / str(count - 1)).glob("*.safetensors")]
    ranks = [json.loads((tmp_path / f"rank.{rank}").read_text()) for rank in (0, 1)]
    assert not set(ranks[0]["listed"]) & set(ranks[1]["listed"])
    assert sorted(sorted(file) for file in files) == sorted(sorted(rank["listed"]) for rank in ranks)
    for rank in ranks:
        assert count < 200 or max(rank["memory"][150:]) - max(rank["memory"][30:60]) < 4 * MIB
