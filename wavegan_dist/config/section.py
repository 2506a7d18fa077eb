"""What all groups of settings share."""

import math
from typing import Annotated, Any

from annotated_types import Gt, Le
from pydantic import BaseModel, ConfigDict

# Largest sizes of a model and a batch: far beyond any that fits a memory, and small enough that no byte count overflows int64.
LARGEST_WIDTH, LARGEST_COUNT = 2**16, 2**20

# A length of training in thousands of images, and a number of things. The bounds keep arithmetic with them finite.
Kimg = Annotated[float, Gt(1e-9), Le(1e15)]
Count = Annotated[int, Gt(0), Le(LARGEST_COUNT)]

# Marks a setting that may change when a run is resumed: the setting affects neither the model nor its training images.
# (train.accumulation is marked although it changes batch statistics, which are those of a micro-batch.)
MAY_CHANGE: dict[str, Any] = {"may_change_on_resume": True}


class Section(BaseModel):
    """A group of settings. Unknown keys and infinite numbers are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def positive(value: Any) -> float:
    """Return a number, or the number that a text holds, as a float. For settings that may be a number or a list.

    pydantic would report one error for each of the alternatives.

    Raises:
        ValueError: the value is not a finite number above 0.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{value!r} is not a number above 0")
    return number
