"""Where a packet lies in the plane of frequencies."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

ROW = {"LL": 0, "LH": 1, "HL": 0, "HH": 1}  # LH is the difference of rows: high vertical frequency
COLUMN = {"LL": 0, "LH": 0, "HL": 1, "HH": 1}


def frequency_map(table: dict[str, float]) -> NDArray[Any]:
    """Packet name ("LL.HL") -> distance, into [2**level, 2**level]: frequency rises downwards and to the right."""
    side = round(len(table) ** 0.5)
    plane = np.empty((side, side))
    for name, value in table.items():
        bands = name.split(".")
        plane[_place([ROW[band] for band in bands]), _place([COLUMN[band] for band in bands])] = value
    return plane


def _place(filters: list[int]) -> int:
    """Order by frequency of a sequence of low (0) and high (1) filters.

    Subsampling behind a high filter mirrors the frequencies, so the sequence is the Gray code of the place.
    """
    place, bit = 0, 0
    for high in filters:
        bit ^= high
        place = 2 * place + bit
    return place
