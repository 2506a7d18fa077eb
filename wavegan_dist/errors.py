"""Errors that a user can cause or mend; each is one line that says what, where and what to do."""


class WaveganError(Exception):
    """Something failed while it ran: a corrupt shard, a full disk, a loss that is not finite. Exit code 1."""

    exit_code = 1


class UsageError(WaveganError, ValueError):
    """What was asked for cannot be done: a typo, an impossible value, a missing file. Exit code 2."""

    exit_code = 2
