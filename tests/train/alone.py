"""Runs `wavegan` with a fault on one rank alone: `alone.py FAULT RANK train ...`. `FAULTS` lists the faults."""

import errno
import os
import resource
import signal
import sys
from typing import NoReturn

from wavegan_dist import config
from wavegan_dist.cli import main
from wavegan_dist.run_folder import RunFolder
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


def killed(_words: list[str]) -> None:
    """Let the rank be killed while it reads its settings."""
    config.load = lambda *_arguments: os.kill(os.getpid(), signal.SIGKILL)


def no_exit(_words: list[str]) -> None:
    """Let the rank not write how the run ended."""

    def write_exit(folder: RunFolder, *_arguments: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder.exit))

    RunFolder.write_exit = write_exit  # type: ignore[assignment]


def full_disk(_words: list[str]) -> None:
    """Let the rank not write files of more than `LARGEST_FILE` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))


FAULTS = {
    "config": no_config,
    "index": no_index,
    "checkpoint": unreadable_checkpoint,
    "kernels": no_compiler,
    "disk": full_disk,
    "killed": killed,
    "exit": no_exit,
}
fault, rank, *arguments = sys.argv[1:]
if os.environ["RANK"] == rank:
    FAULTS[fault](arguments)
sys.exit(main(arguments))
