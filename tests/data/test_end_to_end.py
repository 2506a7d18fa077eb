"""The loader in real runs: worker processes, any number of ranks, kills, and tars of other tools."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from tests.helpers import PATIENCE, Command, running, wait_for
from wavegan_dist.data import Index, training_batches, write_shards

Read = Callable[[Tensor], list[int]]

# Between kills: ranks, workers of each, images of a rank's batch, batches.
STRETCH = st.tuples(st.integers(1, 8), st.integers(0, 4), st.integers(1, 9), st.integers(1, 5))


@pytest.mark.slow
@given(
    stretches=st.lists(STRETCH, min_size=1, max_size=3),
    last=STRETCH,
    shard_images=st.integers(1, 100),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_images_of_an_epoch_equal_the_index_whatever_ranks_workers_and_kills(
    numbered_pictures: Path,
    numbers: Read,
    tmp_path_factory: pytest.TempPathFactory,
    stretches: list[tuple[int, int, int, int]],
    last: tuple[int, int, int, int],
    shard_images: int,
    seed: int,
) -> None:
    out = tmp_path_factory.mktemp("drawn") / "set"
    index = write_shards(numbered_pictures, out, 32, shard_images=shard_images, progress=False)
    seen: list[int] = []
    for ranks, workers, batch, steps in [*stretches, (*last[:3], 2 * index.count)]:
        streams = [
            training_batches(
                index, batch_size=batch, seed=seed, start_nimg=len(seen), rank=rank, world_size=ranks, workers=workers
            )
            for rank in range(ranks)
        ]
        for _ in range(steps):
            if len(seen) < 2 * index.count:
                seen += [number for stream in streams for number in numbers(next(stream).images)]
        for stream in streams:
            stream.close()
    assert sorted(seen[: index.count]) == sorted(seen[index.count : 2 * index.count]) == list(range(index.count))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_stays_as_it_is_until_the_next_is_asked_for(numbered: Index, numbers: Read, workers: int) -> None:
    stream = training_batches(numbered, batch_size=8, seed=0, start_nimg=0, rank=0, world_size=1, workers=workers)
    for _ in range(30):
        batch = next(stream).images
        before = numbers(batch)
        time.sleep(0.01)  # the workers decode further batches meanwhile
        assert numbers(batch) == before


def training(config: Path, run: Path, *changes: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """Start a run with two loader workers in a new process group, which is killed at the end of the block."""
    options = ("--config", config, "--run-dir", run, "data.workers=2", *changes)
    return running(sys.executable, "-m", "wavegan_dist", "train", *options)


def group(leader: int) -> set[int]:
    """Process ids of the living processes of a process group."""
    return {
        process.pid
        for process in psutil.process_iter(["status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE and _group(process.pid) == leader
    }


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def test_the_workers_of_a_killed_run_end_with_it(config: Path, tmp_path: Path) -> None:
    with training(config, tmp_path / "run", "train.total_kimg=1000") as run:
        wait_for(lambda: list((tmp_path / "run").glob("checkpoints/kimg-*")), run)
        workers = group(run.pid) - {run.pid}
        assert len(workers) >= 2
        run.kill()
        run.wait()
        wait_for(lambda: not group(run.pid))


def test_a_run_that_ends_leaves_no_process(config: Path, tmp_path: Path) -> None:
    with training(config, tmp_path / "run") as run:
        _, errors = run.communicate(timeout=PATIENCE)
        assert run.returncode == 0, errors
        assert not group(run.pid)


def test_tars_of_plain_tar_and_webdataset_are_indexed_and_trained_on(
    numbered_pictures: Path, tmp_path: Path, wavegan: Command, config: Path
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    subprocess.run(["tar", "-cf", folder / "plain.tar", "-C", numbered_pictures, "."], check=True)
    with webdataset.ShardWriter(str(folder / "%03d.tar"), maxcount=30, verbose=0) as writer:
        for path in sorted(numbered_pictures.iterdir()):
            content = io.BytesIO()
            Image.open(path).save(content, "JPEG")
            writer.write({"__key__": path.stem, "jpg": content.getvalue(), "cls": 3})
    outcome = wavegan("shards", "index", folder)
    assert outcome.returncode == 0, outcome.stderr
    assert Index.load(folder).count == 2 * 96
    changes = (f"data.index={folder}/index.json", "data.workers=1", "train.total_kimg=0.256", "train.snapshot_kimg=9")
    outcome = wavegan("train", "--config", config, "--run-dir", tmp_path / "run", *changes)
    assert outcome.returncode == 0, outcome.stderr
    assert list(tmp_path.glob("run/checkpoints/kimg-000000.256"))
    assert not (tmp_path / "run/data_errors.jsonl").exists()
