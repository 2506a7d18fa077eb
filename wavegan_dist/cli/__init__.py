"""The command `wavegan`: a table of commands. Each command, or group of commands, is defined in a file of this package."""

import argparse
import os
import select
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

from wavegan_dist import log
from wavegan_dist.cli import (
    compare,
    doctor,
    evaluate,
    explain,
    export,
    gallery,
    plan,
    sample,
    shards,
    submit,
    track,
    train,
    watch,
)
from wavegan_dist.cli.command import Command, make_parser
from wavegan_dist.errors import EXIT_INTERRUPTED, WaveganError, describe, is_out_of_memory
from wavegan_dist.redact import redacted

DESCRIPTION = (
    "Train GANs of three generators and three discriminators, joined by a wavelet transform, for images with fine detail."
)
OUT_OF_MEMORY_ADVICE = (
    "train with a smaller train.batch_size or a larger train.accumulation; on a GPU, sample and evaluate with --exact, which "
    "generates fewer images at a time; or lower --count"
)
LONGEST_REASON = 200  # characters of PyTorch's message, which goes on about its allocator
COMMANDS: tuple[Command, ...] = (
    train.TRAIN,
    sample.SAMPLE,
    export.EXPORT,
    evaluate.EVALUATE,
    compare.COMPARE,
    explain.EXPLAIN,
    gallery.GALLERY,
    shards.WRITE,
    shards.INDEX,
    shards.ORDER,
    shards.VERIFY,
    shards.INFO,
    track.SYNC,
    doctor.DOCTOR,
    submit.SUBMIT_TRAIN,
    submit.SUBMIT_EVALUATE,
    watch.WATCH,
    plan.PLAN,
)
GROUPS = {
    "shards": "write, index, verify and describe training data",
    "track": "send undelivered events to MLflow",
    "submit": "train or evaluate as Slurm jobs",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, then leave the process group (torch.distributed) if the command joined one; if it cannot, exit at once.

    A WaveganError, an OSError, a lack of memory or Ctrl-C is printed to stderr as one line; any other error is raised. If the
    reader of stdout closes the pipe, as in `wavegan ... | head`, nothing is printed, and the exit code is 0. `--help` raises
    SystemExit.

    Args:
        arguments: the words after `wavegan`; None: those of this process.

    Returns:
        The exit code: 0 (done), 1 (failed), 2 (wrong use), 75 (the run saved a checkpoint, and the same command resumes it) or
        130 (Ctrl-C).
    """
    _open_standard_streams()
    code = 1  # of an error that is raised
    try:
        code = _run(arguments)
    finally:
        processes = sys.modules.get("wavegan_dist.processes")  # imported by all commands that join a process group
        if processes and not processes.leave():
            _exit_at_once(code)
    return code


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line. Overrides of the form `key=value` may appear before, between and after the options.

    Returns:
        The options of the command, with `run`, the function that runs it, `log_level` and, if the command takes overrides, all
        of them in the list `overrides`.

    Raises:
        UsageError: an argument is unknown, missing or invalid.
        SystemExit: `--help` was printed.
    """
    parser = make_parser(DESCRIPTION, COMMANDS, GROUPS)
    options, rest = parser.parse_known_args(arguments)
    overrides = [word for word in rest if hasattr(options, "overrides") and not word.startswith("-")]
    if unknown := [word for word in rest if word not in overrides]:
        parser.error(f"unrecognized argument: {unknown[0]}")
    if overrides:
        options.overrides += overrides
    return options


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = parse(arguments)
        log.configure(options.log_level)
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError as error:
        if not _stdout_is_broken():  # but a pipe or connection of the command
            return _report(describe(error), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except WaveganError as error:
        return _report(str(error), error.exit_code)
    except OSError as error:
        return _report(describe(error), 1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _report(f"out of memory; {OUT_OF_MEMORY_ADVICE} ({str(error)[:LONGEST_REASON]})", 1)
    except KeyboardInterrupt:
        return _report("interrupted", EXIT_INTERRUPTED)
    return 0


def _exit_at_once(code: int) -> NoReturn:
    """End the process without waiting for its threads, after the traceback of the error that is being raised, if one is."""
    if sys.exc_info()[0]:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _stdout_is_broken() -> bool:
    """Return whether the reader of stdout has closed its end of the pipe, as `head` does."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


def _open_standard_streams() -> None:
    """Open the null device as stdin, stdout or stderr where the caller closed it, as `wavegan ... 2>&-` does.

    Otherwise Python's stream is None, and the next file that is opened gets the descriptor that libraries print to.
    File names that stdout cannot encode are printed with backslashes, as on stderr.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _report(message: str, exit_code: int) -> int:
    """Print "wavegan: MESSAGE" to stderr as one line, without passwords of URLs, and return `exit_code`.

    On ranks other than 0, "[rank N]" precedes the message. The line is not a log record: the format is the same on a terminal
    and in a pipe.
    """
    rank = os.environ.get("RANK", "0")
    line = f"wavegan: {'' if rank == '0' else f'[rank {rank}] '}{redacted(' '.join(message.split()))}"
    print(log.printable(line), file=sys.stderr)
    return exit_code
