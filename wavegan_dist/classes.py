"""The classes of a labeled dataset: how many of its images each class has, and what the class is called."""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from wavegan_dist import counted
from wavegan_dist.errors import UsageError

NAMES_SHOWN = 5  # largest number of class names in a message


class Classes(NamedTuple):
    """The classes 0, 1, ... of a model, as the training data has them. A snapshot stores them.

    Attributes:
        counts: number of images of each class.
        names: name of each class; empty if the names are unknown.
    """

    counts: Sequence[int]
    names: Sequence[str]

    def name(self, label: int) -> str:
        """Return the name of the class with number `label`; if the name is unknown, the number as text."""
        return self.names[label] if label < len(self.names) else str(label)

    def draw(self, seed: int, stream: str, positions: range) -> Tensor:
        """Draw a class for each position with the frequencies of the data: int64 [len(positions)] on the CPU.

        The class of a position depends on the seed, the stream, the position and `counts` only; see `counted.categories`.
        """
        return counted.categories(seed, stream, positions, self.counts)

    def parse(self, text: str) -> list[int]:
        """Return the numbers of a class or a comma-separated list of classes, each given by number or by name.

        A name that contains a comma is recognized only if it is the whole text. A part that is the number of one class and the
        name of another stands for the number.

        Returns:
            The numbers in the order of the text, repeated where the text repeats a class.

        Raises:
            UsageError: a part is neither the number nor the name of a class.
        """
        if text in self.names:
            return [self._label(text)]
        return [self._label(part.strip()) for part in text.split(",")]

    def _label(self, text: str) -> int:
        if text.isdecimal() and len(text) < 20 and int(text) < len(self.counts):  # Python converts no more than 4,300 digits
            return int(text)
        if text in self.names:
            return list(self.names).index(text)
        close = difflib.get_close_matches(text, self.names, 1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        names = ", ".join(self.names[:NAMES_SHOWN]) + (", ..." if len(self.names) > NAMES_SHOWN else "")
        raise UsageError(
            f"there is no class '{text}'; {hint}the classes are 0 to {len(self.counts) - 1}{f' ({names})' if names else ''}"
        )
