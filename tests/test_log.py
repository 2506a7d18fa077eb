"""The run log: formats for terminals and pipes, levels, the log file of a run, progress bars."""

import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from tqdm import tqdm

from wavegan_dist.errors import WaveganError
from wavegan_dist.log import LEVELS, configure, copied_to, log

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}"


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves the logger as it was before the test, and tests without a launcher."""
    monkeypatch.delenv("RANK", raising=False)
    handlers, level, propagate = log.handlers, log.level, log.propagate
    log.handlers = [logging.NullHandler()]
    yield
    log.handlers, log.level, log.propagate = handlers, level, propagate


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """The logger's stderr, a terminal."""
    return stderr_of_logger(Terminal(), monkeypatch)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """The logger's stderr, a pipe."""
    return stderr_of_logger(io.StringIO(), monkeypatch)


def stderr_of_logger(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setattr("wavegan_dist.log.sys", SimpleNamespace(stderr=stream, exc_info=sys.exc_info))
    return stream


def log_one_of_each() -> None:
    for level in LEVELS:
        getattr(log, level)("a %s record", level)


def test_on_a_terminal_a_record_is_its_message_and_warnings_are_marked(terminal: io.StringIO) -> None:
    configure("debug")
    log_one_of_each()
    assert terminal.getvalue().splitlines() == [
        "a debug record",
        "a info record",
        "wavegan: warning: a warning record",
        "wavegan: error: a error record",
    ]


def test_in_a_pipe_a_record_has_its_time_level_and_rank(pipe: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    configure()
    log.info("one")
    monkeypatch.setenv("RANK", "3")
    log.warning("two")
    first, second = pipe.getvalue().splitlines()
    assert re.fullmatch(f"{TIME} INFO rank 0: one", first)
    assert re.fullmatch(f"{TIME} WARNING rank 3: two", second)


def test_on_a_terminal_other_ranks_than_0_are_named(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    configure()
    log.info("one")
    log.warning("two")
    assert terminal.getvalue().splitlines() == ["[rank 2] one", "wavegan: warning: [rank 2] two"]


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_hides_the_records_below_it(terminal: io.StringIO, tmp_path: Path, level: str) -> None:
    configure(level)
    with copied_to(tmp_path / "log.txt"):
        log_one_of_each()
    shown = len(LEVELS) - LEVELS.index(level)
    assert len(terminal.getvalue().splitlines()) == shown
    assert len((tmp_path / "log.txt").read_text().splitlines()) == shown


def test_a_log_file_is_plain_appended_to_and_ends_with_its_block(terminal: io.StringIO, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    configure()
    for message in ("first start", "second start"):
        with copied_to(path):
            log.info(message)
        log.info("after the block")
    first, second = path.read_text().splitlines()
    assert re.fullmatch(f"{TIME} INFO rank 0: first start", first)
    assert re.fullmatch(f"{TIME} INFO rank 0: second start", second)
    assert terminal.getvalue().count("\n") == 4


def test_a_second_configuration_keeps_the_open_log_file(terminal: io.StringIO, tmp_path: Path) -> None:
    configure()
    with copied_to(tmp_path / "log.txt"):
        configure("debug")
        log.debug("seen")
    assert "DEBUG rank 0: seen" in (tmp_path / "log.txt").read_text()
    assert terminal.getvalue() == "seen\n"


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (WaveganError("the loss is not finite"), ["the loss is not finite"]),
        (OSError(28, "No space left on device", "run/x"), ["[Errno 28] No space left on device: 'run/x'"]),
        (KeyboardInterrupt(), ["KeyboardInterrupt"]),
        (ZeroDivisionError("bug"), ["bug", "Traceback (most recent call last):", "ZeroDivisionError: bug"]),
    ],
)
def test_the_error_that_ends_a_run_is_in_its_log_file_only(
    terminal: io.StringIO, tmp_path: Path, error: BaseException, lines: list[str]
) -> None:
    configure()
    with pytest.raises(type(error)), copied_to(tmp_path / "log.txt"):
        raise error
    written = (tmp_path / "log.txt").read_text()
    assert re.match(f"{TIME} ERROR rank 0: {re.escape(lines[0])}\n", written)
    assert all(line in written for line in lines)
    assert len(written.splitlines()) == 1 or len(lines) > 1
    assert terminal.getvalue() == ""


def test_a_full_disk_ends_the_log_file_and_not_the_run(terminal: io.StringIO) -> None:
    configure()
    with copied_to(Path("/dev/full")):
        log.info("one")
        log.info("two")
    assert terminal.getvalue().splitlines() == [
        "one",
        "wavegan: warning: /dev/full: No space left on device; the log file ends here",
        "two",
    ]


def test_a_log_file_that_cannot_be_opened_is_a_warning(terminal: io.StringIO, tmp_path: Path) -> None:
    configure()
    with copied_to(tmp_path / "nowhere" / "log.txt"):
        log.info("one")
    warning, record = terminal.getvalue().splitlines()
    assert warning.endswith("log.txt: No such file or directory; this run has no log file")
    assert record == "one"


def test_a_record_stands_above_a_progress_bar(terminal: io.StringIO) -> None:
    configure()
    with tqdm(total=2, file=terminal, ncols=40, miniters=1, mininterval=0) as bar:
        bar.update()
        log.info("a record")
        bar.update()
    screen = terminal.getvalue()
    assert re.search(r"\r *\ra record\n\r? *50%", screen), repr(screen)  # the bar is cleared, then drawn again below
    assert "100%" in screen


def test_a_record_with_wrong_arguments_stops_nothing(terminal: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    log.info("%d images", "three")
    log.info("next")
    assert "--- Logging error ---" in capsys.readouterr().err
    assert terminal.getvalue() == "next\n"


def test_a_program_that_does_not_configure_the_logger_prints_nothing() -> None:
    code = "from wavegan_dist.log import log; log.warning('unseen'); log.error('unseen')"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")


def test_names_cannot_command_the_terminal(terminal: io.StringIO) -> None:
    configure()
    log.warning("%s", "a\x1b[2J\r\x9b\u202eb\nc é😀 \u202f\u3000\u200d\t")
    assert "a\\x1b[2J\\r\\x9b\\u202eb\nc é😀 \u202f\u3000\u200d\t" in terminal.getvalue()
