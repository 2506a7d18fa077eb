"""The queue between a run and MLflow: a file of JSON lines that one process appends to, and how far it was delivered."""

import errno
import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wavegan_dist.files import atomic_file

# `kind` is metrics (nimg, time, values), picture (path, name, nimg, time), file (path, under), params or tags (values) or
# status (status, time); times are in milliseconds since 1970, paths inside the run folder.
Event = dict[str, Any]


class Spool:
    """RUN/tracking/NAME.jsonl, an event a line, and NAME.sent, how far it was delivered.

    A line counts once its newline is there: what a kill or a full disk left of a line is never read, and cut off by the next
    writer.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.sent = path, path.with_suffix(".sent")

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.path.parent.parent

    def open(self) -> None:
        """Get ready to append; OSError where that cannot be."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        os.ftruncate(self.descriptor, sum(len(line) for line in self._lines(0)))

    def append(self, event: Event) -> None:
        """Add one event, whole or not at all; OSError where there is no room."""
        line = json.dumps({"time": int(time.time() * 1000), **event}).encode() + b"\n"
        written = os.write(self.descriptor, line)
        if written < len(line):
            os.ftruncate(self.descriptor, os.fstat(self.descriptor).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def events(self) -> Iterator[Event]:
        """All events, delivered or not."""
        return map(_parse, self._lines(0))

    def unsent(self) -> Iterator[tuple[Event, int]]:
        """The events that were not delivered yet, in order, each with the offset behind it."""
        offset, _ = self.progress()
        for line in self._lines(offset):
            offset += len(line)
            yield _parse(line), offset

    def progress(self) -> tuple[int, int]:
        """How many bytes were delivered, and how many values and files MLflow refused of what they say."""
        if not self.sent.exists():
            return 0, 0
        noted = json.loads(self.sent.read_text())
        return noted["offset"], noted["refused"]

    def note(self, offset: int, refused: int) -> None:
        """All up to byte `offset` is delivered, but for `refused` values and files."""
        with atomic_file(self.sent) as file:
            json.dump({"offset": offset, "refused": refused}, file)

    def left(self) -> Counter[str]:
        """How many events of each kind were not delivered yet."""
        return Counter(event["kind"] for event, _ in self.unsent())

    @contextmanager
    def sending(self, *, wait: bool) -> Iterator[None]:
        """Be the only one who delivers this spool; BlockingIOError when another does and `wait` is false."""
        with locked(self.path, wait=wait):
            yield

    def _lines(self, offset: int) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            os.fsync(file.fileno())  # what MLflow has must be in the spool after a power cut, or it would be sent again
            file.seek(offset)
            yield from (line for line in file if line.endswith(b"\n"))


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a file, which is made if it is not there; without a lock where the file system has none.

    Two senders then only do the same work twice: every delivery may be repeated (`store.py`).
    """
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:
            pass
        yield


def told(events: Counter[str]) -> str:
    """`3 points and 1 other entry`: events of each kind, in words."""
    points, others = events["metrics"], events.total() - events["metrics"]
    counts = ((points, "point", "points"), (others, "other entry", "other entries"))
    return " and ".join(f"{n} {one if n == 1 else many}" for n, one, many in counts if n) or "nothing"


def _parse(line: bytes) -> Event:
    try:
        event: Event = json.loads(line)
    except ValueError:  # a disk that lies
        event = {"kind": "unreadable"}
    return event
