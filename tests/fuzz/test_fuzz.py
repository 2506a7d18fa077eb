"""A few hundred inputs of each target, and all inputs that have found a fault; `make fuzz` tries more."""

import json
import sys
from pathlib import Path

import pytest

from tests.forked import ForkedProgram
from tests.fuzz.harness import CORPUS, corpus
from tests.fuzz.targets import TARGETS
from tests.helpers import environment

# As many as take about two seconds; the rest of the time is for the imports of the target and its valid inputs.
INPUTS = dict.fromkeys(TARGETS, 400) | {"checkpoints": 100, "runs": 200, "slurm": 100, "mlflow": 100}


def fuzz(target: str, *arguments: object) -> None:
    command = ("-m", "tests.fuzz", "--target", target, *arguments)
    outcome = ForkedProgram(command, environment(PYTHONPATH=":".join(sys.path)), Path(__file__).parents[2]).finish(timeout=240)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr[-3000:]


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_is_a_fault(target: str) -> None:
    fuzz(target, "--inputs", INPUTS[target])


def test_the_harness_finds_each_kind_of_fault() -> None:
    command, env = ("-m", "tests.fuzz.canary"), environment(PYTHONPATH=":".join(sys.path))
    outcome = ForkedProgram(command, env, Path(__file__).parents[2]).finish(timeout=120)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    assert json.loads(outcome.stdout) == {
        "spin": "OverdueError in harness.py, stop",
        "wait": "OverdueError in harness.py, stop",
        "allocate": "memory",
        "crash": "KeyError in canary.py, crash",
        "print_traceback": "traceback on stderr",
        "talk": "message of WaveganError",
        "refuse": True,
        "accept": False,
    }


def test_every_stored_input_belongs_to_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} <= set(TARGETS)
    assert all(corpus(folder.name) for folder in CORPUS.iterdir())
