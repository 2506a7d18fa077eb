"""Definition of a command of `wavegan`, and the parser of all commands."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from wavegan_dist.errors import UsageError
from wavegan_dist.log import LEVELS


@dataclass(frozen=True)
class Argument:
    """One argument of a command: the names and settings that `ArgumentParser.add_argument` takes."""

    names: tuple[str, ...]
    settings: Mapping[str, Any]


def argument(*names: str, **settings: Any) -> Argument:
    """Describe an argument; the parameters are those of `ArgumentParser.add_argument`."""
    return Argument(names, settings)


LOG_LEVEL = argument(
    "--log-level",
    choices=LEVELS,
    default="info",
    metavar="LEVEL",
    help=f"least severe log records to show: {', '.join(LEVELS)} (default: info)",
)


@dataclass(frozen=True)
class Command:
    """A command of `wavegan`.

    Args:
        name: the words after `wavegan`: "train", or "shards write" for a command of a group.
        help: the line of the command in the list of commands.
        description: the paragraph at the top of the command's help.
        example: a complete command line.
        arguments: the arguments, in the order of the help; every command also has `--log-level`.
        run: function that runs the command with the parsed options. The function itself imports the modules that it needs, so
            that parsing stays fast.
    """

    name: str
    help: str
    description: str
    example: str
    arguments: Sequence[Argument]
    run: Callable[[argparse.Namespace], None]


class Parser(argparse.ArgumentParser):
    """A parser that keeps the line breaks of descriptions, accepts no abbreviations and raises UsageError."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing the usage."""
        raise UsageError(f"{message}; see {self.prog} --help")


def make_parser(description: str, commands: Sequence[Command], groups: Mapping[str, str]) -> Parser:
    """Build the parser of the command line.

    Args:
        description: the paragraph at the top of `wavegan --help`.
        commands: all commands, in the order of the help.
        groups: the help of each group of commands, by the group's name.
    """
    top = Parser(prog="wavegan", description=description)
    children = {"": _subparsers(top)}
    for command in commands:
        group, _, name = command.name.rpartition(" ")
        if group not in children:
            children[group] = _subparsers(children[""].add_parser(group, help=groups[group]))
        _add(children[group], name, command)
    return top


def _subparsers(parser: Parser) -> Any:
    return parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)


def _add(subparsers: Any, name: str, command: Command) -> None:
    epilog = f"example: {command.example}"
    parser = subparsers.add_parser(name, help=command.help, description=command.description, epilog=epilog)
    for entry in (*command.arguments, LOG_LEVEL):
        parser.add_argument(*entry.names, **entry.settings)
    parser.set_defaults(run=command.run)
