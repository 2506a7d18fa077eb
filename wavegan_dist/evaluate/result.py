"""The result of an evaluation for people and for files."""

import json
from pathlib import Path
from typing import Any

from wavegan_dist.files import atomic_file


def format_table(result: dict[str, Any]) -> str:
    """A metric a line with its floor and interval, then what was compared; no trailing newline."""
    metrics, floors, intervals = result["metrics"], result["floors"], result["intervals"]
    width = max(map(len, metrics))
    rows = [f"{'':<{width}}  {'value':>10}  {'floor':>10}  95% interval"]
    for name, value in metrics.items():
        floor = f"{floors[name]:>10.4g}" if name in floors else f"{'-':>10}"
        low, high = intervals.get(name, (None, None))
        between = "" if low is None else f"  {low:.4g} .. {high:.4g}"
        rows.append(f"{name:<{width}}  {value:>10.4g}  {floor}{between}")
    rows += [_compared(result["protocol"]), _floor_note(floors, result["protocol"])]
    return "\n".join(rows)


def save_result(result: dict[str, Any], path: Path) -> None:
    """Write the result as JSON, whole or not at all."""
    with atomic_file(path) as file:
        json.dump(result, file, indent=2, allow_nan=False)
        file.write("\n")


def _compared(protocol: dict[str, Any]) -> str:
    return (
        f"{protocol['images_real']} real and {protocol['images_generated']} generated images of {protocol['image_size']} px, "
        f"seed {protocol['seed']}, EMA weights at {protocol['nimg'] / 1000:g} kimg; compare only equal protocols"
    )


def _floor_note(floors: dict[str, float], protocol: dict[str, Any]) -> str:
    count = protocol["images_real"]
    if floors:
        return f"floor: the same between two disjoint sets of {count} real images"
    return f"no floors: they take {2 * count} real images, more than the set holds; a smaller --count has them"
