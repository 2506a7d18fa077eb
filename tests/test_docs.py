"""The documentation: the site builds, its commands exist, the messages it explains are those of the code."""

import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import first_hour
import nbformat
import pytest
from nbclient import NotebookClient

from wavegan_dist.cli import parse
from wavegan_dist.config import load
from wavegan_dist.run_folder import label

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "LOG.md")]


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}  # of Material for MkDocs, about a version of MkDocs that does not exist yet
    outcome = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    assert "WARNING" not in outcome.stderr
    assert "three generators and three discriminators" in (tmp_path / "site" / "index.html").read_text()


@pytest.mark.slow
def test_the_tour_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # for `!wavegan`
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    NotebookClient(notebook, timeout=900, kernel_name="python3").execute()
    outputs = "".join(str(cell.get("outputs")) for cell in notebook.cells)
    for word in ("kimg 8", "torch.Size([16, 3, 32, 32])", "spectrum_db", "index.html"):
        assert word in outputs
    assert not re.search(r"wavegan: (?!warning)", outputs)  # the line of an error


def test_first_hour_finds_the_commands_of_the_readme_that_it_changes_or_leaves_out():
    readme = (ROOT / "README.md").read_text()
    steps = list(first_hour.steps(readme))
    assert len(steps) > 20
    assert [words for words in first_hour.CHANGED if not any(words in step for step in steps)] == []
    assert [start for start in first_hour.LEFT_OUT if not any(step.startswith(start) for step in steps)] == []
    assert [shlex.split(step) for step in steps if step.startswith("wavegan ")] == [
        shlex.split(command) for command in commands(ROOT / "README.md") if command.startswith("wavegan ")
    ]


def test_the_readme_names_the_snapshot_that_its_training_command_writes_last():
    readme = (ROOT / "README.md").read_text()
    train = load(ROOT / "configs" / "photos64.yaml", re.findall(r"train\.total_kimg=[\d.]+ ", readme)).train
    nimg = math.ceil(train.total_kimg * 1000 / train.batch_size) * train.batch_size
    assert set(re.findall(r"runs/first/snapshots/([\w.-]+)", readme)) == {label(nimg)}


def commands(page: Path) -> Iterator[str]:
    """Yield the `wavegan` commands in the indented lines of a page."""
    for line in page.read_text().replace("\\\n", " ").splitlines():
        command = line.strip().removeprefix("$ ")
        if line.startswith("    ") and re.match(r"(wavegan|python -m wavegan_dist) [a-z]", command):
            yield command.partition(" #")[0].partition(" | ")[0].partition(" && ")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_can_be_parsed(page, capsys):
    for command in commands(page):
        arguments = shlex.split(command)
        arguments = arguments[1 if arguments[0] == "wavegan" else 3 :]
        try:
            parse(arguments)
        except SystemExit:
            pytest.fail(f"{page.name}: {command}: {capsys.readouterr().err.splitlines()[-1]}")


def test_there_are_commands_to_parse():
    assert sum(len(list(commands(page))) for page in PAGES) > 30


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_code():
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    messages = {
        message for row in rows for message in re.findall(r"`(.+?)`", row) if not message.startswith(("watch/", "torch."))
    }
    assert len(messages) > 20
    source = "".join(path.read_text() for path in (ROOT / "wavegan_dist").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # strings that are joined over lines
    assert {message for message in messages if message not in source} == set()
