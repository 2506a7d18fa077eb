"""The queue between a run and MLflow: a file of JSON lines that one process appends to, and the position of its delivery."""

import errno
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from wavegan_dist.files import atomic_file, locked, parse_json
from wavegan_dist.run_folder import RunFolder

# A JSON object. `kind` is metrics (nimg, values), picture (path, name, nimg), file (path, under), params or tags (values), or
# status (status). Paths are relative to the run folder. `Spool.append` adds `time`, in milliseconds since 1970.
Event = dict[str, Any]


class Spool:
    """The file RUN/tracking/NAME.jsonl with one event per line, and NAME.sent, which records how much was delivered.

    A line is valid once it ends with a newline. A line that a kill or a full disk cut short is never read, and the next writer
    truncates it.

    Args:
        path: RUN/tracking/NAME.jsonl, see `RunFolder.spool`.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.position = path, path.with_suffix(".sent")

    @property
    def folder(self) -> RunFolder:
        """The run folder that contains this spool."""
        return RunFolder(self.path.parents[1])

    def open(self) -> None:
        """Create the file if it does not exist, truncate a line that was cut short, and open the file for `append`.

        Only for the one process that appends.

        Raises:
            OSError: the file cannot be opened.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        os.ftruncate(self.descriptor, sum(len(line) for line in self._lines(0)))

    def append(self, event: Event) -> None:
        """Append one event, with the current time, completely or not at all. Only after `open`.

        Raises:
            OSError: the disk is full or fails.
        """
        line = json.dumps({"time": int(time.time() * 1000), **event}).encode() + b"\n"
        written = os.write(self.descriptor, line)
        if written < len(line):
            os.ftruncate(self.descriptor, os.fstat(self.descriptor).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def events(self) -> Iterator[Event]:
        """Yield all events in order, delivered or not. A damaged line yields an event of kind `unreadable`.

        Raises:
            OSError: while iterating, if the file does not exist or cannot be read; likewise in `undelivered` and
                `count_undelivered`.
        """
        return map(_parse, self._lines(0))

    def undelivered(self) -> Iterator[tuple[Event, int]]:
        """Yield the events that were not delivered yet, in order, each with the offset in bytes at which its line ends."""
        offset, _ = self.delivered()
        for line in self._lines(offset):
            offset += len(line)
            yield _parse(line), offset

    def delivered(self) -> tuple[int, int]:
        """Return how many bytes were delivered, and how many values and files in them MLflow rejected.

        If NAME.sent is missing or damaged, nothing counts as delivered: MLflow stores what it gets twice only once.

        Raises:
            OSError: NAME.sent exists and cannot be read.
        """
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError, OverflowError):
            content = parse_json(self.position.read_text())
            offset, refused = int(content["offset"]), int(content["refused"])
            if 0 <= offset <= self.path.stat().st_size:
                return offset, refused
        return 0, 0

    def set_delivered(self, offset: int, rejected: int) -> None:
        """Record that everything before byte `offset` was delivered, except `rejected` values and files.

        Raises:
            OSError: NAME.sent cannot be written.
        """
        with atomic_file(self.position) as file:
            json.dump({"offset": offset, "refused": rejected}, file)

    def count_undelivered(self) -> Counter[str]:
        """Return the number of events of each kind that were not delivered yet."""
        return Counter(event["kind"] for event, _ in self.undelivered())

    def lock(self, *, wait: bool) -> AbstractContextManager[bool]:
        """Return a context manager that excludes other senders of this spool.

        On a file system without locks two senders may deliver the same events; MLflow stores them once (`mlflow_run.py`).

        Args:
            wait: whether to wait for the current sender; False raises BlockingIOError instead.
        """
        return locked(self.path, wait=wait)

    def _lines(self, offset: int) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            os.fsync(file.fileno())  # before sending: after a power cut, MLflow must not have events that the spool lacks
            file.seek(offset)
            yield from takewhile(lambda line: line.endswith(b"\n"), file)  # the rest of a line may be written meanwhile


def metrics_event(values: Mapping[str, float], nimg: int) -> Event:
    """Return the event that logs each value at step `nimg`."""
    return {"kind": "metrics", "nimg": nimg, "values": dict(values)}


def metric_name(metric: str) -> str:
    """Return the name of an evaluation's metric in MLflow, which allows no @: `kid_efflite0_at_128` for `kid_efflite0@128`."""
    return metric.replace("@", "_at_")


def image_event(path: str, name: str, nimg: int) -> Event:
    """Return the event that logs the image file at `path`, relative to the run folder, under `name` at step `nimg`."""
    return {"kind": "picture", "path": path, "name": name, "nimg": nimg}


def file_event(path: str, under: str | None) -> Event:
    """Return the event that logs the file or folder at `path`, relative to the run folder, in the artifact folder `under`.

    `under` is None for MLflow's top artifact folder.
    """
    return {"kind": "file", "path": path, "under": under}


def format_counts(counts: Counter[str]) -> str:
    """Format numbers of events by kind for a message: `3 points and 1 other entry`, or `nothing`; metrics events are points."""
    points, others = counts["metrics"], counts.total() - counts["metrics"]
    forms = ((points, "point", "points"), (others, "other entry", "other entries"))
    return " and ".join(f"{count} {one if count == 1 else many}" for count, one, many in forms if count) or "nothing"


def _parse(line: bytes) -> Event:
    with suppress(ValueError):
        event = parse_json(line)
        if isinstance(event, dict) and isinstance(event.get("kind"), str):
            return event
    return {"kind": "unreadable"}  # the disk did not return the bytes that were written
