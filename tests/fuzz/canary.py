"""A target with faults that the harness must find: `python -m tests.fuzz.canary` prints what it finds, a JSON object.

Its keys are the names of the faults, and its values the kind of each, or whether the input was refused if there is none.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from typing_extensions import override

from tests.fuzz import harness
from tests.fuzz.harness import Target, scratch_folder, try_input
from tests.fuzz.mutate import Files
from wavegan_dist.errors import WaveganError


def spin() -> None:
    end = time.process_time() + 10
    while time.process_time() < end:
        pass


def wait() -> None:
    time.sleep(20)


def allocate() -> None:
    assert b"x" * (2 * Canary.memory)


def crash() -> None:
    raise KeyError("x")


def print_traceback() -> None:
    os.write(2, b"Traceback (most recent call last):\n")


def talk() -> None:
    raise WaveganError("x" * (harness.LONGEST_MESSAGE + 1))


def refuse() -> None:
    raise WaveganError("no")


def accept() -> None:
    pass


DEADLINES = {"spin": (1.0, 120.0), "wait": (60.0, 1.0)}  # DEADLINE and WAIT of inputs that would take longer
INPUTS: dict[str, Callable[[], None]] = {
    function.__name__: function for function in (spin, wait, allocate, crash, print_traceback, talk, refuse, accept)
}


class Canary(Target):
    """Does what the file `fault` names."""

    memory = 2**26

    @override
    def seeds(self, scratch: Path) -> list[Files]:
        return [{"fault": name.encode()} for name in INPUTS]

    @override
    def read(self, folder: Path) -> None:
        INPUTS[(folder / "fault").read_text()]()


def main() -> None:
    """Try each input."""
    found: dict[str, str | bool] = {}
    with scratch_folder() as scratch:
        for name, files in zip(INPUTS, Canary().seeds(scratch), strict=True):
            harness.DEADLINE, harness.WAIT = DEADLINES.get(name, (60.0, 120.0))
            result = try_input(Canary(), files, scratch)
            found[name] = result.refused if result.fault is None else result.fault.kind
    print(json.dumps(found))


if __name__ == "__main__":
    main()
