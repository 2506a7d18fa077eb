"""One row of `step.py` in a process of its own: compiles the step, waits for its turn, measures."""

from collections.abc import Callable
from typing import Any

from gpu.common import Section, serve
from gpu.step import Case, measure, prepare


def run(task: dict[str, Any], wait: Callable[[], float]) -> dict[str, Any]:
    """Measure a row, given as the fields of a `Case`; return the row's other fields."""
    section = Section("step", __doc__)
    prepared = prepare(section, Case(**task))
    wait()
    return measure(section, *prepared)


if __name__ == "__main__":
    serve(run)
