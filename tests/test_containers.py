"""The container recipes. CI cannot build them: what they refer to is checked, and their shell commands are parsed."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPES = {name: (ROOT / "containers" / name).read_text() for name in ("Containerfile", "wavegan.def")}
INSTRUCTIONS = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "ENTRYPOINT", "CMD"}
SECTIONS = {"%files", "%post", "%runscript", "%test"}


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Containerfile and their arguments, continued lines joined."""
    lines = [line for line in RECIPES["Containerfile"].splitlines() if line and not line.startswith("#")]
    return [
        (word, rest) for word, _, rest in (line.partition(" ") for line in "\n".join(lines).replace("\\\n", "").splitlines())
    ]


def sections() -> dict[str, str]:
    """The sections of the Apptainer definition."""
    parts = re.split(r"^(%\w+)$", RECIPES["wavegan.def"], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_what_is_copied_exists():
    copied = [path for word, rest in instructions() if word == "COPY" and "--from" not in rest for path in rest.split()[:-1]]
    copied += [line.split()[0] for line in sections()["%files"].strip().splitlines()]
    assert len(copied) == 10
    assert [path for path in copied if not (ROOT / path).exists()] == []


def test_the_instructions_are_known_and_the_shell_commands_parse():
    assert {word for word, _ in instructions()} == INSTRUCTIONS
    assert sections().keys() == SECTIONS
    scripts = [rest for word, rest in instructions() if word == "RUN"]
    scripts += [text for name, text in sections().items() if name != "%files"]
    for script in scripts:
        subprocess.run(["sh", "-n", "-c", script], check=True)


@pytest.mark.parametrize("name", RECIPES)
def test_the_extras_and_the_version_of_python_are_those_of_the_package(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"\[([a-z,]+)\]", RECIPES[name])
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    assert "deepspeed" in extras
    versions = set(re.findall(r"python:(\d+\.\d+)", RECIPES[name]))
    assert versions == {re.search(r"Python (\d+\.\d+)", (ROOT / "constraints.txt").read_text())[1]}
