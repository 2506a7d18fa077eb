"""The command `wavegan`: parses, calls, prints. One table of commands; a file holds each command's arguments and function."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from wavegan_dist import log
from wavegan_dist.cli import compare, doctor, evaluate, plan, sample, shards, submit, track, train, watch
from wavegan_dist.cli.command import Command, make_parser
from wavegan_dist.errors import WaveganError

DESCRIPTION = "Train detail-rich image generators: three generators, three discriminators, one wavelet."
COMMANDS: tuple[Command, ...] = (
    train.TRAIN,
    sample.SAMPLE,
    evaluate.EVALUATE,
    compare.COMPARE,
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
    "track": "deliver to MLflow what a run could not",
    "submit": "train or evaluate as a job on Slurm",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Errors are one line on stderr; a process group that was joined is left, whatever happened.

    Returns 0 (done), 1 (failed), 2 (wrong use), 75 (a run that saved itself and wants to be started again) or 130 (Ctrl-C).
    """
    try:
        return _run(arguments)
    finally:
        if processes := sys.modules.get("wavegan_dist.processes"):  # loaded by the commands that join one
            processes.leave()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of one command; `key=value` settings may stand before, between and after them."""
    parser = make_parser(DESCRIPTION, COMMANDS, GROUPS)
    options, rest = parser.parse_known_args(arguments)
    settings = [word for word in rest if hasattr(options, "overrides") and not word.startswith("-")]
    if len(settings) < len(rest):
        unknown = next(word for word in rest if word not in settings)
        parser.error(f"unrecognized argument: {unknown}")
    if settings:
        options.overrides += settings
    return options


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = parse(arguments)
        log.configure(options.log_level)
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except WaveganError as error:
        return _complain(str(error), error.exit_code)
    except OSError as error:
        return _complain(_explain(error), 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    return 0


def _explain(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    advice = "; free some space there or write elsewhere" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"{where}{(error.strerror or str(error)).lower()}{advice}"


def _complain(message: str, exit_code: int) -> int:
    rank = os.environ.get("RANK", "0")
    print(f"wavegan: {'' if rank == '0' else f'[rank {rank}] '}{' '.join(message.split())}", file=sys.stderr)
    return exit_code
