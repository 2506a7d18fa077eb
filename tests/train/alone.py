"""Runs `wavegan` with a fault on one rank alone: `alone.py FAULT RANK train ...`. `FAULTS` lists the faults."""

import errno
import os
import resource
import sys
from typing import NoReturn

from wavegan_dist.cli import main
from wavegan_dist.train import checkpoint

LARGEST_FILE = 2**14  # bytes; the config of a run is smaller, a snapshot and a rank's part of a checkpoint are larger


def no_config(words: list[str]) -> None:
    """Let the rank read a config file that its machine does not have."""
    words[words.index("--config") + 1] = "/nowhere/config.yaml"


def no_index(words: list[str]) -> None:
    """Let the rank look for the data set where its machine does not have it."""
    words.append("data.index=/nowhere/index.json")


def unreadable_checkpoint(_words: list[str]) -> None:
    """Let the rank's disk fail while it reads the checkpoint."""

    def load(*_arguments: object, **_settings: object) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "shard-00001")

    checkpoint.load = load  # type: ignore[attr-defined]  # which it imports


def no_compiler(words: list[str]) -> None:
    """Let the kernels not compile on the rank."""
    os.environ |= {"CXX": "false", "XDG_CACHE_HOME": f"{words[words.index('--run-dir') + 1]}.cache"}


def full_disk(_words: list[str]) -> None:
    """Let the rank not write files of more than `LARGEST_FILE` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))


FAULTS = {
    "config": no_config,
    "index": no_index,
    "checkpoint": unreadable_checkpoint,
    "kernels": no_compiler,
    "disk": full_disk,
}
fault, rank, *arguments = sys.argv[1:]
if os.environ["RANK"] == rank:
    FAULTS[fault](arguments)
sys.exit(main(arguments))
