"""One row of `step.py` in a process of its own: compiles the step, says so, waits for its turn, measures.

Reads the row as a line of JSON from stdin; prints an empty line when the first step has run; waits for another line; prints
the fields of the row as JSON.
"""

import json
import sys

from gpu.common import Section
from gpu.step import Case, measure, prepare


def main() -> None:
    """Compile and measure the row."""
    section = Section("step", __doc__)
    prepared = prepare(section, Case(**json.loads(sys.stdin.readline())))
    print(flush=True)
    if not sys.stdin.readline():  # the section has ended
        return
    print(json.dumps(measure(section, *prepared)))


if __name__ == "__main__":
    main()
