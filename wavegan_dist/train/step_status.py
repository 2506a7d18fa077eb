"""The status on which all ranks agree at the end of a step. A module without imports, because `plan` counts its fields."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class StepStatus:
    """What happened on any rank by the end of a step; equal on all ranks.

    Args:
        nonfinite: a loss or a gradient of the step was not finite.
        save_failed: the last save of a checkpoint, in the background, has failed.
        signal: number of the stop signal that some rank received (the largest of several), or 0.
    """

    nonfinite: bool
    save_failed: bool
    signal: int


STATUS_FLAGS = len(fields(StepStatus))  # float32 elements of the all-reduce
