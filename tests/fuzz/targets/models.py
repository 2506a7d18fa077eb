"""Snapshots and checkpoints of others."""

import hashlib
import json
import re
from pathlib import Path
from random import Random
from typing import Any

from typing_extensions import override

from tests.fuzz.harness import Target, read_files
from tests.fuzz.mutate import Files
from tests.model.snapshots import write_snapshot
from tests.train.tiny import make_trainer, random_batches
from wavegan_dist.model.snapshot import load_snapshot, snapshot_images
from wavegan_dist.model.training_info import read_training_info
from wavegan_dist.run_folder import RunFolder, label
from wavegan_dist.train.checkpoint import MANIFEST, Checkpointer, load_checkpoint
from wavegan_dist.train.resume import choose_checkpoint


class Snapshots(Target):
    """A snapshot: loaded, and one image generated. Its recorded digest is often made to fit the weights again."""

    @override
    def seeds(self, scratch: Path) -> list[Files]:
        settings: tuple[dict[str, Any], ...] = ({}, {"num_classes": 3}, {"base_only": True, "norm": "none"})
        files = [read_files(write_snapshot(scratch / str(number), **model)) for number, model in enumerate(settings)]
        for one, model in zip(files, settings, strict=True):
            text = json.dumps({"data": {"index": "x"}, "model": {"width": 4, "z_dim": 8, **model}})
            one["config.yaml"] = text.encode()  # short: PyYAML reads a complete one in 10 ms
        return files

    @override
    def mutated(self, files: Files, rng: Random) -> Files:
        changed = super().mutated(files, rng)
        return self.fitted(changed) if rng.random() < 0.8 else changed

    @override
    def fitted(self, files: Files) -> Files:
        if "snapshot.json" not in files:
            return files
        digest = hashlib.sha256(files.get("model.safetensors", b"")).hexdigest().encode()
        meta = re.sub(rb'("weights_sha256": ")[^"]*', rb"\g<1>" + digest, files["snapshot.json"])
        return {**files, "snapshot.json": meta}

    @override
    def read(self, folder: Path) -> None:
        snapshot = load_snapshot(folder)
        read_training_info(folder).evaluation()
        if snapshot.config.model.resolution <= 128:
            next(snapshot_images(snapshot, range(1), 0, 1))


class Checkpoints(Target):
    """A checkpoint of a run: chosen for resuming and loaded. Its manifest is sometimes made to fit the files."""

    @override
    def seeds(self, scratch: Path) -> list[Files]:
        self.trainer = make_trainer({}, {})
        self.trainer.step(random_batches())
        path = scratch / "checkpoints" / label(1000)
        saving = Checkpointer(self.trainer, lambda: {"index_digest": "1" * 64})
        saving.save(path)
        saving.wait()
        files = read_files(scratch)
        self.manifest = next(name for name in files if name.endswith(MANIFEST))
        return [files]

    @override
    def mutated(self, files: Files, rng: Random) -> Files:
        changed = super().mutated(files, rng)
        return self.fitted(changed) if rng.random() < 0.1 else changed

    @override
    def fitted(self, files: Files) -> Files:
        contents = {name.rpartition("/")[2]: content for name, content in files.items() if name != self.manifest}
        entries = {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in contents.items()
        }
        return {**files, self.manifest: json.dumps(entries).encode()}

    @override
    def read(self, folder: Path) -> None:
        path = choose_checkpoint(RunFolder(folder), self.trainer.experiment, "1" * 64, "auto").checkpoint
        if path is not None:
            load_checkpoint(path, self.trainer)
