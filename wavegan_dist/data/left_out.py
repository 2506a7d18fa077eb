"""The files of a source that are not in the dataset, with the reason: `left_out.jsonl` lists them beside the index."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from wavegan_dist.files import atomic_file, read_json_lines

LEFT_OUT_FILE = "left_out.jsonl"
REASONS_SHOWN = 10  # largest number of reasons in a summary
NAME_SHOWN = 120  # largest number of characters of a file name in a summary

HIDDEN = "hidden, or of macOS (__MACOSX)"
NOT_CHOSEN = "not chosen by --classes or --keys"
NOT_REGULAR = "a link to nothing, a pipe, a socket or a device"


class LeftOut(NamedTuple):
    """A file of the source that is not in the dataset, or several files of one folder or tar for the same reason.

    Args:
        file: name of the file; if `files` > 1, name of the first file, or of the folder or tar that holds them all.
        reason: why the file is left out, in words that are the same for all such files.
        files: number of files.
        detail: what is special about this file, such as the error of its decoder.
        by: the command that left the file out, "write" or "index".
    """

    file: str
    reason: str
    files: int = 1
    detail: str = ""
    by: str = "index"


_ENTRY = TypeAdapter(LeftOut)


def save_left_out(folder: Path, entries: Sequence[LeftOut]) -> None:
    """Replace `left_out.jsonl` in the folder of an index, one JSON object per line; remove it if it would be empty.

    Entries of `shards write` in the earlier file (`by` is "write") stay, before `entries`: they are about a source that
    `shards index` does not see.

    Raises:
        OSError: the file cannot be read or written.
    """
    path = folder / LEFT_OUT_FILE
    entries = [*(entry for entry in _read(path) if entry.by == "write"), *entries]
    if not entries:
        path.unlink(missing_ok=True)
        return
    with atomic_file(path) as file:
        file.writelines(json.dumps(entry._asdict()) + "\n" for entry in entries)


def left_out_by_reason(folder: Path) -> list[dict[str, Any]]:
    """Read `left_out.jsonl` in the folder of an index and count the files as `by_reason` does; empty if there is no file."""
    return by_reason(_read(folder / LEFT_OUT_FILE))


def _read(path: Path) -> list[LeftOut]:
    """Read `left_out.jsonl`; empty if there is none. Lines of another form are skipped."""
    entries = []
    for entry in read_json_lines(path):
        with suppress(ValidationError):
            entries.append(_ENTRY.validate_python(entry))
    return entries


def by_reason(entries: Iterable[LeftOut]) -> list[dict[str, Any]]:
    """Count the files of `entries` by reason.

    Returns:
        A dict for each reason: `reason`, `count` (number of files) and `example` (name of the first). Most frequent first,
        equally frequent ones in alphabetical order.
    """
    reasons: dict[str, dict[str, Any]] = {}
    for file, reason, files, *_ in entries:
        reasons.setdefault(reason, {"reason": reason, "count": 0, "example": file})["count"] += files
    return sorted(reasons.values(), key=lambda entry: (-entry["count"], entry["reason"]))


def summary(reasons: Sequence[dict[str, Any]]) -> list[str]:
    """Format the result of `by_reason`: "COUNT REASON, such as EXAMPLE" for each of the first REASONS_SHOWN reasons.

    A last phrase, "COUNT for N more reasons", counts the others, if there are any. Long examples are shortened.
    """
    lines = [f"{entry['count']} {entry['reason']}, such as {_shown(entry['example'])}" for entry in reasons[:REASONS_SHOWN]]
    rest = reasons[REASONS_SHOWN:]
    return lines + ([f"{sum(entry['count'] for entry in rest)} for {len(rest)} more reasons"] if rest else [])


def _shown(name: str) -> str:
    shown = name if name.isprintable() else ascii(name)[1:-1]  # a line break, or bytes that are not UTF-8
    return shown if len(shown) <= NAME_SHOWN else f"{shown[: NAME_SHOWN // 2]}...{shown[-NAME_SHOWN // 2 :]}"
