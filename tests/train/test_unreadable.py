"""A run that can read no image at all."""

import json
import shutil


def test_a_run_that_can_read_no_image_lists_those_of_its_first_batch(tmp_path, wavegan, config, shards):
    shutil.copytree(shards, tmp_path / "set")
    for shard in (tmp_path / "set").glob("*.tar"):
        shard.write_bytes(b"")
    settings = (f"data.index={tmp_path / 'set'}", "data.max_bad_fraction=1", "train.batch_size=8")
    outcome = wavegan("train", "--config", config, "--run-dir", tmp_path / "run", *settings)
    assert outcome.returncode == 1
    assert "no image of a batch can be read" in outcome.stderr.splitlines()[-1]
    listed = [json.loads(line) for line in (tmp_path / "run" / "data_errors.jsonl").read_text().splitlines()]
    assert sum(error["row"] is not None for error in listed) == 8
