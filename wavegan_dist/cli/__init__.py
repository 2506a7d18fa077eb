"""The command `wavegan`: parses, calls, prints. A file for each command."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from wavegan_dist.cli import compare, doctor, evaluate, plan, sample, shards, submit, track, train, watch
from wavegan_dist.cli.parsing import Parser
from wavegan_dist.errors import WaveganError

# Each command imports what it needs when it runs: `wavegan --help` stays instant.
COMMANDS = (train, sample, evaluate, compare, shards, track, doctor, submit, watch, plan)


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
    top = parser()
    options, rest = top.parse_known_args(arguments)
    settings = [word for word in rest if hasattr(options, "overrides") and not word.startswith("-")]
    if len(settings) < len(rest):
        unknown = next(word for word in rest if word not in settings)
        top.error(f"unrecognized argument: {unknown}")
    if settings:
        options.overrides += settings
    return options


def parser() -> Parser:
    """The whole command line."""
    top = Parser(
        prog="wavegan", description="Train detail-rich image generators: three generators, three discriminators, one wavelet."
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for command in COMMANDS:
        command.add(commands)
    return top


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = parse(arguments)
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
