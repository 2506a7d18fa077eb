"""The command `wavegan plan`."""

import json
import subprocess
import sys

import yaml

from tests.helpers import environment, refused
from wavegan_dist.cli.plan import parse_gpus


def test_a_table_of_every_strategy_and_its_json(wavegan, config):
    command = ("plan", "--config", config, "--hardware", "h100.yaml", "--gpus", "8..32")
    outcome = wavegan(*command, "train.batch_size=64")
    assert outcome.returncode == 0, outcome.stderr
    rows = [line.split()[:3] for line in outcome.stdout.splitlines() if line.split()[1] in ("ddp", "zero1", "zero2", "zero3")]
    assert [row[0] for row in rows] == [number for number in ("8", "16", "32") for _ in range(4)]
    assert [row[2] for row in rows[::4]] == ["8", "4", "2"]
    assert "predicted, not measured" in outcome.stdout
    assert outcome.stderr == ""
    outcome = wavegan(*command, "train.batch_size=64", "train.compile=graphs", "--json")
    (warning,) = outcome.stderr.splitlines()
    assert "prediction is that of eager steps, without train.compile = graphs" in warning
    assert [row["gpus"] for row in json.loads(outcome.stdout)["rows"]] == [int(row[0]) for row in rows]


def test_wrong_use_is_one_line(wavegan, config, tmp_path, rates):
    def plan(*more: object, hardware: object = "h100", count: str = "8"):
        return wavegan("plan", "--config", config, "--hardware", hardware, "--gpus", count, *more)

    refused(plan(count="8..24"), "24 is not 8 times a power of two", "16")
    refused(plan(count="0"), "8..1024")
    refused(plan(count="64"), "train.batch_size = 32 does not divide among 64 GPUs")
    refused(plan(hardware="a100x"), "no hardware file is called 'a100x'", "h100")
    refused(plan("train.batchsize=8"), "train.batch_size")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(rates | {"memory_gibs": 3}))
    refused(plan(hardware=path), "mine.yaml", "unknown key 'memory_gibs'", "did you mean 'memory_gib'?")
    path.write_text(yaml.safe_dump({key: value for key, value in rates.items() if key != "overlap"}))
    refused(plan(hardware=path), "'overlap' is not set")
    path.write_text(yaml.safe_dump(rates | {"overlap": 2}))
    refused(plan(hardware=path), "overlap = 2", "less than or equal to 1")


def test_gpus_double_from_the_first_to_the_last():
    assert parse_gpus("8..1024") == [8, 16, 32, 64, 128, 256, 512, 1024]
    assert parse_gpus("64") == [64]


def test_planning_does_not_import_the_training_stack():
    heavy = "{'deepspeed', 'mlflow', 'wavegan_dist.train.trainer'}"
    code = f"import sys, wavegan_dist.plan; print(*{heavy} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert ran.stdout.strip() == ""
