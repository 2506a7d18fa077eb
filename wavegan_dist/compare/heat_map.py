"""The position of wavelet packets in the frequency plane."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

VERTICAL = {"LL": 0, "LH": 1, "HL": 0, "HH": 1}  # LH is the difference of rows: high vertical frequency
HORIZONTAL = {"LL": 0, "LH": 0, "HL": 1, "HH": 1}


def frequency_map(table: dict[str, float]) -> NDArray[Any]:
    """Arrange distances by the frequency of their packets.

    Args:
        table: packet name such as "LL.HL" to distance, 4**level entries.

    Returns:
        The distances, float64 [2**level, 2**level]: vertical frequency rises downwards, horizontal frequency to the right.
    """
    side = round(len(table) ** 0.5)
    plane = np.empty((side, side))
    for name, value in table.items():
        bands = name.split(".")
        row, column = (_frequency_rank([filters[band] for band in bands]) for filters in (VERTICAL, HORIZONTAL))
        plane[row, column] = value
    return plane


def _frequency_rank(filters: list[int]) -> int:
    """Position, by ascending frequency, of a sequence of low-pass (0) and high-pass (1) filters among all such sequences.

    Subsampling after a high-pass filter mirrors the frequencies, so the sequence is the Gray code of the position.
    """
    rank, bit = 0, 0
    for high in filters:
        bit ^= high
        rank = 2 * rank + bit
    return rank
