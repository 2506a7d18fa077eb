"""What all groups of settings share."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, get_args

from annotated_types import Gt, Le
from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

# Largest sizes of a model and a batch: far beyond any that fits a memory, and small enough that no byte count overflows int64.
LARGEST_WIDTH, LARGEST_COUNT = 2**16, 2**20

# A length of training in thousands of images, and a number of things. The bounds keep arithmetic with them finite.
Kimg = Annotated[float, Gt(1e-9), Le(1e15)]
Count = Annotated[int, Gt(0), Le(LARGEST_COUNT)]

# Marks a setting that may change when a run is resumed: the model, the order of images and the random draws stay as they are.
# (But train.accumulation changes batch statistics, which are those of a micro-batch, and a rollback draws other latents.)
MAY_CHANGE: dict[str, Any] = {"may_change_on_resume": True}


class Section(BaseModel):
    """A group of settings. Unknown keys, infinite numbers, empty texts, and true or false in place of a number are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_empty_text_and_bool_for_number(cls, value: object, info: ValidationInfo) -> object:
        if value == "":
            raise ValueError("the text is empty; give one, or leave the key out if it has a default")
        types = set(_types(cls.model_fields[str(info.field_name)].annotation))
        if isinstance(value, bool) and bool not in types and types & {int, float}:
            raise ValueError(f"{str(value).lower()} is not a number")
        return value


def _types(annotation: Any) -> Iterator[Any]:
    """Yield the types of the annotation of a field, and of the elements of lists in it: int and None for `list[int] | None`."""
    if arguments := get_args(annotation):
        for argument in arguments:
            yield from _types(argument)
    else:
        yield annotation


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
