"""Work folders, beside the output of a command: what it has written so far. The same command continues from it."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from wavegan_dist.errors import UsageError
from wavegan_dist.files import atomic_file, locked, parse_json

PLAN, LOCK = "plan.json", "lock"


@contextmanager
def work_folder(out: Path, command: str, settings: Mapping[str, object], results: str) -> Iterator[Path]:
    """Yield the work folder of `out`, `.OUT.partial` beside it, locked against other writers while the block runs.

    The work folder is created if it does not exist, else it holds what an interrupted command wrote. It is deleted when the
    block ends without an error, and when the block raises while no file that matches `results` has any content. If the block
    raises later, or the process is killed, the work folder stays for the next command with the same settings.

    Args:
        out: the output folder, which the block creates.
        command: the words after `wavegan`, for messages.
        settings: everything that the results depend on, as JSON values (lists, not tuples).
        results: glob pattern, below the work folder, of the files that the next command can use.

    Raises:
        UsageError: another process holds the lock, or plan.json in the work folder is damaged or holds other settings.
    """
    work = out.with_name(f".{out.name}.partial")
    work.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.callback(_remove_if_empty, work)  # at the end: NFS keeps a deleted file, here the lock, until it is closed
        try:
            stack.enter_context(locked(work / LOCK, wait=False))
        except BlockingIOError as error:
            raise UsageError(f"another `{command}` is writing to {out}; wait until it ends or choose another folder") from error
        stack.enter_context(_resumable(work, settings, results))
        yield work


@contextmanager
def _resumable(work: Path, settings: Mapping[str, object], results: str) -> Iterator[None]:
    plan = work / PLAN
    if plan.exists() and (before := _read_plan(plan)) != settings:
        changes = ", ".join(
            f"{key} {before.get(key)}, not {value}" for key, value in settings.items() if before.get(key) != value
        )
        raise UsageError(
            f"{work} holds an unfinished write with {changes}; finish it with its own command or remove that folder"
        )
    try:
        with atomic_file(plan) as file:
            file.write(json.dumps(settings))
        yield
    except BaseException:
        if not any(path.stat().st_size for path in work.glob(results)):
            shutil.rmtree(work, ignore_errors=True)
        raise
    plan.unlink()
    shutil.rmtree(work, ignore_errors=True)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _read_plan(plan: Path) -> dict[str, Any]:
    try:
        content = parse_json(plan.read_text())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UsageError(f"{plan} is damaged; remove {plan.parent} and start again")
    return content
