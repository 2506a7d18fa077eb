"""Images that a data loader loses or repeats if a run is stopped in the middle of an epoch and resumed with other ranks.

    python benchmarks/resume_matrix.py      or: ... --loaders ours grain --worlds 1 2 --workers 0

For every pair of world sizes and number of workers (32 cells), each loader reads the first 20 of 48 global batches of an epoch
on the ranks of the first world, saves its state as its documentation says, and is killed. It then continues on the ranks of the
second world to the end of the epoch. All loaders read the same 2,304 images of 32 px in 24 shards, in their own formats, and
the global batch of 48 images stays the same. 24, 48 and 2,304 are divisible by the number of all ranks and workers, so that no
loader has to drop or fill up a batch. Every image has an id, its label. Of each cell the benchmark counts the
    lost        ids that no rank has read, before or after
    repeated    times that an id was read again
    first       seconds from the construction of the loader to the first batch after the resume, of the slowest rank, without
                imports
or keeps the words with which the loader refuses. Ranks are processes on this machine, for every loader.

The adapters are in benchmarks/peers/. Each loader runs in an environment of its own in --environments, which is installed with
pip if it is missing. Each finished cell is written to benchmarks/peers/resume_matrix.json, and is not measured again.
"""

import argparse
import itertools
import json
import shutil
import statistics
from collections import Counter
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench_common import argument_parser, write_json, write_smooth_noise
from loaders import ADAPTERS, ENVIRONMENTS, NAMES, Loaders, write_formats, write_images

from wavegan_dist.provenance import provenance

IMAGES, SHARDS, BATCH, BATCHES = 2304, 24, 48, 20
PATCHES = 289  # of a picture of 288 px


def main() -> None:
    """Measure the cells that have no result yet, and print the table."""
    options = parse_arguments()
    result = json.loads(options.result.read_text()) if options.result.exists() else {"cells": {}, "versions": {}}
    wanted = {name: [cell for cell in cells(options) if key(name, *cell) not in result["cells"]] for name in options.loaders}
    missing = [name for name in options.loaders if wanted[name]]
    with TemporaryDirectory() as scratch, closing(Loaders(options.environments, options.torch, Path(scratch))) as loaders:
        sources = prepare(loaders, missing)
        for name in missing:
            if not sources[name].startswith("not run"):
                result["versions"][name] = loaders.versions(name)
            for cell in wanted[name]:
                result["cells"][key(name, *cell)] = measure(loaders, name, sources[name], *cell)
                write_json(options.result, result | {"provenance": provenance()})
                print(key(name, *cell), describe(result["cells"][key(name, *cell)]), flush=True)
    print(table(result["cells"]))


def cells(options: argparse.Namespace) -> list[tuple[int, int, int]]:
    """Return workers, and the number of ranks before and after, of each cell; cells with the same first run are neighbors."""
    return list(itertools.product(options.workers, options.worlds, options.worlds))


def key(name: str, workers: int, before: int, after: int) -> str:
    """Return the name of a cell in the result."""
    return f"{name}, {workers} workers, {before} -> {after}"


def prepare(loaders: Loaders, names: list[str]) -> dict[str, str]:
    """Write the images in the formats of some loaders; see `write_formats`."""
    if not names:
        return {}
    write_smooth_noise(loaders.scratch / "pictures", IMAGES // PATCHES + 1)
    shard_bytes = write_images(str(loaders.scratch / "pictures"), loaders.scratch / "tars", "png", 32, IMAGES, SHARDS)
    return write_formats(loaders, names, "png", SHARDS, shard_bytes)


def measure(loaders: Loaders, name: str, source: str, workers: int, before: int, after: int) -> dict[str, Any]:
    """Return the result of one cell. The state of a first run serves all cells that begin with it."""
    if source.startswith("not run"):
        return {"not run": source.partition(": ")[2]}
    states = loaders.scratch / f"{name}-{workers}-{before}"
    job: dict[str, Any] = {"kind": "resume", "source": source, "encoding": "png", "workers": workers, "images": IMAGES}
    if not (states / "ids.json").exists():
        shutil.rmtree(states, ignore_errors=True)
        states.mkdir()
        first = loaders.run(name, **job, world=before, batch=BATCH // before, batches=BATCHES, save=str(states))
        if refusals := [rank["refused"] for rank in first if "refused" in rank]:
            return {"refused": f"before the stop: {refusals[0]}"}
        (states / "ids.json").write_text(json.dumps([rank["ids"] for rank in first]))
    ranks = loaders.run(name, **job, world=after, batch=BATCH // after, batches=0, states=str(states))
    if refusals := [rank["refused"] for rank in ranks if "refused" in rank]:
        return {"refused": refusals[0]}
    return count(json.loads((states / "ids.json").read_text()), ranks)


def count(before: list[list[int]], after: list[dict[str, Any]]) -> dict[str, Any]:
    """Count lost and repeated images.

    Args:
        before: ids that each rank of the first run has read.
        after: results of the ranks of the second run.
    """
    read = Counter(itertools.chain(*before, *(rank["ids"] for rank in after)))
    assert read.keys() <= set(range(IMAGES))
    repeated = sum(times - 1 for times in read.values())
    return {"lost": IMAGES - len(read), "repeated": repeated, "first": max(rank["first"] for rank in after)}


def describe(cell: dict[str, Any]) -> str:
    """Format a cell."""
    if "lost" not in cell:
        return ": ".join(*cell.items())
    return f"lost {cell['lost']}, repeated {cell['repeated']}, first batch after {cell['first']:.2f} s"


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return a Markdown table with a row for each loader."""
    lines = [
        "| loader | cells | exact | with losses: most lost | with repeats: most repeated | refused | first batch, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in NAMES:
        of_loader = [cell for title, cell in results.items() if title.startswith(f"{name},")]
        done = [cell for cell in of_loader if "lost" in cell]
        exact = sum(not cell["lost"] and not cell["repeated"] for cell in done)
        worst = [
            f"{sum(cell[what] > 0 for cell in done)}: {max([cell[what] for cell in done], default=0)}"
            for what in ("lost", "repeated")
        ]
        first = f"{statistics.median(cell['first'] for cell in done):.2f}" if done else "-"
        if of_loader:
            refused = sum("refused" in cell for cell in of_loader)
            run = sum("not run" not in cell for cell in of_loader)
            lines.append(f"| {name} | {run} | {exact} | {' | '.join(worst)} | {refused} | {first} |")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--loaders", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME")
    parser.add_argument("--worlds", nargs="+", type=int, choices=(1, 2, 3, 4), default=[1, 2, 3, 4], metavar="W")
    parser.add_argument("--workers", nargs="+", type=int, choices=(0, 1, 2), default=[0, 2], metavar="K")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS, metavar="DIR")
    parser.add_argument("--torch", default="torch", metavar="REQUIREMENT", help="such as torch==2.13.0+cpu (default: torch)")
    parser.add_argument("--result", type=Path, default=ADAPTERS / "resume_matrix.json", metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
