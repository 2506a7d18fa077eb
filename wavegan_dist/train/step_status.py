"""The status on which all ranks agree at the end of a step. A module without imports, because `plan` counts its fields."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class StepStatus:
    """The state of a step after the all-reduce, equal on all ranks.

    Args:
        nonfinite: a loss or a gradient was not finite.
        save_failed: the checkpoint being written on some rank has failed.
        signal: number of the signal that some rank received (the largest of several), or 0.
    """

    nonfinite: bool
    save_failed: bool
    signal: int


STATUS_FLAGS = len(fields(StepStatus))  # float32 elements of the all-reduce
