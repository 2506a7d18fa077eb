"""The datasets that training reads: one, or several that are mixed by weight."""

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from pydantic import Field, PositiveFloat

from wavegan_dist.config.section import Section, positive

LARGEST_CYCLE = 10**9  # images after which the shares of all sets are exact; the order of a mixture computes with int64


class WeightedSet(Section):
    """One of several datasets that training mixes."""

    index: str = Field(description="as data.index of a single dataset")
    weight: PositiveFloat = Field(description="the set's share of the images is its weight divided by the sum of all weights")


def parse_sets(value: Any) -> str | list[Any]:
    """Check the value of `data.index` and return it: text, or a list of mappings {"index": text, "weight": number}.

    For a list of one set, the text of its index is returned. A weight may be the text of a number, which is not converted.

    Raises:
        ValueError: the value has another form, a weight is not a number above 0, or the weights have too many digits for a
            mixture whose shares are exact.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise ValueError(f"{value!r} is neither text nor a list of {{index: TEXT, weight: NUMBER}}")
    entries = [entry.model_dump() if isinstance(entry, WeightedSet) else entry for entry in value]
    for entry in entries:
        if not isinstance(entry, dict) or entry.keys() != {"index", "weight"} or not isinstance(entry["index"], str):
            raise ValueError(f"{entry!r} in the list is not of the form {{index: TEXT, weight: NUMBER}}")
    weights = [_weight(entry) for entry in entries]
    if sum(integer_weights(weights)) > LARGEST_CYCLE:
        raise ValueError(f"the weights {', '.join(map(repr, weights))} have too many digits; round them")
    return str(entries[0]["index"]) if len(entries) == 1 else entries


def _weight(entry: dict[str, Any]) -> float:
    try:
        return positive(entry["weight"])
    except ValueError as error:
        raise ValueError(f"the weight of {entry['index']}: {error}") from error


def integer_weights(weights: Sequence[float]) -> list[int]:
    """Return the smallest integers with the ratio of the weights, which are above 0: [0.5, 1.25] gives [2, 5].

    The decimal digits of the weights count: [0.1, 0.3] gives [1, 3].
    """
    fractions = [Fraction(repr(weight)) for weight in weights]
    common = math.lcm(*(fraction.denominator for fraction in fractions))
    integers = [int(fraction * common) for fraction in fractions]
    divisor = math.gcd(*integers)
    return [integer // divisor for integer in integers]


def set_names(indexes: Sequence[str]) -> list[str]:
    """Return a name for the set of each index: the name of its folder, in letters, digits and _-. only.

    The name is "set" if nothing is left of the folder's name. If two names are equal, all names are numbered from 1:
    "1-photos", "2-photos".
    """
    names = [_name(index) for index in indexes]
    return names if len(set(names)) == len(names) else [f"{number}-{name}" for number, name in enumerate(names, 1)]


def _name(index: str) -> str:
    folder = re.sub(r"((^|/)index\.json|\.json|\{file\}.*)$", "", index).rstrip("/'\" ")
    name = re.sub(r"[^\w.-]", "_", re.split(r"[/\s'\":]", folder)[-1], flags=re.ASCII)
    return name.strip(".") or "set"
