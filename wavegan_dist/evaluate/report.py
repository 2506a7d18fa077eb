"""The result of an evaluation for people and for files."""

import json
from pathlib import Path
from typing import Any

from wavegan_dist.files import atomic_file


def format_table(result: dict[str, Any]) -> str:
    """A metric a line, then what was compared; no trailing newline."""
    metrics, protocol = result["metrics"], result["protocol"]
    width = max(map(len, metrics))
    rows = [f"{name:<{width}}  {value:>12.5g}{' dB' if '_db' in name else ''}" for name, value in metrics.items()]
    rows.append(
        f"{protocol['images_real']} real and {protocol['images_generated']} generated images of {protocol['image_size']} px, "
        f"seed {protocol['seed']}, EMA weights at {protocol['nimg'] / 1000:g} kimg; compare only equal protocols"
    )
    return "\n".join(rows)


def save_result(result: dict[str, Any], path: Path) -> None:
    """Write the result as JSON, whole or not at all."""
    with atomic_file(path) as file:
        json.dump(result, file, indent=2, allow_nan=False)
        file.write("\n")
