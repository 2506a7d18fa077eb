"""Runs `wavegan` with a fault on one rank alone: `alone.py FAULT RANK train ...`. `FAULTS` lists the faults."""

import errno
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from wavegan_dist import config
from wavegan_dist.cli import main
from wavegan_dist.data import error_log
from wavegan_dist.data.storage import Storage
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


def unreadable_shard(_words: list[str]) -> None:
    """Let the rank's disk fail in the shard that it opens first."""
    open_file, failing = Storage.open, list[str]()

    def fail(self: Storage, file: str, *arguments: Any) -> Any:
        failing[:] = failing or [file]
        if file in failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO), file)
        return open_file(self, file, *arguments)

    Storage.open = fail  # type: ignore[assignment]


def unwritable_errors(words: list[str]) -> None:
    """Let the rank find an image that it cannot read, and in place of data_errors.jsonl a folder."""
    unreadable_shard(words)
    append = error_log.append_json_lines  # type: ignore[attr-defined]  # which it imports

    def into_a_folder(path: Path, *arguments: Any) -> None:
        path.mkdir()
        append(path, *arguments)

    error_log.append_json_lines = into_a_folder  # type: ignore[assignment, attr-defined]


def unreadable_errors(_words: list[str]) -> None:
    """Let the rank's disk fail while it reads data_errors.jsonl."""

    def read(path: Path) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    error_log.read_json_lines = read  # type: ignore[attr-defined]


FAULTS = {
    "config": no_config,
    "index": no_index,
    "checkpoint": unreadable_checkpoint,
    "kernels": no_compiler,
    "disk": full_disk,
    "killed": killed,
    "exit": no_exit,
    "shard": unreadable_shard,
    "list": unwritable_errors,
    "listed": unreadable_errors,
}
fault, rank, *arguments = sys.argv[1:]
if os.environ["RANK"] == rank:
    FAULTS[fault](arguments)
sys.exit(main(arguments))
