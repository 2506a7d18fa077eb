"""Exceptions whose message is one line for the user: what failed, where, and what to do."""

EXIT_REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: "the user is invited to retry"
EXIT_INTERRUPTED = 130  # after Ctrl-C, as shells report SIGINT


class WaveganError(Exception):
    """A command failed while it ran, for example because of a corrupt shard or a loss that is not finite. Exit code 1."""

    exit_code = 1


class UsageError(WaveganError, ValueError):
    """A command cannot do what the user requested, for example because of an unknown key or a missing file. Exit code 2."""

    exit_code = 2
