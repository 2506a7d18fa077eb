"""What the adapters of all loaders share: how they get jobs, ranks as forked processes, and how batches are timed.

An adapter is a program in the environment of its loader. It imports the loader once, and then reads jobs from standard input:
a JSON object on a line, answered with a line on standard output, the list of the ranks' results. It defines
    write(dataset)    writes the common images in the loader's own format
    load(rank)        builds the loader of one rank, which continues from the states of a former run if there are any
    convert(states, world)      optional: makes the states of a former run ready for `world` ranks
This module imports nothing but the standard library, because each environment has other packages.
"""

import contextlib
import json
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

Batch = tuple[Sequence[int], Any]  # ids of the images, and the decoded images


class Sample(NamedTuple):
    """One image: `content` is the encoded file."""

    id: int
    content: bytes


class Dataset(NamedTuple):
    """What an adapter writes.

    Attributes:
        tars: folder of the driver's tars: members ID.png or ID.jpg, and ID.cls with the id.
        folder: to be written.
        shard_bytes: size of a tar, which the shards of the other formats should have, too.
    """

    tars: Path
    folder: Path
    encoding: str
    shards: int
    shard_bytes: int

    def samples(self) -> Iterator[Sample]:
        """Yield the images in the order of their ids."""
        for path in sorted(self.tars.glob("*.tar")):
            yield from read_tar(path)


@dataclass(frozen=True)
class Rank:
    """What one rank loads.

    Attributes:
        source: folder of the dataset, or s3://BUCKET/PREFIX at `endpoint`.
        cache: an empty folder that the loader may use.
        batch: images of a batch of this rank.
        images: images of an epoch, of all ranks.
        former: states that the ranks of a former run saved, in their order; empty for the start of an epoch.
        endpoint: URL of the S3 server.
    """

    source: str
    encoding: str
    cache: Path
    rank: int
    world: int
    workers: int
    batch: int
    images: int
    former: list[Any]
    endpoint: str = ""


class Loading(NamedTuple):
    """The batches that are left of the epoch, and a function that returns the state after the batches read so far."""

    batches: Iterable[Batch]
    state: Callable[[], Any]


class RefusalError(Exception):
    """A loader offers no way to go on, in the words of its adapter or its command line."""


def unchanged(states: list[Any], _world: int) -> list[Any]:
    """Return `states`: most loaders need no conversion."""
    return states


def main(
    write: Callable[[Dataset], object],
    load: Callable[[Rank], Loading],
    convert: Callable[[list[Any], int], list[Any]] = unchanged,
) -> None:
    """Do jobs until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # loaders print
    for line in sys.stdin:
        job = json.loads(line)
        try:
            states = sorted(Path(job["states"]).glob("*.state")) if "states" in job else []
            job["former"] = convert([pickle.loads(path.read_bytes()) for path in states], job["world"])
            results = in_ranks(job, write, load)
        except RefusalError as error:
            results = [{"refused": str(error)}] * job["world"]
        answers.write(json.dumps(results) + "\n")
        answers.flush()


def read_tar(path: Path) -> Iterator[Sample]:
    """Yield the images of one tar."""
    with tarfile.open(path) as archive:
        for member in archive:
            stem, _, extension = member.name.partition(".")
            if extension != "cls":
                yield Sample(int(stem), archive.extractfile(member).read())  # type: ignore[union-attr]


def in_ranks(job: dict[str, Any], write: Callable[[Dataset], object], load: Callable[[Rank], Loading]) -> list[dict[str, Any]]:
    """Do a job in one forked process per rank and return the results of the ranks. If one rank fails, ends the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    ranks = [context.Process(target=_rank, args=(number, port, job, write, load, results)) for number in range(job["world"])]
    for rank in ranks:
        rank.start()
        assert rank.pid is not None
        with contextlib.suppress(OSError):
            os.setpgid(rank.pid, rank.pid)  # as the rank itself does: whoever is first
    finished: dict[int, dict[str, Any]] = {}
    deadline = time.monotonic() + job["timeout"]
    while len(finished) < len(ranks) and time.monotonic() < deadline:
        if results.empty():
            time.sleep(0.02)
            continue
        number, result = results.get()
        finished[number] = result
        if "refused" in result:
            break
    for rank in ranks:
        assert rank.pid is not None
        os.killpg(rank.pid, signal.SIGKILL)  # with its workers
        rank.join()
    silent = {"refused": f"no answer within {job['timeout']:.0f} s"}
    refused = [result for result in finished.values() if "refused" in result]
    return [finished.get(number, *refused[:1] or [silent]) for number in range(job["world"])]


def _rank(
    number: int,
    port: int,
    job: dict[str, Any],
    write: Callable[[Dataset], object],
    load: Callable[[Rank], Loading],
    results: Any,
) -> None:
    parent = os.getppid()
    os.setpgid(0, 0)
    if "cores" in job:
        os.sched_setaffinity(0, range(job["cores"]))
    size = str(job["world"])
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "GLOBAL_RANK": str(number), "WORLD_SIZE": size}
    os.environ |= {"LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **job["variables"]}
    try:
        if job["kind"] == "write":
            write(Dataset(Path(job["tars"]), Path(job["source"]), job["encoding"], job["shards"], job["shard_bytes"]))
            result: dict[str, Any] = {}
        else:
            settings = {name: job[name] for name in Rank.__dataclass_fields__ if name in job}
            rank = Rank(**settings | {"rank": number, "cache": Path(job["cache"])})
            result = _timed(rank, job, load) if job["kind"] == "time" else _resumed(rank, job, load)
    except RefusalError as error:
        result = {"refused": str(error)}
    except Exception as error:
        traceback.print_exc()
        words = str(error) or traceback.extract_tb(error.__traceback__)[-1].line or ""  # an assertion has no message
        if "Traceback" in words:  # of a worker
            words = words.strip().splitlines()[-1]
        result = {"refused": f"{type(error).__name__}: {' '.join(words.split())}"[:300]}
    results.put((number, result))
    while os.getppid() == parent:  # which ends all ranks at once: one that leaves early would break the others' collectives
        time.sleep(0.1)


def _resumed(rank: Rank, job: dict[str, Any], load: Callable[[Rank], Loading]) -> dict[str, Any]:
    """Read `job["batches"]` batches and save the state, or read to the end of the epoch."""
    began, first, ids = time.perf_counter(), 0.0, []
    loading = load(rank)
    for batch in loading.batches:
        first = first or time.perf_counter() - began
        ids += [int(one) for one in batch[0]]
        if job["batches"] and len(ids) >= job["batches"] * rank.batch:
            Path(job["save"], f"{rank.rank}.state").write_bytes(pickle.dumps(loading.state()))
            break
    return {"ids": ids, "first": first}


def _timed(rank: Rank, job: dict[str, Any], load: Callable[[Rank], Loading]) -> dict[str, Any]:
    """Read one epoch, or as much of it as `job["seconds"]` allow: seconds to the first batch, then images and seconds."""
    began, first, images = time.perf_counter(), 0.0, 0
    last = began
    for ids, _ in load(rank).batches:
        last = time.perf_counter()
        if not first:
            first = last - began
            continue
        images += len(ids)
        if last - began > job["seconds"]:
            break
    return {"first": first, "images": images, "seconds": last - began - first}
