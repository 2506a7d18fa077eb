"""A file that is read once from its first to its last byte, from a disk or from a network, and hashed on the way."""

import hashlib
import io
import sys
from collections.abc import Iterator

from typing_extensions import override

KEPT = 512  # bytes before the current position to which `ForwardFile.seek` can return: a block of a tar


class ForwardFile(io.RawIOBase):
    """The part of a file's interface that `tarfile` needs, over bytes that arrive in blocks.

    A seek forward reads and drops the bytes before the new position. A seek back can go to at least KEPT bytes before the
    furthest position reached so far. Errors of the iterator are passed on.

    Args:
        blocks: the content of the file; an empty block ends the file.
    """

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._digest = blocks, hashlib.sha256()
        self._block = b""  # the newest block, after the last KEPT bytes before it
        self._at = 0  # position in `_block`
        self._end = 0  # position in the file at which `_block` ends

    @override
    def read(self, size: int = -1) -> bytes:
        pieces, missing = [], size if size >= 0 else sys.maxsize
        while missing:
            if self._at == len(self._block) and not self._next_block():
                break
            piece = self._block[self._at : self._at + missing]
            pieces.append(piece)
            self._at += len(piece)
            missing -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @override
    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position from the start of the file, or to the file's end if it is shorter; return the new position.

        Raises:
            ValueError: the bytes at that position are no longer in memory, or `whence` is not SEEK_SET.
        """
        while position > self._end and self._next_block():
            pass
        at = len(self._block) - (self._end - min(position, self._end))
        if whence != io.SEEK_SET or at < 0:
            raise ValueError(f"byte {position:,} has passed")
        self._at = at
        return self.tell()

    @override
    def tell(self) -> int:
        return self._end - len(self._block) + self._at

    def finish(self) -> tuple[int, str]:
        """Read the rest of the file, and return the size of the whole file in bytes and its SHA-256 digest in hex."""
        while self._next_block():
            pass
        self._at = len(self._block)
        return self._end, self._digest.hexdigest()

    def _next_block(self) -> bool:
        block = next(self._blocks, b"")
        if not block:
            return False
        kept = self._block[-KEPT:]
        self._at += len(kept) - len(self._block)
        self._block = kept + block
        self._end += len(block)
        self._digest.update(block)
        return True
