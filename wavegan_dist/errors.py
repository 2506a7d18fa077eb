"""Exceptions whose message is one line for the user: what failed, where, and what to do."""

import errno

EXIT_REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: "the user is invited to retry"
EXIT_INTERRUPTED = 130  # after Ctrl-C, as shells report SIGINT


class WaveganError(Exception):
    """A command failed while it ran, for example because of a corrupt shard or a loss that is not finite. Exit code 1."""

    exit_code = 1


class UsageError(WaveganError, ValueError):
    """A command cannot do what the user requested, for example because of an unknown key or a missing file. Exit code 2."""

    exit_code = 2


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the memory was exhausted: that of Python, or of PyTorch on a GPU or on the CPU."""
    of_gpu = type(error).__name__ == "OutOfMemoryError"  # torch.OutOfMemoryError, without importing torch
    return isinstance(error, MemoryError) or of_gpu or "DefaultCPUAllocator: can't allocate memory" in str(error)


def describe(error: OSError) -> str:
    """Return "FILE: REASON" for an OSError, or "REASON" if it names no file, on one line; REASON is in lower case.

    If the disk or the quota is full, advice follows after "; ".
    """
    where = f"{error.filename}: " if error.filename else ""
    advice = "; free some space there or write elsewhere" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"{where}{(error.strerror or str(error)).lower()}{advice}"
