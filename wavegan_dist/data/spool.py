"""Encoded images on their way to a shard."""

from array import array
from pathlib import Path
from tempfile import TemporaryFile


class Spool:
    """Pieces of bytes in a nameless file, so that a set larger than memory can be shuffled: append in turn, read any."""

    def __init__(self, folder: Path) -> None:
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._ends = array("Q", [0])

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, content: bytes) -> None:
        """Add a piece at the end."""
        self._file.seek(self._ends[-1])
        self._file.write(content)
        self._ends.append(self._ends[-1] + len(content))

    def __getitem__(self, position: int) -> bytes:
        start, end = self._ends[position], self._ends[position + 1]
        self._file.seek(start)
        return self._file.read(end - start)
